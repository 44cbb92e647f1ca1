# Two commands on a fresh machine: `make demo` and `make test`. Both set up what they need.
SHELL := /bin/bash
TARGET := $(or $(CARGO_TARGET_DIR),target)
export PATH := $(CURDIR)/.deps/bin:$(PATH)
export ORT_DYLIB_PATH ?= $(CURDIR)/.deps/onnxruntime/lib/libonnxruntime.so

.PHONY: demo test check run bench setup fmt clean

demo: .deps/onnxruntime/lib/libonnxruntime.so ## set up, then send sample studies to a gateway and show its findings
	@cargo build --quiet --bin pacs-gateway
	@$(TARGET)/debug/pacs-gateway demo

test: setup ## set up, then run every test
	cargo test --all-targets --no-fail-fast

check: ## formatting and lints, as CI runs them
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

run: .deps/onnxruntime/lib/libonnxruntime.so ## run the gateway with config/gateway.toml
	cargo run --release --bin pacs-gateway -- serve

bench: ## measure against real peers in one run; prints tables with ratios
	scripts/setup.sh bench
	cargo build --release --bin pacs-gateway
	.deps/venv/bin/python benches/run.py $(TARGET)/release/pacs-gateway
	.deps/bench-venv/bin/python benches/codecs.py
	cargo bench --quiet --bench prepare

setup: ## fetch ONNX Runtime, RabbitMQ, DCMTK and the tests' Python packages
	scripts/setup.sh test

.deps/onnxruntime/lib/libonnxruntime.so:
	scripts/setup.sh runtime

fmt:
	cargo fmt

clean: ## remove what was built and fetched
	cargo clean
	rm -rf .deps
