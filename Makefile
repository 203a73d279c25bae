# Each target sets up what it needs: a fresh machine with Python >= 3.10 and make is enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PEERS := .venv-peers
PEERS_STAMP := $(PEERS)/.installed
PIP := -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: install demo test check peers test-peers clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) torch
	$(BIN)/python $(PIP) --editable '.[dev]'
	@touch $(STAMP)

demo: install
	$(BIN)/rwalk demo

test: install
	$(BIN)/python -m pytest -n 2 --ignore tests/peers

# Avalanche beside rwalk, in an environment of its own. torchvision's wheel is a CUDA build and would bring CUDA's
# libraries along, so it is installed without what it asks for.
peers: $(PEERS_STAMP)

$(PEERS_STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python $(PIP) torch
	$(PEERS)/bin/python $(PIP) --no-deps torchvision
	$(PEERS)/bin/python $(PIP) --editable '.[avalanche]' hypothesis pytest pytest-timeout
	@touch $(PEERS_STAMP)

test-peers: peers
	$(PEERS)/bin/python -m pytest tests/peers

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

clean:
	rm -rf $(VENV) $(PEERS) .mypy_cache .pytest_cache .ruff_cache .hypothesis
