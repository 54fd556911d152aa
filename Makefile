# The project's commands; `make` alone lists them. Recipes use relative paths: the checkout may lie anywhere.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory --no-builtin-rules

# VERSIONS=newest: the newest release line, in an environment beside the default one.
VENV := .venv$(if $(VERSIONS),-$(VERSIONS))
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
PYTEST := $(PY) -m pytest -q -n 2 --dist loadfile
export PYTHON VERSIONS VARIANT TORCH_INDEX AUDIT_SERVICE OSV_URL

PINS := constraints.txt $(if $(VERSIONS),constraints-$(VERSIONS).txt)
ifneq ($(VERSIONS),)
ifeq ($(wildcard constraints-$(VERSIONS).txt),)
$(error VERSIONS=$(VERSIONS) is unknown; choose newest, or leave it out)
endif
endif

# An environment keeps the variant that it was made with.
ifneq ($(VARIANT),)
MADE := $(or $(shell cat $(READY) 2>/dev/null),$(if $(wildcard $(READY)),cpu))
ifneq ($(MADE),$(if $(MADE),$(VARIANT)))
$(error VARIANT=$(VARIANT): $(VENV) was made for $(MADE); remove $(VENV) first)
endif
endif

.PHONY: help env demo test test-all test-cluster test-slurm test-fake-cuda test-docker test-kubernetes test-docs test-exactness lint audit docker-lint format house bench clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
	@echo "Variables: PYTHON=python3.12  TORCH_INDEX=url (another pip index for torch)  VARIANT=cpu|cuda"
	@echo "           VERSIONS=newest (the newest release line of torch, in .venv-newest)"

env: $(READY) ## the environment: .venv in the checkout, made once, renewed when the versions change

$(READY): pyproject.toml $(PINS) packaging/env.sh $(wildcard packaging/fbgemm-gpu-cpu-shim/*.*)
	@packaging/env.sh

demo: $(READY) ## from raw logs to a trained and evaluated model on two local ranks, in minutes
	@launch/demo.sh

test: lint ## set up, lint, test: the whole check in one command
	@$(PYTEST) -m "not slow and not slurm and not cluster and not docker and not kubernetes"
	@$(PY) -m pip check

test-all: lint ## tests with marks too: slow, slurm, cluster, docker, kubernetes
	@$(PYTEST)

test-cluster: $(READY) ## jobs over hosts made of network namespaces; needs root and iproute2
	@$(PY) -m pytest -q tests/cluster

test-fake-cuda: $(READY) ## a step on a CUDA device that does not exist: needs VARIANT=cuda, and no driver
	@$(PY) -c 'import sys, torch; sys.exit(torch.version.cuda is None and "torch is a CPU build: make env VARIANT=cuda")'
	@$(PY) -m pytest -q tests/device

test-docker: $(READY) ## builds the image, 20 steps in it: 7 minutes, 8 GB; Docker, or root, buildah, runc, debootstrap
	@$(PY) -m pytest -q tests/docker

test-kubernetes: $(READY) ## the manifests on a real API server; KUBEBUILDER_ASSETS and RECD_CRDS (CONTRIBUTING.md)
	@$(PY) -m pytest -q tests/kubernetes

test-slurm: $(READY) ## jobs on a Slurm of their own, for which Debian's packages must be installed (docs/slurm.md)
	@$(PY) -m pytest -q tests/slurm

test-docs: $(READY) ## the commands of README and docs/, run one after the other: some minutes
	@$(PY) -m pytest -q tests/test_documented_commands.py tests/test_documented_options.py

test-exactness: $(READY) ## every model, task and optimizer, on against off, 50 steps on 1, 2 and 4 ranks: some minutes
	@$(PY) benchmarks/exactness.py

lint: $(READY) docker-lint ## ruff, mypy, import-linter, hadolint
	@$(PY) -m ruff check --quiet
	@$(PY) -m ruff format --quiet --check || { echo "to repair: make format"; exit 1; }
	@$(PY) -m mypy --no-error-summary
	@$(VENV)/bin/lint-imports --no-cache >$(VENV)/imports.log || { cat $(VENV)/imports.log; exit 1; }
	@echo "lint: clean"

docker-lint: $(READY) ## hadolint, and docker compose config where it is installed
	@$(VENV)/bin/hadolint docker/Dockerfile
	@for files in "-f docker/compose.yaml" "-f docker/compose.yaml -f docker/compose.cuda.yaml"; do \
	if docker compose version >/dev/null 2>&1; then docker compose $$files config --quiet; \
	elif command -v docker-compose >/dev/null; then docker-compose $$files config --quiet; fi; done

audit: ## known vulnerabilities of the pinned versions; needs a vulnerability service (packaging/audit.sh)
	@packaging/audit.sh

format: $(READY) ## ruff format, and what ruff can repair
	@$(PY) -m ruff check --quiet --fix-only
	@$(PY) -m ruff format

house: $(READY) ## rooms, layers, arrows, circles and lines of the source tree
	@$(PY) -m tests.house

bench: $(READY) ## every script of benchmarks/; each measures its baseline in the same run and prints a ratio
	@found=0; for script in benchmarks/*.py; do [ -f "$$script" ] || continue; \
	found=1; echo "== $$script"; $(PY) "$$script"; done; [ $$found = 1 ] || { echo "benchmarks/ is empty"; exit 1; }

clean: ## remove caches and builds; .venv, runs/ and tables/ stay
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find src tests launch -name __pycache__ -type d -prune -exec rm -rf {} +
