SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup services env lock demo test lint bench soak clean
BIN := .venv/bin

help: ## what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

setup: .venv/.ready ## an environment in .venv/ with everything in requirements.lock

.venv/.ready: requirements.lock pyproject.toml scripts/setup.sh
	bash scripts/setup.sh

services: ## PostgreSQL and SLURM from the system's packages, for tests (nothing to do where they are)
	@bash scripts/services.sh

env: setup ## .env with random keys and passwords, for docker-compose.yml
	$(BIN)/python -m scripts.make_env

lock: ## requirements.lock anew, from pyproject.toml
	bash scripts/setup.sh lock

demo: setup ## synthetic raw scenes -> dataset -> models -> maps -> demo/report/index.html
	$(BIN)/python -m scripts.demo

test: setup services ## all tests, by two processes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadscope

lint: setup ## format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

soak: setup services ## long proofs, and all that starts a server
	$(BIN)/python -m pytest -q -m "soak or prefect"

bench: setup ## benchmarks; prints ratios measured side by side (`make bench only=full_scene`: one)
	$(BIN)/python -m benchmarks $(only)

clean: ## remove what demo and the tools left (not .venv)
	rm -rf demo .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
