# Thin names for the scripts; each says at its head what it does and which variables it honours.

.DEFAULT_GOAL := help
.PHONY: demo test lab bench fuzz lint clean-demo help

demo: ## the whole pipeline on a small model, from nothing to a checked result
	@scripts/demo.sh

test: ## installs what the tests need and runs all of them
	@scripts/test.sh

lab: ## kills, cuts and full disks over hosts of their own on this machine, at drawn moments; LAB_ROUNDS=20
	@scripts/lab.sh

bench: ## engines beside cp + fsync and the bare encoder; controller and agents beside their bars
	@scripts/bench.sh

fuzz: ## a minute of foreign bytes for each of the readers in fuzz/src/targets, guided by what an input runs through
	@scripts/fuzz.sh

lint: ## formatting and clippy alone
	@scripts/test.sh fmt clippy

clean-demo: ## stops the demo's controller and agents and removes its files (the cache's venv stays)
	@scripts/demo.sh --clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
