# Every target makes what it needs: the virtual environment, the installation and the data.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

# One compute thread per process: device, MEC and load generator share few cores.
export OMP_NUM_THREADS ?= 1

.PHONY: help demo test lint bench clean
.DEFAULT_GOAL := help

help: ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 10

$(STAMP): pyproject.toml constraints.txt
	@echo "== installing into $(VENV) (a minute or two)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than 3.11; expected Python 3.11 or newer; run: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --progress-bar on -q -c constraints.txt -e '.[train,dev]'
	@touch $@

demo: $(STAMP) ## profile, train, export and run device and MEC over a shaped link (a few minutes)
	$(BIN)/python -m agents.demo --out runs/demo

test: $(STAMP) ## the whole test suite
	$(BIN)/python -m pytest

lint: $(STAMP) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP) ## every figure of README, measured on this machine
	$(BIN)/python -m benchmarks

clean: ## remove the environment and the run folders
	rm -rf $(VENV) runs build *.egg-info
