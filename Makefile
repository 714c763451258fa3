# Everything from a fresh clone on a machine that has Python ≥ 3.11 with its venv module, and a compiler.
PYTHON ?= python3
BIN := .venv/bin
# Threads that wait must sleep: two busy processes on shared cores otherwise slow each other down several times.
export OMP_WAIT_POLICY = PASSIVE

.PHONY: help install .venv quickstart test nightly lint bench clean

help:
	@echo "make quickstart   the whole road, offline, in a few minutes"
	@echo "make test         lint, types, layers, tests (what CI runs)"
	@echo "make nightly      the slow proofs"
	@echo "make lint         style, types, layers"
	@echo "make bench        timings, as ratios measured side by side"

install: .venv

.venv: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

quickstart: install
	$(BIN)/lichen quickstart

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/pyright

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2

nightly: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m nightly --durations=20

bench: install
	@for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

clean:
	rm -rf .venv build *.egg-info
