"""Method cells load without a kernel; a fingerprint follows the code that a run depends on."""

import json
import shutil

import pytest
from toybook import edit

import nearfar
from nearfar.chapters import notebooks, papers
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
    definitions = notebooks._definitions_at(notebooks._versions(papers.notebook("swav")))
    code = notebooks.code_hash("swav", "small")
    page = notebooks.page_hash(papers.notebook("swav"))
    for module, name, numbers in (
        ("plots.slider", "frames", False),
        ("runs.run", "start", False),
        ("losses.contrastive", "nt_xent", True),
    ):
        other = {key: dict(texts) for key, texts in definitions.items()}
        other[f"nearfar.{module}"][name] += "\n    pass"
        monkeypatch.setattr(notebooks, "_definitions_at", lambda versions, other=other: other)
        notebooks._code_hash_at.cache_clear()
        assert (notebooks.code_hash("swav", "small") != code) == numbers
        assert notebooks.page_hash(papers.notebook("swav")) != page
    notebooks._code_hash_at.cache_clear()


def test_method_cells_of_another_chapter_count_where_they_are_asked_for(toybook):
    toy, other = papers.notebook("toy"), toybook / "notebooks/contrastive/other.ipynb"
    shutil.copy(toy, other)
    edit(other, "import nearfar", 'import nearfar; nearfar.method("toy"); nearfar.method("other")'.replace('"', '\\"'))
    edit(toybook / "_toc.yml", "contrastive/toy", "contrastive/toy\n          - file: notebooks/contrastive/other")

    def marks():
        return notebooks.code_hash("toy", "smoke"), notebooks.code_hash("other", "smoke"), notebooks.page_hash(other)

    toy_before, other_before, page_before = marks()
    edit(toy, "return 2 * x", "return 3 * x")
    toy_after, other_after, page_after = marks()
    assert toy_after != toy_before and other_after != other_before and page_after != page_before
    edit(toy, "run.claim(", "assert True; run.claim(")
    assert marks()[0] != toy_after and marks()[1:] == (other_after, page_after), "only the method cells count"
    edit(other, "return 2 * x", "return 4 * x")
    assert marks()[1] != other_after


def test_fingerprint_changes_with_code_and_data_but_not_with_prose(toybook):
    def mark(identity):
        return notebooks.fingerprint(notebooks.code_hash("toy", "smoke"), [identity])

    path = toybook / "notebooks/contrastive/toy.ipynb"
    before = mark("a")
    assert mark("a") == before
    assert mark("b") != before
    edit(path, "# Toy", "# A better title")
    edit(path, "seed = 0", "seed = 1")
    assert mark("a") == before
    edit(path, "return 2 * x", "return x + x")
    assert mark("a") != before


def test_only_the_tiers_own_budget_counts(toybook):
    path = toybook / "notebooks/contrastive/toy.ipynb"
    choice = 'budget = {\n    "smoke": {"steps": 3},  # a word\n    "small": dict(steps=5),\n}[tier]'
    edit(path, "return 2 * x", f"return 2 * x\n{choice}".replace("\n", "\\n").replace('"', '\\"'))

    def marks():
        return [notebooks.code_hash("toy", tier) for tier in ("smoke", "small")]

    smoke, small = marks()
    assert smoke != small
    edit(path, "steps=5", "steps=7")
    assert marks()[0] == smoke and marks()[1] != small
    small = marks()[1]
    edit(path, "# a word", "# another word")
    assert marks() == [smoke, small]
    edit(path, ": 3}", ": 4}")
    assert marks()[0] != smoke and marks()[1] == small


def test_a_cell_that_only_draws_does_not_count(toybook):
    path = toybook / "notebooks/contrastive/toy.ipynb"
    before = notebooks.code_hash("toy", "smoke")
    cell = {"cell_type": "code", "metadata": {"tags": ["drawing"]}, "source": "print(1)"}
    edit(path, '"cells": [', '"cells": [' + json.dumps(cell) + ",")
    assert notebooks.code_hash("toy", "smoke") == before
    edit(path, '"drawing"', '"other"')
    assert notebooks.code_hash("toy", "smoke") != before


def test_the_statement_that_fetches_the_package_does_not_count(toybook):
    path = toybook / "notebooks/contrastive/toy.ipynb"
    source = "try:\n    import nearfar\nexcept ModuleNotFoundError:\n    fetch()\nimport torch\n"
    cell = {"cell_type": "code", "metadata": {"tags": ["imports"]}, "source": source}
    edit(path, '"cells": [', '"cells": [' + json.dumps(cell) + ",")
    before = notebooks.code_hash("toy", "smoke")
    edit(path, "fetch()", "fetch_otherwise()")
    assert notebooks.code_hash("toy", "smoke") == before
    edit(path, "import torch", "import numpy")
    assert notebooks.code_hash("toy", "smoke") != before


@pytest.mark.parametrize(
    ("line", "said"), [("seed = int('3')", "`seed = int"), ("a, b = 1, 2", "`a, b ="), ("seed =", "not valid")]
)
def test_a_parameter_that_is_no_plain_value_is_named(toybook, line, said):
    path = toybook / "notebooks/contrastive/toy.ipynb"
    edit(path, "seed = 0", line)
    with pytest.raises(NearFarError, match=f"cell parameters.*{said}"):
        notebooks.parameters(path)
