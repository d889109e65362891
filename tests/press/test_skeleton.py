"""`nearfar new`: three places, all or none; the skeleton runs as it is."""

import errno
import json
import os
import re
import subprocess
import sys

import pytest
from toybook import TOC

import nearfar
from nearfar.chapters import papers
from nearfar.errors import NearFarError
from nearfar.press import skeleton
from nearfar.runs import execute, results

PAPER = {"title": "A {New} Paper", "authors": "Doe, Jane", "year": 2024, "arxiv": "2401.00001"}

PLAN = """concepts: []
topics: [contrastive learning]
papers:
  - {slug: toy, title: A Toy, authors: [Doe, Roe], year: 2024, arxiv: "", part: contrastive,
     topics: [contrastive learning], idea: Play., needs: []}
  - {slug: planned, title: A Planned Paper, authors: [Doe, Roe], year: 2021, arxiv: "2101.00001", part: contrastive,
     topics: [contrastive learning], idea: Plan., needs: []}
"""


def test_a_throw_away_paper_touches_three_places_and_runs(toybook):
    touched = skeleton.create("new-paper", "contrastive", **PAPER)
    names = {path.relative_to(toybook).as_posix() for path in touched}
    assert names == {"notebooks/contrastive/new-paper.ipynb", "_toc.yml", "book/references.bib"}
    assert [p.slug for p in papers.all_papers()] == ["toy", "new-paper"]
    record = results.read(execute.run("new-paper", progress=False))
    assert [claim["kind"] for claim in record["claims"]] == ["superiority", "equivalence", "mechanism"]
    assert set(record["tuning"]) == {"class means", "neighbours"}
    assert nearfar.method("new-paper").class_means


def test_a_planned_papers_slug_is_enough(toybook):
    plan = papers.root() / "book/course/papers.yml"
    plan.parent.mkdir()
    plan.write_text(PLAN)
    skeleton.create("planned", venue="A Conference")
    paper = papers.get("planned")
    assert (paper.part, paper.title, paper.authors, paper.year, paper.arxiv) == (
        "contrastive", "A Planned Paper", ("Doe", "Roe"), 2021, "2101.00001"
    )  # fmt: skip
    with pytest.raises(NearFarError, match="'plannd' is not in book/course/papers.yml. Did you mean planned"):
        skeleton.create("plannd")


def test_a_paper_of_a_new_part_gets_the_parts_opener(toybook):
    skeleton.create("far-paper", "shift", **PAPER)
    assert papers.get("far-paper").part == "shift"
    assert "gallery-shift" in (toybook / "book/parts/shift.md").read_text()
    assert papers.pages()[-1] == "book/results"


@pytest.mark.parametrize(
    ("title", "heading"),
    [
        ("100% of \\alpha: C:\\temp", "100% of \\\\alpha: C:\\\\temp"),
        ("{BERT} and {GAN}s ~ 50%", "BERT and GANs ~ 50%"),
        ("\\", "\\\\"),
        ("@SLUG@ $x_1$ & #1", "@SLUG@ $x_1$ & #1"),
    ],
)
def test_a_title_keeps_every_character(toybook, title, heading):
    skeleton.create("new-paper", "contrastive", **{**PAPER, "title": title}, venue="5% \\Conf")
    paper = papers.get("new-paper")
    assert paper.title == title.replace("{", "").replace("}", "") and paper.venue == "5% \\Conf"
    first = json.loads(paper.notebook.read_text())["cells"][0]["source"]
    assert "".join(first).splitlines()[0] == f"# {heading}"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"slug": "toy"}, "already has"),
        ({"slug": "toy", "title": None}, "already has"),
        ({"slug": "imbalance", "part": "imbalance"}, "'imbalance' is the name of a part"),
        ({"slug": "shift"}, "'shift' is the name of a part"),
        ({"title": "Two\u2028lines"}, "must be one line"),
        ({"slug": "Bad Slug"}, "slug must be"),
        ({"part": "shfit"}, "Did you mean shift"),
        ({"title": " "}, "must not be empty"),
        ({"title": "An {open brace"}, "balanced braces"),
        ({"year": 24}, "year must lie"),
        ({"authors": "Doe, Roe, Poe, Moe"}, 'must be as in "Surname, First and Surname, First", got'),
        ({"authors": ""}, "must not be empty"),
        ({"title": None, "year": None}, "not in book/course/papers.yml. Give --title, --year"),
    ],
)
def test_bad_arguments_touch_nothing(toybook, change, message):
    before = {p: p.read_bytes() for p in toybook.rglob("*") if p.is_file()}
    with pytest.raises(NearFarError, match=message):
        skeleton.create(**{"slug": "new-paper", "part": "contrastive", **PAPER, **change})
    assert {p: p.read_bytes() for p in toybook.rglob("*") if p.is_file()} == before


def test_a_full_disk_takes_everything_back(toybook, monkeypatch):
    before = {p: p.read_bytes() for p in toybook.rglob("*") if p.is_file()}
    calls = []

    def no_space_the_third_time(descriptor):
        calls.append(descriptor)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space_the_third_time)
    with pytest.raises(NearFarError, match="No space left"):
        skeleton.create("new-paper", "contrastive", **PAPER)
    assert {p: p.read_bytes() for p in toybook.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("part", "after", "before"),
    [
        ("supervised", "notebooks/contrastive/toy", "caption: Results"),
        ("beyond", "notebooks/contrastive/toy", "caption: Results"),
    ],
)
def test_a_new_part_stands_at_its_place(part, after, before):
    lines = skeleton._toc_with(TOC, "new-one", part).splitlines()
    place = {text: next(n for n, line in enumerate(lines) if text in line) for text in (after, before, "new-one")}
    assert place[after] < place["new-one"] < place[before]


def test_a_part_that_comes_first_stands_before_the_others():
    toc = TOC.replace("contrastive/toy", "shift/toy")
    lines = skeleton._toc_with(toc, "new-one", "contrastive").splitlines()
    assert [line.split("/")[-1] for line in lines if "notebooks/" in line] == ["new-one", "toy"]
    assert lines.index("  - caption: Learning without labels") < [n for n, x in enumerate(lines) if "new-one" in x][0]


@pytest.fixture
def first_cell(tmp_path, monkeypatch):
    """Runs what fetches the package where it is missing; git and pip are stand-ins.  Returns what was called."""
    text = skeleton.TEMPLATE.read_text()
    code = re.search(r"^try:\n    import nearfar\n.*?\n    import nearfar\n", text, re.M | re.S)[0]
    (tmp_path / "notebooks/part").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "notebooks/part")

    def run(fails=""):
        called = []

        def command(words, check):
            called.append(words[0] if words[0] == "git" else words[1:])
            if words[0] == "git":
                os.makedirs(f"{words[-1]}/src")  # refuses a folder that is there
            if words[0] == fails:
                raise subprocess.CalledProcessError(128, words)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(subprocess, "run", command)
            patch.setattr(sys, "path", list(sys.path))
            patch.setitem(sys.modules, "nearfar", None)
            with pytest.raises((ModuleNotFoundError, subprocess.CalledProcessError)) as caught:  # none is installed
                exec(code, {})
            return [*called, sys.path[0] if caught.type is ModuleNotFoundError else "failed"]

    return run


def test_the_first_cell_can_be_run_again_after_a_failure(first_cell, tmp_path):
    pip = ["-m", "pip", "install", "-q", "-e", "near-and-far-clone"]
    assert first_cell(fails="git") == ["git", "failed"]
    assert first_cell(fails=sys.executable) == ["git", pip, "failed"]
    assert first_cell() == ["git", pip, f"{tmp_path}/notebooks/part/near-and-far-clone/src"]


def test_the_first_cell_clones_nothing_into_a_checkout(first_cell, tmp_path):
    (tmp_path / "_toc.yml").touch()
    assert first_cell() == [["-m", "pip", "install", "-q", "-e", "../.."], f"{tmp_path}/src"]
    assert list((tmp_path / "notebooks/part").iterdir()) == []
