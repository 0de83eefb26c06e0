# One line per task; `make help` lists them. The environment is .venv, made by tools/setup.sh.
PYTHON := .venv/bin/python
MAKEFLAGS += --no-print-directory

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-all lint bench results experiment build format lock clean

help:  ## list the tasks
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' Makefile | while IFS='|' read -r name text; do printf '  %-12s %s\n' "$$name" "$$text"; done

.venv/.ready: requirements.lock pyproject.toml
	@tools/setup.sh

setup: .venv/.ready  ## make .venv with everything in it (again only if the lock changed)
	@:

demo: setup  ## set up, then run the main job on 40 % wrong labels
	@$(PYTHON) -m mln_lightning.run noise=asym rate=0.4 overwrite=true

lint: setup
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy

test: lint  ## set up, lint, check types, run the default tests
	@.venv/bin/pytest -n 2 -m "not slow"

test-slow: setup  ## run the slow tests
	@.venv/bin/pytest -n 2 -m slow

test-all: test test-slow  ## run all tests

bench: setup  ## what training costs here: time, FLOPs, memory, whole epochs
	@$(PYTHON) -m benchmarks.bench

results: setup  ## collect the runs in outputs/ into outputs/results.csv and results.md
	@$(PYTHON) experiments/collect.py

experiment: setup  ## run EXP=<name of a file in conf/experiment>
	@$(PYTHON) -m mln_lightning.run experiment=$(or $(EXP),$(error say which: make experiment EXP=<name>))

build: setup  ## make the source archive and the wheel in dist/
	@$(PYTHON) -m build

format: setup  ## format and fix the code
	@.venv/bin/ruff check --fix
	@.venv/bin/ruff format

lock: setup  ## resolve the dependencies anew into requirements.lock
	@.venv/bin/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --upgrade --quiet \
	  --no-emit-index-url --no-annotate --no-header -o requirements.lock

clean:  ## remove what tools and builds leave behind; results and .venv stay
	@rm -rf dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
