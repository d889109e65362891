# book, test, lint, bench, student, offline, serve, clean: the only commands a newcomer needs.
PYTHON ?= python3
TIER ?= smoke
JOBS ?= 2
DEVICE ?= auto
BIN := .venv/bin
READY := .venv/.ready

.PHONY: setup book test test-cluster lint bench student offline serve clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.exit('Near & Far needs Python 3.11 or newer: make PYTHON=python3.12') if sys.version_info < (3, 11) else None"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

.venv/.bench: $(READY)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,bench]'
	@touch $@

book: $(READY)
	@$(BIN)/nearfar book --tier $(TIER) --jobs $(JOBS) --device $(DEVICE)

test: $(READY)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadscope tests
	@$(BIN)/nearfar book --execute-only --jobs $(JOBS) --device cpu
	@NEARFAR_RESULTS=$(CURDIR)/_build/second NEARFAR_STATIC=1 OMP_NUM_THREADS=1 $(BIN)/python -m nearfar.runs.forked \
	  $(BIN)/python -m pytest -q --nbval-lax \
	  -n $(JOBS) --dist loadscope _build/runs/smoke
	@$(BIN)/python -m pytest -o addopts=-ra tests/after_runs

test-cluster: $(READY)  # a SLURM of one node on this machine; needs root, and Debian's slurm-wlm and munge
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,cluster]'
	@$(BIN)/python -m pytest -o addopts=-ra tests/cluster

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/nbstripout --keep-id --verify notebooks/*/*.ipynb book/*.ipynb
	@$(BIN)/lint-imports
	@if command -v actionlint > /dev/null; then actionlint; else echo "actionlint is not installed: workflows not checked here (CI does)"; fi

bench: .venv/.bench
	@$(BIN)/python -m benchmarks --book
	@rm -f _build/runs/pages/benchmarks.ipynb  # `make book` draws its page anew

student: $(READY)
	@$(BIN)/nearfar student

offline: book
	@$(BIN)/nearfar offline

serve: book
	@cd _build/html && exec ../../$(BIN)/python -m http.server 8000 --bind 127.0.0.1

clean:
	rm -rf _build .snakemake .pytest_cache .ruff_cache
