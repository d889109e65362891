"""Links from a chapter's prose to the glossary: the first time that a term occurs in running text, and only then."""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

FILE = "book/glossary.md"
# Words with an everyday sense as well: only the chapters that their entry names are linked to it.
EVERYDAY = {"attribute", "batch", "claim", "collapse", "leak", "positive", "queue", "recall", "record", "seed", "view"}
CITATION = "**Paper.**"  # begins the paragraph with authors and title, which are not our words
UNLINKED = {"code"}  # every chapter has code of the other kind

_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,}|:{3,})")
_NO_PROSE = re.compile(
    r"""^(?: [ ]{4,} | [ ]*\t          # code, or deep in a list
          | [ ]{0,3}(?: \#{1,6}(?:\s|$)  # heading
                     | [|<%]            # table, HTML, comment
                     | \([^)]+\)=       # target
                     | \[[^\]]+\]:      # definition of a link or a footnote
                     | :[\w-]+:))       # option or field""",
    re.VERBOSE,
)
_UNDERLINE = re.compile(r"^ {0,3}(?:=+|-+)\s*$")
_TAKEN = r"""
      \\[^\w\s]                                             # escaped sign
    | \{[A-Za-z][\w:.+-]*\}(`+).+?(?<!`)\1(?!`)             # role
    | (`+)(?!`).+?(?<!`)\2(?!`)                             # code
    | \$\$.+?\$\$ | \$(?:\\.|[^$\\])+\$                     # formula
    | \\begin\{(\w+\*?)\}.+?\\end\{\3\}
    | !?\[(?:[^\[\]]|\[[^\[\]]*\](?:\([^()]*\))?)*\]        # link or image, its text included
      (?:\((?:[^()]|\([^()]*\))*\)|\[[^\]]*\]|\{[^}]*\})?
    | <(a|code|pre|kbd|script|style|svg|table)\b.*?</\4\s*>  # elements, and single tags or addresses
    | <[^<>]+>
    | (?:https?://|www\.)\S+
"""


def terms(text: str) -> dict[str, str]:
    """{term: its entry} of a page's `{glossary}` block, in its order."""
    block = re.search(r"^(`{3,}|:{3,})\{glossary\}\n(.*?)^\1\s*$", text, re.DOTALL | re.MULTILINE)
    found: dict[str, str] = {}
    term = ""
    for line in block[2].splitlines() if block else ():
        if line and not line[0].isspace():
            term = line.strip()
            found[term] = ""
        elif term:
            found[term] += line.strip() + "\n"
    return found


def chapter_terms(entries: Mapping[str, str], slug: str) -> list[str]:
    """Terms to link in one chapter: not the one that the chapter is about."""
    return [
        term
        for term, entry in entries.items()
        if term.lower() not in UNLINKED | {slug} and (term.lower() not in EVERYDAY or f"/{slug}.ipynb)" in entry)
    ]


@cache
def _plural(term: str) -> str:
    """Pattern of a term in the singular or plural, with any white space between its words."""
    words = re.split(r"\s+", term)
    last = words[-1]
    ending = rf"{re.escape(last[:-1])}(?:y|ies)" if re.search(r"[^aeiou]y$", last) else rf"{re.escape(last)}(?:e?s)?"
    return r"\s+".join([*map(re.escape, words[:-1]), ending])


def _blocks(text: str) -> Iterable[tuple[bool, str]]:
    """Pieces of Markdown, which put together are the text, and whether each is running prose."""
    piece: list[str] = []
    fence = ""
    for line in text.splitlines(keepends=True):
        opening = _FENCE.match(line)
        if fence:
            yield False, line
            fence = "" if re.match(rf" {{0,3}}{re.escape(fence)}+\s*$", line) else fence
        elif opening or not line.strip() or _NO_PROSE.match(line):
            yield True, "".join(piece)
            yield False, line
            piece, fence = [], opening[1] if opening else ""
        elif piece and _UNDERLINE.match(line):
            yield False, "".join([*piece, line])
            piece = []
        else:
            piece.append(line)
    yield True, "".join(piece)


def link(text: str, wanted: list[str]) -> tuple[str, list[str]]:
    """Markdown in which the first occurrence of each wanted term in running prose refers to the glossary.

    Case does not count, and the plural counts as the term.  Headings, code, formulas, links, tables, HTML, directives
    and other roles are left as they are.  Returns the text and the terms that it does not hold.
    """
    left = {term.lower(): term for term in wanted}
    longest = sorted(wanted, key=len, reverse=True)

    def refer(match: re.Match) -> str:
        if match["term"] is None:
            return match[0]
        term = next(term for term in longest if re.fullmatch(_plural(term), match["term"], re.IGNORECASE))
        if not left.pop(term.lower(), None):
            return match[0]
        said = " ".join(match["term"].split())
        return f"{{term}}`{said}`" if said == term else f"{{term}}`{said} <{term}>`"

    if not wanted:
        return text, []
    either = "|".join(map(_plural, longest))
    flags = re.VERBOSE | re.DOTALL | re.IGNORECASE
    scan = re.compile(rf"(?:{_TAKEN})|(?<![\w\-/])(?P<term>{either})(?![\w\-/])", flags)
    found = [
        scan.sub(refer, piece) if prose and not piece.startswith(CITATION) else piece for prose, piece in _blocks(text)
    ]
    return "".join(found), list(left.values())


def link_cells(cells: list[dict], wanted: list[str]) -> list[dict]:
    """Cells of a notebook, each term linked where it first occurs in the prose of any of them."""
    result = []
    for cell in cells:
        if cell["cell_type"] == "markdown":
            text, wanted = link("".join(cell["source"]), wanted)
            cell = {**cell, "source": text}
        result.append(cell)
    return result


def read(folder: Path) -> dict[str, str]:
    """`terms` of a checkout; none where it has no glossary."""
    path = folder / FILE
    return terms(path.read_text(encoding="utf-8")) if path.is_file() else {}
