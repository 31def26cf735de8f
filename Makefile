# OpenMeter for Knative. `make` alone lists what there is.

SHELL := /bin/bash
.DEFAULT_GOAL := help

ENGINES := knative/local/engines/engines

# What the build needs beyond Rust and gcc: librdkafka's configure asks for a C++ compiler.
.PHONY: tools
tools:
	@command -v c++ >/dev/null || { echo "installing g++ (apt), which librdkafka is built with"; $(APT) g++ >/dev/null; }

# What stands before a bank's API in the demo and in tests. Debian has it where only root looks.
.PHONY: nginx
nginx:
	@PATH="$$PATH:/usr/sbin" command -v nginx >/dev/null || { echo "installing nginx (apt), an API gateway"; $(APT) nginx-light >/dev/null; }

APT := apt-get update -qq && apt-get install -qq -y --no-install-recommends

##@ engines

.PHONY: up
up: tools ## bring Kafka, ClickHouse, Valkey and PostgreSQL up on this machine
	@$(ENGINES) up

.PHONY: status
status: ## say which engines are up
	@$(ENGINES) status

.PHONY: down
down: ## take the engines down; their data stays
	@$(ENGINES) down

##@ the whole

EVENTS ?= 100000
SEED ?= 1
# How accepted events reach process and quota: push, pull or both.
MODE ?= push
# More for the driver of run and demo, such as ARGS="--chaos runner=3"; ARGS=--help lists all.
ARGS ?=

RELEASE := $(or $(CARGO_TARGET_DIR),target)/release

# Brings the engines up and, unless they ran before, down again.
DRIVER = eval "$$($(ENGINES) env)" && exec $(RELEASE)/demo
TRAFFIC = --events $(EVENTS) --seed $(SEED) --mode $(MODE) $(ARGS)

.PHONY: run
run: build nginx ## everything, with traffic to look at, until Ctrl-C; EVENTS=100000 SEED=1 MODE=push
	@$(DRIVER) run $(TRAFFIC)

.PHONY: demo
demo: build nginx ## everything, compared with the oracle; EVENTS=100000 SEED=1 MODE=push
	@$(DRIVER) demo $(TRAFFIC)

.PHONY: replay-dead-letters
replay-dead-letters: tools ## send dead letters once more; ARGS=--dry-run lists them, ARGS=--all begins anew
	@cargo build --release -p ingest --bin replay-dead-letters
	@eval "$$($(ENGINES) env)" && $(RELEASE)/replay-dead-letters $(ARGS)

# Read by `cases`; a file of one's own has the format of one of those in that folder.
CASES ?= tests/cases/openmeter.json

.PHONY: cases
cases: up ## acceptance cases given as data; CASES=FILE
	@echo "building the case runner (the first time takes minutes)" >&2
	@eval "$$($(ENGINES) env)" && cargo run --quiet -p tests --bin cases -- "$(CASES)"
	@echo "the engines run on: make down stops them" >&2

.PHONY: build
build: tools ## build the functions, the runner and the driver
	@cargo build --release -p ingest -p process -p quota -p query -p runner -p tests \
		--bin ingest --bin process --bin quota --bin query --bin runner --bin demo

##@ checks

.PHONY: test
test: up nginx ## every test, on the real engines; ends with counts
	@eval "$$($(ENGINES) env)" && tests/run

.PHONY: manifests
manifests: tools ## render the manifests and check them, without a cluster
	@cargo run --quiet -p tests --bin manifests

.PHONY: bench
bench: up ## ratios against a baseline in the same run, and target/bench.json; ONLY=name
	@cargo build --release -p ingest -p process -p quota -p query -p runner -p tests \
		--bin ingest --bin process --bin quota --bin query --bin runner --bin bench
	@command -v wrk >/dev/null || { echo "installing wrk (apt), which makes the load"; $(APT) wrk >/dev/null; }
	@eval "$$($(ENGINES) env)" && $(RELEASE)/bench $(ONLY)

.PHONY: lint
lint: tools ## formatting, clippy and licences, as CI has them
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets --quiet -- -D warnings
	@cargo deny --log-level error check bans licenses sources

##@ other

.PHONY: help
help: ## list the targets
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
