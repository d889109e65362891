"""Which definitions of `nearfar` a piece of code depends on, found in the source, without running any of it.

A chapter's record is as old as the code behind its numbers.  That code is more than the notebook and less than the
package: a new loss beside the one a chapter uses changes nothing for it.  So names are followed, from the notebook to
the functions, classes and constants that it uses, and on to those that these use.  Where a name cannot be followed (a
module handed around as a value, `getattr`), the whole module counts.
"""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import nearfar
from nearfar.errors import NearFarError

Chain = tuple[str, ...]  # a dotted name, split


@dataclass
class _Statement:
    """One statement at a module's top level, and the names it uses."""

    node: ast.stmt
    uses: set[Chain]

    @cached_property
    def text(self) -> str:
        return normal([self.node])


@dataclass
class _Code:
    """What a module or a notebook binds: names to the statements that make them, and to what they were imported as."""

    definitions: dict[str, list[_Statement]] = field(default_factory=dict)
    imports: dict[str, set[Chain]] = field(default_factory=dict)
    effects: list[_Statement] = field(default_factory=list)  # statements that bind no name


@cache
def module_file(dotted: str) -> Path | None:
    """File of a module of this package, or None."""
    base = Path(__file__).resolve().parents[2].joinpath(*dotted.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def definitions(source: str, label: str) -> dict[str, dict[str, str]]:
    """{module: {name: text}} of all definitions of `nearfar` that `source` depends on, directly or not.

    source: Python code, such as a notebook's cells in one; label: what errors call it.  Text is `normal`.
    Raises `NearFarError` for code that does not parse.
    """
    code = _parse(source, label, "nearfar")
    found: dict[str, dict[str, str]] = {}
    seen: set[tuple[str, str]] = set()
    todo = [
        target
        for statement in [*code.effects, *(s for group in code.definitions.values() for s in group)]
        for chain in statement.uses
        for target in _targets(code, chain)
    ]
    imported = {_home(target) for targets in code.imports.values() for target in targets}
    todo += [target for target in imported if module_file(".".join(target)) is None]
    while todo:
        module, name = _locate(todo.pop())
        if module is None or (module, name) in seen:
            continue
        seen.add((module, name))
        code = _module(module)
        first = module not in found
        texts = found.setdefault(module, {})
        if name is None:  # the whole module, and of a package those whose names it hands out
            todo += [(*module.split("."), each) for each in {*code.definitions, *code.imports} - {"__all__"}]
            imported = {target for targets in code.imports.values() for target in targets}
            todo += [target[:-1] for target in imported if target[: module.count(".") + 1] == (*module.split("."),)]
        statements = list(code.definitions.get(name, ()))
        if statements:
            texts[name] = "\n".join(statement.text for statement in statements)
        if first and code.effects:
            texts[""] = "\n".join(statement.text for statement in code.effects)
            statements += code.effects
        todo += [target for s in statements for chain in s.uses for target in _targets(code, chain, module)]
        if name in code.imports and name not in code.definitions:
            todo += code.imports[name]
    return found


_SILENT = {"ctx", "kind", "type_comment", "type_ignores"}  # fields of a syntax tree that change nothing when it runs


def normal(statements: Iterable[ast.stmt]) -> str:
    """What code does, as a text that its layout, comments and docstrings do not change, nor Python's version.

    It is the syntax tree, written out.  Imports from `nearfar` are left out, with what fetches it where it is missing:
    names are followed to their definitions, wherever these live.  So is `__repr__`, which only shows.
    """
    return "\n".join(_written(node) for node in statements if not _imports_nearfar(node))


def _written(node) -> str:
    if isinstance(node, list):
        return f"[{' '.join(map(_written, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    parts = [type(node).__name__]
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(value, list):
            value = [each for each in _without_docstring(node) if not (_imports_nearfar(each) or _prints(node, each))]
        if name not in _SILENT and value is not None and value != []:
            parts.append(f"{name}={_written(value)}")
    return f"({' '.join(parts)})"


def _without_docstring(node) -> list[ast.stmt]:
    documented = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    return node.body[1:] if documented and ast.get_docstring(node, clean=False) is not None else node.body


def _prints(node: ast.AST, inner: ast.AST) -> bool:
    """Whether it is the method of a class that says how its objects are shown."""
    return isinstance(node, ast.ClassDef) and isinstance(inner, ast.FunctionDef) and inner.name == "__repr__"


def _imports_nearfar(node: ast.AST) -> bool:
    """Whether a statement only imports from this package, or tries to and fetches it where it is missing."""
    if isinstance(node, ast.Try):
        return all(map(_imports_nearfar, node.body))
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    if isinstance(node, ast.ImportFrom):
        names = [node.module or "nearfar"]
    return bool(names) and all(name.partition(".")[0] == "nearfar" for name in names)


def _targets(code: _Code, chain: Chain, module: str | None = None) -> Iterator[Chain]:
    """What a dotted name used in `code` stands for, as dotted names from the root."""
    name, rest = chain[0], chain[1:]
    if module is not None and name in code.definitions:
        yield (*module.split("."), name)
    for target in code.imports.get(name, ()):
        yield (*target, *rest)


def _home(target: Chain) -> Chain:
    """Where a name lives that `nearfar` itself hands out."""
    if target[0] == "nearfar" and len(target) > 1 and target[1] in nearfar.HOMES:
        return (*nearfar.HOMES[target[1]].split("."), *target[2:])
    return target


def _locate(target: Chain) -> tuple[str | None, str | None]:
    """(module, name in it) of a dotted name; name None: the whole module; module None: not of this package."""
    target = _home(target)
    for length in range(len(target), 0, -1):
        dotted = ".".join(target[:length])
        if target[0] == "nearfar" and module_file(dotted):
            name = target[length] if length < len(target) else None
            code = _module(dotted)
            known = name in code.definitions or name in code.imports
            if dotted == "nearfar":  # the package itself: no more than a list of its modules
                return None, None
            return dotted, name if known else None
    return None, None


@cache
def _module(dotted: str) -> _Code:
    path = module_file(dotted)
    package = dotted if path.name == "__init__.py" else dotted.rpartition(".")[0]
    return _parse(path.read_text(encoding="utf-8"), str(path), package)


def parsed(source: str, label: str) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError as problem:
        raise NearFarError(f"{label} is not valid Python: {problem.msg} (line {problem.lineno}).") from problem


def _parse(source: str, label: str, package: str) -> _Code:
    tree, code = parsed(source, label), _Code()
    for node in _statements(tree):  # imports inside functions count as the module's
        for name, target in _imported(node, package):
            code.imports.setdefault(name, set()).add(target)
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom) or (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        ):
            continue
        statement = _Statement(node, set(_uses(node)))
        bound = set(_bound(node))
        for name in bound:
            code.definitions.setdefault(name, []).append(statement)
        if not bound:
            code.effects.append(statement)
    return code


def _statements(tree: ast.Module) -> Iterator[ast.stmt]:
    """All statements, at any depth; `ast.walk` would look into every expression too."""
    todo: list[ast.AST] = list(tree.body)
    while todo:
        node = todo.pop()
        yield node
        for name in ("body", "orelse", "finalbody", "handlers", "cases"):  # handlers and cases hold statements in turn
            todo += getattr(node, name, ())


def _imported(node: ast.AST, package: str) -> Iterator[tuple[str, Chain]]:
    """(name bound, what it stands for) for each name that an import statement of this package's modules binds."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            parts = tuple(alias.name.split("."))
            if parts[0] == "nearfar":
                yield (alias.asname, parts) if alias.asname else (parts[0], parts[:1])
    elif isinstance(node, ast.ImportFrom):
        above = package.split(".")
        prefix = above[: len(above) - node.level + 1] if node.level else []
        prefix = (*prefix, *(node.module.split(".") if node.module else ()))
        if prefix[0] == "nearfar":
            for alias in node.names:
                yield alias.asname or alias.name, (*prefix, alias.name)


def _bound(statement: ast.stmt) -> Iterator[str]:
    """Names that a statement at top level makes or changes."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
        return
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Subscript | ast.Attribute) and isinstance(node.ctx, ast.Store):
            while isinstance(node, ast.Subscript | ast.Attribute):
                node = node.value
            if isinstance(node, ast.Name):
                yield node.id


def _uses(node: ast.AST) -> Iterator[Chain]:
    """Dotted names that a piece of code reads, as long as they go: `a.b(c)` reads a.b and c."""
    todo = [node]
    while todo:
        inner = todo.pop()
        rest: list[str] = []
        while isinstance(inner, ast.Attribute):
            rest.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name):
            yield (inner.id, *reversed(rest))
        else:
            todo += ast.iter_child_nodes(inner)
