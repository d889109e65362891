"""Slides of a chapter: reveal.js through nbconvert, from its executed notebook, with all they need beside them."""

import json
import re
import shutil
from pathlib import Path

from nearfar.chapters import papers
from nearfar.errors import NearFarError
from nearfar.runs import execute
from nearfar.runs.run import write_atomically

FOLDER = Path("_build") / "slides"
_SKIPPED = {"imports", "parameters", "injected-parameters", "solution"}
_RECORD = "application/papermill.record/text/plain"
# nbconvert's page without what it fetches from other hosts; reveal.js and MathJax lie in the folder of the slides
_TEMPLATE = """{%- extends 'index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}
<script>window.MathJax = {tex: {inlineMath: [["$", "$"], ["\\\\(", "\\\\)"]], tags: "none"}}</script>
<script defer src="mathjax/tex-chtml-full.js"></script>
<style>
.reveal .slides section { overflow-y: auto; max-height: 100%; text-align: left; }
.reveal h1, .reveal h2 { text-transform: none !important; letter-spacing: 0; }
:root { --jp-code-font-size: 15px !important; }
.reveal { font-size: 26px; font-family: system-ui, sans-serif; }
.reveal img { max-height: 520px; margin: 0; }
.jp-InputPrompt, .jp-OutputPrompt, .jp-Collapser { display: none; }
</style>
{%- endblock -%}
{%- block footer_js -%}
<script src="reveal/dist/reveal.js"></script>
<script src="reveal/plugin/notes/notes.js"></script>
<script>
Reveal.initialize({hash: true, slideNumber: "c/t", width: 1100, height: 720, center: false, plugins: [RevealNotes]});
</script>
{%- endblock -%}
"""


def _glued(notebook: dict) -> dict[str, object]:
    """Values that the run made available to its prose, by name."""
    found = {}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            name = output.get("metadata", {}).get("scrapbook", {}).get("name")
            text = output.get("data", {}).get(_RECORD)
            if name and text is not None:
                text = "".join(text)
                try:
                    found[name] = json.loads(text)
                except ValueError:
                    found[name] = text
    return found


def _plain(text: str, values: dict[str, object], cited: dict[str, str]) -> str:
    """Markdown without MyST's roles: values put in, references as (Surname et al., year)."""

    def value(match: re.Match) -> str:
        name, _, form = match[1].partition(":")
        if name not in values:
            raise NearFarError(f"the prose wants the value {name!r}, which this run has not made; run it again.")
        return format(values[name], form) if form and not isinstance(values[name], str) else str(values[name])

    text = re.sub(r"\{glue:text\}`([^`]+)`", value, text)
    text = re.sub(r"\{cite(?::\w+)?\}`([^`]+)`", lambda m: ", ".join(cited.get(k, k) for k in m[1].split(",")), text)
    return re.sub(r"\{[a-z:]+\}`([^`<]+?)\s*(?:<[^`]*>)?`", r"\1", text)


def _citations() -> dict[str, str]:
    """{key: (Surname et al., year)} of the book's references."""
    found = {}
    for key, entry in papers.references().items():
        names = [" ".join(person.last_names) for person in entry.persons.get("author", [])]
        found[key] = f"({papers.by(names)}, {entry.fields.get('year', '')})"
    return found


def _marked(cell: dict, kind: str, **changes) -> dict:
    """A cell with its place among the slides for all its metadata."""
    return {**cell, "metadata": {"slideshow": {"slide_type": kind}}, **changes}


def prepare(notebook: dict, cited: dict[str, str]) -> dict:
    """A chapter's executed notebook with slides marked.

    A heading begins a slide, other prose one below it; method cells keep their code, of the others what they draw is
    kept; the bootstrap, the parameters and the solutions are left out.
    """
    values, cells = _glued(notebook), []
    for cell in notebook["cells"]:
        tags = set(cell["metadata"].get("tags", []))
        text = "".join(cell["source"])
        if tags & _SKIPPED or not text.strip() or text.startswith("## Parameters"):
            continue
        if cell["cell_type"] == "markdown":
            kind = "slide" if re.match(r"#{1,2} ", text) else "subslide"
            cells.append(_marked(cell, kind, source=_plain(text, values, cited)))
            continue
        outputs = [o for o in cell.get("outputs", []) if {"image/png", "text/html"} & o.get("data", {}).keys()]
        if "method" in tags:
            cells.append(_marked(cell, "subslide", outputs=[]))
        elif outputs:
            drawn = _marked(cell, "subslide", outputs=outputs)
            drawn["metadata"]["transient"] = {"remove_source": True}  # nbconvert's way to hide the code
            cells.append(drawn)
            caption = cell["metadata"].get("mystnb", {}).get("figure", {}).get("caption")
            if caption:
                below = {"cell_type": "markdown", "id": f"{cell['id']}-caption"}
                cells.append(_marked(below, "-", source=_plain(caption, values, cited)))
    kept = {key: value for key, value in notebook["metadata"].items() if key != "widgets"}
    return {**notebook, "cells": cells, "metadata": kept}


def write(slug: str, tier: str = "smoke", folder: Path | None = None) -> Path:
    """Writes `<slug>.html` and what it needs into `folder` (default `_build/slides`); returns the page's path.

    Raises `NearFarError` for an unknown slug, a chapter that has not been run at this tier, or without nbconvert.
    """
    try:
        import nbformat
        from nbconvert import SlidesExporter
    except ModuleNotFoundError as problem:
        raise NearFarError(f"slides need {problem.name}: pip install -e '.[dev]'.") from problem
    paper = papers.get(slug)
    executed = execute.executed_path(slug, tier, 0)
    if not executed.is_file():
        raise NearFarError(
            f"{slug} has not been run at the {tier} tier: `nearfar run {slug} --tier {tier}` or `make book`."
        )
    notebook = prepare(json.loads(executed.read_text(encoding="utf-8")), _citations())
    exporter = SlidesExporter(raw_template=_TEMPLATE, reveal_url_prefix="reveal", reveal_theme="white")
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    notebook["metadata"]["title"] = paper.title
    node = nbformat.reads(json.dumps(notebook), as_version=4)
    page, _ = exporter.from_notebook_node(node)
    folder = folder or papers.root() / FOLDER
    for name in ("reveal", "mathjax"):
        shutil.copytree(papers.root() / "book" / "_static" / name, folder / name, dirs_exist_ok=True)
    write_atomically(folder / f"{slug}.html", page)
    return folder / f"{slug}.html"
