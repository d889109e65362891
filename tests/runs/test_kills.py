"""`kill -9` at 50 random moments: records, executed notebooks and pages are whole or absent, never wrongly fresh."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nearfar.chapters import papers
from nearfar.runs import results, sweep

pytest.importorskip("jupyter_book")
pytest.importorskip("snakemake")
COMMANDS = {  # how many kills, and what is killed
    "run": (38, ["run", "toy", "--device", "cpu"]),
    "sweep": (6, ["sweep", "--tiers", "smoke", "--seeds", "0-1", "--device", "cpu", "--jobs", "2"]),
    "book": (6, ["book", "--device", "cpu", "--jobs", "2"]),
}


@pytest.fixture
def site(toybook):
    shutil.copytree(Path(__file__).resolve().parents[2] / "book" / "_static", papers.root() / "book" / "_static")
    return toybook


def start(words, **variables):
    command = [sys.executable, "-m", "nearfar.cli", *words]
    environment = {**os.environ, "NEARFAR_ROOT": str(papers.root()), **variables}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, env=environment, start_new_session=True, **quiet)


def everything_is_whole(folder):
    """No half-written file under its final name; what has no record is due."""
    for path in folder.glob("results/*/*/seed-*.json"):
        results.read(path)
    for path in folder.glob("_build/runs/**/seed-?.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        assert all(cell["execution_count"] for cell in cells if cell["cell_type"] == "code" and cell["source"]), path
    due = {job.seed for job in sweep.plan(["smoke"], [0, 1], ["toy"], folder / "results")}
    assert due == {seed for seed in (0, 1) if not (folder / f"results/smoke/toy/seed-{seed}.json").is_file()}
    if (folder / "_build/.site").is_file():  # the stamp of a good build
        assert "ours wins" in (folder / "_build/html/notebooks/contrastive/toy.html").read_text()


def kill(site, name, variables):
    """Every fifth kernel of a run is started as a user's is; the others are forked, as those of the pipeline are."""
    kills, words = COMMANDS[name]
    ways, longest, chance = [{}, variables] if name == "run" else [{}], [], random.Random(name)
    for given in ways:
        clock = time.time()
        assert start(words, **given).wait() == 0
        longest.append(time.time() - clock)
    for number in range(kills):
        way = min(number % 5, len(ways) - 1)
        if number % 3 == 0:  # from nothing, or from what the kill before left behind
            shutil.rmtree(site / "_build", ignore_errors=True)
            shutil.rmtree(site / "results", ignore_errors=True)
        process = start(words, **ways[way])
        time.sleep(chance.uniform(0.2, longest[way]))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        everything_is_whole(site)
    assert start(words).wait() == 0
    everything_is_whole(site)
    left = [path for place in ("_build/runs", "results") for path in (site / place).rglob(".*") if path.is_file()]
    assert not left, "left-overs of killed runs are cleaned up by the next one"


@pytest.mark.timeout(600)
class TestRun:  # a class each, so that two processes can share the three
    def test_kills(self, site, variables):
        kill(site, "run", variables)


@pytest.mark.timeout(600)
class TestSweep:
    def test_kills(self, site, variables):
        kill(site, "sweep", variables)


@pytest.mark.timeout(600)
class TestBook:
    def test_kills(self, site, variables):
        kill(site, "book", variables)
