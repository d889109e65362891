"""Recorded runs as tables and curves, and the data multiplier that sums a chapter up."""

import json
import math
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np

from nearfar import plots
from nearfar.chapters import notebooks, papers
from nearfar.errors import NearFarError
from nearfar.runs import run as runs

_FIELDS = {
    "schema": int, "slug": str, "tier": str, "seed": int, "device": str, "dataset": dict, "budget": dict,
    "started": str, "seconds": (int, float), "peak_memory": dict, "versions": dict, "commit": str,
    "fingerprint": str, "measurements": list, "claims": list,
}  # fmt: skip
_MEASUREMENT = {"metric": str, "method": str, "size": int, "value": (int, float), "higher_is_better": bool}
_CLAIM = {"id": str, "text": str, "verdict": str, "evidence": str}


def _require(entry, fields: dict, where: str) -> None:
    if not isinstance(entry, dict):
        raise NearFarError(f"{where} is not an object")
    for name, kind in fields.items():
        if not isinstance(entry.get(name), kind) or (isinstance(entry[name], bool) and kind is not bool):
            raise NearFarError(f"{where} has no proper {name!r}")


def read(path: Path) -> dict:
    """One record, validated.  Raises `NearFarError`, one line with the file's name, for a broken or older one."""
    advice = "delete it and run the notebook again."
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise NearFarError(f"{path} is no readable record ({problem}); {advice}") from problem
    if isinstance(record, dict) and isinstance(record.get("schema"), int) and record["schema"] != runs.SCHEMA:
        raise NearFarError(f"{path} has record schema {record['schema']}, this version reads {runs.SCHEMA}; {advice}")
    try:
        _require(record, _FIELDS, "the record")
        if not all(isinstance(identity, str) for identity in record["dataset"].values()):
            raise NearFarError("a data set has no identity")
        for row in record["measurements"]:
            _require(row, _MEASUREMENT, "a measurement")
            if not math.isfinite(row["value"]):
                raise NearFarError("a measurement is not finite")
        for claim in record["claims"]:
            _require(claim, _CLAIM, "a claim")
            if claim["verdict"] not in runs.VERDICTS.values():
                raise NearFarError(f"claim {claim['id']} has the unknown verdict {claim['verdict']!r}")
        if record.get("headline") is not None:
            _require(record["headline"], {"metric": str, "method": str, "baseline": str}, "the headline")
    except NearFarError as problem:
        raise NearFarError(f"{path} is no proper record: {problem}; {advice}") from None
    place = (record["tier"], record["slug"], f"seed-{record['seed']}.json")
    if Path(path).parts[-3:] != place:
        raise NearFarError(f"{path} holds the record of {'/'.join(place)}; move it there or delete it.")
    return record


def folders() -> list[Path]:
    """Where records lie: `results/` of the checkout, those of the last book build, and `$NEARFAR_RESULTS`."""
    return list(dict.fromkeys([papers.root() / "results", papers.root() / "_build" / "results", runs.results_folder()]))


def read_all(slug: str | None = None, tier: str | None = None, places=None) -> tuple[list[dict], list[str]]:
    """All readable records, and one line per file that is none.

    Of two records of one slug, tier and seed in `places` (default: `folders()`), the one that was started later counts.
    """
    found, problems = {}, []
    for folder in places or folders():
        for path in sorted(Path(folder).glob(f"{tier or '*'}/{slug or '*'}/seed-*.json")):
            try:
                record = read(path)
            except NearFarError as problem:
                problems.append(str(problem))
                continue
            key = record["slug"], record["tier"], record["seed"]
            if key not in found or record["started"] >= found[key]["started"]:
                found[key] = record
    return list(found.values()), problems


def is_stale(record: dict) -> bool:
    """Whether code or data changed after the record was made; its field `stale` says so where there is one."""
    if "stale" in record:
        return record["stale"]
    try:
        code = notebooks.code_hash(record["slug"], record["tier"])
    except NearFarError:
        return True  # its chapter is gone
    return notebooks.fingerprint(code, record["dataset"].values()) != record["fingerprint"]


def _readable(slug: str | None, tier: str | None, places) -> list[dict]:
    records, problems = read_all(slug, tier, places)
    if problems:
        raise NearFarError(problems[0])
    return records


def table(slug: str | None = None, tier: str | None = None, places=None):
    """All recorded measurements as one tidy pandas table, a row each.

    Columns: slug, tier, seed, metric, method, size, value, higher_is_better, device, stale (older than the code).
    Raises `NearFarError` for a broken or older record file.
    """
    return measurements_of(_readable(slug, tier, places))


def measurements_of(records: list[dict]):
    """`table` of given records."""
    import pandas

    rows = [
        {"slug": r["slug"], "tier": r["tier"], "seed": r["seed"], **row, "device": r["device"], "stale": stale}
        for r in records
        for stale in [is_stale(r)]
        for row in r["measurements"]
    ]
    columns = ["slug", "tier", "seed", "metric", "method", "size", "value", "higher_is_better", "device", "stale"]
    return pandas.DataFrame(rows, columns=columns)


def claims(slug: str | None = None, tier: str | None = None, places=None):
    """All judged claims as a pandas table: slug, tier, seed, id, text, verdict, evidence.  Errors as `table`."""
    return claims_of(_readable(slug, tier, places))


def claims_of(records: list[dict]):
    """`claims` of given records."""
    import pandas

    rows = [{"slug": r["slug"], "tier": r["tier"], "seed": r["seed"], **c} for r in records for c in r["claims"]]
    return pandas.DataFrame(rows, columns=["slug", "tier", "seed", "id", "text", "verdict", "evidence"])


@dataclass(frozen=True)
class Multiplier:
    """How many times more data the baseline needs to reach the method's score.

    value: geometric mean of the ratios of the sizes where the baseline's curve reaches the score inside its range;
    None when there is no such size.  low, high: 95 % bootstrap interval over seeds (nan with one seed).
    per_size: {size: (ratio, "exact" | "at least" | "at most")}; the last two where the curve does not reach the score.
    at_least, at_most: bounds of the mean over *all* sizes (None where open).
    """

    value: float | None
    low: float
    high: float
    per_size: dict[int, tuple[float, str]]
    at_least: float | None
    at_most: float | None

    def __str__(self):
        if self.value is None:
            if self.at_least is not None:
                return f"≥ {self.at_least:.2g}×"
            return f"≤ {self.at_most:.2g}×" if self.at_most is not None else "undefined"
        return f"{self.value:.2g}×" + ("" if math.isnan(self.low) else f" [{self.low:.2g}, {self.high:.2g}]")

    @property
    def note(self) -> str:
        """How many sizes gave no exact ratio, in words; empty when all did."""
        outside = sum(kind != "exact" for _, kind in self.per_size.values())
        return f"{outside} of {len(self.per_size)} sizes out of the baseline's range" if outside else ""


def _ratio(size: int, score: float, sizes: list[int], curve: list[float]) -> tuple[float, str]:
    """Data that the baseline's curve needs for `score`, over `size`: the first crossing, linear in log size."""
    if score < curve[0]:
        return sizes[0] / size, "at most"
    if score == curve[0]:
        return sizes[0] / size, "exact"
    for (n0, y0), (n1, y1) in zip(zip(sizes, curve, strict=True), zip(sizes[1:], curve[1:], strict=True), strict=False):
        if y0 < score <= y1:
            share = (score - y0) / (y1 - y0)
            return math.exp(math.log(n0) + share * math.log(n1 / n0)) / size, "exact"
    return sizes[-1] / size, "at least"


def _geometric_mean(values) -> float | None:
    values = list(values)
    return math.exp(math.fsum(map(math.log, values)) / len(values)) if values else None


def data_multiplier(table, method: str, baseline: str, metric: str, resamples: int = 1000, seed: int = 0) -> Multiplier:
    """How many times more data `baseline` needs for the score that `method` reaches, over the sizes of a sweep.

    At every size n of the method, the baseline's mean curve over seeds is interpolated linearly in log size; m(n) is
    the smallest size at which it reaches the method's mean score, and the ratio is m(n) / n.  Where the score lies
    above the whole curve the ratio is at least (largest size) / n; where it lies below the curve's start, at most
    (smallest size) / n.  The multiplier is the geometric mean of the exact ratios; its interval is the 2.5 and 97.5
    percentile over `resamples` bootstrap draws of seeds (drawn jointly for both when they share their seeds).

    table: rows with metric, method, size, seed, value, higher_is_better (one slug and tier).  Raises `ValueError`.
    """
    rows = table[table["metric"] == metric]
    scores = {}
    for name in (method, baseline):
        mine = rows[rows["method"] == name]
        if mine.empty:
            raise ValueError(f"table has no {metric!r} of {name!r}.")
        sign = 1.0 if mine["higher_is_better"].iloc[0] else -1.0
        wide = mine.groupby(["seed", "size"])["value"].mean().unstack() * sign
        if wide.isna().any().any():
            raise ValueError(f"{metric!r} of {name!r} is not recorded at every size for every seed.")
        scores[name] = wide
    ours, theirs = scores[method], scores[baseline]
    sizes_ours, sizes = [int(s) for s in ours.columns], [int(s) for s in theirs.columns]

    def ratios(ours_mean, theirs_mean):
        return [
            _ratio(n, float(y), sizes, [float(v) for v in theirs_mean])
            for n, y in zip(sizes_ours, ours_mean, strict=True)
        ]

    central = ratios(ours.mean(), theirs.mean())
    kinds = {kind for _, kind in central}
    generator = np.random.default_rng(seed)

    @cache
    def resampled(pick: tuple[int, ...], other: tuple[int, ...]) -> float | None:
        """The multiplier of one draw; a few seeds have few different ones."""
        drawn = ratios(ours.to_numpy()[list(pick)].mean(axis=0), theirs.to_numpy()[list(other)].mean(axis=0))
        return _geometric_mean(ratio for ratio, kind in drawn if kind == "exact")

    draws = []
    if len(ours) > 1 and len(theirs) > 1:
        picks = others = np.sort(generator.integers(len(ours), size=(resamples, len(ours))), axis=1)
        if list(ours.index) != list(theirs.index):
            others = np.sort(generator.integers(len(theirs), size=(resamples, len(theirs))), axis=1)
        draws = [resampled(pick, other) for pick, other in zip(map(tuple, picks.tolist()), map(tuple, others.tolist()))]
    draws = [value for value in draws if value is not None]
    low, high = (float(q) for q in np.percentile(draws, [2.5, 97.5])) if draws else (math.nan, math.nan)
    overall = _geometric_mean(ratio for ratio, _ in central)
    return Multiplier(
        value=_geometric_mean(ratio for ratio, kind in central if kind == "exact"),
        low=low,
        high=high,
        per_size=dict(zip(sizes_ours, central, strict=True)),
        at_least=None if "at most" in kinds else overall,
        at_most=None if "at least" in kinds else overall,
    )


@lru_cache(maxsize=1024)
def _multiplier(rows: tuple[tuple, ...], method: str, baseline: str, metric: str) -> Multiplier:
    """`data_multiplier` of rows as tuples; a build asks several times for each chapter."""
    import pandas

    return data_multiplier(pandas.DataFrame(rows, columns=["seed", *_MEASUREMENT]), method, baseline, metric)


def headline(records: list[dict]) -> tuple[dict, Multiplier] | None:
    """Comparison and data multiplier of the runs of one chapter at one tier; None when they name no comparison.

    Raises `NearFarError`, one line, where the runs lack measurements that the comparison needs.
    """
    chosen = next((r["headline"] for r in records if r.get("headline")), None)
    if chosen is None:
        return None
    metric, method, baseline = chosen["metric"], chosen["method"], chosen["baseline"]
    rows = tuple(
        (r["seed"], *(row[name] for name in _MEASUREMENT))
        for r in records
        for row in r["measurements"]
        if row["metric"] == metric and row["method"] in (method, baseline)
    )
    try:
        return chosen, _multiplier(rows, method, baseline, metric)
    except ValueError as problem:
        where = f"the records of {records[0]['slug']} at the {records[0]['tier']} tier"
        raise NearFarError(f"{where} give no data multiplier: {problem}") from problem


def groups(records: list[dict]) -> dict[tuple[str, str], list[dict]]:
    """Records by (slug, tier), tiers from smoke to full, seeds ascending."""
    ordered = sorted(records, key=lambda r: (r["slug"], notebooks.TIERS.index(r["tier"]), r["seed"]))
    found: dict[tuple[str, str], list[dict]] = {}
    for record in ordered:
        found.setdefault((record["slug"], record["tier"]), []).append(record)
    return found


def show(slug: str):
    """The recorded headline curves of a chapter, one panel per tier that has been run; a line of text when none has.

    Returns a matplotlib figure or a string.  Raises `NearFarError` for a broken record or an unknown slug.
    """
    import matplotlib.pyplot as plt
    import pandas

    papers.notebook(slug)
    records, problems = read_all(slug)
    if problems:
        raise NearFarError(problems[0])
    panels = []
    for tier in notebooks.TIERS:
        mine = [r for r in records if r["tier"] == tier and r.get("headline")]
        if mine:
            rows = pandas.DataFrame([{"seed": r["seed"], **row} for r in mine for row in r["measurements"]])
            panels.append((tier, mine, rows))
    if not panels:
        return f"No recorded runs of {slug} yet: nearfar run {slug} --tier small"
    figure, axes = plt.subplots(1, len(panels), figsize=(5.4 * len(panels), 3.8), squeeze=False)
    for ax, (tier, mine, rows) in zip(axes[0], panels, strict=True):
        chosen, multiplier = headline(mine)
        plots.scaling_curve(rows, chosen["metric"], {chosen["method"]: "method", chosen["baseline"]: "baseline"}, ax=ax)
        stale = ", older than the code" if any(map(is_stale, mine)) else ""
        ax.set_title(f"{tier}: {multiplier} data{stale}")
    plt.close(figure)
    return figure
