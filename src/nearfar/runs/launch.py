"""One run on several GPUs, or nodes: the notebook as a script under torchrun, one process per device."""

import os
import subprocess
import sys
from pathlib import Path

from nearfar import paths, processes
from nearfar.chapters import notebooks, papers
from nearfar.errors import NearFarError
from nearfar.runs import execute, kernels
from nearfar.runs import run as runs

LEFT_OUT = {"drawing", "solution"}  # cells that a run without a page does not need
PRELUDE = """import os, sys
import matplotlib
matplotlib.use("agg")
matplotlib.rcParams["figure.max_open_warning"] = 0
if os.environ["RANK"] != "0":
    sys.stdout = open(os.devnull, "w")
"""


def script(notebook: Path, parameters: dict) -> str:
    """A notebook's code as one Python file with these parameters; without cells that only draw, and the solutions."""
    cells = [PRELUDE]
    for number, source, tags in notebooks.code_cells(notebook):
        if not LEFT_OUT.intersection(tags):
            cells.append(f"# cell {number}\n{notebooks.python(source)}\n")
        if "parameters" in tags:
            cells.append("".join(f"{name} = {value!r}\n" for name, value in parameters.items()))
    return "\n".join(cells)


def run(
    slug: str,
    tier: str = "full",
    seed: int = 0,
    device: str = "auto",
    *,
    devices: int,
    nodes: int = 1,
    node: int = 0,
    meet: str = "",
    parameters: dict | None = None,
    results: Path | None = None,
) -> Path:
    """Runs a chapter in `devices` processes on each of `nodes` machines; process 0 records.  Returns the record's path.

    The same numbers as one process, up to rounding (nearfar.parallel).  On several nodes start the same command on
    each, with its number as `node` (from 0) and node 0's host:port as `meet`; all must see the same checkout and data.
    Raises `NearFarError`, one line: what `execute.run` refuses; more devices than there are; a process that failed,
    with its last words and where its log lies.
    """
    notebook = papers.notebook(slug)
    _check(device, devices, nodes, node, meet)
    given = execute.parameters_of(notebook, tier, seed, device, parameters or {})
    record = runs.record_path(slug, tier, seed, paths.given(results) if results else None)
    before = record.stat().st_mtime_ns if record.is_file() else None
    place = execute.executed_path(slug, tier, seed)
    file, log = place.with_suffix(f".{node}.py"), place.with_suffix(f".{node}.log")
    runs.write_atomically(file, script(notebook, given))
    meeting = ["--nnodes", str(nodes), "--node-rank", str(node), "--rdzv-backend", "c10d", "--rdzv-endpoint", meet]
    command = [
        sys.executable, "-m", "torch.distributed.run", *(meeting if nodes > 1 else ["--standalone"]),
        "--nproc-per-node", str(devices), str(file),
    ]  # fmt: skip
    settings = {"NEARFAR_RESULTS": record.parents[2], "NEARFAR_ROOT": papers.root(), "NEARFAR_STATIC": "1"}
    threads = os.environ.get("OMP_NUM_THREADS") or os.environ.get("NEARFAR_THREADS") or "1"
    own = {"OMP_NUM_THREADS": threads, **{name: str(value) for name, value in settings.items()}}
    print(f"{devices} processes{f' on each of {nodes} nodes' if nodes > 1 else ''}, log: {log}", flush=True)
    with open(log, "w", encoding="utf-8") as said, kernels.surroundings() as environment:
        status = processes.call(
            command, cwd=notebook.parent, env=environment | own, stdout=said, stderr=subprocess.STDOUT
        )
    if status:
        raise NearFarError(f"{slug} failed in one of its processes: {_last_words(log)} (log: {log})")
    if node == 0 and (not record.is_file() or record.stat().st_mtime_ns == before):
        raise NearFarError(f"{slug} ran to its end but wrote no record; its last cells must call run.finish(budget).")
    return record


def _check(device: str, devices: int, nodes: int, node: int, meet: str) -> None:
    if devices < 1 or nodes < 1 or not 0 <= node < nodes:
        raise NearFarError(
            f"--devices and --nodes must be at least 1, --node from 0 to nodes - 1; got {devices}, {nodes} and {node}."
        )
    if nodes > 1 and ":" not in meet:
        raise NearFarError(f"--meet: several nodes need node 0's address as host:port, got {meet!r}.")
    if device not in ("auto", "cpu", "cuda"):
        raise NearFarError(
            f"--device {device}: with --devices every process takes a device of its own; use auto, cpu or cuda."
        )
    if runs.choose_device(device).type == "cuda":
        import torch

        if devices > torch.cuda.device_count():
            raise NearFarError(f"--devices {devices}, but PyTorch sees {torch.cuda.device_count()} CUDA devices here.")


def _last_words(log: Path) -> str:
    """The first error line of a log: torchrun's own report follows it."""
    lines = [line.split("]:", 1)[-1].strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    errors = [
        line for line in lines if line.split(":")[0].endswith(("Error", "Exception", "Interrupt")) and " " in line
    ]
    return errors[0] if errors else (lines or ["nothing was said"])[-1]
