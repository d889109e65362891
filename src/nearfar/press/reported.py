"""What the papers report beside what we measured.

The papers' numbers stand in `book/course/papers.yml` (field `reported`), each with its source; ours in the records.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields

from nearfar import plots
from nearfar.press.course import Entry, Reported
from nearfar.press.pages import highest
from nearfar.runs import verdicts


@dataclass(frozen=True)
class Row:
    """One comparison, as texts for the page (`paper` to `verdict`) and as numbers for the CSV file.

    The numbers of ours are in the paper's unit: mean and half-width of the 95 % t interval over seeds (nan for one).
    """

    slug: str
    what: str
    claim: str
    verdict: str
    paper: str
    ours: str
    where: str
    change_paper: str
    change_ours: str
    paper_method: float
    paper_method_source: str
    paper_baseline: float
    paper_baseline_source: str
    tier: str = ""
    size: int | None = None
    seeds: int = 0
    ours_method: float = math.nan
    ours_method_half: float = math.nan
    ours_baseline: float = math.nan
    ours_baseline_half: float = math.nan
    difference: float = math.nan
    difference_half: float = math.nan


COLUMNS = [field.name for field in fields(Row) if field.name not in ("paper", "ours", "change_paper", "change_ours")]


def _scores(records: list[dict], metric: str, method: str) -> dict[int, dict[int, float]]:
    """{size: {seed: value}} of one method."""
    found: dict[int, dict[int, float]] = {}
    for record in records:
        for row in record["measurements"]:
            if (row["metric"], row["method"]) == (metric, method):
                found.setdefault(row["size"], {})[record["seed"]] = row["value"]
    return found


def _text(mean: float, half: float, signed: bool = False) -> str:
    """Mean and half-width with two digits of the half-width; three digits of the mean where there is no interval."""
    told = mean if math.isnan(half) or not half else 10 * half
    digits = min(4, max(0, 2 - math.floor(math.log10(abs(told))))) if told else 0
    interval = "" if math.isnan(half) else f" ± {half:.{digits}f}"
    return f"{mean:{'+' if signed else ''}.{digits}f}{interval}".replace("-", "−")


def _printed(method: str, baseline: str) -> str:
    """Difference of two numbers as printed, with as many decimals."""
    digits = max(len(text.partition(".")[2]) for text in (method, baseline))
    return f"{float(method) - float(baseline):+.{digits}f}".replace("-", "−")


def _row(entry: Entry, told: Reported, records: list[dict]) -> Row:
    """records: of this paper at one tier."""
    method, baseline = told.paper
    verdict = next((v["verdict"] for v in verdicts.over_seeds(records) if v["id"] == told.claim), "")
    both = f"{method.text} ({method.source}) against {baseline.text} ({baseline.source})"
    row = Row(
        slug=entry.slug, what=told.what, claim=told.claim, verdict=verdict, paper=both, ours="", where="not run yet",
        change_paper=_printed(method.text, baseline.text), change_ours="",
        paper_method=method.value, paper_method_source=method.source,
        paper_baseline=baseline.value, paper_baseline_source=baseline.source,
    )  # fmt: skip
    if not records:
        return row
    metric, names = told.ours[0], told.ours[1:]
    ours, theirs = (_scores(records, metric, name) for name in names)
    sizes = [size for size in ours if size in theirs and ours[size].keys() & theirs[size].keys()]
    tier = records[0]["tier"]
    if not sizes:
        return Row(**{**asdict(row), "where": f"{tier} tier: no {metric!r} of {names[0]!r} and {names[1]!r} recorded"})
    size = max(sizes)
    seeds = sorted(ours[size].keys() & theirs[size].keys())
    left, right = ([told.scale * scores[size][seed] for seed in seeds] for scores in (ours, theirs))
    mine, other = plots.mean_interval(left), plots.mean_interval(right)
    change = plots.mean_interval([a - b for a, b in zip(left, right, strict=True)])
    count = f"{len(seeds)} seeds" if len(seeds) > 1 else "one seed"
    return Row(**{
        **asdict(row), "ours": f"{_text(*mine)} against {_text(*other)}",
        "where": f"{metric}, {names[0]} against {names[1]}; {tier} tier, {size:,} samples, {count}",
        "change_ours": _text(*change, signed=True), "tier": tier, "size": size, "seeds": len(seeds),
        "ours_method": mine[0], "ours_method_half": mine[1], "ours_baseline": other[0], "ours_baseline_half": other[1],
        "difference": change[0], "difference_half": change[1],
    })  # fmt: skip


def compare(entries: Iterable[Entry], records: list[dict]) -> list[Row]:
    """One row for every comparison that a paper reports, ours from the highest tier that has been run.

    Of each seed the difference is taken first, at the largest size that both methods were run at.
    """
    best: Mapping[str, list[dict]] = highest(records)
    return [_row(entry, told, best.get(entry.slug, [])) for entry in entries for told in entry.reported]


def table(rows: list[Row]):
    """The numbers of `compare` as a pandas table."""
    import pandas

    return pandas.DataFrame([asdict(row) for row in rows], columns=COLUMNS)
