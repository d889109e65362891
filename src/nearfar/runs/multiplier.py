"""The data multiplier: how many times more data the baseline needs to reach the method's score.

Over the logarithm of the training-set size, more data moves a curve to the left.  So one curve is laid through both:
through the baseline's points as they are, and through the method's points moved to the right by a shift, which is the
logarithm of the multiplier.  All sizes count, also those where one of the two is better than the other ever gets.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from nearfar import plots

STEPS = 200  # shifts that are tried for a parabola, on each side of none


@dataclass(frozen=True)
class Multiplier:
    """How many times more data the baseline needs for the method's score.

    value: geometric mean over the seeds; for a bound the bound itself, nan where undefined.  low, high: 95 % t interval
    over the seeds' logarithms (nan with one seed); 0 or infinity where a seed's shift leaves the range of sizes.
    kind: "exact", "above" or "below" (a bound), or "undefined".  smallest, largest: multipliers that the sizes can
    tell; beyond them the curve would have to be extrapolated.  note: why it is a bound or undefined.
    """

    value: float
    low: float
    high: float
    kind: str
    smallest: float
    largest: float
    note: str = ""

    def __str__(self):
        if self.kind == "undefined":
            return "undefined"
        if self.kind != "exact":
            return f"{'>' if self.kind == 'above' else '<'} {_number(self.value)}×"
        interval = "" if math.isnan(self.low) else f" [{self._end(self.low)}, {self._end(self.high)}]"
        return f"{_number(self.value)}×{interval}"

    def _end(self, end: float) -> str:
        """An end of the interval; outside the range of sizes only that it lies there."""
        if end < self.smallest:
            return f"< {_number(self.smallest)}"
        return f"> {_number(self.largest)}" if end > self.largest else _number(end)

    @property
    def label(self) -> str:
        """For titles: `1.8× [1.2, 2.6] data`, or that the multiplier is undefined."""
        return "data multiplier undefined" if self.kind == "undefined" else f"{self} data"


def _number(value: float) -> str:
    """Two digits; three around one, where the side counts."""
    if 0.95 <= value < 1.05:
        return f"{value:.2f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}"


def data_multiplier(table, method: str, baseline: str, metric: str) -> Multiplier:
    """How many times more data `baseline` needs for the score of `method`: one number over all sizes of a sweep.

    Per seed, least squares over one curve in log size, common to both, and one shift of the method's points.  The curve
    is a parabola where the baseline has four sizes and it rises over all points in every seed, else a line.  The
    multiplier is the exponential of the seeds' mean shift, with Student's t interval.  It is undefined where the
    baseline's curve is flat (`_flat`), and a bound where most shifts leave the range of sizes.

    table: rows with metric, method, size, seed, value, higher_is_better (one slug and tier); the sizes of the two may
    differ.  Raises `ValueError` for missing rows.
    """
    ours, theirs = _scores(table, method, baseline, metric)
    at_ours, at_theirs = (np.log(np.array(wide.columns, dtype=float)) for wide in (ours, theirs))
    return estimate(at_theirs, theirs.to_numpy(), at_ours, ours.to_numpy())


def estimate(x: np.ndarray, y: np.ndarray, at: np.ndarray, z: np.ndarray) -> Multiplier:
    """The multiplier from scores, higher is better: of the baseline y (seeds, b), of the method z (seeds, m).

    x (b,), at (m,): the logarithms of their sizes, ascending.
    """
    limits = (x[0] - at[-1], x[-1] - at[0])  # shifts that leave the points of the two side by side
    smallest, largest = map(math.exp, limits)

    def say(kind: str, value: float = math.nan, low: float = math.nan, high: float = math.nan, note: str = ""):
        return Multiplier(value, low, high, kind, smallest, largest, note)

    if flat := _flat(x, y):
        return say("undefined", note=flat)
    shifts = _shifts(x, y, at, z, limits)
    if shifts is None:
        return say("undefined", note="the curve common to method and baseline does not rise in every seed")
    for kind, bound, beyond in (("below", smallest, shifts <= limits[0]), ("above", largest, shifts >= limits[1])):
        if beyond.mean() > 0.5:
            seeds = f"{beyond.sum()} of {len(beyond)} seeds" if len(beyond) > 1 else "this seed"
            return say(kind, bound, note=f"the shift leaves the range of sizes in {seeds}")
    mean, half = plots.mean_interval(shifts.clip(*limits))
    low = 0.0 if shifts.min() <= limits[0] else math.exp(mean - half)
    high = math.inf if shifts.max() >= limits[1] else math.exp(mean + half)
    return say("exact", math.exp(mean), low, high) if len(shifts) > 1 else say("exact", math.exp(mean))


def _scores(table, method: str, baseline: str, metric: str) -> list:
    """Of method and baseline, scores by seed and size (pandas, ascending), for their common seeds; higher is better."""
    rows = table[table["metric"] == metric]
    wide = []
    for name in (method, baseline):
        mine = rows[rows["method"] == name]
        if mine.empty:
            raise ValueError(f"table has no {metric!r} of {name!r}.")
        sign = 1.0 if mine["higher_is_better"].iloc[0] else -1.0
        wide.append(sign * mine.pivot_table("value", "seed", "size"))
    if min(scores.columns.min() for scores in wide) < 1:
        raise ValueError(f"a size of {metric!r} is below one; a multiplier needs numbers of samples.")
    seeds = wide[0].index.intersection(wide[1].index)
    if seeds.empty:
        raise ValueError(f"no seed has {metric!r} of both {method!r} and {baseline!r}.")
    if any(scores.loc[seeds].isna().any(axis=None) for scores in wide):
        raise ValueError(f"{metric!r} of {method!r} or {baseline!r} is not recorded at every size for every seed.")
    return [scores.loc[seeds] for scores in wide]


def _flat(x: np.ndarray, y: np.ndarray) -> str:
    """Why the baseline's curve cannot be told from a flat one; empty when it rises.  x: (sizes,), y: (seeds, sizes).

    Over seeds: a one-sided t-test over the slopes of their least-squares lines.  With one seed: the same over the
    residuals of its line, which takes four sizes; with fewer the scores must rise from size to size.
    """
    from scipy.special import stdtr

    if len(x) < 2:
        return "the baseline was run at one size"
    centred = x - x.mean()
    slopes = y @ centred / (centred @ centred)
    mean = slopes.mean()
    if len(y) > 1:
        error, freedom = slopes.std(ddof=1) / math.sqrt(len(y)), len(y) - 1
    elif len(x) >= 4:
        residuals = y[0] - y[0].mean() - mean * centred
        freedom = len(x) - 2
        error = math.sqrt(residuals @ residuals / freedom / (centred @ centred))
    else:
        return "" if (np.diff(y[0]) > 0).all() else "the baseline does not rise from size to size"
    rounding = 1e-12 * abs(y).max()
    if mean > rounding and stdtr(freedom, mean / max(error, rounding)) > 0.95:
        return ""
    return "the baseline's curve is flat: its slope is not significantly above zero"


def _shifts(x: np.ndarray, y: np.ndarray, at: np.ndarray, z: np.ndarray, limits: tuple[float, float]):
    """Shift of each seed, (seeds,), or None where no common curve rises.

    x, at: log sizes of baseline (b,) and method (m,); y: (seeds, b) and z: (seeds, m) their scores.
    """
    origin = x.mean()  # the equations are better conditioned around it
    x, at = x - origin, at - origin
    scores = np.concatenate([y, z], axis=1).T  # (b + m, seeds)
    if len(x) >= 4 and (found := _by_parabola(x, at, scores, limits)) is not None:
        return found
    return _by_line(x, at, scores)


def _by_line(x: np.ndarray, at: np.ndarray, scores: np.ndarray):
    """Shifts (seeds,) of the method's points onto one line; None where it does not rise in every seed."""
    points = np.concatenate([x, at])
    is_method = np.repeat([0.0, 1.0], [len(x), len(at)])
    design = np.stack([np.ones_like(points), points, is_method], axis=1)
    _, slope, step = np.linalg.lstsq(design, scores, rcond=None)[0]  # the method lies higher by slope times shift
    return step / slope if (slope > 0).all() else None


@lru_cache(maxsize=64)
def _tries(x: tuple[float, ...], at: tuple[float, ...], limits: tuple[float, float]):
    """Shifts to try (t,), for each all points (t, b + m), a parabola's design (t, b + m, 3) and its pseudo-inverse."""
    tried = np.linspace(*limits, 2 * STEPS + 1)
    points = np.concatenate([np.broadcast_to(x, (len(tried), len(x))), np.array(at) + tried[:, None]], axis=1)
    design = np.stack([np.ones_like(points), points, points**2], axis=2)
    return tried, points, design, np.linalg.pinv(design)


def _by_parabola(x: np.ndarray, at: np.ndarray, scores: np.ndarray, limits: tuple[float, float]):
    """Shifts (seeds,) onto one parabola, the best of many that are tried; None unless it rises over all points."""
    tried, points, design, inverse = _tries(tuple(x), tuple(at), limits)
    fitted = inverse @ scores  # (t, 3, seeds)
    errors = ((scores - design @ fitted) ** 2).sum(axis=1)  # (t, seeds)
    best = errors.argmin(axis=0)
    if ((best == 0) | (best == len(tried) - 1)).any():
        return None  # the error still falls where the points of the two part
    seeds = np.arange(scores.shape[1])
    _, slope, bend = fitted[best, :, seeds].T
    ends = np.stack([points[best].min(axis=1), points[best].max(axis=1)])
    if (slope + 2 * bend * ends <= 0).any():
        return None
    before, here, after = errors[best - 1, seeds], errors[best, seeds], errors[best + 1, seeds]
    curvature = before - 2 * here + after
    with np.errstate(invalid="ignore", divide="ignore"):
        between = np.where(curvature > 0, 0.5 * (before - after) / curvature, 0.0)  # a parabola through three errors
    return tried[best] + between * (tried[1] - tried[0])
