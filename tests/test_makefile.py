"""The Makefile's commands, in a folder of any name: a stand-in for Python writes down what it is asked."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from toybook import NAME

MAKEFILE = Path(__file__).resolve().parents[1] / "Makefile"
PYTHON = """#!/bin/sh
{ printf '%s|' "$PWD" "$NEARFAR_RESULTS" "$@"; echo; } >> "$(dirname "$0")/asked"
case "$2" in nearfar.runs.again) printf '%s\\n' executed.ipynb other.ipynb;; esac
"""


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / NAME
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / "_build/html").mkdir(parents=True)
    shutil.copy(MAKEFILE, folder)
    for name in ("pyproject.toml", "constraints.txt", ".venv/.ready"):
        (folder / name).touch()
    return folder


def make(checkout, *words):
    """What `make` asks of Python: (folder, NEARFAR_RESULTS, argument, ...) for each command."""
    program = checkout / ".venv/bin/python"
    program.write_text(PYTHON)
    program.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("NEARFAR", "MAKE"))}
    done = subprocess.run(["make", *words], cwd=checkout, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [tuple(line.split("|")[:-1]) for line in (checkout / ".venv/bin/asked").read_text().splitlines()]


def test_tests_run(checkout):
    asked = make(checkout, "test", "JOBS=3")
    assert {command[0] for command in asked} == {str(checkout)}
    assert [command[2:5] for command in asked] == [
        ("-m", "pytest", "-n"), ("-m", "nearfar.cli", "book"), ("-m", "nearfar.runs.again"),
        ("-m", "nearfar.runs.forked", ".venv/bin/python"), ("-m", "pytest", "-o"),
    ]  # fmt: skip
    second = asked[3]
    assert second[1] == "_build/second" and "--nbval-current-env" in second
    assert second[-2:] == ("executed.ipynb", "other.ipynb")


def test_all_notebooks_run_again_when_asked(checkout):
    asked = make(checkout, "test", "AGAIN=all")
    assert asked[2][2:] == ("-m", "nearfar.runs.again", "all")


def test_lint_runs(checkout):
    modules = [command[3] for command in make(checkout, "lint")]
    assert modules[:3] == ["ruff", "ruff", "nbstripout"] and "importlinter" in modules[3]


def test_the_site_is_built_served_and_packed(checkout):
    asked = make(checkout, "offline", "student", "serve", "TIER=small", "DEVICE=cuda:1")
    assert asked[0][3:] == (
        "nearfar.cli", "book", "--tier", "small", "--jobs", "2", "--device", "cuda:1"
    )  # fmt: skip
    assert [command[4] for command in asked[1:3]] == ["offline", "student"]
    assert asked[3][0] == str(checkout / "_build/html") and asked[3][3] == "http.server"


def test_benchmarks_run(checkout):
    asked = make(checkout, "bench")
    assert asked[0][3:5] == ("pip", "install") and asked[1][2:] == ("-m", "benchmarks", "--book")


def test_a_python_of_any_name_sets_it_up(checkout):
    other = checkout / "my python"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    (checkout / ".venv/.ready").unlink()
    assert make(checkout, "setup", "PYTHON=./my python")[0][3:5] == ("pip", "install")
