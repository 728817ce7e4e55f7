# Every target sets up what it needs; a bare machine needs make and Python >= 3.11, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help demo up test test-docker lint bench chaos lock clean
.DEFAULT_GOAL := help

help: ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "techdeck-tasks needs Python >= 3.11; say which: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.ready: requirements.lock pyproject.toml | $(BIN)/python
	@echo "installing the pinned dependencies"
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.ready-dev: requirements-dev.lock $(VENV)/.ready
	@echo "installing the pinned development dependencies"
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

demo: $(VENV)/.ready ## Run two pipelines on real data, with real servers, and leave nothing behind; ARGS=--web keeps a dashboard
	@$(BIN)/techdeck demo $(ARGS)

up: $(VENV)/.ready ## Run the whole service on this machine until Ctrl-C
	@$(BIN)/techdeck up

test: $(VENV)/.ready-dev ## Run the whole test suite on servers of its own
	@.ci/system-packages prometheus
	@.ci/system-packages --with-dependencies chromium
	@$(BIN)/python -m pytest -n 2 --dist loadfile

test-docker: $(VENV)/.ready-dev ## Build the image, run containers and docker-compose.yml (needs Docker)
	@$(BIN)/python -m pytest tests/docker -p no:xdist

lint: $(VENV)/.ready-dev ## ruff, mypy --strict, the layers contract
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

bench: $(VENV)/.ready-dev ## Measure, next to peers, in one run
	@$(BIN)/python -m benchmarks

chaos: $(VENV)/.ready-dev ## The long kill and outage runs
	@$(BIN)/python -m pytest -m chaos --chaos-rounds 25 -n 0

lock: ## Pin every dependency again (needs uv)
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
		--no-emit-index-url --no-emit-find-links --extra web --extra embedded --extra bias --extra zstd --group build \
		--output-file requirements.lock pyproject.toml
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
		--no-emit-index-url --no-emit-find-links --extra dev --group build --constraint requirements.lock \
		--output-file requirements-dev.lock pyproject.toml

clean: ## Remove the environment and everything that was made
	@rm -rf $(VENV) .techdeck dist build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
