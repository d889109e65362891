"""Recorded runs as tables and curves, and the data multiplier that sums a chapter up."""

import json
import math
from functools import lru_cache
from pathlib import Path

from nearfar import plots
from nearfar.chapters import notebooks, papers
from nearfar.errors import NearFarError
from nearfar.runs import run as runs
from nearfar.runs import tuning, verdicts
from nearfar.runs.multiplier import Multiplier, data_multiplier

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
            verdicts.check(claim)
        for name, settings in _searched(record).items():
            _require(settings, {}, f"the tuning of {name}")
        if record.get("headline") is not None:
            _require(record["headline"], {"metric": str, "method": str, "baseline": str}, "the headline")
    except (NearFarError, ValueError) as problem:
        raise NearFarError(f"{path} is no proper record: {problem}; {advice}") from None
    place = (record["tier"], record["slug"], f"seed-{record['seed']}.json")
    if Path(path).parts[-3:] != place:
        raise NearFarError(f"{path} holds the record of {'/'.join(place)}; move it there or delete it.")
    return record


def _searched(record: dict) -> dict:
    """{variant: settings that its search chose}; older records say nothing of it."""
    if "tuning" in record:
        _require(record, {"tuning": dict}, "the record")
    return record.get("tuning", {})


def folders() -> list[Path]:
    """Where records lie: `results/` of the checkout, those of the last book build, and `$NEARFAR_RESULTS`."""
    return list(dict.fromkeys([papers.root() / "results", papers.root() / "_build" / "results", runs.results_folder()]))


def read_all(slug: str | None = None, tier: str | None = None, places=None) -> tuple[list[dict], list[str]]:
    """All readable records, each with its folder as `place`, and one line per file that is none.

    Of two records of one slug, tier and seed in `places` (default: `folders()`), the one that was started later counts.
    """
    found, problems = {}, []
    for folder in places or folders():
        for path in sorted(Path(folder).glob(f"{tier or '*'}/{slug or '*'}/seed-*.json")):
            try:
                record = {**read(path), "place": str(folder)}
            except NearFarError as problem:
                problems.append(str(problem))
                continue
            key = record["slug"], record["tier"], record["seed"]
            if key not in found or record["started"] >= found[key]["started"]:
                found[key] = record
    return list(found.values()), problems


def is_stale(record: dict) -> bool:
    """Whether code, data or searched settings changed after the record was made; a field `stale` says so itself."""
    if "stale" in record:
        return record["stale"]
    try:
        code = notebooks.code_hash(record["slug"], record["tier"])
    except NearFarError:
        return True  # its chapter is gone
    return notebooks.fingerprint(code, record["dataset"].values()) != record["fingerprint"] or tuning.otherwise(record)


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
    """All judged claims as a pandas table, a row for each seed.  Errors as `table`.

    Columns: slug, tier, seed, id, text, kind, verdict (of this seed's run), difference, margin, evidence, and
    over_seeds: the verdict of all seeds of the tier together, the one that pages show and count.
    """
    return claims_of(_readable(slug, tier, places))


def claims_of(records: list[dict]):
    """`claims` of given records."""
    import pandas

    together = {
        (*place, claim["id"]): claim["verdict"]
        for place, mine in groups(records).items()
        for claim in verdicts.over_seeds(mine)
    }
    rows = [
        {"slug": r["slug"], "tier": r["tier"], "seed": r["seed"], "kind": "mechanism", **c,
         "over_seeds": together[r["slug"], r["tier"], c["id"]]}
        for r in records for c in r["claims"]
    ]  # fmt: skip
    columns = [
        "slug",
        "tier",
        "seed",
        "id",
        "text",
        "kind",
        "verdict",
        "difference",
        "margin",
        "over_seeds",
        "evidence",
    ]
    return pandas.DataFrame(rows, columns=columns)


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


def show(slug: str, run: runs.Run | None = None):
    """Headline curves of a chapter, one panel per tier: those of `run`, which goes on, then of the recorded tiers.

    Returns a matplotlib figure, or a line of text when nothing was run.  Raises `NearFarError` for a broken record or
    an unknown slug.
    """
    import matplotlib.pyplot as plt

    papers.notebook(slug)
    shown = [("this run", run.tier, run.comparison, run.table(), "")] if run and run.comparison else []
    for (_, tier), mine in groups(_readable(slug, None, None)).items():
        chosen = next((r["headline"] for r in mine if r.get("headline")), None)
        if chosen and not (run and tier == run.tier):
            stale = ", older than the code" if any(map(is_stale, mine)) else ""
            shown.append(("recorded", tier, chosen, measurements_of(mine), stale))
    if not shown:
        return f"No recorded runs of {slug} yet: nearfar run {slug} --tier small"
    figure, axes = plt.subplots(1, len(shown), figsize=(5.4 * len(shown), 3.8), squeeze=False)
    for ax, (what, tier, chosen, rows, stale) in zip(axes[0], shown, strict=True):
        multiplier = data_multiplier(rows, chosen["method"], chosen["baseline"], chosen["metric"])
        plots.scaling_curve(rows, chosen["metric"], {chosen["method"]: "method", chosen["baseline"]: "baseline"}, ax=ax)
        ax.set_title(f"{what + ', ' if run else ''}{tier}{stale}\n{multiplier.label}")
    plt.close(figure)
    return figure
