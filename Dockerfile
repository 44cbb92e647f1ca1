# The gateway's image: the binary, ONNX Runtime, the demonstration models, nothing to build with. docs/operations.md says how
# to run it; tests/image.rs holds this file to the rest of the repository.
#
#   docker build -t pacs-gateway .                 or: make image
#   docker build --build-arg FEATURES=cuda …       with an execution provider; its ONNX Runtime is yours to mount
#   docker build --target symbols -o symbols .     the debug information of the binary in the image
#
# The bases are exact tags. To pin a digest, or to take a base from a registry of your own, give their names as arguments;
# RUNTIME_IMAGE needs glibc 2.35 and libstdc++ and is never asked to run anything, so one without a shell will do.
ARG RUST_IMAGE=docker.io/library/rust:1.95.0-slim-bookworm
ARG RUNTIME_IMAGE=docker.io/library/debian:bookworm-20260824-slim

# === What builds
FROM ${RUST_IMAGE} AS tools
WORKDIR /src
RUN apt-get update \
 && apt-get install -y --no-install-recommends cmake g++ make nasm python3-pip \
 && rm -rf /var/lib/apt/lists/*

# === ONNX Runtime, as scripts/setup.sh pins it by version and SHA-256
FROM tools AS onnxruntime
COPY scripts/setup.sh scripts/requirements-build.txt scripts/requirements-runtime.txt scripts/
RUN scripts/setup.sh runtime

# === Dependencies, built against empty sources: our own sources do not invalidate this layer
FROM tools AS dependencies
ARG FEATURES=""
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock ./
RUN mkdir src benches \
 && sed -n '/^\[\[bench]]/{n;s|^name = "\(.*\)"|benches/\1.rs|p}' Cargo.toml | xargs touch src/lib.rs \
 && echo 'fn main() {}' >src/main.rs \
 && cargo build --release --locked --bin pacs-gateway --features "${FEATURES}" \
 && cargo clean --release -p pacs-gateway
# The licences of what is linked in ask to go with it.
RUN mkdir /licences \
 && cd /usr/local/cargo/registry/src/* \
 && find . -maxdepth 4 -type f \( -iname 'licen[cs]e*' -o -iname 'copying*' -o -iname 'notice*' \) \
    -exec cp --parents {} /licences ';'

# === The gateway
FROM dependencies AS build
COPY docs docs
COPY src src
ARG FEATURES=""
ARG REVISION=unknown
RUN PACS_GATEWAY_REVISION=${REVISION} cargo build --release --locked --bin pacs-gateway --features "${FEATURES}" \
 && cd target/release \
 && objcopy --only-keep-debug --compress-debug-sections pacs-gateway pacs-gateway.debug \
 && objcopy --strip-debug --add-gnu-debuglink=pacs-gateway.debug pacs-gateway /usr/local/bin/pacs-gateway
# What the user of the image owns.
RUN mkdir -p /stage/var/lib/pacs-gateway

# === Debug information, for a debugger or a profiler beside the container
FROM scratch AS symbols
COPY --from=build /src/target/release/pacs-gateway.debug /

# === The image: files only, nothing is run in it
FROM ${RUNTIME_IMAGE}
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=onnxruntime /src/.deps/onnxruntime/LICENSE /src/.deps/onnxruntime/ThirdPartyNotices.txt /usr/share/doc/onnxruntime/
COPY --from=onnxruntime /src/.deps/onnxruntime/lib/libonnxruntime.so /usr/local/lib/
COPY --from=dependencies /licences /usr/share/doc/pacs-gateway/crates
COPY LICENSE-APACHE LICENSE-MIT /usr/share/doc/pacs-gateway/
COPY models /opt/pacs-gateway/models
COPY config/image.toml /etc/pacs-gateway/gateway.toml
COPY --from=build --chown=10001:10001 /stage/var/lib /var/lib
COPY --from=build /usr/local/bin/pacs-gateway /usr/local/bin/

# PACS_GATEWAY_CONFIG: also for commands that are started beside `serve`, which ask it where it listens.
# TMPDIR: `demo`, `infer`, `evaluate` and `replay` work in a temporary folder, and the volume is all that can be written.
ENV ORT_DYLIB_PATH=/usr/local/lib/libonnxruntime.so \
    PACS_GATEWAY_CONFIG=/etc/pacs-gateway/gateway.toml \
    TMPDIR=/var/lib/pacs-gateway
WORKDIR /opt/pacs-gateway
USER 10001:10001
VOLUME /var/lib/pacs-gateway
# DICOM, DICOM over TLS, HTTP, probes and metrics where they have a listener of their own
EXPOSE 11112 2762 8080 9090
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/pacs-gateway"]
CMD ["serve"]

ARG VERSION=0.1.0
ARG REVISION=unknown
ARG SOURCE=""
LABEL org.opencontainers.image.title="pacs-gateway" \
      org.opencontainers.image.description="DICOM-aware gateway between scanners and AI: durable C-STORE, exact pixels, ONNX models, findings on RabbitMQ" \
      org.opencontainers.image.licenses="Apache-2.0 OR MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
