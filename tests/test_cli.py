"""The command line: what it prints, and one line with exit code 1 for what it cannot do."""

import subprocess
import sys

import pytest


def nearfar(*arguments, **options):
    command = [sys.executable, "-m", "nearfar.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def test_list(toybook):
    answer = nearfar("list")
    assert answer.returncode == 0 and answer.stdout.split() == ["toy", "contrastive", "2024", "A", "Toy"]


def test_run_then_results(toybook):
    answer = nearfar("run", "toy", "--seed", "2")
    assert answer.returncode == 0, answer.stderr
    assert "C1 held: ours wins" in answer.stdout and "seed-2.json" in answer.stdout
    answer = nearfar("results", "toy")
    assert "toy, smoke, seeds 2" in answer.stdout and "ours over theirs" in answer.stdout


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["run", "tyo"], "Did you mean toy"),
        (["run", "toy", "--tier", "smal"], "Did you mean small"),
        (["run", "toy", "--device", "cudda"], "unknown device"),
        (["run", "toy", "-p", "speed=3"], "no parameter 'speed'"),
        (["run", "toy", "-p", "speed"], "needs name=value"),
        (["results", "tyo"], "Did you mean toy"),
        (["data", "mnits"], "mnist"),
        (["new", "toy", "--part", "shift", "--title", "T", "--authors", "A, B", "--year", "2020"], "already has"),
        (["new", "X Y", "--part", "shift", "--title", "T", "--authors", "A, B", "--year", "2020"], "slug must be"),
    ],
)
def test_bad_input_is_one_line(toybook, arguments, message):
    before = sorted(p for p in toybook.rglob("*"))
    answer = nearfar(*arguments)
    assert answer.returncode == 1 and message in answer.stderr, answer.stderr
    assert answer.stderr.startswith("nearfar: ") and len(answer.stderr.strip().splitlines()) == 1
    assert sorted(p for p in toybook.rglob("*")) == before


def test_a_broken_record_is_reported_and_the_rest_shown(toybook):
    path = toybook / "results/smoke/toy/seed-0.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    assert nearfar("run", "toy", "--seed", "1").returncode == 0
    answer = nearfar("results")
    assert answer.returncode == 1 and "seed-0.json is no readable record" in answer.stderr
    assert "seeds 1" in answer.stdout


def test_an_unknown_option_fails():
    answer = nearfar("run", "swav", "--teir", "smoke")
    assert answer.returncode != 0 and "--teir" in answer.stdout + answer.stderr
