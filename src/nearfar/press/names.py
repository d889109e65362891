"""The short names by which a page calls a paper: SwAV, not `swav`, and not a title of two lines."""

import re
import textwrap

from nearfar.chapters import papers

LONGEST = 24  # characters that have room beside a dot and in a table's first column


def shortened(title: str) -> str:
    """A title's own short name, which stands before its colon; without one as many of its words as have room."""
    plain = re.sub(r"[{}\\]", "", title)
    name = plain.partition(":")[0].strip()
    return name if len(name) <= LONGEST else textwrap.shorten(plain, LONGEST, placeholder=" …")


def short(slug: str) -> str:
    """What people call a chapter: `shorttitle` in `book/references.bib`, else `shortened` of its title.

    A part's comparison is called after its part; a slug without an entry stays as it is.
    """
    if slug in papers.PARTS:
        return "all methods compared"
    entry = papers.references().get(slug)
    if entry is None:
        return slug
    return shortened(entry.fields.get("shorttitle") or entry.fields.get("title", slug))


def full(paper: papers.Paper) -> str:
    """Short name and title; the name once where the title begins with it."""
    name = short(paper.slug)
    return paper.title if name.endswith("…") or paper.title.startswith(name) else f"{name}: {paper.title}"
