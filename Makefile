# The same commands locally and in CI. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
TORCH := .venv/.torch
PACKAGES := scaimind coordinator gateway node_agent
ENGINE := podman runc conmon catatonit busybox:busybox-static
NEEDED := redis-server ip:iproute2 tc:iproute2 nft:nftables gcc:gcc+libc6-dev $(ENGINE)
SEED ?= 1
COUNT ?= 20

.PHONY: help setup run up test check lint types proto sim bench docs clean

help: ## Lists the commands
	@awk -F':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml tools/genproto.py $(wildcard proto/scaimind/v1/*.proto proto/scaimind/agent/v1/*.proto)
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv (a minute the first time)"
	@$(BIN)/pip install -q --disable-pip-version-check -e '.[dev]'
	@$(BIN)/python tools/genproto.py
	@touch $@

$(TORCH): $(READY)
	@echo "installing torch into .venv (a minute the first time)"
	@$(BIN)/pip install -q --disable-pip-version-check 'torch==2.13.0'
	@touch $@

setup: $(READY) ## Makes .venv with the project and everything for development

run: $(READY) ## Starts everything, trains the example language model, shows it live
	@$(BIN)/python examples/run.py

up: $(READY) ## Starts coordinator, gateway and a node agent here, until Ctrl-C
	@$(BIN)/scaimind up

test: $(READY) $(TORCH) ## Runs the whole test suite
	@$(BIN)/python tools/need.py $(NEEDED) chromium
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

check: $(READY) lint types ## Format, lint, types, imports, protos, unit, contract, 20 seeds
	@$(BIN)/python tools/need.py $(NEEDED)
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -q -n 2 tests/unit tests/transcript tests/contract tests/proto tests/architecture
	$(BIN)/python -m tests.sim --seed 1 --count 20

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(READY)
	$(BIN)/mypy $(PACKAGES) tests examples bench tools

proto: $(READY) ## Generates the stubs from proto/
	$(BIN)/python tools/genproto.py

sim: $(READY) ## Runs simulated seeds: make sim SEED=7 [COUNT=20]
	$(BIN)/python -m tests.sim --seed $(SEED) --count $(COUNT)

bench: $(READY) ## Measures ratios against baselines of the same run
	$(BIN)/python -m bench

docs: $(READY) ## Draws the diagrams of docs/ from the tables
	$(BIN)/python tools/draw_states.py

clean: ## Removes what was made, the virtual environment included
	rm -rf .venv buf dist .mind
