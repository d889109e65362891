"""Folding: which cells a page shows folded, behind which line, and that nothing is lost or shown twice."""

import copy
import json

import pytest
from nbformat import from_dict, validate

from nearfar.chapters import papers
from nearfar.press import folding, staging

FIGURE = {"output_type": "display_data", "data": {"image/png": "iVBOR", "text/plain": "<Figure>"}, "metadata": {}}
PRINTED = {"output_type": "stream", "name": "stdout", "text": "gate open: loss 0.862\n"}
ERROR = {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": []}
LOOK = {"image": {"alt": "Accuracy against steps."}, "figure": {"caption": "Two curves.", "name": "toy-curves"}}


def glued(key):
    data = {"application/papermill.record/text/plain": "3"}
    return {"output_type": "display_data", "data": data, "metadata": {"scrapbook": {"name": key}}}


def code(source, *tags, outputs=(), key="cell", **metadata):
    return {"cell_type": "code", "id": key, "execution_count": 1, "source": source, "outputs": list(outputs),
            "metadata": {**({"tags": list(tags)} if tags else {}), **metadata}}  # fmt: skip


def prose(text, key="prose"):
    return {"cell_type": "markdown", "id": key, "metadata": {}, "source": text}


IDENTITIES = "z = torch.randn(4, 2)\nassert a(z)\nassert b(z)\nassert c(z)"


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        (code("import torch", "imports"), "Imports"),
        (code('results.show("toy")', "drawing"), "The code of this figure"),
        (code("ax.plot(losses)\nplt.show()"), "The code of this figure"),
        (code("table.pivot_table(index='method').round(3).astype(object)", "drawing"), "The code of this table"),
        (code("def at(x):\n    return x\n\n\nplots.frames(at, [1, 2])"), "The code of this figure"),
        (code("comparison.dots(table)", mystnb=LOOK), "The code of this figure"),
        (code('run = nearfar.start("toy", tier, seed, device)\nbudget = {\n}[tier]'), "The budget of each tier"),
        (code('run.claim("C1", "a", True, "b", kind="mechanism")'), "The code of the claims"),
        (code("best = study.tune(variants, choices, size=100, by=metric)"), "The tuning search"),
        (code("search = 1", "tuning"), "The tuning search"),
        (code("trainings.tuning_table()"), "The tuning search"),
        (code('ax.grid(False)\nax.grid(axis="y")\naxes[0].grid()\nplt.show()'), "The code of this figure"),
        (code("rows = 1", "table"), "The code of this table"),
        (code('run.glue("gain", gain)\nscores.round(3)'), "The code of this table"),
        (code("table = run.table()\ntable.pivot_table(index='method', columns='size')"), "The code of this table"),
        (code('run.glue("gain", 2)\nrun.glue("size", 3)'), "Preparing the numbers"),
        (code("pool = data.load('digits', 'train')\nrun.uses(pool)"), "Loading the data"),
        (code("def world(n):\n    return n", "loading"), "Loading the data"),
        (code("def star(ax, query):\n    ax.plot(query)"), "Helpers: star"),
        (code("class Bag:\n    pass\n\n\ndef mean(z):\n    return z", "hide-input"), "Helpers: Bag, mean"),
        (code("place = 3", "hide-input"), "Supporting code"),
        (code("networks = train.fit(step, network)", "hide-input"), "Supporting code"),
        (code(IDENTITIES), "Checks on random numbers"),
    ],
)
def test_what_is_folded_and_its_line(cell, name):
    assert folding.label(cell) == name


@pytest.mark.parametrize(
    "cell",
    [
        prose("# budget = {"),
        code('tier = "smoke"', "parameters"),
        code("def loss(z):\n    return z.sum()", "method"),
        code("def loss(z, run):\n    run.claim(z)\n    plt.show()", "method", "drawing"),
        code("assert close(loss(z), 0.25)\nplt.show()", "solution", "hide-cell"),
        code("history = train.fit(step, network)\nplt.plot(history)\nplt.show()"),
        code("study.grid(variants)\nplt.show()"),
        code("table = trainings.grid(tuned)\nplt.show()"),
        code('trainings.doubled("SimCLR", simclr, 500, "accuracy")\nplt.show()'),
        code('run.record("accuracy", 0.5, method="ours", size=10)\nrun.table().round(3)'),
        code('# NBVAL_CHECK_OUTPUT\nrun.claim("C1", "a", True, "b")\nrun.finish(budget=budget)'),
        code("four = torch.tensor([0.0, 1.0])\nassert loss(four) == 1\nassert loss(-four) == 1\nassert loss(0) == 0"),
        code("def pretrain(index):\n    return index"),
        code("z.round(decimals=3)"),
        code("points = frame.groupby('table').mean()\nfor name in tqdm(points):\n    fit_tree(points[name])"),
        code("plt.show(", outputs=[ERROR]),
    ],
)
def test_what_stays_open(cell):
    assert folding.label(cell) is None
    assert folding.folded([cell]) == [cell]


def test_code_that_is_no_python_is_no_hindrance():
    assert folding.label(code("!pip install x\n%matplotlib inline")) is None
    assert folding.label(code("def broken(:")) is None


def test_the_figure_comes_first_and_keeps_caption_and_name():
    cell = code("plt.plot(x)\nplt.show()", "drawing", "key-figure", outputs=[PRINTED, FIGURE], mystnb=LOOK, key="k")
    before = copy.deepcopy(cell)
    shown, source = folding.folded([cell])
    assert cell == before
    assert shown["outputs"] == [PRINTED, FIGURE] and shown["metadata"]["mystnb"] == LOOK and shown["id"] == "k"
    assert set(shown["metadata"]["tags"]) == {"drawing", "key-figure", "remove-input"} and shown["source"].strip()
    assert source["source"] == cell["source"] and source["outputs"] == [] and source["id"] == "k-code"
    assert set(source["metadata"]["tags"]) == {"drawing", "hide-input"}
    lines = source["metadata"]["mystnb"]
    assert lines == dict.fromkeys(("code_prompt_show", "code_prompt_hide"), "The code of this figure")


def test_pasted_values_stay_on_the_page_and_make_no_empty_place():
    cell = code('run.glue("a", 1)', outputs=[glued("a")])
    (only,) = folding.folded([cell])
    assert only["outputs"] == [glued("a")] and only["metadata"]["tags"] == ["hide-input"]
    table = {"output_type": "execute_result", "data": {"text/html": "<table>"}, "metadata": {}, "execution_count": 1}
    shown, source = folding.folded([code("run.table().round(3)", outputs=[glued("a"), table])])
    assert shown["outputs"] == [glued("a"), table] and source["outputs"] == []


def test_an_authors_folded_cell_shows_its_output_first_too():
    shown, source = folding.folded([code("look(pool)", "hide-input", outputs=[FIGURE])])
    assert shown["metadata"]["tags"] == ["remove-input"] and source["metadata"]["tags"] == ["hide-input"]


def test_neighbours_share_one_line():
    claims = [code(f'run.claim("C{n}", "a", True, "b")', outputs=[glued(f"c{n}")], key=f"c{n}") for n in range(3)]
    (one,) = folding.folded(claims)
    assert one["source"].split("\n\n\n") == [cell["source"] for cell in claims]
    assert [output["metadata"]["scrapbook"]["name"] for output in one["outputs"]] == ["c0", "c1", "c2"]
    assert len(folding.folded([claims[0], prose("Then:"), claims[1]])) == 3
    assert len(folding.folded([claims[0], code("best = study.tune(a, b)"), claims[1]])) == 3
    plain = [code("a = 1", key="a"), code("b = 2", key="b")]
    assert folding.folded(plain) == plain


def test_a_figure_stays_between_the_codes_of_two():
    figures = [code(f"draw({n})\nplt.show()", outputs=[FIGURE], key=f"f{n}") for n in range(2)]
    cells = folding.folded(figures)
    assert [cell["id"] for cell in cells] == ["f0", "f0-code", "f1", "f1-code"]


def test_lines_in_view():
    cells = [
        prose("one\ntwo"),
        code("a = 1\n\n# why\nb = 2"),
        code("import torch", "imports"),
        code("plt.plot(x)\nplt.show()", outputs=[FIGURE]),
        code("x = 1", "hide-input"),
        code("y = 1", "hide-cell"),
        code("def f(x):\n    return x", "method"),
    ]
    assert folding.unfolded_lines(cells) == folding.unfolded_lines(folding.folded(cells)) == 3 + 2
    assert folding.unfolded_lines([]) == 0


@pytest.mark.parametrize(
    "paper", [pytest.param(paper, id=paper.slug) for paper in (*papers.all_papers(), *papers.comparisons())]
)
def test_a_chapter_is_folded_without_loss(paper):
    """Every line of code stands on the page once, in its order; every output too; identities stay their own."""
    notebook = json.loads(paper.notebook.read_text(encoding="utf-8"))
    for number, cell in enumerate(c for c in notebook["cells"] if c["cell_type"] == "code"):
        cell["outputs"] = [{**PRINTED, "text": f"output {number}\n"}] if number % 2 else []
    cells = folding.folded(notebook["cells"])
    validate(from_dict({**notebook, "cells": cells}))
    names = [cell["id"] for cell in cells]
    assert len(set(names)) == len(names)

    def lines(some):
        shown = [c for c in some if c["cell_type"] == "code" and "remove-input" not in c["metadata"].get("tags", [])]
        return [line for c in shown for line in "".join(c["source"]).splitlines() if line]

    def outputs(some):
        return [output["text"] for c in some for output in c.get("outputs", [])]

    assert lines(cells) == lines(notebook["cells"]) and outputs(cells) == outputs(notebook["cells"])
    assert folding.unfolded_lines(cells) == folding.unfolded_lines(notebook["cells"])


def test_a_staged_chapter_is_folded(toybook):
    notebook, _ = staging.stage_chapter(papers.get("toy"), "smoke", [])
    folds = {cell["metadata"]["mystnb"]["code_prompt_show"]: "".join(cell["source"])
             for cell in notebook["cells"] if "hide-input" in cell["metadata"].get("tags", [])}  # fmt: skip
    assert list(folds) == ["The budget of each tier"] and "budget = {" in folds["The budget of each tier"]
