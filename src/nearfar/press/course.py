"""The course: `book/course/papers.yml` says what every planned paper asks for; here it is read, checked and ordered.

A paper is *written* when `_toc.yml` names its chapter, else *planned*.  `nearfar.press.course_pages` makes pages of it.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nearfar.chapters import papers
from nearfar.errors import NearFarError, nearest

FILE = "book/course/papers.yml"
LONGEST_IDEA = 110  # characters
SOURCES = ("found", "recalled")  # checked at the source, or from memory


@dataclass(frozen=True)
class Concept:
    """Something to know beforehand: a term of the book's glossary, or a page elsewhere, explains it."""

    id: str
    title: str
    term: str
    link: str


@dataclass(frozen=True)
class Number:
    """A number that a paper reports: as printed there, as a number, and `found` at its source or `recalled`."""

    text: str
    source: str

    @property
    def value(self) -> float:
        return float(self.text)


@dataclass(frozen=True)
class Reported:
    """What a paper reports of its method and of a baseline.

    what: data, measure and unit; claim: the chapter's claim that it belongs to; paper: method's and baseline's number;
    ours: metric, method and baseline in our records; scale: from the unit of our records to the paper's.
    """

    what: str
    claim: str
    paper: tuple[Number, Number]
    ours: tuple[str, str, str]
    scale: float


@dataclass(frozen=True)
class Entry:
    """One paper of the plan.  needs: slugs and concept ids that come first; authors: surnames, empty when unknown."""

    slug: str
    title: str
    authors: tuple[str, ...]
    year: int
    arxiv: str
    part: str
    topics: tuple[str, ...]
    idea: str
    needs: tuple[str, ...]
    reported: tuple[Reported, ...] = ()


@dataclass(frozen=True)
class Course:
    """concepts and entries by id, in the file's order; written: slugs that have a chapter."""

    concepts: Mapping[str, Concept]
    entries: Mapping[str, Entry]
    written: frozenset[str]

    def parts(self) -> dict[str, str]:
        """{part: caption} of the parts that have papers, in the book's order."""
        return {part: caption for part, caption in papers.PARTS.items() if self.of(part)}

    def of(self, part: str) -> list[Entry]:
        """The papers of one part."""
        return [entry for entry in self.entries.values() if entry.part == part]


def _by_id(items, key: str, problems: list[str]) -> dict[str, dict]:
    """{id: fields} of a list of mappings; what is no mapping, has no id or comes twice goes to `problems`."""
    found: dict[str, dict] = {}
    for number, item in enumerate(items, start=1):
        if not isinstance(item, dict) or not isinstance(item.get(key), str):
            problems.append(f"entry {number} has no {key}")
        elif item[key] in found:
            problems.append(f"{item[key]}: stands there twice")
        else:
            found[item[key]] = item
    return found


def _entry_problems(slug: str, fields: dict, known: Iterable[str], topics: list[str]) -> list[str]:
    """What is wrong with one paper's fields, each as 'slug: what'."""
    kinds = {"title": str, "authors": list, "year": int, "arxiv": str, "part": str, "topics": list, "idea": str,
             "needs": list}  # fmt: skip
    wrong = [f"{slug}: {name} must be a {kind.__name__}" for name, kind in kinds.items()
             if not isinstance(fields.get(name), kind)]  # fmt: skip
    wrong += _reported_problems(slug, fields.get("reported", []))
    if extra := fields.keys() - kinds.keys() - {"slug", "reported"}:
        wrong.append(f"{slug}: unknown field {', '.join(sorted(map(str, extra)))}")
    if wrong:
        return wrong
    if fields["part"] not in papers.PARTS:
        wrong.append(f"{slug}: unknown part {fields['part']!r}.{nearest(fields['part'], papers.PARTS)}")
    if not 1 <= len(fields["topics"]) <= 3:
        wrong.append(f"{slug}: one to three topics are wanted, {len(fields['topics'])} given")
    wrong += [f"{slug}: unknown topic {t!r}.{nearest(str(t), topics)}" for t in fields["topics"] if t not in topics]
    if not 0 < len(fields["idea"]) <= LONGEST_IDEA or "\n" in fields["idea"]:
        wrong.append(f"{slug}: the idea must be one line of at most {LONGEST_IDEA} characters")
    known = set(known)
    wrong += [f"{slug}: needs the unknown {n!r}.{nearest(str(n), known)}" for n in fields["needs"] if n not in known]
    return wrong


def _reported_problems(slug: str, items) -> list[str]:
    if not isinstance(items, list):
        return [f"{slug}: reported must be a list"]
    wrong = []
    for number, item in enumerate(items, start=1):
        try:
            _reported(item)
        except (TypeError, ValueError, KeyError, AttributeError):
            wrong.append(
                f"{slug}: reported {number} must hold what, claim, paper (two numbers, each followed by "
                "found or recalled), ours (metric, method, baseline) and, if wanted, scale"
            )
    return wrong


def _reported(item: dict) -> Reported:
    """Raises one of Python's own errors for anything that is not as it must be."""
    numbers = []
    for told in item["paper"]:
        text, source = told.split()
        if source not in SOURCES or not math.isfinite(float(text)):
            raise ValueError
        numbers.append(Number(text, source))
    (method, baseline), (metric, ours, theirs) = numbers, item["ours"]
    if item.keys() - {"what", "claim", "paper", "ours", "scale"}:
        raise ValueError
    names = tuple(str(name) for name in (metric, ours, theirs))
    return Reported(str(item["what"]), str(item["claim"]), (method, baseline), names, float(item.get("scale", 1)))


def _concept_problems(name: str, fields: dict) -> list[str]:
    wrong = [] if isinstance(fields.get("title"), str) else [f"{name}: title must be a str"]
    if extra := fields.keys() - {"id", "title", "term", "link"}:
        wrong.append(f"{name}: unknown field {', '.join(sorted(map(str, extra)))}")
    if ("term" in fields) == ("link" in fields):
        wrong.append(f"{name}: a concept has either a term of the glossary or a link")
    return wrong


def _load(path: Path) -> dict:
    content = papers.read_yaml(path)
    names = ("topics", "concepts", "papers")
    if not isinstance(content, dict) or not all(isinstance(content.get(name), list) for name in names):
        raise NearFarError(f"{path} must hold the lists {', '.join(names)}; see the committed one for the format.")
    return content


def read(folder: Path | None = None) -> Course:
    """The course of a checkout (default: `papers.root()`).

    Raises `NearFarError`, one line that names the file and every bad entry: unknown part, topic or need, a cycle, a
    missing or ill-typed field, a chapter that `_toc.yml` puts into another part.  A chapter without an entry stands on
    no course page, and that is all.
    """
    folder = folder or papers.root()
    content, problems = _load(folder / FILE), []
    concepts = _by_id(content["concepts"], "id", problems)
    entries = _by_id(content["papers"], "slug", problems)
    problems += [f"{name}: is a concept and a paper" for name in concepts.keys() & entries.keys()]
    for name, fields in concepts.items():
        problems += _concept_problems(name, fields)
    for slug, fields in entries.items():
        problems += _entry_problems(slug, fields, concepts.keys() | entries.keys(), content["topics"])
    chapters = papers.slugs(folder)
    for slug, part in chapters.items():
        if slug in entries and entries[slug].get("part") != part:
            problems.append(f"{slug}: stands in the part {part!r} of _toc.yml")
    if not problems and (circle := _cycle({slug: fields["needs"] for slug, fields in entries.items()})):
        problems.append(f"{circle[0]}: needs itself, by way of {' → '.join(circle)}")
    if problems:
        raise NearFarError(f"{folder / FILE}: " + "; ".join(problem.rstrip(".") for problem in problems) + ".")
    return Course(
        concepts={n: Concept(n, f["title"], f.get("term", ""), f.get("link", "")) for n, f in concepts.items()},
        entries={slug: _entry(fields) for slug, fields in entries.items()},
        written=frozenset(chapters.keys() & entries.keys()),
    )  # fmt: skip


def _entry(fields: dict) -> Entry:
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    return Entry(**{**values, "reported": tuple(map(_reported, fields.get("reported", [])))})


def _cycle(needs: Mapping[str, Iterable[str]]) -> list[str]:
    """A walk along `needs` that comes back to where it began, or [] when there is none."""
    done: set[str] = set()
    path: list[str] = []

    def visit(name: str) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name not in done:
            path.append(name)
            for need in needs.get(name, ()):
                if circle := visit(need):
                    return circle
            path.pop()
            done.add(name)
        return []

    return next((circle for name in needs if (circle := visit(name))), [])


def order(course: Course) -> list[str]:
    """All slugs such that every paper comes after the papers it needs; the file's order wherever that is free."""
    found: dict[str, None] = {}

    def visit(slug: str) -> None:
        if slug not in found and slug in course.entries:
            for need in course.entries[slug].needs:
                visit(need)
            found[slug] = None

    for slug in course.entries:
        visit(slug)
    return list(found)


def ancestors(course: Course, name: str) -> set[str]:
    """Everything, papers and concepts, that `name` needs directly or through others."""
    direct = course.entries[name].needs if name in course.entries else ()
    return set(direct).union(*(ancestors(course, need) for need in direct))


def arrows(course: Course, part: str) -> list[tuple[str, str]]:
    """(need, paper) for the papers of one part, without arrows that follow from two others."""
    return [
        (need, entry.slug)
        for entry in course.of(part)
        for need in entry.needs
        if not any(need in ancestors(course, other) for other in entry.needs if other != need)
    ]
