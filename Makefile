# Every target makes its own virtual environment in .venv; nothing outside this folder is touched.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# python3.11 where it runs: the constraint on torch resolves to a CPU build on more machines with it.
# Tried by running, because a launcher on PATH may stand for an interpreter that is not installed.
PYTHON ?= $(shell for name in python3.11 python3 python3.12 python3.13 python3.14 python; do \
  if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then command -v "$$name"; break; fi; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS_STAMP := $(VENV)/.installed-docs
BENCH_STAMP := $(VENV)/.installed-bench
ARGS ?=

.PHONY: help venv train test bench stress results lint docs clean

help: ## Show this list.
	@echo 'make <target> [ARGS="..."]'
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo 'Each target first makes $(VENV) with the interpreter PYTHON (now: $(or $(PYTHON),none found)).'

venv: $(STAMP) ## Make the virtual environment with everything needed for the other targets.

train: $(STAMP) ## Train PPO on hmgym/Leverage-v0 (some minutes on 2 cores); ARGS go to train.py.
	$(BIN)/python train.py $(ARGS)

test: $(STAMP) ## Run the tests.
	$(BIN)/python -m pytest $(ARGS)

bench: $(BENCH_STAMP) ## Measure clearing, environment steps and PPO frames a second; prints a table and writes JSON.
	$(BIN)/python -m benchmarks $(ARGS)

stress: $(STAMP) ## Clear 10^6 random markets and run 10^5 steps of the economy; counts failures.
	$(BIN)/python -m benchmarks.stress $(ARGS)

results: $(STAMP) ## Train PPO with five seeds on two environments and measure plausibility; resumable (about an hour).
	$(BIN)/python -m hmgym.analysis.plausibility --seeds 200 --out benchmarks/results/plausibility.json \
	  --figure docs/images/plausibility.png
	$(BIN)/python -m benchmarks.training $(ARGS)

lint: $(STAMP) ## Check style (ruff) and types (mypy, strict).
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(DOCS_STAMP) ## Run the examples of the documentation and build it into site/.
	$(BIN)/python -m pytest tests/test_documentation.py
	$(BIN)/mkdocs build --strict --quiet
	@echo 'Built site/index.html'

clean: ## Remove the virtual environment and everything built.
	rm -rf $(VENV) site build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Rebuilt when the dependencies change, not on every run.
$(STAMP): pyproject.toml constraints.txt
	@if [ -z '$(PYTHON)' ]; then echo 'hmgym needs Python >= 3.11; none runs here. Set PYTHON=/path/to/python3.11.'; exit 1; fi
	@if [ ! -x $(BIN)/python ]; then \
	  '$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "hmgym needs Python >= 3.11; $(PYTHON) is $$('$(PYTHON)' --version). Set PYTHON=/path/to/python3.11."; exit 1; }; \
	  echo 'Making $(VENV) with $(PYTHON) ...'; \
	  '$(PYTHON)' -m venv $(VENV) \
	    || { rm -rf $(VENV); \
	         echo 'Could not make a virtual environment: this Python lacks venv or ensurepip.'; \
	         echo 'On Debian and Ubuntu: sudo apt-get install python3-venv'; exit 1; }; \
	fi
	@echo 'Installing hmgym and its development dependencies into $(VENV) (torch is large; minutes the first time) ...'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

$(BENCH_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $@
