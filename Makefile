# OpenMeter for Knative. `make` alone lists what there is.

SHELL := /bin/bash
.DEFAULT_GOAL := help

ENGINES := knative/local/engines/engines

##@ engines

.PHONY: up
up: ## bring Kafka, ClickHouse and Valkey up on this machine
	@$(ENGINES) up

.PHONY: status
status: ## say which engines are up
	@$(ENGINES) status

.PHONY: down
down: ## take the engines down; their data stays
	@$(ENGINES) down

##@ other

.PHONY: help
help: ## list the targets
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
