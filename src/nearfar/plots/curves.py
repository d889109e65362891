"""Numbers as lines, bars and histograms: one call each, in the theme's roles."""

import math
from collections.abc import Mapping, Sequence

from nearfar.plots.theme import MARKERS, colour


def mean_interval(values, level: float = 0.95) -> tuple[float, float]:
    """Mean and half-width of Student's t interval of the mean; the half-width is nan for fewer than two values."""
    values = [float(v) for v in values]
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan
    from scipy.special import stdtrit  # the quantile of t, without the second that scipy.stats takes to load

    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))
    return mean, float(stdtrit(len(values) - 1, (1 + level) / 2)) * deviation / math.sqrt(len(values))


def scaling_curve(table, metric: str, methods: dict[str, str], ax=None, ylabel: str | None = None):
    """Metric against training-set size, one line per method: mean over seeds and its 95 % t interval.

    table: rows with columns metric, method, size, value (and seed), as `run.table()` and `results.table()` give.
    methods: {method name: role}, in drawing order.  Returns the axes.  Raises `ValueError` for a method without rows.
    """
    import matplotlib.pyplot as plt

    ax = ax or plt.subplots(figsize=(6.4, 4))[1]
    rows = table[table["metric"] == metric]
    ticks, most = set(), 1
    for name, role in methods.items():
        mine = rows[rows["method"] == name]
        if mine.empty:
            raise ValueError(f"table has no {metric!r} of {name!r}.")
        groups = [(size, group["value"].tolist()) for size, group in mine.groupby("size")]
        sizes, (means, halves) = [s for s, _ in groups], zip(*(mean_interval(v) for _, v in groups), strict=True)
        ticks |= set(sizes)
        most = max(most, *(len(v) for _, v in groups))
        ax.plot(sizes, means, marker=MARKERS[role], color=colour(role), label=name)
        if not any(map(math.isnan, halves)):
            lows, highs = zip(*((m - h, m + h) for m, h in zip(means, halves, strict=True)), strict=True)
            ax.fill_between(sizes, lows, highs, color=colour(role), alpha=0.15, linewidth=0)
    ax.set_xscale("log")
    ax.set_xticks(sorted(ticks), [f"{s:,}" for s in sorted(ticks)])
    ax.minorticks_off()
    seeds = f"mean and 95 % t interval over {most} seeds" if most > 1 else "one seed"
    ax.set_xlabel(f"training-set size (samples; {seeds})")
    ax.set_ylabel(ylabel or metric)
    ax.legend()
    return ax


def training(
    histories: Mapping[str, Mapping], key: str, roles: Mapping[str, str], ax=None, window: int = 1, ylabel=None
):
    """One number over training steps, one line per variant.  Returns the axes.

    histories: {name: history of `train.fit`}; key: what of it; roles: {name: role}, in drawing order.
    window: steps that a running mean is taken over.  Raises ValueError for a history without `key`.
    """
    import matplotlib.pyplot as plt

    ax = ax or plt.subplots(figsize=(6.4, 3.6))[1]
    for name, role in roles.items():
        if key not in histories[name]:
            raise ValueError(f"history of {name!r} has no {key!r}; it has {', '.join(histories[name])}.")
        values = histories[name][key]
        span = min(window, len(values))
        means = [math.fsum(values[i : i + span]) / span for i in range(len(values) - span + 1)]
        ax.plot(range(span, len(values) + 1), means, color=colour(role), label=name, linewidth=1.5)
    mean = f" (running mean over {window})" if window > 1 else ""
    ax.set(xlabel=f"step{mean}", ylabel=ylabel or key)
    ax.legend(fontsize=9)
    return ax


def bars(table, metric: str, roles: Mapping[str, str], size: int | None = None, ax=None, xlabel: str | None = None):
    """A bar per method at one size: mean over seeds, every seed a dot.  Returns the axes.

    table: rows with metric, method, size, value (and seed); roles: {method: role}, from top to bottom; size: default
    the largest that all have.  Raises ValueError for a method without rows.
    """
    import matplotlib.pyplot as plt

    rows = table[table["metric"] == metric]
    values = {}
    for name in roles:
        mine = rows[rows["method"] == name]
        if mine.empty:
            raise ValueError(f"table has no {metric!r} of {name!r}.")
        values[name] = mine
    shared = set.intersection(*(set(mine["size"]) for mine in values.values()))
    if size is None and not shared:
        raise ValueError(f"the methods have no size in common: {', '.join(roles)}.")
    size = max(shared) if size is None else size
    ax = ax or plt.subplots(figsize=(6.4, 0.7 + 0.42 * len(roles)))[1]
    for place, (name, role) in enumerate(roles.items()):
        found = values[name].loc[values[name]["size"] == size, "value"].tolist()
        if not found:
            raise ValueError(f"table has no {metric!r} of {name!r} at size {size}.")
        ax.barh(place, math.fsum(found) / len(found), color=colour(role), alpha=0.85)
        if len(found) > 1:
            ax.plot(found, [place] * len(found), "o", color="black", markersize=3.5, alpha=0.7)
    ax.set_yticks(range(len(roles)), list(roles))
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(xlabel or f"{metric} (n = {size:,})")
    return ax


def histograms(
    values: Mapping[str, Sequence[float]], roles: Mapping[str, str], ax=None, bins: int = 30, xlabel: str = ""
):
    """Histograms of two or more groups over one axis and the same bins, as shares of each group.  Returns the axes."""
    import matplotlib.pyplot as plt

    ax = ax or plt.subplots(figsize=(6.4, 3.6))[1]
    groups = {name: [float(v) for v in values[name]] for name in roles}
    low = min(min(group) for group in groups.values())
    high = max(max(group) for group in groups.values())
    edges = [low + (high - low) * k / bins for k in range(bins + 1)] if high > low else [low - 0.5, low + 0.5]
    for name, role in roles.items():
        share = [1 / len(groups[name])] * len(groups[name])
        ax.hist(groups[name], bins=edges, weights=share, color=colour(role), alpha=0.55, label=name)
    ax.set(xlabel=xlabel, ylabel="share of the group")
    ax.legend(fontsize=9)
    return ax


def over_knob(
    values: Sequence,
    lines: Mapping[str, Sequence[float]],
    roles: Mapping[str, str],
    ax=None,
    xlabel: str = "",
    ylabel: str = "",
    log: bool = False,
):
    """Lines over the values of one knob, each value a tick.  lines: {name: a number per value}.  Returns the axes."""
    import matplotlib.pyplot as plt

    ax = ax or plt.subplots(figsize=(6.4, 3.6))[1]
    for name, role in roles.items():
        ax.plot(values, lines[name], marker=MARKERS[role], color=colour(role), label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel, xscale="log" if log else "linear")
    ax.set_xticks(list(values), [f"{value:g}" for value in values])
    ax.minorticks_off()
    ax.legend(fontsize=9)
    return ax
