"""Executes one notebook through papermill; a failed or killed run leaves no record and no half-written notebook."""

import base64
import contextlib
import io
import json
import os
import warnings
from pathlib import Path

from nearfar import plots, processes
from nearfar.chapters import notebooks, papers
from nearfar.errors import NearFarError, nearest
from nearfar.runs import run as runs


def executed_path(slug: str, tier: str, seed: int) -> Path:
    """Where the executed copy of a notebook goes; a failed one lies beside it as `….failed.ipynb`."""
    return papers.root() / "_build" / "runs" / tier / slug / f"seed-{seed}.ipynb"


@contextlib.contextmanager
def _environment(**values: str):
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


def run(
    slug: str,
    tier: str = "smoke",
    seed: int = 0,
    device: str = "auto",
    *,
    parameters: dict | None = None,
    output: Path | None = None,
    results: Path | None = None,
    progress: bool = True,
) -> Path:
    """Runs a chapter: papermill executes its notebook, which writes its record.  Returns the record's path.

    parameters: more notebook parameters; output: executed copy (default `_build/runs/<tier>/<slug>/seed-<n>.ipynb`);
    results: folder of records (default `$NEARFAR_RESULTS` or `results/`).
    Raises `NearFarError`, one line: unknown slug, tier, device or parameter; a cell that raised (its number, the
    error, and where the executed copy up to it lies); a notebook that ends without a record.
    """
    notebook = papers.notebook(slug)
    runs.check(tier, seed, device)
    given = {"tier": tier, "seed": seed, "device": device, **(parameters or {})}
    check_parameters(notebook, given)
    output = Path(output or executed_path(slug, tier, seed))
    record = runs.record_path(slug, tier, seed, Path(results).resolve() if results else None)
    before = record.stat().st_mtime_ns if record.is_file() else None
    execute(notebook, output, given, results=record.parents[2], progress=progress)
    if not record.is_file() or record.stat().st_mtime_ns == before:
        raise NearFarError(f"{slug} ran to its end but wrote no record; its last cells must call run.finish(budget).")
    return record


def check_parameters(notebook: Path, given: dict) -> None:
    """Raises `NearFarError` for a parameter that the notebook does not have."""
    known = notebooks.parameters(notebook)
    for name in given:
        if name not in known:
            raise NearFarError(
                f"{notebook.stem} has no parameter {name!r}.{nearest(name, known)} Its parameters: {', '.join(known)}."
            )


def execute(notebook: Path, output: Path, parameters: dict, *, results: Path, progress: bool = True) -> None:
    """papermill on one notebook.  `output` appears only when every cell has run; else `<output>.failed.ipynb` does."""
    with warnings.catch_warnings():  # papermill imports ansicolors' and entry points' old interfaces
        warnings.simplefilter("ignore", DeprecationWarning)
        import papermill
        from nbclient.exceptions import DeadKernelError
        from papermill.exceptions import PapermillExecutionError
    partial = output.with_name(f".{output.stem}.{os.getpid()}.ipynb")
    failed = output.with_name(f"{output.stem}.failed.ipynb")
    output.parent.mkdir(parents=True, exist_ok=True)
    for leftover in output.parent.glob(f".{output.stem}.*.ipynb"):  # of runs that were killed
        if not processes.alive(int(leftover.name.split(".")[-2])):
            leftover.unlink(missing_ok=True)
    threads = os.environ.get("OMP_NUM_THREADS") or os.environ.get("NEARFAR_THREADS") or "1"
    settings = {
        "NEARFAR_RESULTS": results,
        "NEARFAR_STATIC": "1",
        "NEARFAR_ROOT": papers.root(),
        "OMP_NUM_THREADS": threads,
    }
    try:
        with (
            _environment(**{name: str(value) for name, value in settings.items()}),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            papermill.execute_notebook(
                str(notebook), str(partial), parameters=parameters, cwd=str(notebook.parent), progress_bar=progress,
                kernel_name="python3", log_output=False, request_save_on_cell_execute=False,
            )  # fmt: skip
        _compact_figures(partial)
        os.replace(partial, output)
        failed.unlink(missing_ok=True)
    except PapermillExecutionError as problem:
        os.replace(partial, failed)
        message = str(problem.evalue).splitlines()[0] if problem.evalue else ""
        raise NearFarError(
            f"{notebook.name}, cell {problem.cell_index}: {problem.ename}: {message} (executed up to there: {failed})"
        ) from problem
    except DeadKernelError as problem:
        raise NearFarError(f"{notebook.name}: its kernel died; was the machine out of memory?") from problem
    finally:
        partial.unlink(missing_ok=True)


def _compact_figures(path: Path) -> None:
    """Stores the figures of an executed notebook in fewer colours, where that makes them smaller."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if drawn := output.get("data", {}).get("image/png"):
                small = plots.compact_png(base64.b64decode("".join(drawn)))
                output["data"]["image/png"] = base64.b64encode(small).decode()
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
