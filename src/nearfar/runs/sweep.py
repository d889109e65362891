"""`nearfar sweep`: many runs, notebook x tier x seed, planned here and run by Snakemake, on this machine or a cluster.

What needs to run is decided by the records themselves: a run is due when it has no record, or one that is older than
the code behind it.  So a sweep that was killed goes on with the same command, and nothing runs twice.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from nearfar import paths
from nearfar.chapters import notebooks, papers
from nearfar.errors import NearFarError, nearest
from nearfar.runs import pipeline, results, run


@dataclass(frozen=True)
class Job:
    """One run that is due, why, and what it is given: minutes, MiB of memory, GPUs."""

    slug: str
    tier: str
    seed: int
    minutes: int
    memory: int
    gpus: int
    reason: str


def seeds(text: str) -> list[int]:
    """Seeds as one writes them, "0-4" or "0,2,5-7", in order.  Raises `NearFarError` for anything else."""
    found: set[int] = set()
    for part in str(text).split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or (dash and int(last) < int(first)):
            raise NearFarError(f"--seeds: {part.strip()!r} is no seed and no range; write 0-4, or 0,2,5-7.")
        found.update(range(int(first), int(last or first) + 1))
    return sorted(found)


def chosen(names: Sequence[str] = (), part: str | None = None) -> list[str]:
    """Slugs by name and by part of the book; all of them when neither is given.  Raises `NearFarError` for others."""
    known = papers.slugs()
    for name in names:
        if name not in known:
            raise NearFarError(f"--papers: no chapter {name!r}.{nearest(name, known)} See nearfar list.")
    if part and part not in known.values():
        raise NearFarError(f"--part: no part {part!r}.{nearest(part, set(known.values()))}")
    return [slug for slug, its in known.items() if (not names or slug in names) and (not part or its == part)]


def plan(tiers: Sequence[str], seeds: Sequence[int], slugs: Sequence[str], folder: Path) -> list[Job]:
    """The runs that are due, cheapest tier first.

    folder: where records lie.  Raises `NearFarError` for an unknown tier; a record that cannot be read is due.
    """
    for tier in tiers:
        run.check(tier, 0, "cpu")
    found, _ = results.read_all(places=[folder])
    have = {(record["slug"], record["tier"], record["seed"]): record for record in found}
    due = []
    for tier in sorted(tiers, key=notebooks.TIERS.index):
        for slug in slugs:
            minutes, memory, gpus = pipeline.asked([r for r in found if (r["slug"], r["tier"]) == (slug, tier)], tier)
            for seed in seeds:
                record = have.get((slug, tier, seed))
                if record is None or results.is_stale(record):
                    reason = "no record" if record is None else "older than the code"
                    due.append(Job(slug, tier, seed, minutes, memory, gpus, reason))
    return due


def describe(jobs: Sequence[Job], total: int, at_once: int) -> str:
    """What a plan holds and about how long it takes, half of the time that its runs are given."""
    if not jobs:
        return f"all {total} runs have records of the code as it is; nothing to do"
    hours = sum(job.minutes for job in jobs) / 2 / 60
    lines = [f"{len(jobs)} of {total} runs are due, about {hours:.1f} hours of computing, {at_once} at a time"]
    for tier in notebooks.TIERS:
        mine = [job for job in jobs if job.tier == tier]
        if mine:
            chapters = len({job.slug for job in mine})
            lines.append(
                f"  {tier:7} {len(mine):5} runs of {chapters} chapters, {sum(j.minutes for j in mine) / 120:.1f} hours"
            )
    return "\n".join(lines)


def sweep(
    tiers: Sequence[str],
    seeds: Sequence[int],
    slugs: Sequence[str],
    *,
    jobs: int | None = None,
    device: str = "auto",
    profile: str | None = None,
    records: Path | None = None,
    dry_run: bool = False,
) -> list[Job]:
    """Run what is due; returns what was due.  Prints the plan and, at the end, what was recorded.

    jobs: runs at a time on this machine (default: its cores); profile: a Snakemake profile (a folder, or its name) for
    a cluster; records: folder of records (default `results/`); dry_run: only plan.
    Raises `NearFarError` naming the runs that failed and their logs; what succeeded is recorded.
    """
    folder = paths.given(records or papers.root() / "results")
    if profile and paths.given(profile).is_dir():
        profile = str(paths.given(profile))
    at_once = jobs or os.cpu_count() or 1
    due = plan(tiers, seeds, slugs, folder)
    print(describe(due, len(tiers) * len(seeds) * len(slugs), at_once))
    if dry_run or not due:
        return due
    place = papers.root() / "_build" / "sweep"
    held = pipeline.lock(place)
    plan_file = place / "plan.json"
    run.write_bytes_atomically(plan_file, json.dumps([asdict(job) for job in due], indent=1).encode())
    config = {"plan": plan_file, "device": device, "records": folder}
    status = pipeline.snakemake("sweep", config, at_once, held, profile, ("--forceall",))
    held.close()
    left = plan(tiers, seeds, slugs, folder)
    print(f"{len(due) - len(left)} runs recorded in {folder}")
    if left:
        logs = [place / job.tier / job.slug / f"seed-{job.seed}.log" for job in left[:5]]
        named = ", ".join(str(log.relative_to(papers.root())) for log in logs)
        raise NearFarError(f"{len(left)} runs have no record yet; see {named}{', …' if len(left) > 5 else ''}.")
    if status:
        raise NearFarError(f"the pipeline failed (exit code {status}); its messages are above.")
    return due
