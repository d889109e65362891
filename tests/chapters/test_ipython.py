"""Cells in IPython's own syntax: understood as the Python that they hold, and left alone where they are Python."""

import json

import pytest
from toybook import edit

import nearfar
from nearfar.chapters import ipython, notebooks
from nearfar.press import folding, student
from nearfar.runs import launch


@pytest.mark.parametrize(
    ("source", "held"),
    [
        ("%%bash\nls\necho $x", ""),
        ("torch.rand?", ""),
        ("?x", ""),
        ("%matplotlib inline\nx = 1", "\nx = 1"),
        ("  !ls", ""),
        ("!ls \\\n -l\nx = 1", "\nx = 1"),
        ("if a:\n    !ls\nelse:\n    %cd ..\nx = 1", "if a:\n    pass\nelse:\n    pass\nx = 1"),
        ("files = !ls\nprint(files)", "files = get_ipython().getoutput('ls')\nprint(files)"),
        ("here = %pwd", "here = get_ipython().run_line_magic('pwd', '')"),
        ("%%time\nx = f()\n!ls\ny = x", "x = f()\n\ny = x"),
        ("%%capture said\n%time x = f()", "x = f()"),
        ("%timeit -n 3 -r 2 f(x)", "f(x)"),
        ("x = (7\n     % 2)", "x = (7\n     % 2)"),
        ("text = '''\n!not a command\n%nor this\n'''", "text = '''\n!not a command\n%nor this\n'''"),
        ("x = 1  # %%bash", "x = 1  # %%bash"),
        ("def f(:", "def f(:"),
        ("%%time\ndef f(:", ""),
        ("x = !ls\nfor", "x = !ls\nfor"),
    ],
)
def test_what_a_cell_holds(source, held):
    assert ipython.python(source) == held


def test_a_chapter_may_use_magics(toybook):
    path = toybook / "notebooks/contrastive/toy.ipynb"
    before = notebooks.code_hash("toy", "smoke")
    for cell in ("%%bash\nls", "torch.rand?", "!ls", "%matplotlib inline"):
        added = {"cell_type": "code", "metadata": {}, "source": cell}
        edit(path, '"cells": [', '"cells": [' + json.dumps(added) + ",")
        assert notebooks.code_hash("toy", "smoke") == before, "what IPython does for itself changes no number"
    edit(path, "return 2 * x", "return 2 * x\\n%time y = 3")
    assert notebooks.code_hash("toy", "smoke") != before, "but the Python that a magic runs may"
    assert nearfar.start("toy", "smoke", 0, "cpu").slug == "toy"
    assert nearfar.method("toy").y == 3
    assert "%" not in launch.script(path, {}) and "y = 3" in launch.script(path, {})


def test_a_number_that_a_shell_gives_counts(toybook):
    path = toybook / "notebooks/contrastive/toy.ipynb"
    edit(path, "return 2 * x", "return 2 * x\\nx = !ls")
    before = notebooks.code_hash("toy", "smoke")
    edit(path, "x = !ls", "x = !pwd")
    assert notebooks.code_hash("toy", "smoke") != before


def test_folding_and_solutions_understand_it():
    assert folding._statements("%%time\nassert x") and not folding._statements("%%bash\nassert x")
    assert student.split("x = !ls\nassert x") == ("x = !ls\nassert x", "")
    assert student.stub("%%bash\nls") == "# Your answer:\n"
