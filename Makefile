# One command each. Every target first makes .venv, and makes it again when pyproject.toml changes.
# PYTHON chooses the interpreter, WORKERS the number of test processes (one thread each).
PYTHON ?= python3
WORKERS ?= 2

BIN := .venv/bin
READY := .venv/.ready
OLDEST := .venv-oldest
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help setup data demo format check test test-slow test-long test-oldest docs all

help:  ## Say what each command does.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

setup: $(READY)  ## Make .venv with the package, its training extra and the tools for developers.

$(READY): pyproject.toml setup.py $(wildcard src/rtseg/ops/csrc/*)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[train,onnx,openvino,dev]'
	touch $@

data: $(READY)  ## Unpack $RTSEG_DATA/camvid11.zip into data/camvid.
	$(BIN)/python scripts/unpack_camvid.py data/camvid

demo: $(READY)  ## Train, score and show the embedded example in demo/ (a few minutes, no download).
	$(BIN)/rtseg demo --output demo --overwrite

format: $(READY)  ## Format the code and mend what ruff can mend.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: $(READY)  ## Check format, style, types, imports and sizes.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict src
	$(PYTEST) tests/test_imports.py tests/test_layout.py

test: $(READY)  ## Run the tests (under 5 minutes on two cores).
	$(PYTEST) -n $(WORKERS)

test-slow: $(READY)  ## Run the tests that take longer.
	$(PYTEST) -n $(WORKERS) -m 'slow and not gpu'

test-long: $(READY)  ## Run the full matrices, by hand.
	$(PYTEST) -m 'long and not gpu'

test-oldest: $(OLDEST)/.ready  ## Run the tests with the oldest supported versions, in .venv-oldest.
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -n $(WORKERS)

$(OLDEST)/.ready: pyproject.toml constraints/oldest.txt
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --constraint constraints/oldest.txt --editable '.[train,onnx,openvino,dev]'
	touch $@

docs: $(READY)  ## Write the generated pages of docs/; run every code block of the documentation.
	$(BIN)/python scripts/cli_reference.py
	$(BIN)/python scripts/recipe_list.py
	$(BIN)/python scripts/results_page.py
	$(PYTEST) tests/docs -m 'not gpu'

all: check test docs  ## Everything a change must pass.
