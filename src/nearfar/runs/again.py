"""Which executed notebooks the tests run a second time: `python -m nearfar.runs.again [all]` prints their paths.

Every notebook is run once whatever changed.  A second run finds what is not the same from run to run, and costs as much
as the first; with many chapters it is for those that changed since yesterday and a third of the others, another third
each day.  What changed is a notebook, or code that its numbers hang on: then its committed record is new, or old.  The
nightly workflow takes all.
"""

import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from nearfar.chapters import papers
from nearfar.runs import results

THIRDS = 3


def changed(folder: Path, since: str = "1 day ago") -> set[Path] | None:
    """Files that commits since then have touched, and those not committed; None where git cannot tell."""
    commands = ["log", f"--since={since}", "--name-only", "--format="], ["status", "--porcelain", "--no-renames"]
    found: set[Path] = set()
    for command in commands:
        told = subprocess.run(["git", "-c", "core.quotePath=off", *command], cwd=folder, capture_output=True, text=True)
        if told.returncode:
            return None
        lines = filter(None, told.stdout.splitlines())
        found |= {folder / (line if command[0] == "log" else line[3:].strip('"')) for line in lines}
    return found


def chosen(slugs: Iterable[str], touched: set[Path] | None, day: int) -> list[str]:
    """Of the chapters, those that changed, and of the others every third, from `day` on.

    touched: files that changed; None takes all.
    """
    return [
        slug
        for place, slug in enumerate(sorted(slugs))
        if touched is None or place % THIRDS == day % THIRDS or _changed(slug, touched)
    ]


def _changed(slug: str, touched: set[Path]) -> bool:
    record = papers.root() / "results/smoke" / slug / "seed-0.json"
    if not record.is_file() or touched.intersection({papers.notebook(slug), record}):
        return True
    return results.is_stale(results.read(record))


def main() -> None:
    executed = {path.parent.name: path for path in Path("_build/runs/smoke").glob("*/seed-0.ipynb")}
    known = executed.keys() & papers.slugs().keys()
    touched = None if sys.argv[1:] == ["all"] else changed(papers.root())
    taken = chosen(known, touched, int(time.time() // 86400)) or sorted(known)  # of one chapter nothing may be due
    print(f"a second run of {len(taken)} of {len(known)} notebooks", file=sys.stderr)
    print(*(executed[slug] for slug in taken), sep="\n")


if __name__ == "__main__":
    main()
