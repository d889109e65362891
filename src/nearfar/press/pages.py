"""What the records say on cards, in the gallery and above each chapter."""

import base64
import html
import io
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from nearfar.chapters import notebooks, papers
from nearfar.errors import NearFarError
from nearfar.press import folding, names
from nearfar.runs import results, verdicts

NOTHING: Mapping = MappingProxyType({})
Groups = Mapping[str, Mapping[str, str]]


def colab_link(paper: papers.Paper) -> str:
    """Address that opens a chapter's committed notebook in Colab."""
    path = paper.notebook.relative_to(papers.root()).as_posix()
    place = papers.REPOSITORY.removeprefix("https://github.com/")
    return f"https://colab.research.google.com/github/{place}/blob/main/{path}"


def highest(records: list[dict]) -> dict[str, list[dict]]:
    """For every slug the records of the highest tier that has any, in reading order."""
    best: dict[str, list[dict]] = {}
    for (slug, _), mine in results.groups(records).items():
        best[slug] = mine  # groups come in the order of tiers
    return {slug: best[slug] for slug in papers.slugs() if slug in best}


def authors_line(paper: papers.Paper) -> str:
    return papers.by([name.split(" ")[-1] for name in paper.authors])


def badge(verdict: str) -> str:
    return f'<span class="nf-verdict nf-{verdict.replace(" ", "-")}">{html.escape(verdict)}</span>'


def cell(text: str) -> str:
    """Text as text in Markdown, also in a table: nothing in it is markup, whoever wrote it."""
    return re.sub(r"[\\`*_{}\[\]<>&|$~#!]", lambda found: f"&#{ord(found[0])};", " ".join(text.split()))


def seeds(records: list[dict]) -> str:
    numbers = [r["seed"] for r in records]
    return f"seed {numbers[0]}" if len(numbers) == 1 else f"{len(numbers)} seeds"


def multiplier(records: list[dict]) -> tuple[tuple[dict, results.Multiplier] | None, str]:
    """`results.headline` of one chapter at one tier, or None and one line that says why there is none."""
    try:
        found = results.headline(records)
    except NearFarError as problem:
        return None, str(problem)
    return found, "" if found else "the records name no comparison (`run.headline`)"


def multiplier_line(found: results.Multiplier) -> str:
    """For a card: the number and what it says, or that it is undefined, and why it is a bound or undefined."""
    if found.kind == "undefined":
        return f"Data multiplier undefined: {cell(found.note)}."
    return f"**{cell(str(found))}** data: {cell('; '.join(filter(None, [reading(found), found.note])))}."


def reading(found: results.Multiplier) -> str:
    """What a data multiplier says in words, as plain text."""
    if found.kind == "undefined":
        return "it cannot be told"
    if found.kind != "exact":
        return f"the method needs far {'less' if found.kind == 'above' else 'more'} data than its baseline"
    if math.isnan(found.low):
        return "one seed, so chance is not ruled out"
    if found.low <= 1 <= found.high:
        return "no difference shown"
    return f"the method needs {'less' if found.low > 1 else 'more'} data than its baseline"


def counts(records: list[dict]) -> dict[str, int]:
    """{verdict: claims of one chapter at one tier that got it over all seeds}, without zeros."""
    told = [claim["verdict"] for claim in verdicts.over_seeds(records)]
    return {verdict: told.count(verdict) for verdict in verdicts.VERDICTS if verdict in told}


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def cost(records: list[dict]) -> str:
    """Mean time of a run at each tier that one chapter's records hold: `smoke 20 s, small 6 min`."""
    times = {tier: [r["seconds"] for r in records if r["tier"] == tier] for tier in notebooks.TIERS}
    return ", ".join(f"{tier} {duration(sum(t) / len(t))}" for tier, t in times.items() if t)


def recorded_verdicts(records: list[dict]) -> str:
    """Markdown: the claims of one chapter over the seeds of every tier that tests one; nothing where none does."""
    by_tier = {tier: verdicts.over_seeds(mine) for (_, tier), mine in results.groups(records).items()}
    by_tier = {
        tier: claims for tier, claims in by_tier.items() if any(claim["verdict"] != "not tested" for claim in claims)
    }
    if not by_tier:
        return ""
    lines = ["Recorded, all seeds of a tier together:", "", f"| claim | {' | '.join(by_tier)} |",
             f"|---|{'---|' * len(by_tier)}"]  # fmt: skip
    for name in dict.fromkeys(claim["id"] for claims in by_tier.values() for claim in claims):
        told = []
        for claims in by_tier.values():
            found = [claim for claim in claims if claim["id"] == name]
            told += [badge(c["verdict"]) + cell(c["summary"]).removeprefix(c["verdict"]) for c in found] or ["–"]
        lines.append(f"| {cell(name)} | {' | '.join(told)} |")
    return "\n".join(lines)


def reading_minutes(notebook: dict) -> int:
    """At 200 words and 25 lines of unfolded code a minute, to the next five minutes."""
    prose = [cell for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    words, lines = (
        sum(len("".join(cell["source"]).split()) for cell in prose),
        folding.unfolded_lines(notebook["cells"]),
    )
    return 5 * math.ceil((words / 200 + lines / 25) / 5)


def idea(paper: papers.Paper) -> str:
    """What the chapter says after **In one sentence.**, or nothing."""
    cells = json.loads(paper.notebook.read_text(encoding="utf-8"))["cells"]
    prose = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    found = re.search(r"\*\*In one sentence\.\*\*\s+(.+?)\s*(?:\n\s*\n|$)", prose, re.DOTALL)
    return " ".join(found[1].split()) if found else ""


def key_figure(notebook: dict) -> str:
    """The image (PNG, base64) of the cell tagged `key-figure`.  Raises `NearFarError` that says what is missing."""
    tagged = [cell for cell in notebook["cells"] if "key-figure" in cell["metadata"].get("tags", [])]
    if not tagged:
        raise NearFarError("no cell is tagged `key-figure`")
    for output in (output for cell in tagged for output in cell.get("outputs", [])):
        if drawn := output.get("data", {}).get("image/png"):
            return "".join(drawn)
    raise NearFarError("the cell tagged `key-figure` shows no picture")


def thumbnail(figure: str, path: Path) -> None:
    """Saves an image (PNG, base64) as a small picture."""
    from PIL import Image

    image = Image.open(io.BytesIO(base64.b64decode(figure))).convert("RGB")
    image.thumbnail((640, 320))
    image.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def filters(groups: Groups, items: str, noun: str, menus: Groups = NOTHING, search: str = "") -> str:
    """Buttons, and menus where there are many choices, that show some of a page's items only.

    groups, menus: {what is chosen: {class of an item, or of something in it: label}}; items: CSS selector of the
    items; noun: what they are, for the line that says how many are shown; search: what a field for words of theirs
    gives as an example, if there is to be one.
    """
    lines = [f'<div class="nf-filter" data-items="{items}" data-noun="{html.escape(noun)}" hidden>']
    if search:
        lines.append(
            '<div role="search" aria-label="Search"><label><span>Search</span>'
            f'<input type="search" placeholder="{html.escape(search)}" autocomplete="off"></label></div>'
        )
    for name, options in groups.items():
        buttons = "".join(
            f'<button type="button" data-class="{value}" aria-pressed="false">{html.escape(label)}</button>'
            for value, label in options.items()
        )
        lines.append(
            f'<div role="group" aria-label="{html.escape(name)}"><span>{html.escape(name)}</span>{buttons}</div>'
        )
    for name, options in menus.items():
        choices = "".join(f'<option value="{value}">{html.escape(label)}</option>' for value, label in options.items())
        lines.append(
            f'<div role="group" aria-label="{html.escape(name)}"><label><span>{html.escape(name)}</span>'
            f'<select><option value="">all</option>{choices}</select></label></div>'
        )
    return "\n".join([*lines, "<output></output>", "</div>", ""])


def _topic_class(topic: str) -> str:
    return f"nf-topic-{topic.replace(' ', '-')}"


def card(
    paper: papers.Paper,
    records: list[dict],
    folder: str,
    pictures: Mapping[str, str] = NOTHING,
    topics: Mapping[str, tuple[str, ...]] = NOTHING,
) -> str:
    """One chapter's card of a gallery; what it lacks is said where it would stand.

    records: all of this chapter's; folder: relative way from the page to the book's root; pictures: for each slug
    nothing, or why there is no picture; topics: those of each slug.
    """
    mine = topics.get(paper.slug, ())
    classes = " ".join(["nf-card", f"nf-part-{paper.part}", *map(_topic_class, mine)])
    lines = [f":::{{grid-item-card}} {names.full(paper)}", f":link: {folder}notebooks/{paper.part}/{paper.slug}",
             ":link-type: doc", f":class-item: {classes}"]  # fmt: skip
    lacking = pictures.get(paper.slug)
    if lacking == "":
        picture = f"{folder}book/_generated/thumbnail-{paper.slug}.png"
        lines += [f":img-top: {picture}", ":img-alt: Key figure of this chapter."]
    lines += ["", f"{authors_line(paper)}, {paper.year}", "", idea(paper), ""]
    lines += [f"No picture: {lacking}.", ""] if lacking else []
    best = highest(records).get(paper.slug, [])
    if best:
        found, why = multiplier(best)
        said = ", ".join(f"{count} {badge(verdict)}" for verdict, count in counts(best).items())
        lines += [multiplier_line(found[1]) if found else f"No data multiplier: {cell(why.rstrip('.'))}.", "",
                  f"Claims: {said or 'none recorded'}", "",
                  f"{best[0]['tier']} tier, {seeds(best)}. A run: {cost(records)}."]  # fmt: skip
    else:
        lines += ["No recorded run yet."]
    lines += ["", f'<span class="nf-topics">{html.escape(" · ".join(mine))}</span>'] if mine else []
    return "\n".join([*lines, ":::", ""])


def gallery(
    records: list[dict],
    folder: str,
    part: str | None = None,
    pictures: Mapping[str, str] = NOTHING,
    topics: Mapping[str, tuple[str, ...]] = NOTHING,
) -> str:
    """Cards of all chapters, to be searched and filtered, or of one part's; the rest as for `card`."""
    shown = [p for p in papers.all_papers() if part in (None, p.part)]
    by_slug = {p.slug: [r for r in records if r["slug"] == p.slug] for p in shown}
    cards = [card(p, by_slug[p.slug], folder, pictures, topics) for p in shown]
    parts = {f"nf-part-{key}": title for key, title in papers.PARTS.items() if any(p.part == key for p in shown)}
    named = sorted({topic for p in shown for topic in topics.get(p.slug, ())})
    judged = {v for mine in by_slug.values() for best in highest(mine).values() for v in counts(best)}
    menus = {
        "Part": parts,
        "Topic": {_topic_class(topic): topic for topic in named},
        "A claim": {f"nf-{v.replace(' ', '-')}": v for v in verdicts.VERDICTS if v in judged},
    }
    menus = {name: choices for name, choices in menus.items() if len(choices) > 1}
    chosen = filters({}, ".nf-card", "chapters", menus, "SMOTE, queue, regression …") if part is None else ""
    return "\n".join([chosen, "::::{grid} 1 1 2 2", ":gutter: 3", "", *cards, "::::", ""])
