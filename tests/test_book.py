"""The pipeline on a toy book: only what changed runs, a failure stays visible, two builds do not meet."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toybook import edit

from nearfar import book, papers
from nearfar.errors import NearFarError

pytest.importorskip("jupyter_book")
pytest.importorskip("snakemake")


@pytest.fixture
def site(toybook):
    source = papers.root() / "book"
    shutil.copytree(Path(__file__).resolve().parents[1] / "book" / "_static", source / "_static")
    return toybook


def build(**options):
    started = time.time()
    book.build(jobs=2, device="cpu", **options)
    return time.time() - started


def times(folder):
    return {p: p.stat().st_mtime_ns for p in (folder / "_build/runs").rglob("*.ipynb")}


def test_build_rebuild_and_edit(site, capfd):
    build()
    page = (site / "_build/html/notebooks/contrastive/toy.html").read_text()
    assert "ours wins" in page and "colab.research.google.com" in page
    assert "index.html" in capfd.readouterr().out
    first = times(site)
    assert build() < 10 and times(site) == first  # nothing changed, nothing runs
    (site / "notebooks/contrastive/toy.ipynb").touch()
    build(execute_only=True)
    assert times(site) == first  # touched, but the same
    edit(site / "notebooks/contrastive/toy.ipynb", "ours wins", "ours wins again")
    build()
    assert times(site) != first
    assert "ours wins again" in (site / "_build/html/notebooks/contrastive/toy.html").read_text()


def test_a_failing_chapter_stays_visible_and_the_rest_is_built(site):
    edit(site / "notebooks/contrastive/toy.ipynb", "crash = False", "crash = True")
    edit(site / "notebooks/contrastive/toy.ipynb", '"budget = ', '"crash = True\\n",\n    "budget = ')
    with pytest.raises(NearFarError, match="notebooks failed: toy"):
        build()
    page = (site / "_build/html/notebooks/contrastive/toy.html").read_text()
    assert "The last run of this chapter failed" in page and "asked to crash" in page
    assert not list(site.glob("_build/results/**/*.json"))
    assert (site / "_build/html/book/index.html").is_file()


def test_two_builds_at_once_are_refused(site):
    (site / "_build").mkdir()
    with open(site / "_build/.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(NearFarError, match="another build is at work"):
            build()


def test_a_killed_build_starts_again(site):
    command = [sys.executable, "-m", "nearfar.cli", "book", "--execute-only"]
    process = subprocess.Popen(command, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               start_new_session=True)  # fmt: skip
    time.sleep(6)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    build(execute_only=True)
    assert (site / "_build/runs/smoke/toy/seed-0.ipynb").is_file()


def test_a_disagreeing_registry_stops_the_build(site):
    edit(site / "book/references.bib", "@misc{toy", "@misc{tow")
    with pytest.raises(NearFarError, match="no entry with this key"):
        build()
    assert not (site / "_build").exists()


def test_a_broken_record_is_shown_on_the_results_page(site):
    broken = site / "results/small/toy/seed-0.json"
    broken.parent.mkdir(parents=True)
    broken.write_text('{"schema": 0}')
    build(execute_only=True)
    book.stage("smoke", site / "_build/site")
    page = (site / "_build/site/book/results.md").read_text()
    assert "Records that could not be read" in page and "record schema 0" in page and "| C1 ours wins |" in page


def test_a_staged_chapter_shows_what_ran(site):
    build(execute_only=True)
    notebook, error = book.stage_chapter(papers.get("toy"), "smoke", [])
    assert error is None
    tags = [tag for cell in notebook["cells"] for tag in cell["metadata"].get("tags", [])]
    assert "injected-parameters" not in tags
    text = json.dumps(notebook)
    assert "Reading time about 5 minutes" in text
    assert "Open in Colab" in text and "/blob/main/notebooks/contrastive/toy.ipynb" in text
