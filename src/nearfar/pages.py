"""Pages of the book that are made from the records: gallery, results, and what stands above each chapter."""

import html
import os
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
    surnames = [name.split(" ")[-1] for name in paper.authors]
    return f"{surnames[0]} et al." if len(surnames) > 2 else " and ".join(surnames)


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


def card(paper: papers.Paper, records: list[dict], folder: str) -> str:
    """One chapter's card of a gallery.  folder: relative way from the page to the book's root."""
    lines = [f":::{{grid-item-card}} {paper.title}", f":link: {folder}notebooks/{paper.part}/{paper.slug}",
             ":link-type: doc", "", f"{authors_line(paper)}, {paper.year}", ""]  # fmt: skip
    if records:
        counts = [claim["verdict"] for claim in results.verdicts(records)]
        said = ", ".join(
            f"{counts.count(v)} {_badge(v)}" for v in ("held", "failed", "mixed", "not tested") if v in counts
        )
        seconds = sum(r["seconds"] for r in records) / len(records)
        took = f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
        lines += [f"**{_multiplier(records)}** data", "", f"Claims: {said}", "",
                  f"{records[0]['tier']} tier, {_seeds(records)}, {took} a run"]  # fmt: skip
    else:
        lines += ["No recorded run yet."]
    return "\n".join([*lines, ":::", ""])


def gallery(records: list[dict], folder: str, part: str | None = None) -> str:
    """Cards of all chapters, or of one part's."""
    best = highest(records)
    cards = [card(p, best.get(p.slug, []), folder) for p in papers.all_papers() if part in (None, p.part)]
    return "\n".join(["::::{grid} 1 1 2 2", ":gutter: 3", "", *cards, "::::", ""])


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
    import math

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
    if any(results.headline(mine) for mine in highest(records).values()):
        lines += ["```{figure} _generated/forest.png", ":alt: Data multiplier of each chapter with its interval.", "",
                  "Data multiplier of each chapter, at the highest tier that has been run.", "```", ""]  # fmt: skip
    lines += ["| chapter | tier | metric | method over baseline | multiplier | runs |", "|---|---|---|---|---|---|"]
    grouped = results.groups(records)
    parts = {paper.slug: paper.part for paper in papers.all_papers()}
    link = {slug: f"[{slug}](../notebooks/{part}/{slug}.ipynb)" for slug, part in parts.items()}
    for (slug, tier), mine in grouped.items():
        found = results.headline(mine)
        if found:
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
    lines += ["", "## Claims ledger", "",
              "A claim that fails is a result; *not tested* means that this tier cannot test it.", ""]  # fmt: skip
    for slug in highest(records):
        lines += [f"### {slug}", "", "| claim | tier | verdict | evidence (first seed) |", "|---|---|---|---|"]
        for tier in notebooks.TIERS:
            for claim in results.verdicts(grouped.get((slug, tier), [])):
                verdict = _badge(claim["verdict"]) + _cell(claim["summary"].removeprefix(claim["verdict"]))
                row = [f"{claim['id']} {_cell(claim['text'])}", tier, verdict, _cell(claim["evidence"])]
                lines.append(f"| {' | '.join(row)} |")
        lines.append("")
    return "\n".join(lines)
