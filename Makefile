# make demo and make test are all there is; both set up .venv when it is missing.
PYTHON ?= python3.11
PIP_ARGS ?=
BENCH_ARGS ?=
BIN := .venv/bin
STAMP := .venv/.ready
export OMP_NUM_THREADS ?= 1

.PHONY: setup demo check test bench clean

setup: $(STAMP)

$(STAMP): requirements-cpu.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(PIP_ARGS) -r requirements-cpu.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: $(STAMP)
	$(BIN)/value-harvest demo --out runs/demo

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

test: $(STAMP)
	$(BIN)/python -m pytest

bench: $(STAMP)
	$(BIN)/python -m bench.capture $(BENCH_ARGS)

clean:
	rm -rf .venv runs
