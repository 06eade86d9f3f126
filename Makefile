# Every target makes the virtual environment it needs, .venv or, for two of the examples, .venv-rllib and .venv-torchrl.
# Nothing outside this folder is touched, but for what Ray keeps while it runs: /tmp/ray and ~/.ray.

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

INSTALL := -m pip install --quiet --disable-pip-version-check

.PHONY: help venv train test bench against stress funds-long results gradients lint check docs browser examples example-cleanrl example-rllib example-torchrl clean

help: ## Show this list.
	@echo 'make <target> [ARGS="..."]'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo 'Each target first makes its virtual environment with the interpreter PYTHON (now: $(or $(PYTHON),none found)).'

venv: $(STAMP) ## Make the virtual environment with everything needed for the other targets.

train: $(STAMP) ## Train PPO on hmgym/Beliefs-v0 (some minutes on 2 cores); ARGS go to train.py.
	$(BIN)/python train.py $(ARGS)

test: $(STAMP) ## Run the tests.
	$(BIN)/python -m pytest $(ARGS)

bench: $(BENCH_STAMP) ## Measure clearing, environment steps and PPO frames a second; prints a table and writes JSON.
	$(BIN)/python -m benchmarks $(ARGS)

against: $(STAMP) ## Compare speed and values with another version: make against ARGS="COMMIT" or ARGS="COMMIT --values".
	$(BIN)/python -m benchmarks.against $(ARGS)

stress: $(STAMP) ## Clear 10^6 random markets and run 10^5 steps of the economy; counts failures.
	$(BIN)/python -m benchmarks.stress $(ARGS)

funds-long: $(STAMP) ## Run 20 fund markets of 600 months in both mechanisms, and large ones; every month's books are checked.
	$(BIN)/python -m benchmarks.fund_books $(ARGS)

results: $(BENCH_STAMP) ## Train and compare all agents, several seeds each, and measure plausibility; resumable (many hours).
	$(BIN)/python -m hmgym.diagnostics.plausibility --seeds 200 --out benchmarks/results/plausibility.json \
	  --figure docs/images/plausibility.png
	$(BIN)/python -m hmgym.diagnostics.fund_facts --seeds 50 --out benchmarks/results/fund_facts.json --figures docs/images
	$(BIN)/python -m benchmarks.leaderboard $(ARGS)
	$(BIN)/python -m benchmarks.shares $(ARGS)
	$(BIN)/python -m benchmarks.corner $(ARGS)
	$(BIN)/python -m benchmarks.learners
	$(BIN)/python -m benchmarks.fund_learners

gradients: $(STAMP) ## Measure gradients through the market (docs/gradients.md): figures and JSON.
	$(BIN)/python -m hmgym.diagnostics.gradients all --out benchmarks/results --figures docs/images $(ARGS)

lint: $(STAMP) ## Check style (ruff) and types (mypy, strict).
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint docs test ## Everything a change has to pass: style, types, documentation, tests.

docs: $(DOCS_STAMP) ## Run the examples of the documentation and build it into site/.
	$(BIN)/python -m pytest tests/test_documentation.py
	$(BIN)/mkdocs build --strict --quiet
	@echo 'Built site/index.html'

browser: ## Install Chromium from Debian's packages, for the browser tests of the page (as root).
	timeout 120 apt-get update -qq
	timeout 300 apt-get install -y -qq --no-install-recommends chromium

example-cleanrl: $(STAMP) ## Train PPO in one file, after the manner of CleanRL (2 minutes).
	$(BIN)/python examples/cleanrl_ppo.py $(ARGS)

example-rllib: .venv-rllib/.installed ## Train PPO on Ray RLlib (2 minutes); ARGS="--sweep 5" or ARGS="--address ray://HOST:10001".
	.venv-rllib/bin/python examples/rllib_ppo.py $(ARGS)

example-torchrl: .venv-torchrl/.installed ## Train PPO with TorchRL on its Gym wrappers (1 minute).
	.venv-torchrl/bin/python examples/torchrl_gym.py $(ARGS)

examples: $(STAMP) .venv-rllib/.installed .venv-torchrl/.installed ## Run the smoke test of each example in its own environment.
	$(BIN)/python -m pytest tests/examples -k cleanrl $(ARGS)
	.venv-rllib/bin/python -m pytest tests/examples -k rllib $(ARGS)
	.venv-torchrl/bin/python -m pytest tests/examples -k torchrl $(ARGS)

clean: ## Remove the virtual environments and everything built.
	rm -rf $(VENV) .venv-rllib .venv-torchrl site build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Makes the virtual environment $(1) with PYTHON, or says what is missing.
define make_environment
@if [ -z '$(PYTHON)' ]; then echo 'hmgym needs Python >= 3.11; none runs here. Set PYTHON=/path/to/python3.11.'; exit 1; fi
@if [ ! -x $(1)/bin/python ]; then \
  '$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
    || { echo "hmgym needs Python >= 3.11; $(PYTHON) is $$('$(PYTHON)' --version). Set PYTHON=/path/to/python3.11."; exit 1; }; \
  echo 'Making $(1) with $(PYTHON) ...'; \
  '$(PYTHON)' -m venv $(1) \
    || { rm -rf $(1); \
         echo 'Could not make a virtual environment: this Python lacks venv or ensurepip.'; \
         echo 'On Debian and Ubuntu: sudo apt-get install python3-venv'; exit 1; }; \
fi
endef

# Rebuilt when the dependencies change, not on every run.
$(STAMP): pyproject.toml constraints.txt
	$(call make_environment,$(VENV))
	@echo 'Installing hmgym and its development dependencies into $(VENV) (torch is large; minutes the first time) ...'
	$(BIN)/python $(INSTALL) -c constraints.txt -e '.[dev]'
	@touch $@

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python $(INSTALL) -c constraints.txt -e '.[docs]'
	@touch $@

$(BENCH_STAMP): $(STAMP)
	$(BIN)/python $(INSTALL) -c constraints.txt -e '.[bench]'
	@touch $@

# The virtual environment of an example, named by its extra. RLlib pins a Gymnasium of its own.
.venv-%/.installed: pyproject.toml constraints.txt
	$(call make_environment,.venv-$*)
	@sed '$(if $(filter rllib,$*),/^gymnasium==/d)' constraints.txt > .venv-$*/constraints.txt
	@echo 'Installing hmgym and $* into .venv-$* (torch is large; minutes the first time) ...'
	.venv-$*/bin/python $(INSTALL) -c .venv-$*/constraints.txt -e '.[$*]' pytest pytest-timeout
	@touch $@
