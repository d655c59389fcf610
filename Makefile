# electra-dist: everything a fresh machine needs. `make` alone lists the targets; those that need .venv make it first.
.DEFAULT_GOAL := help
PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
# Test files that run at a time; each of their tests may start several ranks.
JOBS ?= 2
# Type-checked for each of them, run on the one at hand.
PYTHONS := 3.11 3.12 3.13
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_ARGS)
export OMP_NUM_THREADS ?= 1

.PHONY: help install quickstart test test-all lint format docs compatibility clean
help: ## list the targets
	@echo "make TARGET, one of:"
	@sed -nE 's/^([a-z-]+):.*## (.*)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

install: $(VENV)/.installed ## .venv with everything, in the versions of constraints.txt

# torch first: deepspeed needs it importable while it builds, and nothing else may choose another build of it.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "electra-dist needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip setuptools wheel
	$(PIP) torch numpy
	$(PIP) --no-build-isolation deepspeed
	$(PIP) --no-build-isolation --editable '.[train,hf,dev,docs]'
	$(BIN)/python -c 'import triton' 2>/dev/null || $(PIP) triton==3.9.0  # CPU builds of torch come without it
	@touch $@

quickstart: install ## raw text -> trained, interrupted, resumed, exported ELECTRA
	$(BIN)/python examples/quickstart.py

test: install ## the core tests
	$(BIN)/python -m pytest -n $(JOBS) --no-loadscope-reorder

test-all: install ## the core tests and the long ones
	$(BIN)/python -m pytest -n $(JOBS) --no-loadscope-reorder -m 'full or not full'

lint: install ## ruff, and mypy for each supported Python
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	for version in $(PYTHONS); do $(BIN)/mypy --python-version $$version || exit 1; done

format: install ## let ruff mend and format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install ## the documentation as a site, in build/site; fails at the first warning
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

compatibility: install ## which versions of transformers load what the quick start exports
	$(BIN)/python benchmarks/compatibility.py --run runs/quickstart

clean: ## remove .venv, what was built, and caches
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
