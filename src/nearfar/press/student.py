"""Notebooks for students: exercises without their solutions, and the solutions in an archive of their own.

A solution ends with its checks, `assert` and `print` statements.  The student's cell keeps these and says which names
they expect; so whoever writes those names has the answer checked by the same lines as the book's own.
"""

import ast
import io
import json
import zipfile
from pathlib import Path

from nearfar.chapters import dependencies, notebooks, papers
from nearfar.errors import NearFarError
from nearfar.runs.run import write_atomically, write_bytes_atomically

FOLDER = Path("_build") / "student"
_CHECKS = "# These lines check the answer:"


def split(source: str) -> tuple[str, str]:
    """(answer, checks) of a solution: checks are the statements `assert` and `print` at its end, from the first assert.

    The two put together are the whole; a solution in IPython's own syntax has no checks that stand alone.
    Raises `NearFarError` for code that does not parse.
    """
    body = dependencies.parsed(notebooks.python(source), "a solution").body
    if notebooks.python(source) != source:
        return source, ""
    first = len(body)
    while first and (isinstance(body[first - 1], ast.Assert) or _prints(body[first - 1])):
        first -= 1
    while first < len(body) and not isinstance(body[first], ast.Assert):
        first += 1
    if first == len(body):
        return source, ""
    lines = source.splitlines(keepends=True)
    cut = body[first].lineno - 1
    return "".join(lines[:cut]), "".join(lines[cut:])


def _prints(statement: ast.stmt) -> bool:
    call = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "print"


def _bound(source: str) -> list[str]:
    """Names that a piece of code binds at its top level, in order."""
    found: dict[str, None] = {}
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            found[statement.name] = None
            continue
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found[node.id] = None
    return list(found)


def stub(source: str) -> str:
    """What a student finds in place of a solution."""
    answer, checks = split(source)
    if not checks:
        return "# Your answer:\n"
    used = {node.id for node in ast.walk(ast.parse(checks)) if isinstance(node, ast.Name)}
    wanted = [name for name in _bound(answer) if name in used]
    asked = f"# Your answer; it has to make {', '.join(wanted)}.\n" if wanted else "# Your answer:\n"
    return f"{asked}\n\n{_CHECKS}\n{checks}"


def without_solutions(notebook: dict) -> tuple[dict, list[tuple[str, str]]]:
    """A student's copy of a notebook, and its exercises as (question, solution)."""
    cells, exercises, question = [], [], ""
    for cell in notebook["cells"]:
        tags = cell["metadata"].get("tags", [])
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            question = text
        if "solution" in tags:
            exercises.append((question, text))
            metadata = {**cell["metadata"], "tags": [tag for tag in tags if tag not in ("solution", "hide-cell")]}
            cell = {**cell, "metadata": metadata, "source": stub(text).splitlines(keepends=True)}
        cells.append(cell)
    return {**notebook, "cells": cells}, exercises


def write(folder: Path | None = None) -> tuple[list[Path], Path]:
    """Writes every chapter's student notebook and `solutions.zip`; returns their paths.

    Raises `NearFarError` for a chapter without exercises or a folder that cannot be written.
    """
    folder = folder or papers.root() / FOLDER
    written, pages = [], {}
    for paper in papers.all_papers():
        notebook, exercises = without_solutions(json.loads(paper.notebook.read_text(encoding="utf-8")))
        if not exercises:
            raise NearFarError(f"{paper.slug}: no cell is tagged `solution`, so there is nothing to hand out.")
        path = folder / "notebooks" / paper.part / f"{paper.slug}.ipynb"
        write_atomically(path, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
        written.append(path)
        parts = [f"{question}\n\n```python\n{solution}\n```\n" for question, solution in exercises]
        pages[f"solutions/{paper.slug}.md"] = f"# {paper.title}\n\n" + "\n".join(parts)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in pages.items():
            archive.writestr(name, text)
    write_bytes_atomically(folder / "solutions.zip", buffer.getvalue())
    return written, folder / "solutions.zip"
