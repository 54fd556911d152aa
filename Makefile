# The project's commands. `make` alone lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory --no-builtin-rules

PY := .venv/bin/python
ENV := .venv/.ready
export PYTHON VARIANT TORCH_INDEX

.PHONY: help env test test-all lint format clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
	@echo "Variables: PYTHON=python3.12, TORCH_INDEX=url (another pip index for torch), VARIANT=cpu|cuda"

env: $(ENV) ## the environment: .venv in the checkout, reused until pyproject.toml or constraints.txt change

$(ENV): pyproject.toml constraints.txt packaging/env.sh packaging/fbgemm-gpu-cpu-shim/pyproject.toml
	@packaging/env.sh
	@touch $@

lint: $(ENV) ## ruff, mypy, import-linter
	@$(PY) -m ruff check --quiet .
	@$(PY) -m ruff format --quiet --check . || { echo "ruff format: run make format"; exit 1; }
	@$(PY) -m mypy --no-error-summary
	@.venv/bin/lint-imports --no-cache >.venv/lint-imports.log || { cat .venv/lint-imports.log; exit 1; }
	@echo "lint: clean"

format: $(ENV) ## ruff format and ruff's safe repairs
	@$(PY) -m ruff check --quiet --fix-only .
	@$(PY) -m ruff format .

test: lint ## set up, lint and run the tests: the whole check, one command
	@$(PY) -m pytest -q -n 2 --dist loadfile -m "not slow and not slurm"
	@$(PY) -m pip check

test-all: lint ## the slow tests too
	@$(PY) -m pytest -q -n 2 --dist loadfile

clean: ## remove caches and builds; .venv, runs/ and tables/ stay
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find src tests launch -name __pycache__ -type d -prune -exec rm -rf {} +
