"""The landing page's picture of all chapters, from the records, and below it those that cannot stand on its axis."""

from nearfar.chapters import papers
from nearfar.press import names, pages
from nearfar.press.landscape import Dot, drawing
from nearfar.runs import results

LEGEND = (
    "Each dot is a paper. Its place says <b>how many times more data the baseline needs for the method’s score</b>: "
    "right of 1× the method is ahead, left of it the baseline. Lines are 95 % t intervals over seeds; where a line "
    "crosses 1×, these runs show no difference. Arrows lead beyond the axis; hollow dots come from the smoke tier. "
    "Baselines, data and measures differ from chapter to chapter: a dot further right is not a better method. "
    "Point at a dot for title and verdicts, follow it to the chapter."
)


def _told(paper: papers.Paper, records: list[dict], multiplier: results.Multiplier) -> str:
    """Title, number, verdicts and runs of one chapter, a line each, as plain text."""
    counts = ", ".join(f"{count} {verdict}" for verdict, count in pages.counts(records).items())
    said = f"{multiplier} data: {pages.reading(multiplier)}"
    return "\n".join(
        [
            names.full(paper),
            said,
            f"Claims: {counts or 'none recorded'}",
            f"{records[0]['tier']} tier, {pages.seeds(records)}",
        ]
    )


def sorted_out(records: list[dict]) -> tuple[list[Dot], dict[str, list[papers.Paper]]]:
    """The chapters that have a data multiplier, as dots, and those that have none, by the reason."""
    best, dots, without = pages.highest(records), [], {}
    for paper in papers.all_papers():
        mine = best.get(paper.slug, [])
        found, why = pages.multiplier(mine) if mine else (None, "no run is recorded yet")
        if found is None or found[1].kind == "undefined":
            without.setdefault(found[1].note if found else why.rstrip("."), []).append(paper)
            continue
        link = f"../notebooks/{paper.part}/{paper.slug}.html"
        told = _told(paper, mine, found[1])
        dots.append(Dot(names.short(paper.slug), paper.part, link, told, found[1], mine[0]["tier"] != "smoke"))
    return dots, without


def overview(records: list[dict]) -> str:
    """Markdown of the overview, or a line that says why there is none."""
    dots, without = sorted_out(records)
    if not dots and not records:
        return "No runs are recorded yet, so there are no curves to show. `nearfar run <slug>` records one.\n"
    lines = []
    if dots:
        lines += ["```{raw} html", '<figure class="nf-overview" id="overview-multipliers">', drawing(dots),
                  f"<figcaption><p>{LEGEND}</p></figcaption>", "</figure>", "```", ""]  # fmt: skip
    for why, lacking in without.items():
        links = ", ".join(f"[{pages.cell(names.short(p.slug))}](../notebooks/{p.part}/{p.slug}.ipynb)" for p in lacking)
        lines += [f"**Not on the axis**, because {pages.cell(why)}: {links}.", ""]
    return "\n".join(lines)
