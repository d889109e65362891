"""Slides: marked by headings, free of MyST's roles, and fetching nothing."""

import json

import pytest

from nearfar.chapters import papers
from nearfar.errors import NearFarError
from nearfar.press import offline, slides
from nearfar.runs import execute

PNG = {"output_type": "display_data", "metadata": {}, "data": {"image/png": "AAAA"}}
GLUE = {
    "output_type": "display_data",
    "metadata": {"scrapbook": {"name": "gain", "mime_prefix": "application/papermill.record/"}},
    "data": {"application/papermill.record/text/plain": "1.25"},
}


def code(source, *tags, outputs=(), **metadata):
    return {"cell_type": "code", "id": "c", "execution_count": None, "metadata": {"tags": list(tags), **metadata},
            "source": source, "outputs": list(outputs)}  # fmt: skip


def text(source):
    return {"cell_type": "markdown", "id": "m", "metadata": {}, "source": source}


def prepared(*cells):
    return slides.prepare({"cells": list(cells), "metadata": {"widgets": {}}}, {"smote": "(Chawla et al., 2002)"})


def test_headings_begin_slides_and_code_stays_only_where_it_is_the_method():
    notebook = prepared(
        text("# Title"), code("import x", "imports"), text("## Parameters\n\nso"), code("tier = 1", "parameters"),
        text("## Method"), code("def f(): ...", "method", outputs=[PNG]), text("so **bold**"), code("assert f()"),
        code("draw()", outputs=[PNG], mystnb={"figure": {"caption": "What is seen"}}),
        code("x", "solution", outputs=[PNG]),
    )  # fmt: skip
    kinds = [cell["metadata"]["slideshow"]["slide_type"] for cell in notebook["cells"]]
    assert kinds == ["slide", "slide", "subslide", "subslide", "subslide", "-"]
    method, drawn, caption = notebook["cells"][2], notebook["cells"][4], notebook["cells"][5]
    assert method["outputs"] == [] and "transient" not in method["metadata"]
    assert drawn["outputs"] == [PNG] and drawn["metadata"]["transient"]["remove_source"]
    assert caption["source"] == "What is seen" and notebook["metadata"] == {}


def test_roles_become_words_and_values():
    cells = prepared(
        code("glue", outputs=[GLUE]),
        text("{glue:text}`gain:.1f` or {glue:text}`gain` by {cite}`smote`; {term}`AUC <auc>`"),
    )
    assert cells["cells"][-1]["source"] == "1.2 or 1.25 by (Chawla et al., 2002); AUC"
    with pytest.raises(NearFarError, match="'loss'.*run it again"):
        prepared(text("{glue:text}`loss`"))


def test_a_chapter_becomes_slides_that_fetch_nothing(toybook, monkeypatch):
    pytest.importorskip("nbconvert")
    with pytest.raises(NearFarError, match="toy has not been run at the smoke tier"):
        slides.write("toy")
    executed = execute.executed_path("toy", "smoke", 0)
    executed.parent.mkdir(parents=True)
    notebook = json.loads(papers.notebook("toy").read_text(encoding="utf-8"))
    executed.write_text(json.dumps(notebook), encoding="utf-8")
    for name in ("reveal", "mathjax"):
        (toybook / "book/_static" / name).mkdir(parents=True)
    page = slides.write("toy").read_text(encoding="utf-8")
    assert offline.fetched(page) == [] and "mermaid" not in page and "require(" not in page
    assert "<title>A Toy slides</title>" in page and ">def<" in page and "reveal/dist/reveal.js" in page
