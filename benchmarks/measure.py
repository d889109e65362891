"""What every comparison needs: interleaved times, a fixed number of threads, memory of a fresh process."""

import contextlib
import importlib
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "torchvision", "lightly", "kornia", "scikit-learn", "numpy", "jupyter-book")
MEGABYTE = 1e6  # bytes
_PEAK = Path("/proc/self/clear_refs")


def require(same: bool, difference: str) -> None:
    """Stops a comparison whose two sides did not do the same work."""
    if not same:
        raise RuntimeError(f"not the same work: {difference}")


def interleaved(sides: dict[str, Callable], repeats: int) -> dict[str, list[float]]:
    """Seconds of each side's calls.  Each is called once unmeasured; then `repeats` rounds, every other one backwards,
    so that a machine that grows slower or faster meanwhile does so for all sides."""
    for call in sides.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(repeats):
        for name in list(sides)[:: -1 if number % 2 else 1]:
            start = time.perf_counter()
            sides[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def rates(count: int, seconds: list[float]) -> list[float]:
    """Seconds for `count` things as things per second."""
    return [count / s for s in seconds]


def spread(values: list[float]) -> float:
    """(largest − smallest) / median: nought for one value."""
    return (max(values) - min(values)) / statistics.median(values)


@contextlib.contextmanager
def threads(count: int):
    """At most `count` threads in torch and in the BLAS and OpenMP libraries that NumPy and scikit-learn call."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        torch.set_num_threads(before)


# ---------------------------------------------------------------------------------------------- memory
def fresh(module: str, *arguments, repeats: int = 1, threads: int = 1) -> dict:
    """`benchmarks.<module>.prepare(*arguments)` in a fresh process, then what it returns, called `repeats` times.

    Returns {"seconds": one per call, "megabytes": extra peak memory of the first call, "value": the last one's number}.
    Extra is the highest resident memory during the call (VmHWM of Linux, set back before it) less the resident memory
    before it, when inputs and libraries are already there.  Raises RuntimeError if the child fails, or without /proc.
    """
    if not _PEAK.exists():
        raise RuntimeError("memory is read from Linux's /proc, which is not here")
    order = json.dumps({"module": module, "arguments": arguments, "repeats": repeats, "threads": threads})
    command = [sys.executable, "-c", "import sys; from benchmarks import measure; measure.child(sys.argv[1])", order]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}; was memory short?"]
        raise RuntimeError(f"{module} {arguments} in a fresh process: {reason[0]}")
    return json.loads(done.stdout.splitlines()[-1])


def child(order: str) -> None:
    """The other end of `fresh`: prints the measurement as the last line."""
    wanted = json.loads(order)
    task = importlib.import_module(f"benchmarks.{wanted['module']}").prepare(*wanted["arguments"])
    seconds, peaks = [], []
    with threads(wanted["threads"]):
        before = _status("VmRSS")
        _PEAK.write_text("5")  # peak := resident now
        for _ in range(wanted["repeats"]):
            start = time.perf_counter()
            value = float(task())
            seconds.append(time.perf_counter() - start)
            peaks.append(_status("VmHWM"))
    extra = peaks[0] - before
    print(json.dumps({"seconds": seconds, "megabytes": extra / MEGABYTE, "value": value}))


def _status(key: str) -> int:
    """Bytes that /proc/self/status gives for a key."""
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"^{key}:\s+(\d+) kB", text, re.MULTILINE).group(1)) * 1024


# ---------------------------------------------------------------------------------------------- machine
def machine() -> dict:
    """Processor, cores, memory and the versions of all that takes part."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
    }


def _cpu() -> str:
    listed = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", listed.read_text() if listed.exists() else "", re.MULTILINE)
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
