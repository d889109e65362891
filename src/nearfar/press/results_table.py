"""The table of all chapters on the results page: a row a chapter, which a script in `book/_static` sorts by column.

It is written as HTML: cells carry what they are sorted by, and the lower tiers of a chapter unfold in its row.
"""

import html
from collections.abc import Mapping

from nearfar.chapters import notebooks, papers
from nearfar.press import names, pages
from nearfar.press.landscape import Axis, mark, times
from nearfar.runs import results

COLUMNS = ("chapter", "part", "data multiplier", "claims", "runs")
HEIGHT = 20  # pixels of an interval's drawing
Tiers = Mapping[str, list[dict]]  # the records of one chapter, by tier


def _order(multiplier: results.Multiplier | None) -> str:
    """What a row is sorted by: bounds beyond all numbers, undefined and missing ones last."""
    if multiplier is None or multiplier.kind == "undefined":
        return ""
    beyond = {"above": 1e6, "below": 1e-6}.get(multiplier.kind, 1)
    return f"{multiplier.value * beyond:.6g}"


def _said(records: list[dict]) -> tuple[str, results.Multiplier | None]:
    """HTML of one tier's multiplier with what it compares, or why there is none; and the multiplier."""
    found, why = pages.multiplier(records)
    if not found:
        return html.escape(why), None
    chosen, multiplier = found
    value = html.escape("; ".join(filter(None, [str(multiplier), multiplier.note])))
    rivals = html.escape(f"{chosen['metric']}: {chosen['method']} over {chosen['baseline']}")
    return f"{value}<br><small>{rivals}</small>", multiplier


def _judged(records: list[dict]) -> str:
    counts = pages.counts(records)
    return ", ".join(f"{count} {pages.badge(verdict)}" for verdict, count in counts.items()) or "none recorded"


def _runs(records: list[dict]) -> str:
    """HTML: how many seeds, and whether the code has changed since."""
    stale = "<br><small>older than the code</small>" if any(map(results.is_stale, records)) else ""
    return f"{pages.seeds(records)}{stale}"


def _unfolding(records: list[dict]) -> str:
    """A lower tier of a chapter: one line that opens."""
    said, _ = _said(records)
    told = f"{said}<br>Claims: {_judged(records)}<br>{_runs(records)}"
    return f"<details><summary>{records[0]['tier']} tier</summary>{told}</details>"


def _interval(multiplier: results.Multiplier | None, axis: Axis, sure: bool) -> str:
    """The multiplier as a drawing on the table's axis; the numbers beside it say the same."""
    if multiplier is None or multiplier.kind == "undefined":
        return ""
    tie = f"{axis.place(1):.2f}%"
    line = f'<line class="nf-grid nf-tie" x1="{tie}" x2="{tie}" y1="0" y2="{HEIGHT}"/>'
    drawn = mark(multiplier, axis, HEIGHT / 2, sure)
    return f'<svg class="nf-whisker" width="100%" height="{HEIGHT}" aria-hidden="true">{line}{drawn}</svg>'


def _row(paper: papers.Paper, tiers: Tiers, axis: Axis) -> str:
    """One chapter; tiers: from smoke to full, empty when nothing is recorded."""
    link = f"../notebooks/{paper.part}/{paper.slug}.html"
    title = f'<a href="{link}">{html.escape(names.short(paper.slug))}</a><br><small>{html.escape(paper.title)}</small>'
    cells = [
        (names.short(paper.slug).lower(), title),
        (str(list(papers.PARTS).index(paper.part)), papers.PARTS[paper.part]),
    ]
    if not tiers:
        cells += [("", "No recorded run yet."), ("", ""), ("", "")]
    else:
        *lower, (tier, highest) = tiers.items()
        said, multiplier = _said(highest)
        held = pages.counts(highest).get("held", 0) / max(1, sum(pages.counts(highest).values()))
        unfold = "".join(_unfolding(mine) for _, mine in reversed(lower))
        drawn = _interval(multiplier, axis, tier != "smoke")
        cells += [
            (_order(multiplier), drawn + said),
            (f"{held:.3f}", _judged(highest)),
            (str(notebooks.TIERS.index(tier)), f"{tier}, {_runs(highest)}{unfold}"),
        ]
    (key, head), *others = cells
    body = "".join(f'<td data-sort="{html.escape(key)}">{text}</td>' for key, text in others)
    return f'<tr class="nf-part-{paper.part}"><th scope="row" data-sort="{html.escape(key)}">{head}</th>{body}</tr>'


def table(records: list[dict]) -> str:
    """HTML of the table: every chapter once, at the highest tier that was recorded."""
    tiers: dict[str, dict[str, list[dict]]] = {}
    for (slug, tier), mine in results.groups(records).items():
        tiers.setdefault(slug, {})[tier] = mine
    found = [pages.multiplier(mine)[0] for mine in pages.highest(records).values()]
    axis = Axis.of([each[1] for each in found if each])
    heads = "".join(f'<th scope="col" class="nf-sortable">{name}</th>' for name in COLUMNS)
    rows = [_row(paper, tiers.get(paper.slug, {}), axis) for paper in papers.all_papers()]
    return "\n".join([
        "<p>Every chapter stands here once, at the highest tier that was run; lower tiers unfold in the last column. "
        f"Drawings reach from {times(axis.low)} to {times(axis.high)}, with a stroke at 1×. A heading sorts by its "
        "column.</p>",
        '<table class="table nf-results" id="results-table" aria-label="All chapters">',
        f"<thead><tr>{heads}</tr></thead>", "<tbody>", *rows, "</tbody>", "</table>",
    ])  # fmt: skip
