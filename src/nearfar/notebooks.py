"""What a notebook holds: its method cells as a namespace, its parameters, the code it depends on."""

import ast
import hashlib
import json
import linecache
import types
from functools import cache
from pathlib import Path

from nearfar import papers
from nearfar.errors import NearFarError

TIERS = ("smoke", "small", "medium", "full")
PRESENTATION = {"plots.py", "results.py"}  # modules that draw and tabulate, and cannot change a number


def code_cells(path: Path) -> list[tuple[int, str, list[str]]]:
    """`(position, source, tags)` of every code cell.  Raises `NearFarError` for a file that is no notebook."""
    try:
        cells = json.loads(Path(path).read_text(encoding="utf-8"))["cells"]
        return [
            (number, "".join(cell["source"]), cell["metadata"].get("tags", []))
            for number, cell in enumerate(cells)
            if cell["cell_type"] == "code"
        ]
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise NearFarError(f"{path} is not a readable notebook ({problem!r}); restore it from git.") from problem


def _python(source: str) -> str:
    """Source without IPython's own lines (magics and shell), which are no Python."""
    return "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in source.splitlines())


def method(slug: str) -> types.ModuleType:
    """The `method` cells of a chapter as a module, without a kernel and without running anything else.

    slug: key of the paper, as in `nearfar list`.  Cells run in their order in one fresh namespace on each call.
    Raises `NearFarError` that names notebook and cell when a cell fails, or when there is none.
    """
    path = papers.notebook(slug)
    name = path.relative_to(papers.root())
    module = types.ModuleType(f"nearfar_method_{slug.replace('-', '_')}")
    cells = [(number, source) for number, source, tags in code_cells(path) if "method" in tags]
    if not cells:
        raise NearFarError(f"{name} has no cell tagged `method`.")
    for number, source in cells:
        label = f"{name}, cell {number}"
        linecache.cache[label] = (len(source), None, source.splitlines(keepends=True), label)  # for tracebacks
        try:
            exec(compile(source, label, "exec"), module.__dict__)
        except Exception as problem:
            raise NearFarError(f"{label} (tag method) failed: {type(problem).__name__}: {problem}") from problem
    return module


def parameters(path: Path) -> dict:
    """Names and defaults in the cell tagged `parameters`.  Raises `NearFarError` unless there is exactly one."""
    cells = [source for _, source, tags in code_cells(path) if "parameters" in tags]
    if len(cells) != 1:
        raise NearFarError(f"{path} has {len(cells)} cells tagged `parameters`; it needs one.")
    return {
        statement.targets[0].id: ast.literal_eval(statement.value)
        for statement in ast.parse(cells[0]).body
        if isinstance(statement, ast.Assign)
    }


def _module_file(dotted: str) -> Path | None:
    base = Path(__file__).resolve().parent.parent.joinpath(*dotted.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _imports(source: str, label: str, package: str = "nearfar") -> set[str]:
    """Dotted names of the modules of `nearfar` that a piece of code names, by import or as `nearfar.<module>`."""
    try:
        tree = ast.parse(source)
    except SyntaxError as problem:
        raise NearFarError(f"{label} is not valid Python: {problem.msg} (line {problem.lineno}).") from problem
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            prefix = node.module or ""
            if node.level:
                above = package.split(".")
                prefix = ".".join([*above[: len(above) - node.level + 1], *([node.module] if node.module else [])])
            found |= {prefix} | {f"{prefix}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "nearfar":
            found.add({"start": "nearfar.run", "method": "nearfar.notebooks"}.get(node.attr, f"nearfar.{node.attr}"))
    return {name for name in found if name.split(".")[0] == "nearfar" and _module_file(name)}


@cache
def _module_imports(name: str) -> frozenset[str]:
    path = _module_file(name)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    return frozenset(_imports(path.read_text(encoding="utf-8"), str(path), package))


def reached(path: Path) -> list[Path]:
    """Files of `src/nearfar` that a notebook reaches by imports, direct or not, sorted."""
    code = "\n".join(_python(source) for _, source, _ in code_cells(path))
    todo, seen = _imports(code, str(path)), {"nearfar"}
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo |= _module_imports(name)
    return sorted(_module_file(name) for name in seen)


def code_hash(slug: str) -> str:
    """SHA-256 of the code that decides a run's numbers: the notebook's cells and the modules it reaches.

    The parameters cell does not count (its values stand in the record), nor do modules that only show numbers.
    """
    path = papers.notebook(slug)
    digest = hashlib.sha256()
    for _, source, tags in code_cells(path):
        if "parameters" not in tags:
            digest.update(source.encode() + b"\0")
    for file in reached(path):
        if file.name not in PRESENTATION:
            digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def fingerprint(code: str, identities) -> str:
    """SHA-256 of a `code_hash` and of the identities of the data that a run used."""
    return hashlib.sha256("\0".join([code, *sorted(identities)]).encode()).hexdigest()
