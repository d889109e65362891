"""The two figures over all chapters: curves of the records, and data multipliers with their intervals."""

import math
from pathlib import Path

from nearfar import plots
from nearfar.press import pages
from nearfar.runs import results


def curves_figure(records: list[dict], path: Path) -> None:
    """Small multiples: headline metric against training-set size, each chapter at its highest tier.

    There must be a chapter with a data multiplier.
    """
    import matplotlib.pyplot as plt
    import pandas

    plots.theme()
    panels = pages.panels(records)
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(5.0 * columns, 3.5 * rows), squeeze=False)
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    for ax, (slug, mine, (chosen, multiplier)) in zip(axes.flat, panels, strict=False):
        table = pandas.DataFrame([{"seed": r["seed"], **row} for r in mine for row in r["measurements"]])
        roles = {chosen["method"]: "method", chosen["baseline"]: "baseline"}
        plots.scaling_curve(table, chosen["metric"], roles, ax=ax)
        ax.set_title(f"{slug} ({mine[0]['tier']}): {multiplier.label}", fontsize=10)
        ax.set_xlabel("training-set size (samples)")
    figure.savefig(path)
    plt.close(figure)


def forest_figure(records: list[dict], path: Path) -> None:
    """Data multipliers of all chapters with their intervals, on one logarithmic axis; there must be one."""
    import matplotlib.pyplot as plt

    plots.theme()
    rows = [(f"{slug} ({mine[0]['tier']})", found[1]) for slug, mine in pages.highest(records).items()
            if (found := pages.multiplier(mine)[0])]  # fmt: skip
    figure, ax = plt.subplots(figsize=(7.4, 1.4 + 0.45 * len(rows)))
    for y, (_, multiplier) in enumerate(reversed(rows)):
        _forest_row(ax, y, multiplier)
    ax.axvline(1, color=plots.colour("neutral"), linewidth=1)
    ax.set_yticks(range(len(rows)), [name for name, _ in reversed(rows)])
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}×")
    ax.set_xlabel("data multiplier\nline: 95 % t interval over seeds\narrow: beyond the range of sizes")
    figure.savefig(path)
    plt.close(figure)


def _forest_row(ax, y: int, multiplier: results.Multiplier) -> None:
    """A dot with its interval, cut with an arrow where it leaves the range of sizes; for a bound only the arrow."""
    ink = plots.colour("method")
    if multiplier.kind == "undefined":
        ax.text(1, y, " undefined", color=plots.colour("neutral"), va="center", fontsize=9)
        return
    if multiplier.kind != "exact":
        ax.plot(multiplier.value, y, marker=">" if multiplier.kind == "above" else "<", markersize=9, color=ink)
        return
    ax.plot(multiplier.value, y, "o", color=ink)
    if math.isnan(multiplier.low):  # one seed
        return
    low, high = max(multiplier.low, multiplier.smallest), min(multiplier.high, multiplier.largest)
    ax.plot([low, high], [y, y], color=ink)
    if multiplier.low < low:
        ax.plot(low, y, marker="<", color=ink)
    if multiplier.high > high:
        ax.plot(high, y, marker=">", color=ink)
