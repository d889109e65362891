"""The pipeline as `nearfar book` and `nearfar sweep` call it: Snakemake, its lock, and what is asked for a run."""

import contextlib
import ctypes
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from nearfar import paths, processes
from nearfar.chapters import papers
from nearfar.errors import NearFarError, writing
from nearfar.runs import forked

# minutes, MiB of memory and GPUs that a run is given as long as no record says what it takes
STATED = {"smoke": (10, 4_096, 0), "small": (60, 8_192, 0), "medium": (480, 32_768, 1), "full": (4_320, 131_072, 1)}


def asked(records: Sequence[dict], tier: str) -> tuple[int, int, int]:
    """(minutes, MiB, GPUs) to ask for: twice the slowest record's time and its memory and a half, or what is stated."""
    minutes, memory, gpus = STATED[tier]
    if records:
        minutes = max(2, -(-int(max(r["seconds"] for r in records)) * 2 // 60))
        known = [r["peak_memory"]["host_MiB"] for r in records if "host_MiB" in r["peak_memory"]]
        memory = 1_024 + int(1.5 * max(known)) if known else memory
    return minutes, memory, gpus


def lock(folder: Path):
    """A lock that the system drops when its holder dies.  Raises `NearFarError` while another build holds it."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / ".lock", "w")  # noqa: SIM115 - held until the process ends
    try:
        _hold(file)
    except (BlockingIOError, PermissionError):
        file.close()
        raise NearFarError(f"another build is at work in {folder}; wait for it to end.") from None
    return file


def _hold(file) -> None:
    """Locks a file; raises BlockingIOError (Windows: PermissionError) where another process holds it."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def snakemake(
    target: str, config: dict, jobs: int, held, profile: str | None = None, options: tuple[str, ...] = ()
) -> int:
    """Brings a target of the Snakefile up to date; returns Snakemake's exit code.

    jobs: runs at a time on this machine; held: the lock; profile: one that says where runs go instead; options: more of
    Snakemake's.  Should this process be killed, Snakemake starts no more runs, and it keeps the lock until it has gone.
    """
    import psutil  # ipykernel and Snakemake need it too

    memory = psutil.virtual_memory().total // 2**20
    place = ["--profile", profile] if profile else ["--cores", str(jobs), "--resources", "gpu=1", f"mem_mb={memory}"]
    command = [
        sys.executable, "-m", "snakemake", target, "--snakefile", str(papers.root() / "Snakefile"), *place,
        "--keep-going", "--nolock", "--rerun-incomplete", *options, "--quiet", "progress", "rules", "host", "reason",
        "--config", *(f"{name}={json.dumps(str(value))}" for name, value in config.items()),
    ]  # fmt: skip
    with contextlib.nullcontext({}) if profile else forked.parent(config["device"]) as variables:
        kept = {} if os.name == "nt" else {"pass_fds": [held.fileno()]}
        return processes.call(
            command, cwd=papers.root(), env={**os.environ, **paths.settled(), **variables}, **kept,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )  # fmt: skip


def _end_with_parent() -> None:
    """In a child: asks Linux for a SIGTERM when the parent dies, however it dies."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
