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


def test_reached_modules_are_transitive():
    names = {path.name for path in notebooks.reached(papers.notebook("swav"))}
    assert {"run.py", "losses.py", "train.py", "plots.py", "notebooks.py"} <= names
    assert not {"cli.py", "book.py", "skeleton.py", "execute.py"} & names


def test_relative_and_lazy_imports_are_followed():
    source = "import nearfar\nfrom nearfar import losses\ndef f():\n    from nearfar.nn import Queue\nnearfar.start(1)"
    assert {"nearfar.losses", "nearfar.nn", "nearfar.run"} <= notebooks._imports(source, "here")
    assert "nearfar.data.arrays" in notebooks._imports("from . import arrays", "here", "nearfar.data")
    assert "nearfar.data.arrays" in notebooks._imports("from .arrays import ArrayDataset", "here", "nearfar.data")


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
