# Two commands are enough: `make search` and `make test`. `make help` lists the rest. A search chooses its run folder by its
# configuration, so the same command goes on where it was stopped, and says at the end where its report is.

PYTHON ?= python3
# Optional parts to install as well: deploy, bayesian, ray, lm-eval, llama (files in requirements/), cuda. Example: make test EXTRAS="deploy ray"
EXTRAS ?=
# What `make search` searches, and how: make search SPACE=ranking_blocks CONTROLLER=one_shot
SPACE ?= mobile_llm
CONTROLLER ?= dnas
# Anything to add to the command of `make search` and `make smoke`: make search ARGS="budget.minutes=10 seed=1"
ARGS ?=

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check

# The stamp's name holds what the environment depends on: the pins, the interpreter, the extras, and this folder (an
# environment cannot be moved). It is written last, so an installation that was interrupted is started again.
KEY := $(shell { cat requirements/*.txt; $(PYTHON) -c 'import sys; print(sys.version)'; echo "$(sort $(EXTRAS))" "$(CURDIR)"; } | cksum | cut -d' ' -f1)
STAMP := $(VENV)/.installed-$(KEY)

.DEFAULT_GOAL := help
.PHONY: help venv search smoke soak fuzz test test-fast test-long lint types imports docs format bench wheel doctor clean

help:  ## what can be done here
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-10s %s\n", $$1, $$2}'

venv: $(STAMP)  ## .venv with pinned versions (EXTRAS="deploy ray" for the optional parts)

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Rankitect needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	rm -f $(VENV)/.installed-*
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) install -r requirements/torch.txt
	$(PIP) install -r requirements/runtime.txt -r requirements/test.txt $(foreach e,$(filter-out cuda,$(sort $(EXTRAS))),-r requirements/$(e).txt)
	$(PIP) install --no-deps -r requirements/nodeps-$(if $(filter cuda,$(EXTRAS)),cuda,cpu).txt
	$(PIP) install --no-deps --no-build-isolation -e .
	touch $@

search: $(STAMP)  ## the main job: search pruned versions of a pretrained language model, end with a report
	$(PY) -m rankitect.search space=$(SPACE) controller=$(CONTROLLER) $(ARGS)

smoke: $(STAMP)  ## the same job in small (a tiny random backbone), under a minute
	$(PY) -m rankitect.search space=mobile_llm controller=dnas preset=smoke $(ARGS)

# One process a core, and one thread in each of them: nearly twice as fast on two cores as one process with two threads.
WORKERS ?= 2

test: lint types imports docs  ## everything that a change must pass
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) --dist worksteal

test-fast: $(STAMP)  ## the tests without the slow ones
	$(PY) -m pytest -m "not slow"

test-long: $(STAMP)  ## every identity on 10,000 architectures; about an hour
	RANKITECT_HYPOTHESIS=long $(PY) -m pytest -m identity

soak: $(STAMP)  ## faults at random instants, 200 rounds (SOAK=50 for fewer), with a table of what survived
	SOAK=$${SOAK:-200} OMP_NUM_THREADS=1 $(PY) -m pytest tests/test_soak.py -q -s

FUZZ ?= 10000

fuzz: $(STAMP)  ## 10,000 damaged inputs over every reader (FUZZ=n for other numbers, FUZZ_SEED=n for others), with a table
	FUZZ_CASES=$(FUZZ) FUZZ_TABLE=build/fuzz.md OMP_NUM_THREADS=1 $(PY) -m pytest tests/fuzz -n $(WORKERS) --dist worksteal -q

lint: $(STAMP)  ## style
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: $(STAMP)  ## type annotations
	$(PY) -m mypy

imports: $(STAMP)  ## which room may import which
	$(VENV)/bin/lint-imports --no-logo

docs: $(STAMP)  ## the documentation with the reference, in build/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

format: $(STAMP)  ## rewrite the files in the house style
	$(PY) -m ruff check --fix-only --quiet .
	$(PY) -m ruff format .

bench: $(STAMP)  ## the figures of docs/results, measured on this machine
	@set -e; for script in benchmarks/[!_]*.py; do echo "== $$script"; $(PY) "$$script"; done

wheel: $(STAMP)  ## dist/rankitect-*.whl
	rm -rf build dist rankitect.egg-info/SOURCES.txt
	$(PIP) wheel --no-deps --no-build-isolation --wheel-dir dist .

doctor: $(STAMP)  ## what is installed, what is missing, what to do
	$(PY) -m rankitect.doctor

clean:  ## remove what was built, but not .venv, runs or downloaded assets
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
