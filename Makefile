# `make demo` trains and reports on data that it generates; `make test` runs the tests. Both set up .venv first.
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all test-slurm slurm readers clients lint lock clean
PYTHON ?= python3
BIN := .venv/bin
SHELL := /bin/bash

help:  ## show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: .venv/ready  ## the environment alone: source .venv/bin/activate

REACH := reach protocol=smoke "arms=[zero,zero_peg,random,axial]"
SEARCH := search protocol=smoke "arms=[zero,random,axial]"
demo: .venv/ready  ## two probes of what a mixer can read; README.md says how long it takes
	@echo "two sweeps, 21 small runs; each says how to follow it, and how far it is"
	$(BIN)/python run.py sweep=$(REACH) --fresh
	$(BIN)/python run.py sweep=$(SEARCH) --fresh
	$(BIN)/python run.py report=$(REACH) --fresh
	$(BIN)/python run.py report=$(SEARCH) --fresh

# two processes of one thread each; a file's tests stay together, since they share what they have trained
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile
test: .venv/ready  ## the tests, without the slow ones and those that need a Slurm; some minutes on two cores
	$(PYTEST) -m 'not slow and not slurm and not chaos' $(PYTEST_ARGS)

test-all: .venv/ready  ## all tests except those that need a Slurm
	$(PYTEST) -m 'not slurm and not chaos' $(PYTEST_ARGS)

test-slurm: slurm .venv/ready  ## the tests that need a Slurm, on a cluster of their own; needs root to install the packages
	CI=true $(BIN)/python -m pytest tests/slurm -m 'slurm and not chaos' $(PYTEST_ARGS)

# the packages of a Slurm on one machine; sacct needs MariaDB, whose package name includes its version on Ubuntu 22.04
slurm:
	@[ "$$(id -u)" = 0 ] || { echo "make $(or $(MAKECMDGOALS),$@) needs root: it installs and starts a Slurm for the tests" >&2; exit 2; }
	@$(PYTHON) -m tests.slurm.cluster check || { apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends munge slurmctld slurmd slurm-client \
	    slurmdbd "$$(apt-cache pkgnames mariadb-server-core | LC_ALL=C sort | head -n 1)"; }

# the programs that read the pages of reports in tests: a browser, LaTeX, a PDF reader; Ubuntu has chromium only as a snap
readers:
	@$(PYTHON) -m tests.reports.programs || { \
	  [ "$$(id -u)" = 0 ] || { echo "make $(or $(MAKECMDGOALS),$@) needs root: it installs a browser and LaTeX for the tests" >&2; exit 2; }; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	    chromium chromium-driver texlive-latex-recommended poppler-utils; }

# the programs that models are put into, for tests/atm; without them these tests are skipped
clients: .venv/ready
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-clients.lock

lint: .venv/ready  ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

COMPILE := uv pip compile pyproject.toml --extra suite --extra dev --universal --python-version 3.10 \
	--no-header --no-annotate --no-emit-index-url --no-emit-find-links
lock:  ## renew requirements.lock and requirements-clients.lock (needs uv)
	$(COMPILE) -o requirements.lock
	$(COMPILE) --extra clients --constraints requirements.lock -o requirements-clients.lock

clean:  ## remove the virtual environment; run folders stay
	rm -rf .venv

# rebuilt whenever the lock file changes; `ready` is written last, so an incomplete installation is never used
.venv/ready: requirements.lock
	@if [ -L .venv ]; then echo ".venv is a link to an environment that others use: set it up there" >&2; exit 2; fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or newer is needed: make PYTHON=python3.12 ..." >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "Python's venv module is missing: apt-get install python3-venv" >&2; exit 2; }
	@echo "setting up .venv: downloads PyTorch and what else requirements.lock names, some minutes"
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --disable-pip-version-check --progress-bar off -r requirements.lock | \
	  sed -un 's/^Collecting \([^ ]*\).*/  \1/p; s/^Installing .*/installing/p; /ERROR/p'; exit $${PIPESTATUS[0]}
	@touch $@
