"""A part's methods beside each other, from the records of the notebook that runs them on one protocol.

That notebook has the part's name: `notebooks/<part>/<part>.ipynb`.  Its records hold one method for each chapter,
called by the chapter's slug, and the baselines; what stands behind a name in brackets, as "(labels)", is a remark.
"""

import math
from pathlib import Path

from nearfar import plots
from nearfar.chapters import papers
from nearfar.errors import NearFarError
from nearfar.press import names
from nearfar.press.pages import cell, highest, seeds
from nearfar.runs import results

BASELINE, METRIC, SECOND = "SimCLR", "linear accuracy", "kNN accuracy"
GAP = "\u202f"  # a narrow space that does not break


def _role(name: str) -> str:
    return "method" if name.partition(" (")[0] in papers.slugs() else "baseline"


def _label(name: str) -> str:
    """A method as people call it: a chapter's short name for its slug, with the remark; baselines as they are."""
    slug, remark = name.partition(" (")[::2]
    return names.short(slug) + (f" ({remark}" if remark else "") if slug in papers.slugs() else name


def of_part(records: list[dict], part: str) -> list[dict]:
    """Those of a part's comparison, at the highest tier that has any."""
    return highest([record for record in records if record["slug"] == part]).get(part, [])


def _over_seeds(table, metric: str, how: str = "mean"):
    """A pandas aggregate of each method and size, (methods, sizes), in per cent."""
    return 100 * table[table["metric"] == metric].pivot_table("value", "method", "size", aggfunc=how)


def _means(table, metric: str):
    """Means over seeds; the best by `METRIC` at the largest size first."""
    order = _over_seeds(table, METRIC)
    return _over_seeds(table, metric).loc[order.sort_values(order.columns[-1], ascending=False).index]


def dots(table, metric: str = METRIC, baseline: str = BASELINE):
    """One row of dots per method, one dot per training-set size; dashed lines at the baseline's.  Returns the axes.

    Rows are in the order of linear accuracy, whatever the metric.  table: columns metric, method, size, value (and
    seed), as `run.table()` gives.  With several seeds a line shows the 95 % t interval at the largest size.
    """
    import matplotlib.pyplot as plt

    means = _means(table, metric)
    shades = [0.25 + 0.75 * (n + 1) / len(means.columns) for n in range(len(means.columns))]
    figure, ax = plt.subplots(figsize=(6.4, 1.2 + 0.31 * len(means)))
    for y, (name, row) in enumerate(means[::-1].iterrows()):
        ink = plots.colour(_role(name))
        mine = table[(table["metric"] == metric) & (table["method"] == name) & (table["size"] == means.columns[-1])]
        mean, half = plots.mean_interval((100 * mine["value"]).tolist())
        if not math.isnan(half):  # more than one seed
            ax.plot([mean - half, mean + half], [y, y], color=ink, linewidth=1)
        ax.scatter(row, [y] * len(row), c=[ink] * len(row), alpha=shades, s=34, zorder=3)
    for number, (size, shade) in enumerate(zip(means.columns, shades, strict=True)):
        ax.axvline(means.loc[baseline, size], color=plots.colour("neutral"), alpha=shade, linewidth=1, linestyle="--")
        height = len(means) - 0.4 + 0.7 * (number % 2)  # in two rows, since large sizes lie close together
        ax.text(means.loc[baseline, size], height, f"{size:,}", ha="center", va="bottom", fontsize=8.5)
    ax.set_yticks(range(len(means)), list(map(_label, means.index[::-1])))
    ax.set_ylim(-0.6, len(means) - 0.4)
    ax.set_xlabel(f"{metric} (%)")
    ax.grid(axis="y", visible=False)
    return ax


def recorded(part: str) -> str:
    """Draws `dots` of a part's recorded runs at the highest tier; returns a line that says which, or that none is."""
    records, problems = results.read_all(part)
    if problems:
        raise NearFarError(problems[0])
    mine = of_part(records, part)
    if not mine:
        return _nothing(part)
    dots(results.measurements_of(mine))
    return f"{mine[0]['tier']} tier, {seeds(mine)}" + _age(mine)


def _nothing(part: str) -> str:
    return f"The methods have not been compared yet: `nearfar sweep --papers {part} --tiers small` does it."


def _age(records: list[dict]) -> str:
    return "; the records are older than the code" if any(map(results.is_stale, records)) else ""


def _table(records: list[dict], part: str, way: str) -> list[str]:
    """Lines of the table: methods, best first, with means and deviations over seeds, in per cent."""
    table, known = results.measurements_of(records), papers.slugs()
    means, second = _means(table, METRIC), _means(table, SECOND)
    deviations = _over_seeds(table, METRIC, "std")
    *_, last = means.columns
    lines = [
        f"| method | {' | '.join(f'n{GAP}={GAP}{size:,}' for size in means.columns)} | kNN, n{GAP}={GAP}{last:,} "
        "| data multiplier |",
        f"|---|{'---:|' * (len(means.columns) + 1)}---|",
    ]
    for name in means.index:
        slug = name.partition(" (")[0]
        label = cell(name)
        if slug in known:
            remark = cell(name.removeprefix(slug))
            label = f"[{cell(names.short(slug))}]({way}notebooks/{part}/{slug}.ipynb) {remark}".rstrip()
        scores = [f"{means.loc[name, size]:.1f}" for size in means.columns]
        if len(records) > 1:
            pairs = zip(scores, deviations.loc[name, list(means.columns)], strict=True)
            scores = [f"{score}{GAP}±{GAP}{deviation:.1f}" for score, deviation in pairs]
        ratio = "the baseline"
        if name != BASELINE:
            multiplier = str(results.data_multiplier(table, name, BASELINE, METRIC))
            ratio = cell(multiplier).replace(", ", f",{GAP}")  # an interval stays in one line
        lines.append(f"| {label} | {' | '.join(scores)} | {second.loc[name, last]:.1f} | {ratio} |")
    return lines


def page(records: list[dict], part: str, way: str) -> str:
    """Markdown: table and figure of a part's methods, or a line that says why not.

    records: from `of_part`; way: relative address from the page to the checkout's root.
    """
    if not records:
        return _nothing(part) + "\n"
    lines = [
        *_table(records, part, way),
        "",
        f"{METRIC.capitalize()} on test images in per cent, best at the largest size first: {records[0]['tier']} tier, "
        f"{seeds(records)}{' (mean ± standard deviation over seeds)' if len(records) > 1 else ''}, recorded by "
        f"[this notebook]({way}notebooks/{part}/{part}.ipynb){_age(records)}. The *data multiplier* is how many times "
        f"more images {BASELINE} needs for the method's score, in brackets its 95 % t interval over seeds.",
        "",
        f"```{{figure}} ../_generated/comparison-{part}.png",
        f":alt: Dot plot of {METRIC}, one row per method, one dot for each training-set size.",
        "",
        f"The same numbers. The darker the dot, the more images; dashed lines are {BASELINE}'s scores, thin lines "
        "95 % t intervals over seeds.",
        "```",
        "",
    ]
    return "\n".join(lines)


def figure(records: list[dict], path: Path) -> None:
    """Saves `dots` of records from `of_part`."""
    import matplotlib.pyplot as plt

    plots.theme()
    ax = dots(results.measurements_of(records))
    ax.figure.savefig(path)
    plt.close(ax.figure)
