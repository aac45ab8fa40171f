# make demo and make test are all there is; both set up .venv when it is missing.
PYTHON ?= python3.11
PIP_ARGS ?=
# capture, store, scale or sizes
BENCH ?= capture
BENCH_ARGS ?=
BIN := .venv/bin
STAMP := .venv/.ready
# Triton for its interpreter; a folder that only test-triton sees, because vLLM decides otherwise where Triton is found
TRITON := triton==3.7.1
TRITON_STAMP := .venv/triton/.ready
# Ray's extras, for its metrics port and dashboard; also a folder of their own
EXTRAS_STAMP := .venv/extras/.ready
export OMP_NUM_THREADS ?= 1

.PHONY: setup demo check test test-triton test-extras chaos bench clean

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
	$(MAKE) test-triton test-extras

test-triton: $(TRITON_STAMP)
	TRITON_INTERPRET=1 PYTHONPATH=.venv/triton $(BIN)/python -m pytest tests/interpreted

$(TRITON_STAMP): $(STAMP) Makefile
	rm -rf .venv/triton
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(PIP_ARGS) --target .venv/triton $(TRITON)
	touch $@

test-extras: $(EXTRAS_STAMP)
	PYTHONPATH=.venv/extras $(BIN)/python -m pytest tests/extras

$(EXTRAS_STAMP): $(STAMP) requirements-extras.txt
	rm -rf .venv/extras
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(PIP_ARGS) --target .venv/extras -r requirements-extras.txt
	touch $@

# the disasters of tests/chaos at ten times the counts of the quick set in `make test`
chaos: $(STAMP)
	CHAOS_SCALE=10 $(BIN)/python -m pytest tests/chaos --timeout 3000

bench: $(STAMP)
	$(BIN)/python -m bench.$(BENCH) $(BENCH_ARGS)

clean:
	rm -rf .venv runs
