# electra-dist: everything a fresh machine needs.
#   make quickstart   raw text -> trained, interrupted, resumed, exported ELECTRA
#   make test         the core tests          make test-all   the long ones as well
#   make lint         ruff and mypy           make install    .venv with everything (the others call it)
PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
# Type-checked for each of them, run on the one at hand.
PYTHONS := 3.11 3.12 3.13
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_ARGS)
export OMP_NUM_THREADS ?= 1

.PHONY: install quickstart test test-all lint format clean
install: $(VENV)/.installed

# torch first: deepspeed needs it importable while it builds, and nothing else may choose another build of it.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "electra-dist needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip setuptools wheel
	$(PIP) torch numpy
	$(PIP) --no-build-isolation deepspeed
	$(PIP) --no-build-isolation --editable '.[train,hf,dev]'
	$(BIN)/python -c 'import triton' 2>/dev/null || $(PIP) triton==3.9.0  # CPU builds of torch come without it
	@touch $@

quickstart: install
	$(BIN)/python examples/quickstart.py

test: install
	$(BIN)/python -m pytest

test-all: install
	$(BIN)/python -m pytest -m 'full or not full'

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	for version in $(PYTHONS); do $(BIN)/mypy --python-version $$version || exit 1; done

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
