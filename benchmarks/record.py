"""Rows and points of growth, and the file that keeps them: `benchmarks/results.json`."""

import json
import math
import statistics
from datetime import date
from pathlib import Path

from benchmarks import measure
from nearfar.runs.run import write_atomically

RESULTS = measure.ROOT / "benchmarks" / "results.json"
LOWER_IS_BETTER = {"s": True, "MB": True, "images/s": False}
ROW = {
    "work": str, "peer": str, "ours": float, "theirs": float, "unit": str, "ratio": float, "goal": float,
    "threads": str, "repeats": int, "spread": float, "checked": str, "note": str,
}  # fmt: skip
POINT = {"work": str, "who": str, "x_name": str, "x": int, "value": float, "unit": str}


def row(
    work: str, peer: str, ours: list[float], theirs: list[float], unit: str, goal: float, threads: str,
    checked: str = "", note: str = "",
) -> dict:  # fmt: skip
    """One comparison.  ours, theirs: a value per repeat, in `unit`, of which the medians count.

    ratio: more than one is in our favour, whether the unit is a rate or a cost; spread: (largest − smallest) / median,
    of the side that has more of it; checked: what showed that both sides did the same work.
    """
    mine, other = statistics.median(ours), statistics.median(theirs)
    return {
        "work": work, "peer": peer, "ours": mine, "theirs": other, "unit": unit,
        "ratio": other / mine if LOWER_IS_BETTER[unit] else mine / other,
        "goal": float(goal), "threads": threads, "repeats": len(ours),
        "spread": max(measure.spread(ours), measure.spread(theirs)), "checked": checked, "note": note,
    }  # fmt: skip


def point(work: str, who: str, x_name: str, x: int, values: list[float], unit: str) -> dict:
    """One point of a curve of growth: the median of `values` at x."""
    return {"work": work, "who": who, "x_name": x_name, "x": x, "value": statistics.median(values), "unit": unit}


def met(entry: dict) -> bool:
    return entry["ratio"] >= entry["goal"]


def key(entry: dict) -> tuple:
    """What makes a row or a point one and the same from run to run."""
    names = ("work", "peer", "unit", "threads") if "peer" in entry else ("work", "who", "x_name", "x", "unit")
    return tuple(entry[name] for name in names)


def empty() -> dict:
    return {"machine": {}, "date": "", "rows": [], "growth": []}


def problems(results: dict) -> list[str]:
    """What is wrong with the content of a results file, a line each; none for a proper one."""
    found = [f"no {name!r}" for name in empty() if name not in results]
    for name, fields in (("rows", ROW), ("growth", POINT)):
        for number, entry in enumerate(results.get(name, [])):
            where = f"{name}[{number}]"
            found += [f"{where}: no proper {f!r}" for f, kind in fields.items() if not isinstance(entry.get(f), kind)]
            found += [f"{where}: {f!r} is not a field" for f in entry if f not in fields]
            found += [f"{where}: {f!r} is {v}" for f, v in entry.items()
                      if isinstance(v, float) and not (math.isfinite(v) and v >= 0)]  # fmt: skip
            if entry.get("unit") not in LOWER_IS_BETTER:
                found.append(f"{where}: unknown unit {entry.get('unit')!r}")
        keys = [key(entry) for entry in results.get(name, []) if set(entry) == set(fields)]
        found += [f"{name}: {k} is there twice" for k in sorted(set(keys)) if keys.count(k) > 1]
    return found


def read(path: Path = RESULTS) -> dict:
    """The results kept so far; empty ones where there are none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else empty()


def write(results: dict, path: Path = RESULTS) -> None:
    """Replaces the file at once or not at all."""
    write_atomically(path, json.dumps(results, indent=1, ensure_ascii=False) + "\n")


def add(entry: dict, machine: dict, path: Path = RESULTS) -> None:
    """Puts a row or a point into the file, in the place of its predecessor; what another machine measured goes."""
    results = read(path)
    if results["machine"] != machine:
        results = empty()
    kept = results["rows" if "peer" in entry else "growth"]
    places = [number for number, other in enumerate(kept) if key(other) == key(entry)]
    if places:
        kept[places[0]] = entry
    else:
        kept.append(entry)
    write({**results, "machine": machine, "date": date.today().isoformat()}, path)


def keep_only(entries: list[dict], path: Path = RESULTS) -> None:
    """After a whole run: drops what that run no longer measures, and puts all in its order."""
    results = read(path)
    write({**results, "rows": [e for e in entries if "peer" in e], "growth": [e for e in entries if "who" in e]}, path)
