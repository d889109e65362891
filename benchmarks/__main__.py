"""python -m benchmarks [--only views loss …] [--book] [--quick]: measures, prints, and keeps results.json."""

import argparse
import importlib
import importlib.util
import sys
import time
from pathlib import Path

from benchmarks import measure, record

FAMILIES = {  # name on the command line: module, packages that it needs
    "views": ("views", ("lightly", "kornia")),
    "loss": ("contrast", ("lightly",)),
    "epoch": ("epoch", ("lightly",)),
    "scores": ("scores", ("sklearn",)),
    "book": ("site", ("jupyter_book",)),
}
QUICK = measure.ROOT / "_build" / "benchmarks-quick.json"


def line(entry: dict) -> str:
    """A row or a point as one line of progress."""
    if "who" in entry:
        return (
            f"  {entry['work']}, {entry['who']}, {entry['x']:,} {entry['x_name']}: {entry['value']:.4g} {entry['unit']}"
        )
    verdict = "met" if record.met(entry) else "NOT met"
    return (
        f"{entry['work']} [threads: {entry['threads']}]: {entry['ours']:.4g} {entry['unit']}, {entry['peer']} "
        f"{entry['theirs']:.4g}: {entry['ratio']:.2f}× (goal {entry['goal']:g}×: {verdict})"
    )


def missing(families: list[str]) -> list[str]:
    """Packages that these families need and that are not installed."""
    needed = dict.fromkeys(package for name in families for package in FAMILIES[name][1])
    return [package for package in needed if importlib.util.find_spec(package) is None]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=FAMILIES, help="families to measure (default: all but book)")
    parser.add_argument("--book", action="store_true", help="the whole book as well, which takes many minutes")
    parser.add_argument("--quick", action="store_true", help="toy sizes: tries the code and measures nothing")
    parser.add_argument("--output", type=Path, help="results file (default: benchmarks/results.json)")
    given = parser.parse_args(arguments)
    families = given.only or [name for name in FAMILIES if name != "book" or given.book]
    path = given.output or (QUICK if given.quick else record.RESULTS)
    if lacking := missing(families):
        print(f"{', '.join(lacking)} not installed; `make bench` installs what is compared.", file=sys.stderr)
        return 1
    clock, machine, failed, entries = time.perf_counter(), measure.machine(), [], []
    for name in families:
        module = importlib.import_module(f"benchmarks.{FAMILIES[name][0]}")
        print(f"{name} …", flush=True)
        try:
            for entry in module.measure_all("quick" if given.quick else "full"):
                entries.append(entry)
                record.add(entry, machine, path)
                print(line(entry), flush=True)
        except RuntimeError as problem:
            failed.append(name)
            print(f"{name} stopped: {problem}", file=sys.stderr, flush=True)
    if not failed and set(families) == set(FAMILIES):
        record.keep_only(entries, path)
    print(f"{time.perf_counter() - clock:.0f} s; kept in {path}")
    if failed:
        print(f"stopped: {', '.join(failed)}; the rest is kept.", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
