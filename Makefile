# Everything runs in .venv, made once from constraints.txt. `make help` lists the targets.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --constraint constraints.txt
# One thread per process: the tiny models are fastest so, and tests run in two processes.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: demo test test-slow check docs bench clean help

demo: .venv/runtime.stamp  ## the whole pipeline on a synthetic dataset, with a real model and real training
	$(BIN)/msr run demo

test: .venv/dev.stamp  ## the tests, without the minutes-long ones
	$(PYTEST) -m "not slow"

test-slow: .venv/dev.stamp  ## the minutes-long tests
	$(PYTEST) -m slow

check: .venv/dev.stamp  ## lint, format, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/dev.stamp  ## the site, into build/site: open it by `.venv/bin/mkdocs serve`
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: .venv/dev.stamp  ## every benchmark; each prints ratios measured in one run
	set -e; for file in $(sort $(wildcard benchmarks/*.py)); do OMP_NUM_THREADS=1 $(BIN)/python $$file; done

clean:  ## remove caches and builds; .venv and runs/ stay
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
	find msr_adapter tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

help:  ## this list
	@awk -F ':.*  ## ' '/^[a-z-]+:.*  ## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' \
		|| { echo 'msr needs Python 3.11 or 3.12: make PYTHON=/path/to/python3.11'; exit 1; }
	$(PYTHON) -m venv .venv

.venv/runtime.stamp: pyproject.toml constraints.txt | .venv/bin/python
	@echo 'Installing into .venv, once; this takes some minutes.'
	$(PIP) --editable .
	@touch $@

.venv/dev.stamp: .venv/runtime.stamp
	$(PIP) --editable '.[dev]'
	$(PIP) --no-deps RecTools
	@touch $@
