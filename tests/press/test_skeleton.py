"""`nearfar new`: three places, all or none; the skeleton runs as it is."""

import errno
import os

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
    "change, message",
    [
        ({"slug": "toy"}, "already has"),
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
