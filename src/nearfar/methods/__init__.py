"""The methods of all chapters as modules: `from nearfar.methods import cacr`, then `cacr.cacr_loss(views)`.

A module holds what the cells tagged `method` of its notebook define, and says in its docstring whose method it is; its
name is the chapter's with underscores (`understanding_contrastive_loss`).  `dir(nearfar.methods)` and `papers()` list
them.  In a checkout they are read from the notebooks; an installed package has them as files, which packaging writes.
"""

import importlib
import importlib.abc
import importlib.util
import json
import sys
from functools import cache
from pathlib import Path

from nearfar.chapters import notebooks
from nearfar.chapters import papers as registry
from nearfar.errors import nearest

CATALOGUE = Path(__file__).with_name("catalogue.json")  # in an installed package


def entry(paper: registry.Paper) -> dict:
    """What a catalogue says of a paper."""
    return {key: getattr(paper, key) for key in ("slug", "part", "title", "authors", "year", "venue", "arxiv")}


@cache
def papers() -> dict[str, dict]:
    """{module name: its paper's slug, part, title, authors, year, venue and arXiv id}, in the order of the book.

    Raises `NearFarError` where neither a catalogue nor a checkout is found.
    """
    if CATALOGUE.is_file():
        entries = json.loads(CATALOGUE.read_text(encoding="utf-8"))
    else:
        entries = [entry(paper) for paper in registry.all_papers()]
    return {paper["slug"].replace("-", "_"): paper for paper in entries}


def docstring(paper: dict) -> str:
    """A method module's docstring: title, authors, year, where it appeared."""
    arxiv = f"arXiv:{paper['arxiv']}" if paper["arxiv"] else ""
    where = ", ".join(filter(None, [registry.by(paper["authors"]), paper["venue"], arxiv, str(paper["year"])]))
    return f"{paper['title']}.\n\n{where}.\n"


def write(folder: Path) -> None:
    """Puts the catalogue and a file for every chapter into `folder`: what packaging adds to the package."""
    catalogue = papers()
    for name, paper in catalogue.items():
        cells = [
            source for _, source, tags in notebooks.code_cells(registry.notebook(paper["slug"])) if "method" in tags
        ]
        text = "\n\n\n".join([f'"""{docstring(paper)}"""', *map(str.strip, cells)])
        (folder / f"{name}.py").write_text(text + "\n", encoding="utf-8")
    (folder / CATALOGUE.name).write_text(json.dumps(list(catalogue.values()), indent=1), encoding="utf-8")


class _FromNotebooks(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules that are no files, in a checkout."""

    def find_spec(self, fullname, path=None, target=None):
        package, _, name = fullname.rpartition(".")
        known = package == __name__ and name in papers()
        return importlib.util.spec_from_loader(fullname, self) if known else None

    def exec_module(self, module):
        paper = papers()[module.__name__.rpartition(".")[2]]
        made = vars(notebooks.method(paper["slug"]))
        module.__dict__.update({name: value for name, value in made.items() if not name.startswith("__")})
        module.__doc__ = docstring(paper)


sys.meta_path.append(_FromNotebooks())  # after the finder of files


def __getattr__(name: str):
    if name.startswith("__"):  # Python asks modules for more than they have
        raise AttributeError(name)
    if name not in papers():
        raise AttributeError(f"no chapter's method is called {name!r}.{nearest(name, papers())}")
    return importlib.import_module(f"{__name__}.{name}")


def __dir__():
    return [*papers(), "papers"]
