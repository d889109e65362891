"""Method cells load without a kernel; a fingerprint follows the code that a run depends on."""

import pytest
from toybook import edit

import nearfar
from nearfar import notebooks, papers
from nearfar.errors import NearFarError


def test_method_loads_only_method_cells(toybook):
    module = nearfar.method("toy")
    assert module.double(21) == 42
    assert not hasattr(module, "run")


def test_a_failing_method_cell_is_named(toybook):
    edit(toybook / "notebooks/contrastive/toy.ipynb", "def double(x)", "1 / 0\\ndef double(x)")
    with pytest.raises(NearFarError, match=r"toy.ipynb, cell \d+ \(tag method\) failed: ZeroDivisionError"):
        nearfar.method("toy")


def test_no_method_cell_is_an_error(toybook):
    edit(toybook / "notebooks/contrastive/toy.ipynb", '"method"', '"other"')
    with pytest.raises(NearFarError, match="no cell tagged `method`"):
        nearfar.method("toy")


def test_a_file_that_is_no_notebook(toybook):
    path = toybook / "notebooks/contrastive/toy.ipynb"
    path.write_text('{"cells": [')
    with pytest.raises(NearFarError, match="toy.ipynb is not a readable notebook"):
        nearfar.method("toy")


def test_parameters_are_read_from_their_cell(toybook):
    path = papers.notebook("toy")
    assert notebooks.parameters(path) == {"tier": "smoke", "seed": 0, "device": "auto", "crash": False}


def test_comments_and_bookkeeping_do_not_make_a_record_old(monkeypatch):
    """Only what can change a number counts; what is drawn counts for the page."""
    definitions = notebooks._definitions(papers.notebook("swav"))
    code = notebooks.code_hash("swav")
    page = notebooks.page_hash(papers.notebook("swav"))
    for module, name, numbers in (("plots", "frames", False), ("run", "start", False), ("losses", "nt_xent", True)):
        other = {key: dict(texts) for key, texts in definitions.items()}
        other[f"nearfar.{module}"][name] += "\n    pass"
        monkeypatch.setattr(notebooks, "_definitions", lambda path, other=other: other)
        notebooks._code_hash_at.cache_clear()
        assert (notebooks.code_hash("swav") != code) == numbers
        assert notebooks.page_hash(papers.notebook("swav")) != page
    notebooks._code_hash_at.cache_clear()


def test_fingerprint_changes_with_code_and_data_but_not_with_prose(toybook):
    def mark(identity):
        return notebooks.fingerprint(notebooks.code_hash("toy"), [identity])

    path = toybook / "notebooks/contrastive/toy.ipynb"
    before = mark("a")
    assert mark("a") == before
    assert mark("b") != before
    edit(path, "# Toy", "# A better title")
    edit(path, "seed = 0", "seed = 1")
    assert mark("a") == before
    edit(path, "return 2 * x", "return x + x")
    assert mark("a") != before
