"""What runs cost: what is asked for them, and the tables of the page on costs, from records and stated limits."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from nearfar.chapters import notebooks
from nearfar.press.pages import duration
from nearfar.runs import pipeline

SEEDS = 3


def _hours(hours: float) -> str:
    return f"{hours:.1f}" if hours < 10 else f"{hours:,.0f}"


def _recorded(mine: list[dict], planned: int) -> list[str]:
    """One tier's row: a chapter counts with the mean of its runs."""
    chapters = {slug: [r["seconds"] for r in mine if r["slug"] == slug] for slug in {r["slug"] for r in mine}}
    means = [statistics.mean(seconds) for seconds in chapters.values()]
    book = planned * SEEDS * statistics.mean(means) / 3600
    memory = max(r["peak_memory"].get("host_MiB", 0) for r in mine) / 1024
    device = "GPU" if all(r["device"] != "cpu" for r in mine) else "core"
    return [
        f"{len(mine)} runs of {len(chapters)} chapters",
        f"{duration(statistics.median(means))} ({duration(min(means))} to {duration(max(means))})",
        f"{memory:.1f} GB" if memory else "not recorded",
        f"{_hours(book)} {device} hours",
    ]


def tiers_table(records: Sequence[dict], planned: int) -> str:
    """Markdown: what a run takes at each tier, and `planned` chapters with three seeds.

    Where nothing is recorded, the limit that a cluster is asked for, marked as such.
    """
    lines = [
        f"| tier | known from | a chapter's run | memory | all {planned} papers, {SEEDS} seeds |",
        "|---" * 5 + "|",
    ]
    for tier in notebooks.TIERS:
        mine = [record for record in records if record["tier"] == tier]
        if mine:
            cells = _recorded(mine, planned)
        else:
            minutes, memory, gpus = pipeline.STATED[tier]
            unit = "GPU" if gpus else "core"
            cells = [
                "stated limit, nothing recorded",
                f"at most {_hours(minutes / 60)} h",
                f"at most {memory // 1024} GB",
                f"at most {_hours(planned * SEEDS * minutes / 60)} {unit} hours",
            ]
        lines.append(f"| {' | '.join([tier, *cells])} |")
    return "\n".join(lines) + "\n"


def disk(folder: Path) -> str:
    """Markdown: what records and executed notebooks of a checkout take, counted there."""
    kinds = {"record": "results/*/*/seed-*.json", "executed notebook": "_build/runs/*/*/seed-?.ipynb"}
    sizes = {name: [path.stat().st_size for path in folder.glob(pattern)] for name, pattern in kinds.items()}
    told = [
        f"{name}: {statistics.mean(found) / 1000:,.0f} kB, the mean of {len(found)}"
        for name, found in sizes.items()
        if found
    ]
    return "; ".join(told or ["nothing has been run yet"]) + ".\n"


def plan_table(file: Path) -> str:
    """Markdown: how long many runs take to plan, measured by `python -m benchmarks.planning`."""
    if not file.is_file():
        return f"*Not measured in this checkout: `python -m benchmarks.planning` writes `{file.name}`.*\n"
    content = json.loads(file.read_text(encoding="utf-8"))
    lines = [
        "| runs | `nearfar sweep` plans | Snakemake orders | its memory | GPU hours | days on the GPUs |",
        "|---" * 6 + "|",
    ]
    for plan in content["plans"]:
        lines.append(
            f"| {plan['runs']:,} | {plan['plan_seconds']:.1f} s | {plan['snakemake_seconds']:.0f} s | "
            f"{plan['snakemake_mib']:.0f} MiB | {plan['gpu_hours']:,} | {plan['days']:g} |"
        )
    plan, machine = content["plans"][-1], content["machine"]
    told = (
        f"{plan['gpus']} GPUs, {plan['chapters']} chapters at the medium tier with as many seeds as it takes; a run is "
        f"taken to last {plan['hours_a_run']:g} hours, half of what it may. "
        f"Planned on {machine['cores']} cores ({machine['cpu']})."
    )
    return "\n".join([*lines, "", told]) + "\n"
