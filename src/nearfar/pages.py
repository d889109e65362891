"""Pages of the book that are made from the records: gallery, results, and what stands above each chapter."""

import base64
import html
import io
import json
import math
import os
import re
from pathlib import Path

from nearfar import notebooks, papers, plots, results

REPOSITORY = "near-and-far/near-and-far"


def colab_link(paper: papers.Paper) -> str:
    """Address that opens a chapter's committed notebook in Colab."""
    path = paper.notebook.relative_to(papers.root()).as_posix()
    return f"https://colab.research.google.com/github/{REPOSITORY}/blob/main/{path}"


def highest(records: list[dict]) -> dict[str, list[dict]]:
    """For every slug the records of the highest tier that has any, in reading order."""
    best: dict[str, list[dict]] = {}
    for (slug, _), mine in results.groups(records).items():
        best[slug] = mine  # groups come in the order of tiers
    return {slug: best[slug] for slug in papers.slugs() if slug in best}


def authors_line(paper: papers.Paper) -> str:
    return papers.by([name.split(" ")[-1] for name in paper.authors])


def _badge(verdict: str) -> str:
    return f'<span class="nf-verdict nf-{verdict.replace(" ", "-")}">{html.escape(verdict)}</span>'


def _cell(text: str) -> str:
    """Text that may stand in a cell of a Markdown table."""
    return html.escape(text, quote=False).replace("|", "\\|").replace("$", "\\$").replace("\n", " ")


def _seeds(records: list[dict]) -> str:
    seeds = [r["seed"] for r in records]
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds"


def _multiplier(records: list[dict]) -> str:
    found = results.headline(records)
    return str(found[1]) if found else "none recorded"


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def cost(records: list[dict]) -> str:
    """Mean time of a run at each tier that one chapter's records hold: `smoke 20 s, small 6 min`."""
    times = {tier: [r["seconds"] for r in records if r["tier"] == tier] for tier in notebooks.TIERS}
    return ", ".join(f"{tier} {duration(sum(t) / len(t))}" for tier, t in times.items() if t)


def reading_minutes(notebook: dict) -> int:
    """At 200 words and 25 lines of code a minute, to the next five minutes."""
    words = lines = 0
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        words += len(text.split()) if cell["cell_type"] == "markdown" else 0
        lines += text.count("\n") + 1 if cell["cell_type"] == "code" else 0
    return 5 * math.ceil((words / 200 + lines / 25) / 5)


def idea(paper: papers.Paper) -> str:
    """What the chapter says after **In one sentence.**, or nothing."""
    cells = json.loads(paper.notebook.read_text(encoding="utf-8"))["cells"]
    prose = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    found = re.search(r"\*\*In one sentence\.\*\*\s+(.+?)\s*(?:\n\s*\n|$)", prose, re.DOTALL)
    return " ".join(found[1].split()) if found else ""


def thumbnail(notebook: dict, path: Path) -> bool:
    """Saves the image in the outputs of the cell tagged `key-figure` as a small picture; says whether there was one."""
    from PIL import Image

    for cell in notebook["cells"]:
        if "key-figure" in cell["metadata"].get("tags", []):
            for output in cell.get("outputs", []):
                if drawn := output.get("data", {}).get("image/png"):
                    image = Image.open(io.BytesIO(base64.b64decode("".join(drawn)))).convert("RGB")
                    image.thumbnail((640, 320))
                    path.parent.mkdir(parents=True, exist_ok=True)
                    image.save(path, optimize=True)
                    return True
    return False


def filters(groups: dict[str, dict[str, str]], items: str) -> str:
    """Buttons that show some of a page's items only.

    groups: {what is chosen: {class of an item, or of something in it: label}}; items: CSS selector of the items.
    """
    lines = [f'<div class="nf-filter" data-items="{items}" hidden>']
    for name, options in groups.items():
        buttons = "".join(
            f'<button type="button" data-class="{value}" aria-pressed="false">{html.escape(label)}</button>'
            for value, label in options.items()
        )
        lines.append(
            f'<div role="group" aria-label="{html.escape(name)}"><span>{html.escape(name)}</span>{buttons}</div>'
        )
    return "\n".join([*lines, "</div>", ""])


def card(paper: papers.Paper, records: list[dict], folder: str, thumbnails: frozenset[str] = frozenset()) -> str:
    """One chapter's card of a gallery.

    records: all of this chapter's; folder: relative way from the page to the book's root; thumbnails: slugs with one.
    """
    lines = [f":::{{grid-item-card}} {paper.title}", f":link: {folder}notebooks/{paper.part}/{paper.slug}",
             ":link-type: doc", f":class-item: nf-card nf-part-{paper.part}"]  # fmt: skip
    if paper.slug in thumbnails:
        picture = f"{folder}book/_generated/thumbnail-{paper.slug}.png"
        lines += [f":img-top: {picture}", ":img-alt: Key figure of this chapter."]
    lines += ["", f"{authors_line(paper)}, {paper.year}", "", idea(paper), ""]
    best = highest(records).get(paper.slug, [])
    if best:
        counts = [claim["verdict"] for claim in results.verdicts(best)]
        said = ", ".join(
            f"{counts.count(v)} {_badge(v)}" for v in ("held", "failed", "mixed", "not tested") if v in counts
        )
        lines += [f"**{_multiplier(best)}** data", "", f"Claims: {said}", "",
                  f"{best[0]['tier']} tier, {_seeds(best)}. A run: {cost(records)}."]  # fmt: skip
    else:
        lines += ["No recorded run yet."]
    return "\n".join([*lines, ":::", ""])


def gallery(records: list[dict], folder: str, part: str | None = None, thumbnails: frozenset[str] = frozenset()) -> str:
    """Cards of all chapters, with buttons for the parts, or of one part's."""
    shown = [p for p in papers.all_papers() if part in (None, p.part)]
    by_slug = {p.slug: [r for r in records if r["slug"] == p.slug] for p in shown}
    cards = [card(p, by_slug[p.slug], folder, thumbnails) for p in shown]
    parts = {f"nf-part-{key}": title for key, title in papers.PARTS.items() if any(p.part == key for p in shown)}
    buttons = filters({"Part": parts}, ".nf-card") if len(parts) > 1 else ""
    return "\n".join([buttons, "::::{grid} 1 1 2 2", ":gutter: 3", "", *cards, "::::", ""])


def curves_figure(records: list[dict], path: Path) -> None:
    """Small multiples: each chapter's headline metric against training-set size, at its highest tier."""
    import matplotlib.pyplot as plt
    import pandas

    plots.theme()
    panels = [(slug, mine, found) for slug, mine in highest(records).items() if (found := results.headline(mine))]
    if not panels:
        return
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(5.0 * columns, 3.5 * rows), squeeze=False)
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    for ax, (slug, mine, (chosen, multiplier)) in zip(axes.flat, panels, strict=False):
        table = pandas.DataFrame([{"seed": r["seed"], **row} for r in mine for row in r["measurements"]])
        roles = {chosen["method"]: "method", chosen["baseline"]: "baseline"}
        plots.scaling_curve(table, chosen["metric"], roles, ax=ax)
        ax.set_title(f"{slug} ({mine[0]['tier']}): {multiplier} data", fontsize=10)
        ax.set_xlabel("training-set size (samples)")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)


def forest_figure(records: list[dict], path: Path) -> None:
    """Data multipliers of all chapters with their intervals, on one logarithmic axis."""
    import matplotlib.pyplot as plt

    plots.theme()
    rows = [(f"{slug} ({mine[0]['tier']})", found[1]) for slug, mine in highest(records).items()
            if (found := results.headline(mine))]  # fmt: skip
    if not rows:
        return
    figure, ax = plt.subplots(figsize=(7.4, 1.4 + 0.45 * len(rows)))
    for y, (_, m) in enumerate(reversed(rows)):
        ink = plots.colour("method")
        if m.value is not None:
            if not math.isnan(m.low):
                ax.plot([m.low, m.high], [y, y], color=ink)
            ax.plot(m.value, y, "o", color=ink)
        elif m.at_least is not None:
            ax.plot(m.at_least, y, marker=">", markersize=9, color=ink)
        elif m.at_most is not None:
            ax.plot(m.at_most, y, marker="<", markersize=9, color=ink)
    ax.axvline(1, color=plots.colour("neutral"), linewidth=1)
    ax.set_yticks(range(len(rows)), [name for name, _ in reversed(rows)])
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}×")
    ax.set_xlabel("data multiplier (line: 95 % interval; arrow: bound only)")
    figure.savefig(path)
    plt.close(figure)


def results_page(records: list[dict], problems: list[str]) -> str:
    """The book's results page: multipliers and the claims ledger; unreadable records are listed, not hidden."""
    lines = ["# Results", "", "Everything on this page is read from the recorded runs; nothing is typed by hand.", ""]
    if problems:
        lines += [":::{warning} Records that could not be read", ""]
        shown = (line.replace(f"{papers.root()}{os.sep}", "") for line in problems)
        lines += [*(f"- {_cell(line)}" for line in shown), "", ":::", ""]
    if not records:
        return "\n".join([*lines, "No runs are recorded yet. `nearfar run <slug>` records one.", ""])
    lines += ["## Data multipliers", "",
              "How many times more training data the baseline needs to reach the method's score. One is a tie; "
              "the interval is a 95 % bootstrap over seeds.", ""]  # fmt: skip
    grouped = results.groups(records)
    headlines = {key: results.headline(mine) for key, mine in grouped.items()}
    if any(headlines.values()):
        lines += ["```{figure} _generated/forest.png", ":alt: Data multiplier of each chapter with its interval.", "",
                  "Data multiplier of each chapter, at the highest tier that has been run.", "```", ""]  # fmt: skip
    lines += ["| chapter | tier | metric | method over baseline | multiplier | runs |", "|---|---|---|---|---|---|"]
    parts = {paper.slug: paper.part for paper in papers.all_papers()}
    link = {slug: f"[{slug}](../notebooks/{part}/{slug}.ipynb)" for slug, part in parts.items()}
    for (slug, tier), mine in grouped.items():
        if found := headlines[slug, tier]:
            stale = ", older than the code" if any(map(results.is_stale, mine)) else ""
            chosen = found[0]
            rivals = f"{_cell(chosen['method'])} over {_cell(chosen['baseline'])}"
            row = [
                link.get(slug, slug),
                tier,
                _cell(chosen["metric"]),
                rivals,
                "; ".join(filter(None, [str(found[1]), found[1].note])),
                f"{_seeds(mine)}{stale}",
            ]
            lines.append(f"| {' | '.join(row)} |")
    verdicts = {f"nf-{v.replace(' ', '-')}": v for v in ("held", "failed", "mixed", "not tested")}
    tiers = {f"nf-tier-{tier}": tier for tier in notebooks.TIERS if any(t == tier for _, t in grouped)}
    lines += ["", "## Claims ledger", "",
              "A claim that fails is a result; *not tested* means that this tier cannot test it.", "",
              filters({"Verdict": verdicts, "Tier": tiers}, "#claims-ledger tbody tr"), ""]  # fmt: skip
    for slug in highest(records):
        lines += [f"### {slug}", "", "| claim | tier | verdict | evidence (first seed) |", "|---|---|---|---|"]
        for tier in notebooks.TIERS:
            for claim in results.verdicts(grouped.get((slug, tier), [])):
                verdict = _badge(claim["verdict"]) + _cell(claim["summary"].removeprefix(claim["verdict"]))
                where = f'<span class="nf-tier-{tier}">{tier}</span>'
                row = [f"{claim['id']} {_cell(claim['text'])}", where, verdict, _cell(claim["evidence"])]
                lines.append(f"| {' | '.join(row)} |")
        lines.append("")
    lines += ["## Download", "",
              "{download}`measurements.csv <_generated/measurements.csv>` holds every recorded number, "
              "{download}`claims.csv <_generated/claims.csv>` every verdict.", ""]  # fmt: skip
    return "\n".join(lines)
