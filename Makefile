# Every target makes what it needs: the virtual environment, the installation and the data.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# What runs mecpilot, and what develops it: a demo does not wait for linters.
RUN    := $(VENV)/.installed-run
DEV    := $(VENV)/.installed-dev
# Tests side by side. Many of them wait for something, so three keep two cores busy.
JOBS   ?= 3

# One compute thread per process: device, MEC and load generator share few cores.
export OMP_NUM_THREADS ?= 1

# Compiling every module of every package takes as long as installing them. Python compiles what it imports, once, and
# keeps it unless it is told not to: then every start of a process would pay for it again.
unexport PYTHONDONTWRITEBYTECODE
INSTALL = $(BIN)/python -m pip install -qq --no-compile --disable-pip-version-check -c constraints.txt

.PHONY: help demo demo-full test nightly lint bench clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than 3.11; expected Python 3.11 or newer; run: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV)

$(RUN): pyproject.toml constraints.txt | $(BIN)/python
	@echo "== installing into $(VENV) (1.3 GB, one to three minutes; torch is most of it)"
	@$(INSTALL) -e '.[train,video]'
	@touch $@

$(DEV): pyproject.toml constraints.txt | $(RUN)
	@echo "== installing the development tools into $(VENV)"
	@$(INSTALL) -e '.[train,video,dev]'
	@touch $(RUN) $@

demo: $(RUN) ## see it work with what ships: learn a little, compare, run real processes (2 to 5 minutes)
	$(BIN)/python -m agents.demo --out runs/demo

demo-full: $(RUN) ## make all of it on this machine: profile, train, freeze, compare, deploy (12 minutes or more)
	$(BIN)/python -m agents.demo --full --out runs/demo-full

test: $(DEV) ## run the test suite
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

nightly: $(DEV) ## a soak of five minutes, ten minutes of fuzzing, and tests that need root, where there is root
	$(BIN)/mecpilot soak --minutes 5 --failover --seed $$(date +%j)
	$(BIN)/python -m tests.fuzz --seconds 600
	$(BIN)/python -m pytest -m root

lint: $(DEV) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(DEV) ## measure every figure of README on this machine (hours)
	$(BIN)/python -m benchmarks

clean: ## remove the environment and the run folders
	rm -rf $(VENV) runs build *.egg-info
