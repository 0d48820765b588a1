# make run    trains, fabricates 25 virtual chips, opens a report (RECIPE=mnist, ARGS="--seed 1 --resume")
# make test   the tests that take seconds each (WORKERS=2 processes); make test-slow: the long ones
# make test-gpu  the GPU's kernels under Triton's interpreter (installs Triton, 200 MB)
# make lint   ruff, mypy --strict on hardware, physics and crossbar, the layers of the package
# make bench  time of a step on analog hardware over the digital one
# Each of them makes .venv and installs what it needs when pyproject.toml or constraints.txt changed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RECIPE ?= mnist-mini
OUT ?= runs
ARGS ?=
TESTS ?= tests
MHO ?= $(BIN)/mho
PYTEST ?= $(BIN)/python -m pytest
WORKERS ?= 2
STRICT := src/mho/hardware src/mho/physics src/mho/crossbar

# Tests of real data sets read a folder beside the checkout where there is one; MHO_DATA comes first.
ifeq ($(strip $(MHO_DATA)),)
ifneq ($(wildcard ../shared/data),)
test test-slow: export MHO_DATA := $(abspath ../shared/data)
endif
endif

.PHONY: help run test test-slow test-gpu lint bench install clean

help:
	@sed -n '1,6s/^# //p' Makefile

run: $(STAMP)
	$(MHO) run $(RECIPE) --out $(OUT) --open $(ARGS)

# One thread a worker: two processes of two threads each would wait for one another.
test: export OMP_NUM_THREADS := 1
test: $(STAMP)
	$(PYTEST) -n $(WORKERS) --dist loadfile $(TESTS) $(ARGS)

test-slow: $(STAMP)
	$(PYTEST) -m slow $(TESTS) $(ARGS)

test-gpu: export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
test-gpu: export TRITON_INTERPRET := 1
test-gpu: $(STAMP)
	$(BIN)/python -m pip install --quiet -e '.[gpu]'
	$(PYTEST) -n $(WORKERS) --dist loadfile tests/crossbar/test_gpu_*.py $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict $(STRICT)
	$(BIN)/lint-imports

bench: $(STAMP)
	$(MHO) bench speed $(ARGS)

install: $(STAMP)

# torch goes first and alone, at the exact version: the index then gives the build that fits the machine.
# The constraints reach pip by the environment, so that they hold for build tools too.
$(STAMP): export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
$(STAMP): export PIP_DISABLE_PIP_VERSION_CHECK := 1
$(STAMP): export PIP_NO_INPUT := 1
$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { \
	  echo "make: there is no $(PYTHON). Fix: install Python 3.11 or newer, or name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: $(PYTHON) is $$($(PYTHON) -V 2>&1), mho needs 3.11 or newer. Fix: make PYTHON=python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
	  echo "make: no virtual environment could be made. Fix (Debian, Ubuntu): apt-get install python3-venv" >&2; \
	  rm -rf $(VENV); exit 1; }
	$(BIN)/python -m pip install --quiet torch==$$(sed -n 's/^torch==//p' constraints.txt)
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
