"""Searches of settings: one file per chapter and tier, beside its records."""

import json
from pathlib import Path

from nearfar.chapters import papers
from nearfar.errors import NearFarError
from nearfar.runs import run as runs


def path(folder: Path, tier: str, slug: str) -> Path:
    """Where the searches of a chapter at one tier lie."""
    return Path(folder) / tier / slug / "tuning.json"


def read(file: Path) -> dict[str, dict]:
    """{variant: search}; nothing where there is no file.  Raises `NearFarError` for one that cannot be read."""
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        for search in found.values():
            best(search)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise NearFarError(
            f"{file} is no readable table of settings ({problem!r}); delete it or restore it from git."
        ) from problem
    return found


def found(tier: str, slug: str, folder: Path | None = None) -> dict[str, dict]:
    """The searches that were made before: those of `folder` (default `$NEARFAR_RESULTS`), then the committed ones."""
    places = papers.root() / "results", folder or runs.results_folder()
    committed, own = (read(path(place, tier, slug)) for place in places)
    return committed | own


def keep(tier: str, slug: str, name: str, search: dict) -> None:
    """Adds a search to the file in the folder of records."""
    file = path(runs.results_folder(), tier, slug)
    runs.write_atomically(file, json.dumps({**read(file), name: search}, indent=1, ensure_ascii=False) + "\n")


def best(search: dict) -> dict:
    """The first of the rows tried that has the highest score: {"settings": …, "score": …, "read": …}.

    A score of None is that of a training that diverged.  Raises ValueError when all did.
    """
    return max((row for row in search["tried"] if row["score"] is not None), key=lambda row: row["score"])


def otherwise(record: dict) -> bool:
    """Whether the searches beside a record would now choose other settings than those it was made with."""
    if not record.get("tuning"):
        return False
    now = found(record["tier"], record["slug"], record.get("place"))
    return any(name not in now or best(now[name])["settings"] != chosen for name, chosen in record["tuning"].items())
