"""The registry of papers: `_toc.yml` gives order and part, `book/references.bib` title, authors, year, arXiv id."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from nearfar import paths
from nearfar.errors import NearFarError, nearest

PARTS = {
    "contrastive": "Learning without labels",
    "supervised": "Labels, transfer, few shots",
    "imbalance": "Rare classes, fair scores",
    "shift": "Shortcuts, outliers, new domains",
    "continual": "Tasks that keep coming",
    "inside": "What networks learn",
    "language": "Images and words",
    "generative": "Making images",
    "beyond": "Points, graphs, robots, clicks",
}

REPOSITORY = "https://github.com/near-and-far/near-and-far"


def by(surnames: Sequence[str]) -> str:
    """`A`, `A and B`, or `A et al.`"""
    return f"{surnames[0]} et al." if len(surnames) > 2 else " and ".join(surnames)


def read_yaml(path: Path):
    """Content of a YAML file of the book.  Raises `NearFarError` for one that cannot be read."""
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as problem:
        line = str(problem).splitlines()[0]
        raise NearFarError(f"{path} cannot be read as YAML: {line}. Compare it with the committed one.") from problem


@dataclass(frozen=True)
class Paper:
    """One chapter: its key (`slug`), its place in the book and its reference (a part's comparison has none)."""

    slug: str
    part: str
    title: str
    authors: tuple[str, ...]
    year: int
    arxiv: str
    venue: str
    notebook: Path  # absolute


def _where() -> Path:
    return paths.named("NEARFAR_ROOT") or Path(__file__).resolve().parents[3]


def in_checkout() -> bool:
    """False for an installed package that knows of no checkout."""
    return (_where() / "_toc.yml").is_file()


def root() -> Path:
    """The checkout that the book lives in: `$NEARFAR_ROOT`, or the folder above this package's `src`."""
    folder = _where()
    if not in_checkout():
        raise NearFarError(
            f"{folder} is not a checkout of the book, which this needs (it has no _toc.yml): get one with "
            f"`git clone {REPOSITORY}` and `pip install -e .` in it, or set NEARFAR_ROOT to one."
        )
    return folder


def _files(node) -> list[str]:
    """Every `file:` of a table of contents, in reading order."""
    if isinstance(node, dict):
        own = [str(node["file"])] if "file" in node else []
        return own + [f for key in ("parts", "chapters", "sections") for f in _files(node.get(key))]
    if isinstance(node, list):
        return [f for child in node for f in _files(child)]
    return []


def _version(path: Path) -> tuple[int, int]:
    """What changes when a file does; (0, 0) for a missing one."""
    return (path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else (0, 0)


def pages(folder: Path | None = None) -> list[str]:
    """Files named in `_toc.yml` without suffix, the root first.  Raises `NearFarError` for an unreadable file."""
    path = (folder or root()) / "_toc.yml"
    return list(_pages_at(path, _version(path)))


@lru_cache(maxsize=8)
def _pages_at(path: Path, version: tuple[int, int]) -> tuple[str, ...]:  # a build asks once per record
    toc = read_yaml(path)
    if not isinstance(toc, dict) or "root" not in toc:
        raise NearFarError(f"{path} has no `root:` entry; see the committed one for the format.")
    return (str(toc["root"]), *_files(toc))


def slugs(folder: Path | None = None) -> dict[str, str]:
    """`{slug: part}` of all chapters in reading order, from `_toc.yml` alone (cheap)."""
    found: dict[str, str] = {}
    for page in pages(folder):
        pieces = page.removesuffix(".ipynb").split("/")
        if pieces[0] == "notebooks" and len(pieces) == 3:
            if pieces[2] in found:
                raise NearFarError(f"_toc.yml names the chapter {pieces[2]!r} twice; remove one line.")
            found[pieces[2]] = pieces[1]
    return found


def references(folder: Path | None = None):
    """Entries of `book/references.bib` by key (pybtex).  Raises `NearFarError` for a file that cannot be read."""
    path = (folder or root()) / "book" / "references.bib"
    return _references_at(path, _version(path))


@lru_cache(maxsize=8)
def _references_at(path: Path, version: tuple[int, int]):
    from pybtex.database import parse_file
    from pybtex.exceptions import PybtexError

    try:
        return parse_file(str(path), bib_format="bibtex").entries
    except (OSError, PybtexError, UnicodeDecodeError) as problem:
        line = str(problem).splitlines()[0]
        raise NearFarError(f"{path} cannot be read as BibTeX: {line}. Mend that entry.") from problem


@lru_cache(maxsize=4096)
def _plain(latex: str) -> str:
    from pybtex.richtext import Text

    return str(Text.from_latex(latex))


def _name(person) -> str:
    pieces = (person.first_names, person.middle_names, person.prelast_names, person.last_names, person.lineage_names)
    return " ".join(piece for group in pieces for piece in group)


def all_papers() -> tuple[Paper, ...]:
    """All chapters in reading order, without the parts' comparisons.

    Raises `NearFarError`, one line that names every disagreement of `_toc.yml`, `references.bib` and `notebooks/`.
    """
    folder = root()
    chapters, entries = slugs(folder), references(folder)
    kept = {p.stem: p for p in sorted((folder / "notebooks").glob("*/*.ipynb"))}
    problems = []
    for slug, part in chapters.items():
        if part not in PARTS:
            problems.append(f"{slug}: _toc.yml puts it in the unknown part {part!r}{nearest(part, PARTS)}")
        if not (folder / "notebooks" / part / f"{slug}.ipynb").is_file():
            problems.append(f"{slug}: _toc.yml names notebooks/{part}/{slug}.ipynb, which does not exist")
        if slug == part:
            continue
        if slug not in entries:
            problems.append(f"{slug}: book/references.bib has no entry with this key")
        elif missing := {"title", "year"} - set(entries[slug].fields):
            problems.append(f"{slug}: its entry in book/references.bib lacks {', '.join(sorted(missing))}")
        elif not entries[slug].fields["year"].isdigit():
            problems.append(
                f"{slug}: the year in book/references.bib is {entries[slug].fields['year']!r}, not a number"
            )
    problems += [
        f"{slug}: {path.relative_to(folder)} is not in _toc.yml" for slug, path in kept.items() if slug not in chapters
    ]
    if problems:
        raise NearFarError("the registry disagrees with itself: " + "; ".join(problems) + ".")
    return tuple(
        Paper(
            slug=slug,
            part=part,
            title=_plain(entries[slug].fields["title"]),
            authors=tuple(_plain(_name(person)) for person in entries[slug].persons.get("author", [])),
            year=int(entries[slug].fields["year"]),
            arxiv=entries[slug].fields.get("eprint", ""),
            venue=_plain(entries[slug].fields.get("booktitle", entries[slug].fields.get("journal", ""))),
            notebook=folder / "notebooks" / part / f"{slug}.ipynb",
        )
        for slug, part in chapters.items()
        if slug != part
    )


def comparisons() -> tuple[Paper, ...]:
    """The notebooks that run all methods of a part on one protocol: those that have their part's name."""
    return tuple(
        Paper(slug, part, f"{PARTS[part]}: the methods compared", (), 0, "", "", notebook(slug))
        for slug, part in slugs().items()
        if slug == part
    )


def notebook(slug: str) -> Path:
    """Path of a chapter's notebook; reads `_toc.yml` only.

    Raises `NearFarError` with the nearest names for a slug that is not in it, or when the file is missing.
    """
    known = slugs()
    if slug not in known:
        raise NearFarError(f"no paper is called {slug!r}.{nearest(slug, known)} `nearfar list` shows all.")
    path = root() / "notebooks" / known[slug] / f"{slug}.ipynb"
    if not path.is_file():
        raise NearFarError(f"_toc.yml names {path.relative_to(root())}, which does not exist; restore it from git.")
    return path


def get(slug: str) -> Paper:
    """The `Paper` called `slug`; same errors as `notebook` and `all_papers`."""
    notebook(slug)
    return next(paper for paper in (*all_papers(), *comparisons()) if paper.slug == slug)
