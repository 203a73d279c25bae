# Each target sets up what it needs: a fresh machine with Python >= 3.10 and make is enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PEERS := .venv-peers
PEERS_STAMP := $(PEERS)/.installed
PIP := -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: install demo test asan check peers test-peers bench bench-check beside-avalanche gpu-check clean

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
	$(PEERS)/bin/python $(PIP) --editable '.[cli,avalanche,bench]' hypothesis pytest pytest-timeout
	@touch $(PEERS_STAMP)

test-peers: peers
	$(PEERS)/bin/python -m pytest tests/peers

# The compiled step with every access checked: torch's tensors are the sanitizer's memory too.
ASAN_TESTS := tests/core/test_memory_safety.py tests/core/test_raw_memory.py tests/core/test_backend_layouts.py \
  tests/core/test_growth.py tests/core/test_coming_and_going.py tests/core/test_compact_state.py \
  tests/core/test_grad_scaler.py tests/core/test_copies.py tests/core/test_kernel_sources.py

asan: install
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libstdc++.so)" \
	ASAN_OPTIONS=detect_leaks=0:halt_on_error=1 CC="gcc -fsanitize=address -fno-omit-frame-pointer" \
	RWALK_CACHE_DIR=$(CURDIR)/.asan $(BIN)/python -m pytest -n 2 $(ASAN_TESTS)

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# All benchmarks, with Avalanche in the same processes, on a machine that does nothing else.
BENCHMARKS := step_overhead roofline memory loop_overhead end_to_end scaling

bench: peers install
	-if command -v java; then $(PEERS)/bin/python $(PIP) capymoa; fi
	for name in $(BENCHMARKS); do \
	  $(PEERS)/bin/python -m benchmarks.$$name --json benchmarks/results/$$name.json || exit 1; \
	done
	$(BIN)/python -m benchmarks.lora --json benchmarks/results/lora.json # transformers and peft are not among the peers
	$(PEERS)/bin/python -m benchmarks.report

# The paper's split-MNIST protocols by rwalk and by Avalanche, λ tuned alike: about a quarter of an hour on two cores.
beside-avalanche: peers
	$(PEERS)/bin/python -m benchmarks.beside_avalanche --runs runs/beside-avalanche \
	  --json benchmarks/results/beside_avalanche.json

# On a machine with a CUDA GPU: its own torch and Triton, nothing installed, no network; less than eight minutes.
gpu-check:
	PYTHONPATH=src:. $(PYTHON) -m benchmarks.gpu --json benchmarks/results/gpu.json
	PYTHONPATH=src:. $(PYTHON) -m benchmarks.gpu_page

bench-check: peers
	$(PEERS)/bin/python -m benchmarks.check

clean:
	rm -rf $(VENV) $(PEERS) .asan .mypy_cache .pytest_cache .ruff_cache .hypothesis
