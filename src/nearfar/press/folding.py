"""What a page shows at first: code that a reader does not need at once is folded behind one line that names it.

A figure, table or printed line of a folded cell comes first, its code after it.  Method, training and verdict cells
stay open.  The notebooks themselves stay as they are: this is about the cells of a page.
"""

import ast
import re
from collections.abc import Sequence

from nearfar.chapters import notebooks

HIDDEN = {"hide-input", "hide-cell", "remove-input", "remove-cell"}  # tags by which MyST-NB shows no source at first
OPEN = {"method", "parameters", "hide-cell", "remove-input", "remove-cell"}  # tags of cells that are not folded here
FIGURE, TABLE = "The code of this figure", "The code of this table"
TUNING, LOADING = "The tuning search", "Loading the data"
BY_TAG = {"imports": "Imports", "tuning": TUNING, "table": TABLE, "loading": LOADING}
TRAINS = re.compile(  # the last two: of a study, whatever its name; `ax.grid(False)` and `ax.grid(axis="y")` are lines
    r"\b(train|trainings|study)\.fit\(|\brun\.record\(|\.doubled\(|\.grid\(\s*(?!True|False|\w+\s*=|\))"
)
LONG = "tqdm("  # a progress bar of its own: what it counts is more than a summary
DRAWS = re.compile(r"\b(plt\.show|plots\.frames)\(")
BY_PART = {
    "budget = {": "The budget of each tier", "run.claim(": "The code of the claims", ".tune(": TUNING,
    ".tuning_table(": TUNING, "run.uses(": LOADING,
}  # fmt: skip
RESULTS = re.compile(r"\brun\.(table|glue)\(|\.groupby\(")
PANDAS = re.compile(rf"{RESULTS.pattern}|\.pivot(_table)?\(|\bDataFrame\(")
RANDOM = re.compile(r"\brand(n|int|perm)?\(|\bRandomState\(")
TABLE_METHODS = {"pivot", "pivot_table", "round", "set_index", "table"}  # in the last line of a cell that shows a table
GLUED = "application/papermill.record/"
PROMPT = "code_prompt_show"  # MyST-NB's name for the line of a folded cell


def _source(cell: dict) -> str:
    return "".join(cell["source"])


def _tags(cell: dict) -> set[str]:
    return set(cell["metadata"].get("tags", []))


def _statements(source: str) -> list[ast.stmt]:
    try:
        return ast.parse(notebooks.python(source)).body
    except SyntaxError:  # the page of a chapter that failed shows it
        return []


def _chain(node: ast.AST) -> set[str]:
    """Names along a chain of calls: `frame.pivot(…).loc[…].round(3)` has pivot, loc and round."""
    names = set()
    while isinstance(node, ast.Call | ast.Attribute | ast.Subscript):
        names |= {node.attr} if isinstance(node, ast.Attribute) else set()
        node = node.func if isinstance(node, ast.Call) else node.value
    return names


def _of_statements(source: str) -> str | None:
    """What a cell is called that only checks, or only reads the results."""
    statements = _statements(source)
    if not statements:
        return None
    if checks := sum(isinstance(statement, ast.Assert) for statement in statements):
        return "Checks on random numbers" if checks > 2 and RANDOM.search(source) else None
    last = statements[-1]
    if isinstance(last, ast.Expr) and TABLE_METHODS & _chain(last.value) and PANDAS.search(source):
        return TABLE
    return "Preparing the numbers" if RESULTS.search(source) and LONG not in source else None


def _by_code(cell: dict) -> str | None:
    source = _source(cell)
    if DRAWS.search(source) or "figure" in cell["metadata"].get("mystnb", {}):
        return FIGURE
    helpers = ", ".join(re.findall(r"^(?:def|class) (\w+)", source, re.MULTILINE))
    if re.search(r"^def \w+\(\s*ax\b", source, re.MULTILINE):  # draws on axes that it is given
        return f"Helpers: {helpers}"
    if named := next((name for part, name in BY_PART.items() if part in source), None):
        return named
    return _of_statements(source) or (f"Helpers: {helpers}" if "hide-input" in _tags(cell) and helpers else None)


def label(cell: dict) -> str | None:
    """The line behind which a cell's code is folded; None for a cell that stays as it is.

    A tag decides before the code does, and a training cell is folded only if it is tagged `hide-input`.
    """
    tags, source = _tags(cell), _source(cell)
    failed = any(output["output_type"] == "error" for output in cell.get("outputs", []))
    if cell["cell_type"] != "code" or failed or OPEN & tags or "run.finish(" in source:
        return None
    if named := next((name for tag, name in BY_TAG.items() if tag in tags), None):
        return named
    if "drawing" in tags:  # a table may be tagged so too
        return TABLE if _of_statements(source) == TABLE else FIGURE
    if "hide-input" in tags:
        return _by_code(cell) or "Supporting code"
    return None if TRAINS.search(source) else _by_code(cell)


def _visible(output: dict) -> bool:
    """False for a value that is pasted elsewhere on the page, and shows nothing where it stands."""
    return not any(kind.startswith(GLUED) for kind in output.get("data", {}))


def _parts(cell: dict, name: str) -> list[dict]:
    """What the cell shows, if anything, then its code behind `name`; every output stands in one of the two."""
    tags = _tags(cell) - HIDDEN
    looks = {
        "tags": sorted(tags - {"key-figure"} | {"hide-input"}),
        "mystnb": {PROMPT: name, "code_prompt_hide": name},
    }
    code = {**cell, "metadata": looks}
    if not any(map(_visible, cell.get("outputs", []))):
        return [code]
    shown = {
        **cell,
        "metadata": {**cell["metadata"], "tags": sorted(tags | {"remove-input"})},
        "source": f"# {name} follows.",  # MyST-NB drops a cell without source, with all that it shows
    }
    own = {"id": f"{cell['id'][:59]}-code"} if "id" in cell else {}  # 64 characters at most
    return [shown, {**code, **own, "outputs": []}]


def _joined(before: dict, cell: dict) -> dict | None:
    """Two cells of folded code as one, if they stand behind the same line."""
    names = [part["metadata"].get("mystnb", {}).get(PROMPT) for part in (before, cell)]
    if names[0] is None or names[0] != names[1]:
        return None
    return {
        **before,
        "source": f"{_source(before)}\n\n\n{_source(cell)}",
        "outputs": [*before.get("outputs", []), *cell.get("outputs", [])],
    }


def folded(cells: Sequence[dict]) -> list[dict]:
    """The cells of a page, from those of an executed notebook (nbformat's dictionaries, which stay as they are).

    Folded code in neighbouring cells behind the same line becomes one cell.
    """
    found: list[dict] = []
    for cell in cells:
        name = label(cell)
        for part in _parts(cell, name) if name else [cell]:
            if found and (both := _joined(found[-1], part)):
                found[-1] = both
            else:
                found.append(part)
    return found


def unfolded_lines(cells: Sequence[dict]) -> int:
    """Lines of code that a page shows at first: those with text, in cells that are neither folded nor hidden."""
    return sum(
        bool(line.strip())
        for cell in cells
        if cell["cell_type"] == "code" and not HIDDEN & _tags(cell) and label(cell) is None
        for line in _source(cell).splitlines()
    )
