"""`nearfar new`: the three places of a new paper (notebook, bib entry, toc line), all or none."""

import re
from pathlib import Path

from nearfar.chapters import papers
from nearfar.errors import NearFarError, nearest
from nearfar.press import course
from nearfar.runs.run import write_atomically

TEMPLATE = Path(__file__).with_name("chapter.template")


def notebook_json(text: str, slug: str) -> str:
    """A py:percent text as a notebook without outputs, cell ids fixed by position."""
    import jupytext
    import nbformat

    notebook = jupytext.reads(text, fmt="py:percent")
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"{slug[:40]}-{number:02d}"
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def _bib_entry(slug: str, title: str, authors: str, year: int, arxiv: str, venue: str) -> str:
    title, venue = _as_latex(title), _as_latex(venue)
    fields = {"title": title, "author": authors, "booktitle": venue, "year": str(year), "eprint": arxiv}
    kind = "inproceedings" if venue else "misc"
    lines = [f"  {name:9} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join([f"\n@{kind}{{{slug},", *lines, "}", ""])


def _as_latex(text: str) -> str:
    """Plain text as BibTeX has it; braces, which keep capitals, stay."""
    special = {"\\": "\\textbackslash{}", "%": "\\%", "~": "\\textasciitilde{}"}
    return "".join(special.get(character, character) for character in text)


def _as_markdown(text: str) -> str:
    """A title's text as a heading has it, without the braces of BibTeX."""
    return text.replace("{", "").replace("}", "").replace("\\", "\\\\")


def _toc_with(toc: str, slug: str, part: str) -> str:
    """The table of contents with one more line: after the part's last chapter, or as a new part at its place."""
    lines = toc.splitlines(keepends=True)
    chapters = {
        n: line.split("notebooks/")[1].split("/")[0] for n, line in enumerate(lines) if "file: notebooks/" in line
    }
    mine = [n for n, name in chapters.items() if name == part]
    if mine:
        indent = lines[mine[-1]].split("-")[0]
        lines.insert(mine[-1] + 1, f"{indent}- file: notebooks/{part}/{slug}\n")
        return "".join(lines)
    block = (
        f"  - caption: {papers.PARTS[part]}\n    chapters:\n      - file: book/parts/{part}\n        sections:\n"
        f"          - file: notebooks/{part}/{slug}\n"
    )
    known = list(papers.PARTS)
    earlier = [n for n, name in chapters.items() if name in known and known.index(name) < known.index(part)]
    captions = [n for n, line in enumerate(lines) if line.startswith("  - caption:")]
    if earlier:
        place = earlier[-1] + 1
    elif chapters:
        place = max((n for n in captions if n < min(chapters)), default=len(lines))
    else:
        place = captions[-1] if captions else len(lines)
    lines.insert(place, block)
    return "".join(lines)


def _validate_slug(slug: str) -> None:
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug):
        raise NearFarError(f"slug must be lower-case letters, digits and single hyphens, got {slug!r}.")
    if slug in papers.PARTS:
        raise NearFarError(
            f"{slug!r} is the name of a part, whose notebook compares the part's methods; choose another slug."
        )
    if slug in papers.slugs():
        raise NearFarError(f"the book already has a chapter called {slug!r}; choose another slug.")


def _validate(part: str, title: str, authors: str, year: int, arxiv: str, venue: str) -> None:
    if part not in papers.PARTS:
        raise NearFarError(
            f"no part is called {part!r}.{nearest(part, papers.PARTS)} Parts: {', '.join(papers.PARTS)}."
        )
    if not title.strip() or not authors.strip():
        raise NearFarError("title and authors must not be empty.")
    if not 1900 <= year <= 2100:
        raise NearFarError(f"year must lie between 1900 and 2100, got {year}.")
    for name, value in {"title": title, "authors": authors, "arxiv": arxiv, "venue": venue}.items():
        if value.count("{") != value.count("}") or len(value.splitlines()) > 1:
            raise NearFarError(f"{name} must be one line with balanced braces, got {value!r}.")
    if wrong := [name for name in authors.split(" and ") if name.count(",") > 2]:  # as in "Doe, Jr., John"
        raise NearFarError(f'authors must be as in "Surname, First and Surname, First", got {wrong[0]!r} as one.')


def _filled(slug: str, given: dict) -> dict:
    """What was given, and where nothing was what the course's plan says of this paper."""
    planned = course.read().entries if (papers.root() / course.FILE).is_file() else {}
    if slug in planned:
        entry = planned[slug]
        known = {**vars(entry), "authors": " and ".join(entry.authors)}  # surnames
        return {name: known[name] if value is None else value for name, value in given.items()}
    if missing := [f"--{name}" for name, value in given.items() if value is None and name != "arxiv"]:
        raise NearFarError(f"{slug!r} is not in {course.FILE}.{nearest(slug, planned)} Give {', '.join(missing)}.")
    return {**given, "arxiv": given["arxiv"] or ""}


def create(
    slug: str,
    part: str | None = None,
    title: str | None = None,
    authors: str | None = None,
    year: int | None = None,
    arxiv: str | None = None,
    venue: str = "",
) -> list[Path]:
    """Writes the notebook skeleton, the bib entry and the toc line of a new paper; returns the files touched.

    For a paper of the course's plan, what is not given comes from there.
    Raises `NearFarError` and leaves everything as it was when an argument is bad, the slug is taken or a write fails.
    """
    _validate_slug(slug)
    given = {"part": part, "title": title, "authors": authors, "year": year, "arxiv": arxiv}
    part, title, authors, year, arxiv = _filled(slug, given).values()
    _validate(part, title, authors, year, arxiv, venue)
    folder = papers.root()
    papers.all_papers()  # begin from a registry that agrees with itself
    toc, bib = folder / "_toc.yml", folder / "book" / "references.bib"
    notebook, opener = folder / "notebooks" / part / f"{slug}.ipynb", folder / "book" / "parts" / f"{part}.md"
    entries = bib.read_text(encoding="utf-8")
    text = TEMPLATE.read_text(encoding="utf-8").replace("@SLUG@", slug).replace("@TITLE@", _as_markdown(title))
    writes = {notebook: notebook_json(text, slug), toc: _toc_with(toc.read_text(encoding="utf-8"), slug, part)}
    if not re.search(rf"@\w+\{{\s*{re.escape(slug)}\s*,", entries):  # it may be cited already
        writes[bib] = entries + _bib_entry(slug, title, authors, year, arxiv, venue)
    if not opener.exists():
        include = f"```{{include}} ../_generated/gallery-{part}.md\n```\n"
        writes[opener] = f"# {papers.PARTS[part]}\n\n{include}"
    before = {path: path.read_bytes() if path.exists() else None for path in writes}
    try:
        for path, content in writes.items():
            write_atomically(path, content)
        papers.get(slug)
    except NearFarError:
        for path, content in before.items():
            if content is None:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(content)
        raise
    return list(writes)
