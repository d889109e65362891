"""The command line: what it prints, and one line with exit code 1 for what it cannot do."""

import os
import shlex
import signal
import subprocess
import sys
import time

import pytest
from toybook import edit

from nearfar.runs import results


def nearfar(*arguments, **options):
    command = [sys.executable, "-m", "nearfar.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def test_list(toybook):
    answer = nearfar("list")
    assert answer.returncode == 0 and answer.stdout.split() == ["toy", "contrastive", "2024", "A", "Toy"]


def test_run_then_results_on_a_terminal_without_unicode_from_another_folder(toybook, tmp_path):
    """And folders that the environment names are the caller's, not the notebook's."""
    notebook = toybook / "notebooks/contrastive/toy.ipynb"
    edit(notebook, "ours wins", "ours wins 2×")
    looks = "[os.environ[name] for name in ('NEARFAR_DATA', 'NEARFAR_CACHE', 'NEARFAR_RESULTS', 'NEARFAR_ROOT')]"
    edit(notebook, '\\"by a margin\\"', f"str({looks})")
    edit(notebook, '"import nearfar\\n"', '"import nearfar, os\\n"')
    folder = {"NEARFAR_DATA": "~/sets", "NEARFAR_CACHE": "kept", "NEARFAR_RESULTS": "records", "HOME": str(tmp_path)}
    there = {"env": {**os.environ, **folder, "NEARFAR_ROOT": toybook.name, "PYTHONIOENCODING": "ascii"}}
    answer = nearfar("run", "toy", "--seed", "2", cwd=toybook.parent, **there)
    assert answer.returncode == 0, answer.stderr
    assert "C1 held: ours wins 2?" in answer.stdout and "seed-2.json" in answer.stdout
    record = results.read(toybook.parent / "records/smoke/toy/seed-2.json")
    assert record["claims"][0]["evidence"] == str(
        [str(place) for place in (tmp_path / "sets", toybook.parent / "kept", toybook.parent / "records", toybook)]
    )
    answer = nearfar("results", "toy", cwd=toybook.parent, **there)
    assert "toy, smoke, seeds 2" in answer.stdout and "ours over theirs" in answer.stdout


@pytest.mark.parametrize("delay", [0.3, None])
def test_ctrl_c_is_one_line_and_leaves_nothing(toybook, delay):
    """Somewhere at the start, and while a cell runs, whose kernel is ended."""
    written = toybook / "notebooks/contrastive/kernel.pid"
    sleeper = "import os, pathlib, time; pathlib.Path('kernel.pid').write_text(str(os.getpid())); time.sleep(100)"
    edit(toybook / "notebooks/contrastive/toy.ipynb", '"import nearfar\\n"', f'"{sleeper}\\n"')
    command = [sys.executable, "-m", "nearfar.cli", "run", "toy"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.time() + 60
    while delay is None and not (written.is_file() and written.read_text()) and time.time() < deadline:
        time.sleep(0.05)
    time.sleep(delay or 0)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=30)[1]
    if delay is None:
        assert process.returncode == 130 and said.splitlines()[-1] == "nearfar: stopped" and "Traceback" not in said
        with pytest.raises(ProcessLookupError):
            os.kill(int(written.read_text()), 0)
    assert process.returncode in (130, -signal.SIGINT)
    assert not [path for name in ("_build", "results") for path in (toybook / name).rglob("*") if path.is_file()]


@pytest.mark.parametrize("words", [["run", "toy"], ["book"], ["sweep", "--tiers", "smoke", "--seeds", "0"]])
def test_a_build_folder_that_cannot_be_written_is_one_line(toybook, words):
    (toybook / "_build").touch()
    answer = nearfar(*words)
    assert answer.returncode == 1 and len(answer.stderr.strip().splitlines()) == 1, answer.stderr
    assert answer.stderr.startswith(f"nearfar: could not write {toybook}/_build")


def test_a_file_that_cannot_be_read_is_one_line(toybook):
    (toybook / "_toc.yml").unlink()
    os.symlink("_toc.yml", toybook / "_toc.yml")  # a circle, which even root cannot read
    answer = nearfar("list")
    assert answer.returncode == 1 and len(answer.stderr.strip().splitlines()) == 1, answer.stderr


def test_a_reader_that_leaves_is_no_error(toybook):
    command = f"{shlex.quote(sys.executable)} -m nearfar.cli list | true"
    assert subprocess.run(["bash", "-c", command], capture_output=True, text=True).stderr == ""


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["run", "tyo"], "Did you mean toy"),
        (["run", "toy", "--tier", "smal"], "Did you mean small"),
        (["run", "toy", "--device", "cudda"], "unknown device"),
        (["run", "toy", "-p", "speed=3"], "no parameter 'speed'"),
        (["run", "toy", "-p", "speed"], "needs name=value"),
        (["run", "toy", "-p", "seed=5"], "give --seed 5"),
        (["run", "toy", "--devices", "2", "-p", "tier=small"], "give --tier small"),
        (["new", "shift", "--part", "shift"], "'shift' is the name of a part"),
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
