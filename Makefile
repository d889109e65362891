# book, test, lint, bench, student, offline, serve, clean: the only commands a newcomer needs.
# The checkout may lie in any folder: commands are modules of its Python, since the first line of a script in .venv/bin
# cannot name every path.
PYTHON ?= python3
TIER ?= smoke
JOBS ?= 2
DEVICE ?= auto
# AGAIN=all: nbval runs every notebook a second time, not only those that changed lately and a third of the others.
AGAIN ?=
HERE := .venv/bin/python
READY := .venv/.ready

.PHONY: setup book test test-cluster lint bench student offline serve clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@"$(PYTHON)" -c "import sys; sys.exit('Near & Far needs Python 3.11 or newer: make PYTHON=python3.12') if sys.version_info < (3, 11) else None"
	@test -x $(HERE) || "$(PYTHON)" -m venv .venv
	$(HERE) -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

.venv/.bench: $(READY)
	$(HERE) -m pip install --quiet -c constraints.txt -e '.[dev,bench]'
	@touch $@

book: $(READY)
	@$(HERE) -m nearfar.cli book --tier "$(TIER)" --jobs "$(JOBS)" --device "$(DEVICE)"

test: $(READY)
	@OMP_NUM_THREADS=1 $(HERE) -m pytest -n "$(JOBS)" --dist loadscope --no-loadscope-reorder tests
	@$(HERE) -m nearfar.cli book --execute-only --jobs "$(JOBS)" --device cpu
	@rm -rf _build/second
	@again=$$($(HERE) -m nearfar.runs.again $(AGAIN)) && \
	  NEARFAR_RESULTS=_build/second NEARFAR_STATIC=1 OMP_NUM_THREADS=1 $(HERE) -m nearfar.runs.forked \
	  $(HERE) -m pytest -q --nbval-lax --nbval-current-env -n "$(JOBS)" --dist loadscope $$again
	@$(HERE) -m pytest -o addopts=-ra tests/after_runs

test-cluster: $(READY)  # a SLURM of one node on this machine; needs root, and Debian's slurm-wlm and munge
	@$(HERE) -m pip install --quiet -c constraints.txt -e '.[dev,cluster]'
	@$(HERE) -m pytest -o addopts=-ra tests/cluster

lint: $(READY)
	@$(HERE) -m ruff check .
	@$(HERE) -m ruff format --check .
	@$(HERE) -m nbstripout --keep-id --verify notebooks/*/*.ipynb book/*.ipynb
	@$(HERE) -c "from importlinter.cli import lint_imports_command as lint; lint()"
	@if command -v actionlint > /dev/null; then actionlint; else echo "actionlint is not installed: workflows not checked here (CI does)"; fi

bench: .venv/.bench
	@$(HERE) -m benchmarks --book
	@rm -f _build/runs/pages/benchmarks.ipynb  # `make book` draws its page anew

student: $(READY)
	@$(HERE) -m nearfar.cli student

offline: book
	@$(HERE) -m nearfar.cli offline

serve: book
	@cd _build/html && exec ../../$(HERE) -m http.server 8000 --bind 127.0.0.1

clean:
	rm -rf _build .snakemake .pytest_cache .ruff_cache
