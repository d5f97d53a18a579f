# make demo        the NOSTROMO practical case, simulated at reduced frame size, to PDF reports
# make test        all tests (under 20 minutes on 2 cores), lint included
# make test-full   full-size frames, many realisations, new examples for property tests
# make bench       what things cost, beside the machine's I/O floor
# make lint        ruff, snakefmt, import-linter, schema files up to date
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test test-full bench lint format clean
.DELETE_ON_ERROR:

$(READY): envs/requirements.txt pyproject.toml
	envs/system.sh
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement envs/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: $(READY)
	$(BIN)/python -m examples.nostromo.demo

test: $(READY) lint
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not full"

test-full: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "full"
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "hypothesis" --hypothesis-profile explore

bench: $(READY)
	$(BIN)/python -m benchmarks.bench
	$(BIN)/python -m benchmarks.parts
	$(BIN)/python -m benchmarks.workflow

lint: $(READY)
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/ruff format --check src tests benchmarks examples
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/lint-imports
	$(BIN)/calcamp schema --check

format: $(READY)
	$(BIN)/ruff check --fix src tests benchmarks examples
	$(BIN)/ruff format src tests benchmarks examples
	$(BIN)/snakefmt Snakefile rules

clean:
	rm -rf demo bench .snakemake dist build
