# Everything a person or a machine does with this repository. `make` alone explains itself.
#
# Needs Python 3.11 or newer (PYTHON=python3.12 takes another one) and nothing else: each target first makes .venv and
# installs the locked packages, and does so again only when their lock file changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all:

RUNTIME := $(VENV)/.installed-runtime
DEV := $(VENV)/.installed-dev

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo run test check lint format faults bench clean

help:  ## explain the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  Settings: see .env.example"

setup: $(DEV)  ## make .venv with everything for development

demo: $(RUNTIME)  ## the stack, and a working day played on it; serves until Ctrl-C
	$(BIN)/python -m dev.demo

run: $(RUNTIME)  ## the stack alone, until Ctrl-C
	$(BIN)/python -m dev

test: $(DEV)  ## all tests, on real Postgres, Temporal, partner sandbox and browser
	$(BIN)/python -m dev.browser
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: lint  ## format, lint, types, import contracts, unit tests: what must pass before a commit
	$(BIN)/python -m pytest tests/unit tests/architecture

lint: $(DEV)  ## what of it needs no test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

format: $(DEV)  ## put the code into shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

faults: $(DEV)  ## the kill matrix: every process at every failpoint
	$(BIN)/python -m pytest tests/faults --full -o faulthandler_timeout=14400

bench: $(DEV)  ## side by side with plain Temporal
	$(BIN)/python -m bench

clean:  ## remove .venv, caches and the embedded stack's data
	rm -rf $(VENV) .caseward .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Caseward needs Python 3.11 or newer: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' \
		|| { echo "This Python can't make a venv. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(RUNTIME): requirements.lock dev/link.py | $(BIN)/python
	$(PIP_INSTALL) -r requirements.lock
	$(BIN)/python dev/link.py
	@touch $@

# Everything of the runtime lock, in the same versions, and the tools.
$(DEV): requirements-dev.lock dev/link.py | $(BIN)/python
	$(PIP_INSTALL) -r requirements-dev.lock
	$(BIN)/python dev/link.py
	@touch $(RUNTIME) $@
