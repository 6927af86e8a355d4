# Every target sets up .venv first; the machine needs Python 3.11 or newer and make.
PYTHON ?= python3
VENV ?= .venv
UV ?= uv
RUN = $(VENV)/bin/python
STAMP = $(VENV)/.physml-installed
WORKERS ?= 4

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help setup reproduce test lint types bench lock

help:
	@echo 'make setup      install the locked versions and physml into $(VENV)'
	@echo 'make reproduce  the iron entropies: relax, describe, fit, draw, check the claims'
	@echo 'make test       the tests, one process per core, at most WORKERS=$(WORKERS)'
	@echo 'make lint       ruff (rules and format) and codespell'
	@echo 'make types      mypy, strict, on physml'
	@echo 'make bench      physml beside its peers, one thread (installs the extra "bench")'
	@echo 'make lock       resolve requirements.lock again (needs uv)'
	@echo 'PYTHON=python3.12 (or another) chooses the interpreter of a new $(VENV)'

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo 'physml needs Python 3.11 or newer: make PYTHON=/path/to/python3.11' >&2; exit 1; }
	@$(RUN) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV) \
	  || { echo 'Python cannot make a virtual environment: install python3-venv' >&2; exit 1; }
	$(RUN) -m pip install --quiet --require-hashes -r requirements.lock
	$(RUN) -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

reproduce: $(STAMP)
	$(RUN) -m experiments.iron_entropy reproduce default

test: $(STAMP)
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(RUN) -m pytest -n logical --maxprocesses $(WORKERS) --dist loadfile

lint: $(STAMP)
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m codespell_lib

types: $(STAMP)
	$(RUN) -m mypy

bench: $(STAMP)
	$(RUN) -m pip install --quiet -e '.[bench]'
	set -e; for script in afs entropy linear cnn root_io tracking showers clusters; do $(RUN) benchmarks/$$script.py; done

lock:
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade \
	  --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
	  --extra dev --group build --output-file requirements.lock pyproject.toml
