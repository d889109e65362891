"""python -m benchmarks.planning: how long ten thousand runs take to plan, and what 64 GPUs make of them.

Nothing is run: `nearfar sweep` plans, Snakemake orders the jobs (a dry run), and a queue is simulated, in which each
run takes half of what the sweep asks the cluster for.  Written to benchmarks/planning.json for the page on costs.
"""

import argparse
import heapq
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks import measure
from nearfar.chapters import papers
from nearfar.runs import run, sweep

RESULTS = measure.ROOT / "benchmarks" / "planning.json"


def makespan(minutes: Sequence[float], machines: int) -> float:
    """Minutes until the last of these runs ends, when each goes, in order, to the machine that is free first."""
    free = [0.0] * machines
    for length in minutes:
        heapq.heapreplace(free, free[0] + length)
    return max(free)


def dry_run(jobs: Sequence[sweep.Job], at_once: int) -> tuple[float, float]:
    """Seconds and MiB that Snakemake takes to order these jobs without running any."""
    with tempfile.TemporaryDirectory() as folder:
        plan = Path(folder) / "plan.json"
        plan.write_text(json.dumps([asdict(job) for job in jobs]))
        command = [
            sys.executable, "-m", "snakemake", "sweep", "--snakefile", str(papers.root() / "Snakefile"),
            "--cores", str(at_once),
            "--resources", f"gpu={at_once}", "--dry-run", "--forceall", "--nolock", "--quiet", "all",
            "--config", f"plan={plan}", f"records={folder}/records",
        ]  # fmt: skip
        clock = time.perf_counter()
        done = subprocess.run(command, cwd=papers.root(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        measure.require(done.returncode == 0, f"Snakemake planned nothing:\n{done.stderr[-2000:]}")
        return time.perf_counter() - clock, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def measured(runs: int, machines: int) -> dict:
    """The whole story of `runs` runs at the medium tier, spread over the chapters that exist."""
    slugs = list(papers.slugs())
    with tempfile.TemporaryDirectory() as empty:
        clock = time.perf_counter()
        jobs = sweep.plan(["medium"], range(-(-runs // len(slugs))), slugs, Path(empty))[:runs]
        planned = time.perf_counter() - clock
    seconds, memory = dry_run(jobs, machines)
    lengths = [job.minutes / 2 for job in jobs]
    return {
        "runs": len(jobs), "chapters": len(slugs), "gpus": machines, "hours_a_run": lengths[0] / 60,
        "plan_seconds": round(planned, 1), "snakemake_seconds": round(seconds, 1), "snakemake_mib": round(memory),
        "gpu_hours": round(sum(lengths) / 60), "days": round(makespan(lengths, machines) / 60 / 24, 1),
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planning", description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--gpus", type=int, default=64)
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    sizes = [size for size in (100, 1_000) if size < given.runs] + [given.runs]
    content = {"machine": measure.machine(), "plans": [measured(size, given.gpus) for size in sizes]}
    run.write_atomically(given.output, json.dumps(content, indent=1) + "\n")
    print(json.dumps(content["plans"], indent=1))


if __name__ == "__main__":
    main()
