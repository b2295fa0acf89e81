# Every command sets up what it needs first; after that the set-up costs a fraction of a second.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE = 1
export TRANSFORMERS_OFFLINE = 1
.DEFAULT_GOAL := help
.PHONY: help setup demo test check format bench clean

help: ## show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## virtual environment and front-end assets
	@$(PYTHON) grow/setup.py

demo: setup ## train a small model here and watch it grow at http://127.0.0.1:8000
	@$(BIN)/grow demo

test: setup ## every test
	@$(BIN)/pytest -n 2

check: setup ## format, lint, types, import contract
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: setup ## format and fix what can be fixed
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: setup ## the measurements in benchmarks/
	@for name in agreement averages console crowd download evaluation growth ledger line listing memory panel playground quantize samples streams swap upload verification waits; do $(BIN)/python -m benchmarks.$$name || exit 1; done

clean: ## remove the environment and built assets, never GROW_HOME
	rm -rf .venv node_modules static/vendor
