# Everything runs in its own environment, .venv, with the versions of constraints.txt.
# PYTHON picks the interpreter (3.11 or newer) that makes it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= runs/demo
# One process a core, each with one thread: tests are many and small.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile

.PHONY: demo test test-all lint format clean

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, this is %s; run make PYTHON=/path/to/python3.11" % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --quiet torch --constraint constraints.txt
	$(BIN)/python -m pip install --quiet --quiet --editable '.[dev]' --constraint constraints.txt
	touch $@

demo: $(VENV)/.ready
	$(BIN)/python -m experiments.tournament --agents janus-nano --rho 0:1:0.1 --strategies all --games 8 --seats both --scenario paper --seed 0 --out $(OUT)

test: $(VENV)/.ready lint
	$(PYTEST) -m "not slow"

test-all: $(VENV)/.ready lint
	$(PYTEST)

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) runs build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
