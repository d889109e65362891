"""What a notebook holds: its method cells as a namespace, its parameters, the code it depends on."""

import ast
import hashlib
import importlib.util
import json
import linecache
import types
from functools import lru_cache
from pathlib import Path

from nearfar.chapters import dependencies, papers
from nearfar.chapters.ipython import python
from nearfar.errors import NearFarError

TIERS = ("smoke", "small", "medium", "full")
NO_NUMBERS = (  # houses and modules that cannot change a number of a run
    "press", "methods", "chapters", "runs", "plots", "errors", "paths", "processes",
    "data.archives", "data.cache", "data.canonical", "data.loading", "data.sources", "data.ubyte",
)  # fmt: skip
BUT = ("runs.study",)  # of these, what can


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


def method(slug: str) -> types.ModuleType:
    """The `method` cells of a chapter as a module, without a kernel and without running anything else.

    slug: key of the paper, as in `nearfar list`.  Cells run in their order in one fresh namespace on each call; an
    installed package without a checkout gives the module of `nearfar.methods` that was written from them.
    Raises `NearFarError` that names notebook and cell when a cell fails, or when there is none.
    """
    if packaged := _packaged(slug):
        return packaged
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
            exec(compile(python(source), label, "exec"), module.__dict__)
        except Exception as problem:
            raise NearFarError(f"{label} (tag method) failed: {type(problem).__name__}: {problem}") from problem
    return module


def _packaged(slug: str) -> types.ModuleType | None:
    """The chapter's module in an installed package; None where there is a checkout to read, or no such module."""
    name = f"nearfar.methods.{slug.replace('-', '_')}"
    if papers.in_checkout() or importlib.util.find_spec(name) is None:
        return None
    return importlib.import_module(name)


def parameters(path: Path) -> dict:
    """Names and defaults in the cell tagged `parameters`.

    Raises `NearFarError` unless there is exactly one, which gives names plain values.
    """
    cells = [source for _, source, tags in code_cells(path) if "parameters" in tags]
    if len(cells) != 1:
        raise NearFarError(f"{path} has {len(cells)} cells tagged `parameters`; it needs one.")
    label, found = f"{path}, cell parameters", {}
    for statement in dependencies.parsed(python(cells[0]), label).body:
        if isinstance(statement, ast.Assign):
            try:
                found[statement.targets[0].id] = ast.literal_eval(statement.value)
            except (AttributeError, ValueError) as problem:
                raise NearFarError(f"{label}: `{ast.unparse(statement)}` gives no name a plain value.") from problem
    return found


def page_hash(path: Path) -> str:
    """SHA-256 of everything that a notebook's page depends on, drawing included; not of the notebook itself.

    That is: definitions in `nearfar`, and the method cells of other chapters that it asks `nearfar.method` for.
    """
    versions = _versions(path)
    counted = [_definitions_at(versions), _methods(versions[1:])]
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()


def code_hash(slug: str, tier: str) -> str:
    """SHA-256 of the code that decides a run's numbers: the notebook's cells and the definitions they depend on.

    Names and syntax count, not layout, nor in which cell or module something stands (`dependencies.normal`).
    Of a dictionary {"smoke": …, "small": …, …}[tier] only the tier's own entry counts.  What cannot change a number
    does not: the parameters cell (its values stand in the record), cells tagged `drawing`, comments and docstrings,
    and the parts of `nearfar` that only read data (their identity stands in the record), keep the books, or draw.
    Method cells of another chapter count where they are asked for by `nearfar.method("<its slug>")`.
    """
    return _code_hash_at(_versions(papers.notebook(slug)), tier)


def files(path: Path) -> list[Path]:
    """A notebook, and those whose method cells it uses, directly or not."""
    found, todo = [], [path]
    while todo:  # chapters may borrow from each other, even in a circle
        path = todo.pop()
        if path not in found:
            found.append(path)
            todo += [papers.notebook(slug) for slug in _borrows(path, path.stat().st_mtime_ns)]
    return [found[0], *sorted(found[1:])]


Versions = tuple[tuple[Path, int], ...]  # files of a notebook, each with its time


def _versions(path: Path) -> Versions:
    return tuple((file, file.stat().st_mtime_ns) for file in files(path))


@lru_cache(maxsize=256)
def _borrows(path: Path, changed: int) -> tuple[str, ...]:
    """Slugs of other chapters that a notebook names in `nearfar.method("…")`."""
    code = "\n".join(python(source) for _, source, _ in code_cells(path))
    if "nearfar.method(" not in code:
        return ()
    calls = [node for node in ast.walk(dependencies.parsed(code, str(path))) if isinstance(node, ast.Call)]
    named = [node.args[0] for node in calls if ast.unparse(node.func) == "nearfar.method" and node.args]
    slugs = {argument.value for argument in named if isinstance(argument, ast.Constant)} - {path.stem}
    return tuple(sorted(slugs & papers.slugs().keys()))


@lru_cache(maxsize=256)
def _definitions_at(versions: Versions) -> dict[str, dict[str, str]]:  # pages ask once per record
    (path, _), *borrowed = versions
    own = [source for _, source, _ in code_cells(path)]
    others = [source for other, _ in borrowed for _, source, tags in code_cells(other) if "method" in tags]
    return dependencies.definitions("\n".join(map(python, own + others)), str(path))


@lru_cache(maxsize=1024)
def _code_hash_at(versions: Versions, tier: str) -> str:
    cells = dependencies.normal(_AtTier(tier).visit(_tree(versions[0])).body)
    counted = sorted(
        (name, text)
        for module, texts in _definitions_at(versions).items()
        if _counts(module)
        for name, text in texts.items()
    )
    return hashlib.sha256(json.dumps([cells, _methods(versions[1:]), counted]).encode()).hexdigest()


def _counts(module: str) -> bool:
    """Whether a module's definitions can change a number of a run."""
    inside = lambda names: f"{module}.".startswith(tuple(f"nearfar.{name}." for name in names))  # noqa: E731
    return inside(BUT) or not inside(NO_NUMBERS)


def _methods(versions: Versions) -> list[str]:
    return [dependencies.normal(_tree(version, only="method").body) for version in versions]


def _tree(version: tuple[Path, int], only: str = "") -> ast.Module:
    """Syntax of the cells that can change a number, made anew for each caller; `only`: of those with this tag."""
    path, _ = version
    cells = [
        dependencies.parsed(python(source), f"{path.name}, cell {number}").body
        for number, source, tags in code_cells(path)
        if not {"parameters", "drawing"}.intersection(tags) and (not only or only in tags)
    ]
    return ast.Module([statement for cell in cells for statement in cell], [])


class _AtTier(ast.NodeTransformer):
    """Replaces the choice {"smoke": …, "small": …}[tier] by what is chosen."""

    def __init__(self, tier: str):
        self.tier = tier

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        if isinstance(node.value, ast.Dict) and isinstance(node.slice, ast.Name) and node.slice.id == "tier":
            for key, value in zip(node.value.keys, node.value.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == self.tier:
                    return self.visit(value)
        return self.generic_visit(node)


def fingerprint(code: str, identities) -> str:
    """SHA-256 of a `code_hash` and of the identities of the data that a run used."""
    return hashlib.sha256("\0".join([code, *sorted(identities)]).encode()).hexdigest()
