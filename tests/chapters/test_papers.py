"""The registry: toc, bib and notebooks agree, and say so in one line when they do not."""

import pytest
from toybook import edit

from nearfar.chapters import papers
from nearfar.errors import NearFarError


def test_the_books_own_registry_agrees():
    chapters = papers.all_papers()
    assert len(chapters) >= 4
    for paper in chapters:
        assert paper.notebook.is_file() and paper.title and paper.authors and 1990 < paper.year < 2030
        assert paper.part in papers.PARTS


def test_reads_the_toy_book(toybook):
    (paper,) = papers.all_papers()
    assert (paper.slug, paper.part, paper.title, paper.year) == ("toy", "contrastive", "A Toy", 2024)
    assert paper.authors == ("Jane Doe", "Rob Roe")
    assert papers.pages()[0] == "book/index"


def test_unknown_slug_suggests_the_nearest(toybook):
    with pytest.raises(NearFarError, match="Did you mean toy"):
        papers.get("tyo")


@pytest.mark.parametrize(
    "path, old, new, message",
    [
        ("_toc.yml", "contrastive/toy", "contrastive/toi", "toi.*does not exist"),
        ("_toc.yml", "notebooks/contrastive/toy", "book/other", "is not in _toc.yml"),
        ("_toc.yml", "format: jb-book", "format: [", "cannot be read as YAML"),
        ("_toc.yml", "root: book/index", "", "no `root:`"),
        ("_toc.yml", "notebooks/contrastive/toy", "notebooks/kontrastive/toy", "unknown part 'kontrastive'"),
        ("book/references.bib", "@misc{toy", "@misc{toi", "no entry with this key"),
        ("book/references.bib", "2024", "soon", "'soon', not a number"),
        ("book/references.bib", "title ", "tattle ", "lacks title"),
        ("book/references.bib", "{A Toy},", "{A Toy", "cannot be read as BibTeX"),
    ],
)
def test_disagreements_are_one_clear_line(toybook, path, old, new, message):
    edit(toybook / path, old, new)
    with pytest.raises(NearFarError, match=message) as caught:
        papers.all_papers()
    assert "\n" not in str(caught.value)


def test_the_same_chapter_twice_is_refused(toybook):
    edit(toybook / "_toc.yml", "- file: book/results", "- file: notebooks/contrastive/toy")
    with pytest.raises(NearFarError, match="twice"):
        papers.slugs()


def test_a_folder_that_is_no_checkout_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("NEARFAR_ROOT", str(tmp_path))
    with pytest.raises(NearFarError, match="not a checkout"):
        papers.root()
