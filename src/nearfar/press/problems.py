"""The page "Which paper for my problem?": from what troubles a reader to chapters, with what was measured in them.

`book/problems.yml` says which topics of the papers belong to which problem; ideas and numbers come from the course
file and from the records.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nearfar.chapters import papers
from nearfar.errors import NearFarError
from nearfar.press import names, pages
from nearfar.press.course import Entry

FILE = "book/problems.yml"


@dataclass(frozen=True)
class Problem:
    """Papers with one of `topics` and none of `without`; text: Markdown, one sentence or two."""

    problem: str
    text: str
    topics: tuple[str, ...]
    without: tuple[str, ...] = ()

    def fits(self, entry: Entry) -> bool:
        return bool(set(self.topics) & set(entry.topics)) and not set(self.without) & set(entry.topics)


def read(folder: Path | None = None) -> tuple[list[Problem], list[str]]:
    """The problems, and the topics that are none.  Raises `NearFarError`, one line, for a file of another form."""
    path = (folder or papers.root()) / FILE
    content = papers.read_yaml(path)
    try:
        found = [
            Problem(item["problem"], item["text"], tuple(item["topics"]), tuple(item.get("without", ())))
            for item in content["problems"]
        ]
        return found, list(content["no problems"])
    except (TypeError, KeyError, AttributeError) as problem:
        raise NearFarError(
            f"{path} must hold `problems`, each with problem, text and topics, and `no problems` ({problem!r}): "
            "compare it with the committed one."
        ) from None


def measured(records: list[dict]) -> str:
    """One line of Markdown: headline, verdicts and runs of one chapter at its highest tier."""
    if not records:
        return "not run yet"
    found, why = pages.multiplier(records)
    if found:
        chosen, multiplier = found
        rivals = f"{chosen['method']} over {chosen['baseline']}, {chosen['metric']}"
        value = multiplier.note if multiplier.kind == "undefined" else pages.reading(multiplier)
        said = f"**{pages.cell(multiplier.label)}** ({pages.cell(rivals)}): {pages.cell(value)}"
    else:
        said = pages.cell(why.rstrip("."))
    judged = ", ".join(f"{count} {pages.badge(verdict)}" for verdict, count in pages.counts(records).items())
    return f"{said}. Claims: {judged or 'none recorded'} ({records[0]['tier']} tier, {pages.seeds(records)})."


def page(records: list[dict], entries: Mapping[str, Entry], problems: list[Problem]) -> str:
    """Markdown of the page; a problem without a written chapter is left out."""
    best, written = pages.highest(records), papers.slugs()
    lines = ["# Which paper for my problem?", "",
             "Look for what troubles you; under it stand the chapters that are about it, each with its idea and with "
             "what came out when it was run here. The [data multiplier](how-to-read.md) "
             "compares a method with the baseline of its own chapter. It does not rank chapters against each "
             "other: their data and baselines differ.", "",
             "```{contents}", ":local:", ":depth: 1", ":backlinks: none", "```", ""]  # fmt: skip
    shown = []
    for problem in problems:
        mine = [entries[slug] for slug in written if slug in entries and problem.fits(entries[slug])]
        if not mine:
            continue
        shown.append(problem)
        lines += [f"## {problem.problem}", "", problem.text, ""]
        for entry in mine:
            link = f"../notebooks/{entry.part}/{entry.slug}.ipynb"
            lines += [f"- **[{pages.cell(names.short(entry.slug))}]({link})**: {pages.cell(entry.idea)}<br>",
                      f"  *Measured here:* {measured(best.get(entry.slug, []))}"]  # fmt: skip
        lines.append("")
    missing = len(problems) - len(shown)
    if missing:
        lines += [f"*{missing} more problems wait for their chapters: the [list of all papers](course/all-papers.md) "
                  "says what is planned.*", ""]  # fmt: skip
    return "\n".join(lines)
