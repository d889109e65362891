"""One run of one chapter: its device and randomness, what it measured, what it says of the paper's claims."""

import contextlib
import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from nearfar import paths, randomness
from nearfar.chapters import notebooks, papers
from nearfar.errors import NearFarError, nearest, writing
from nearfar.runs import verdicts

if TYPE_CHECKING:  # torch is imported where it is used: the command line starts kernels without paying for it
    import torch

SCHEMA = 1
TIERS = notebooks.TIERS


def choose_device(device: str) -> "torch.device":
    """`auto` is the first GPU if there is one, else the CPU.  Raises `NearFarError` for a device that is not here."""
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError as problem:
        raise NearFarError(f"unknown device {device!r}; use auto, cpu, cuda or cuda:<number>.") from problem
    if chosen.type not in ("cpu", "cuda", "mps"):
        raise NearFarError(f"unknown device {device!r}; use auto, cpu, cuda or cuda:<number>.")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise NearFarError(
            f"device {device!r} asked for, but PyTorch sees {torch.cuda.device_count()} CUDA devices; use --device cpu."
        )
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise NearFarError("device 'mps' asked for, but PyTorch sees no Apple GPU; use --device cpu.")
    return chosen


def _own_device(chosen: "torch.device") -> "torch.device":
    """Where this process computes: under torchrun, joins the others and takes the GPU with its number."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or "LOCAL_RANK" not in os.environ:
        return chosen
    import torch
    from torch import distributed

    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(chosen)
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    return chosen


def check(tier: str, seed: int, device: str) -> None:
    """Validates the three parameters that every notebook has.  Raises `NearFarError`."""
    if tier not in TIERS:
        raise NearFarError(f"no tier is called {tier!r}.{nearest(str(tier), TIERS)} Tiers: {', '.join(TIERS)}.")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
        raise NearFarError(f"seed must be a whole number from 0 to 2147483647, got {seed!r}.")
    if device not in ("auto", "cpu"):
        choose_device(device)


def results_folder() -> Path:
    """Where records go: `$NEARFAR_RESULTS`, or `results/` of the checkout."""
    return paths.named("NEARFAR_RESULTS") or papers.root() / "results"


def record_path(slug: str, tier: str, seed: int, folder: Path | None = None) -> Path:
    return (folder or results_folder()) / tier / slug / f"seed-{seed}.json"


def write_atomically(path: Path, text: str) -> None:
    """`write_bytes_atomically` of text in UTF-8."""
    write_bytes_atomically(path, text.encode("utf-8"))


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """Writes all of `content` or nothing; readers see the old file or the new one.

    Raises `NearFarError` when the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):  # it has its name, or was never made
                temporary.unlink()


def _versions() -> dict[str, str]:
    packages = ("nearfar", "torch", "torchvision", "numpy", "scikit-learn", "imbalanced-learn")
    found = {"python": sys.version.split()[0]}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def _commit() -> str:
    command = ["git", "-C", str(papers.root()), "rev-parse", "HEAD"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return answer.stdout.strip() or "unknown"


class Run:
    """State of one run; made by `start`, closed by `finish`.

    slug, tier, seed: as given.  device: `torch.device` that everything should live on.
    """

    def __init__(self, slug: str, tier: str, seed: int, device: "torch.device"):
        self.slug, self.tier, self.seed, self.device = slug, tier, seed, device
        self.measurements: list[dict] = []
        self.claims: list[dict] = []
        self.datasets: dict[str, str] = {}
        self.comparison: dict[str, str] | None = None
        self.tuning: dict[str, dict] = {}  # {variant: settings that its search chose}
        self._trainings: set[str] = set()
        self._code = notebooks.code_hash(slug, tier)  # of what is about to run, not of what stands there at the end
        self._started, self._clock = datetime.now(UTC), time.perf_counter()

    def __repr__(self):
        return f"Run({self.slug}, tier={self.tier}, seed={self.seed}, device={self.device})"

    def generator(self, stream: int = 0) -> "torch.Generator":
        """A fresh CPU generator: the same seed and `stream` always give the same numbers, other streams others."""
        return randomness.generator(self.seed, stream)

    def checkpoint(self, *what) -> Path:
        """File for `train.fit`'s checkpoint of one training of this run.

        what: all that tells it from the run's other trainings, such as method, size and options (anything with a repr
        that says it all).  A killed run that is started again by the same command goes on from it, as long as code and
        data are the same; `finish` deletes all of the run's checkpoints.  Raises ValueError for a `what` used before.
        """
        name = f"{notebooks.fingerprint(self._code, self.datasets.values())} {what!r}"
        if name in self._trainings:
            raise ValueError(f"two trainings of this run are called {what!r}; give run.checkpoint what differs.")
        self._trainings.add(name)
        return self._checkpoints() / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.pt"

    def _checkpoints(self) -> Path:
        return papers.root() / "_build" / "checkpoints" / self.tier / self.slug / f"seed-{self.seed}"

    def uses(self, *datasets) -> None:
        """Notes the name and identity of each `ArrayDataset` in the record."""
        for dataset in datasets:
            if not dataset.name or not dataset.identity:
                raise ValueError("run.uses needs datasets with a name and an identity, as nearfar.data gives them.")
            self.datasets[dataset.name] = dataset.identity

    def record(self, metric: str, value: float, *, method: str, size: int, higher_is_better: bool = True) -> None:
        """Notes one measured number: `metric` of `method` trained on `size` samples.

        Raises `ValueError` when the value is not a finite number or the same cell was recorded before.
        """
        value = float(value)
        if not math.isfinite(value):
            raise ValueError(f"value of {metric} for {method} at size {size} is {value}; record finite numbers only.")
        key = {"metric": metric, "method": method, "size": int(size)}
        if any(key.items() <= row.items() for row in self.measurements):
            raise ValueError(f"{metric} of {method} at size {size} was recorded twice; average repeats first.")
        self.measurements.append({**key, "value": value, "higher_is_better": bool(higher_is_better)})

    def headline(self, *, metric: str, method: str, baseline: str) -> None:
        """Says which comparison sums the chapter up: its curves and data multiplier are shown on the book's pages."""
        self.comparison = {"metric": metric, "method": method, "baseline": baseline}

    def table(self):
        """This run's measurements as a pandas table: metric, method, size, value, higher_is_better, seed."""
        import pandas

        return pandas.DataFrame(self.measurements).assign(seed=self.seed)

    def glue(self, name: str, value) -> None:
        """Makes `value` available to the page's prose as {glue:text}`name`, a number also as {glue:text}`name:.2f`."""
        from IPython.display import display

        value = value.item() if hasattr(value, "item") else value
        prefix = "application/papermill.record/"
        display(
            {f"{prefix}text/plain": repr(value) if not isinstance(value, str) else value},
            metadata={"scrapbook": {"name": name, "mime_prefix": prefix}},
            raw=True,
        )

    def claim(
        self, id: str, text: str, holds: bool | None = ..., evidence: str = "", *,
        kind: str = "mechanism", difference: float | None = ..., margin: float | None = None,
    ) -> None:  # fmt: skip
        """Judges one claim of the paper by this run's numbers, which `evidence` names in one sentence.

        kind "mechanism" (what the method does): `holds` is True or False.  "superiority": `difference` is this seed's
        mean over sizes of method less baseline, positive is better, and `margin` >= 0, in the same unit, was fixed
        beforehand; held when difference > margin.  "equivalence": held when |difference| <= margin, margin > 0.
        `holds` or `difference` is None where this tier cannot test the claim.  One run decides nothing: seeds together
        do (`verdicts.over_seeds`).  Raises ValueError for a bad combination, an empty text and a second `id`.
        """
        if not text.strip() or not evidence.strip():
            raise ValueError(f"claim {id} needs a text and evidence.")
        if any(claim["id"] == id for claim in self.claims):
            raise ValueError(f"claim {id} was judged twice.")
        try:
            said = verdicts.of_run(kind, holds, difference, margin)
        except ValueError as problem:
            raise ValueError(f"claim {id}: {problem}") from None
        self.claims.append({"id": id, "text": text, "evidence": evidence, **said})

    def _peak_memory(self) -> dict[str, float]:
        peak = {}
        with contextlib.suppress(ImportError):  # Windows has no such module, and the record then says nothing
            import resource

            unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in KiB on Linux
            peak["host_MiB"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)
        if self.device.type == "cuda":
            import torch

            peak["device_MiB"] = round(torch.cuda.max_memory_allocated(self.device) / 2**20, 1)
        return peak

    def finish(self, budget: dict) -> None:
        """Writes the record `results/<tier>/<slug>/seed-<n>.json` atomically, then prints one verdict line per claim.

        Of several processes only the first writes; the others wait for it.
        Raises `ValueError` when nothing was measured or claimed, `NearFarError` when the record cannot be written.
        """
        if not self.measurements or not self.claims:
            raise ValueError("a run must record at least one measurement and judge at least one claim.")
        if self.comparison is not None:
            methods = {row["method"] for row in self.measurements if row["metric"] == self.comparison["metric"]}
            for role in ("method", "baseline"):
                if self.comparison[role] not in methods:
                    raise ValueError(
                        f"headline {role} {self.comparison[role]!r} has no measurements: {sorted(methods)}."
                    )
        import torch

        from nearfar import parallel

        device = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        record = {
            "schema": SCHEMA,
            "slug": self.slug,
            "tier": self.tier,
            "seed": self.seed,
            "device": f"{parallel.processes()} x {device}" if parallel.processes() > 1 else device,
            "dataset": self.datasets,
            "budget": budget,
            "started": self._started.isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - self._clock, 2),
            "peak_memory": self._peak_memory(),
            "versions": _versions(),
            "commit": _commit(),
            "fingerprint": notebooks.fingerprint(self._code, self.datasets.values()),
            "headline": self.comparison,
            "tuning": self.tuning,
            "measurements": self.measurements,
            "claims": self.claims,
        }
        if parallel.rank() == 0:
            write_atomically(record_path(self.slug, self.tier, self.seed), json.dumps(record, indent=1) + "\n")
            shutil.rmtree(self._checkpoints(), ignore_errors=True)
        parallel.wait()
        for claim in self.claims:
            print(f"{claim['id']} {claim['verdict']}: {claim['text']}")


def start(slug: str, tier: str, seed: int, device: str = "auto") -> Run:
    """Begins a run: checks the parameters, seeds every global generator, uses one CPU thread (`$NEARFAR_THREADS`).

    slug: a chapter's key; tier: smoke, small, medium or full; seed: whole number; device: auto, cpu, cuda or cuda:1.
    Raises `NearFarError` for an unknown slug (nearest names suggested), tier or device.
    """
    import torch

    papers.notebook(slug)
    check(tier, seed, device)
    chosen = _own_device(choose_device(device))
    threads = os.environ.get("NEARFAR_THREADS", "1")
    if not threads.isdigit() or int(threads) < 1:
        raise NearFarError(f"NEARFAR_THREADS must be a whole number of at least 1, got {threads!r}.")
    torch.set_num_threads(int(threads))  # one thread: the same seed then gives the same bits on every CPU run
    randomness.seed_everything(seed)
    if chosen.type == "cuda":
        torch.cuda.reset_peak_memory_stats(chosen)
    return Run(slug, tier, seed, chosen)
