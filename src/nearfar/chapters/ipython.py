"""Cells in IPython's own syntax (magics, shell, help) as the Python that they hold."""

import ast
import re

PLAIN = {"time", "timeit", "prun", "capture"}  # magics around Python that runs as it stands
_OPTIONS = re.compile(r"(?:-\w+(?:\s+[\d.]+|=\S+)?\s+)*")  # as in `%timeit -n 3 -r 2 f(x)`


def python(source: str) -> str:
    """A cell's source as Python, in as many lines: source that is Python already comes back as it is.

    IPython's own lines are left out: what they do (a shell's commands, a drawing's settings) is not the chapter's.  The
    Python that `PLAIN` magics run stays, and so does what is assigned, `files = !ls` as `get_ipython()`'s answer.
    Source that is neither comes back as it is.
    """
    if _tree(source) is not None:
        return source
    from IPython.core.inputtransformer2 import TransformerManager

    try:
        text = TransformerManager().transform_cell(source)
    except SyntaxError:
        return source
    tree = _tree(text)
    if tree is None:
        return source
    lines = text.splitlines()
    own = [node for node in ast.walk(tree) if isinstance(node, ast.Expr) and _asked(node.value)]
    for node in sorted(own, key=lambda node: node.lineno, reverse=True):  # from below: earlier lines keep their numbers
        indent = " " * node.col_offset
        held = [f"{indent}{line}" for line in _held(node.value).splitlines()]
        lines[node.lineno - 1 : node.end_lineno] = held or [f"{indent}pass" if indent else ""]
    return "\n".join(lines)


def _tree(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError):  # ValueError: a null byte
        return None


def _asked(node: ast.expr) -> bool:
    """Whether it is what IPython makes of one of its own lines: `get_ipython().run_line_magic(...)` and the like."""
    called = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    return called and ast.unparse(node.func.value) == "get_ipython()"


def _held(call: ast.Call) -> str:
    """The Python that a magic runs, nothing for any other line."""
    name, *given = [each.value for each in call.args if isinstance(each, ast.Constant)] or [""]
    if name not in PLAIN or not given:
        return ""
    inner = given[1] if call.func.attr == "run_cell_magic" else given[0][_OPTIONS.match(given[0]).end() :]
    code = python(inner)
    return code if _tree(code) is not None else ""
