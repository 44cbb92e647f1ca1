# Two commands on a fresh machine: `make demo` and `make test`. Both set up what they need.
SHELL := /bin/bash
TARGET := $(or $(CARGO_TARGET_DIR),target)
export PATH := $(CURDIR)/.deps/bin:$(PATH)
export ORT_DYLIB_PATH ?= $(CURDIR)/.deps/onnxruntime/lib/libonnxruntime.so

# Scenarios wait more than they compute.
THREADS := $(shell echo $$(($$(nproc) * 2)))
# How long `make fuzz` runs each target, and which ones; none named are all.
FUZZ_SECONDS ?= 600
FUZZ_TARGETS ?=
# How many rounds `make chaos` runs, and where the figures go; CHAOS_SEED=0x… repeats a campaign.
CHAOS_ROUNDS ?= 200
CHAOS_JSON ?= $(TARGET)/chaos.json

.PHONY: demo test chart chaos fuzz check run bench image image-test setup fmt clean

demo: .deps/onnxruntime/lib/libonnxruntime.so ## set up, then send sample studies to a gateway and show its findings
	@cargo build --quiet --bin pacs-gateway
	@$(TARGET)/debug/pacs-gateway demo

test: setup ## set up, then fuzz for a moment and run every test
	scripts/fuzz.sh smoke
	RUST_TEST_THREADS=$(THREADS) cargo test --lib --bins --tests --no-fail-fast

chart: ## lint, render and validate the Helm chart with Helm 3 and 4
	scripts/setup.sh chart
	PACS_GATEWAY_TEST_REQUIRE=1 cargo test --test chart

chaos: ## rounds of random faults with a real broker and real senders; prints its seed and a table
	scripts/setup.sh test
	CHAOS_ROUNDS=$(CHAOS_ROUNDS) CHAOS_JSON=$(abspath $(CHAOS_JSON)) PACS_GATEWAY_TEST_REQUIRE=1 \
		cargo test --test chaos -- --nocapture no_fault

fuzz: ## fuzz each target for ten minutes with AddressSanitizer
	scripts/setup.sh fuzz
	scripts/fuzz.sh long $(FUZZ_SECONDS) $(FUZZ_TARGETS)

check: ## formatting and lints, as CI runs them
	cargo fmt --check
	cargo fmt --check --manifest-path fuzz/Cargo.toml
	cargo clippy --all-targets -- -D warnings

run: .deps/onnxruntime/lib/libonnxruntime.so ## run the gateway with config/gateway.toml
	cargo run --release --bin pacs-gateway -- serve

bench: ## measure against real peers in one run; prints tables with ratios
	scripts/setup.sh bench
	cargo build --release --bin pacs-gateway
	.deps/venv/bin/python benches/run.py $(TARGET)/release/pacs-gateway
	.deps/bench-venv/bin/python benches/models.py $(TARGET)/release/pacs-gateway
	.deps/bench-venv/bin/python benches/codecs.py
	cargo bench --quiet --bench prepare
	cargo bench --quiet --bench engine -- models

image: ## build the container image with docker, podman or buildah
	scripts/image.sh build

image-test: ## run the image as on a cluster: demo, reception, publishing, stop and restart; needs docker or podman
	scripts/image.sh test

setup: ## fetch ONNX Runtime, RabbitMQ, DCMTK, Orthanc, Helm and the tests' Python packages
	scripts/setup.sh test

.deps/onnxruntime/lib/libonnxruntime.so:
	scripts/setup.sh runtime

fmt:
	cargo fmt

clean: ## remove what was built and fetched
	cargo clean
	rm -rf .deps fuzz/corpus fuzz/artifacts
