# make demo       from nothing to labelled breaths: environment, runtime only (no torch), a simulated patient
# make test       lint, types, walls and the test suite; what CI runs
# make test-long  what is too slow for CI; fuzz tests take STETHO_FUZZ_S seconds each, 600
# make ratios     our CPU time by that of peers, against the committed ratios; part of test-long (STETHO_DATA has YAMNet)
# make results    committed figures that need no training, run again: says which moved (STETHO_DATA names the recordings)
# make docs       the site, in build/site
# make install    the environment with everything, for working on the project
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Every extra but `tensorrt`, which needs an NVIDIA driver and is tested on such a machine.
EXTRAS := train,export,tensorrt-rtx,ray,report,metrics,mqtt,exchange,serve,docs,dev
PIP_INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt
export PYTHONUNBUFFERED := 1
# Bytecode is kept, whatever the machine's setting: the tests start hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-long ratios results install lint format docs clean

demo: $(VENV)/.runtime
	@$(BIN)/stetho demo

test: $(VENV)/.all
	$(MAKE) --no-print-directory --jobs 2 lint docs
	$(BIN)/python -m pytest -n 2 --dist loadfile --durations=30

test-long: $(VENV)/.all
	$(BIN)/python -m pytest -m long
	$(MAKE) --no-print-directory ratios

# A share of 0.2: what a busy machine moves. A peer that cannot be installed is named and does not fail.
ratios: $(VENV)/.all
	rm -rf build/ratios && mkdir -p build/ratios
	$(BIN)/stetho bench peers --rounds 15 --out build/ratios/peers.json
	$(BIN)/stetho bench stream --part files --part start --minutes 2 --starts 10 --out build/ratios/stream.json
	$(BIN)/stetho bench latency --rounds 200 --stages 0 --out build/ratios/latency.json
	$(BIN)/stetho bench compare benchmarks/results/ratios.json build/ratios/*.json --gate 0.2

results: $(VENV)/.all
	$(BIN)/python -m benchmarks.rerun

lint: $(VENV)/.all
	$(BIN)/ruff check
	$(BIN)/ruff check --quiet --select S --ignore S101 edge_sdk/server
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.all
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --config-file docs/mkdocs.yml

format: $(VENV)/.all
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

install: $(VENV)/.all

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# The stamps make a second run quick; a change of dependencies renews them.
$(VENV)/.runtime: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) --editable .
	@touch $@

$(VENV)/.all: pyproject.toml constraints.txt .ci/system-packages | $(BIN)/python
	.ci/system-packages $(PYTHON) & packages=$$!; $(PIP_INSTALL) --editable '.[$(EXTRAS)]' && wait $$packages
	@touch $@ $(VENV)/.runtime

$(BIN)/python:
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || .ci/system-packages $(PYTHON)
	$(PYTHON) -m venv $(VENV)
