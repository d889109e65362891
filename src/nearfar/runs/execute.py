"""Executes one notebook through papermill; a failed or killed run leaves no record and no half-written notebook."""

import base64
import contextlib
import errno
import glob
import io
import json
import os
import sys
import warnings
from pathlib import Path

from nearfar import errors, paths, plots, processes
from nearfar.chapters import notebooks, papers
from nearfar.errors import NearFarError, nearest
from nearfar.runs import run as runs


def executed_path(slug: str, tier: str, seed: int) -> Path:
    """Where the executed copy of a notebook goes; a failed one lies beside it as `….failed.ipynb`."""
    return papers.root() / "_build" / "runs" / tier / slug / f"seed-{seed}.ipynb"


@contextlib.contextmanager
def _environment(values: dict[str, str]):
    """Replaces this process's environment, which a kernel inherits, as long as the block lasts."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


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
    Raises `NearFarError`, one line: unknown slug, tier, device or parameter, or one of these three given as another
    parameter; a cell that raised (its number, the error, and where the executed copy up to it lies); a figure that was
    not drawn; a notebook that ends without a record; a folder that cannot be written.
    """
    notebook = papers.notebook(slug)
    given = parameters_of(notebook, tier, seed, device, parameters or {})
    output = paths.given(output or executed_path(slug, tier, seed))
    record = runs.record_path(slug, tier, seed, paths.given(results) if results else None)
    before = record.stat().st_mtime_ns if record.is_file() else None
    execute(notebook, output, given, results=record.parents[2], progress=progress)
    if not record.is_file() or record.stat().st_mtime_ns == before:
        raise NearFarError(f"{slug} ran to its end but wrote no record; its last cells must call run.finish(budget).")
    return record


def parameters_of(notebook: Path, tier: str, seed: int, device: str, others: dict) -> dict:
    """All parameters that a notebook is given.

    Raises `NearFarError` for bad values, a parameter that the notebook does not have, and one of the three that every
    run has among `others`: its record would lie where nobody looks for it.
    """
    runs.check(tier, seed, device)
    own = {"tier": tier, "seed": seed, "device": device}
    if taken := [name for name in own if name in others]:
        raise NearFarError(f"{taken[0]} is no other parameter: give --{taken[0]} {others[taken[0]]} instead.")
    known = notebooks.parameters(notebook)
    for name in (*own, *others):
        if name not in known:
            raise NearFarError(
                f"{notebook.stem} has no parameter {name!r}.{nearest(name, known)} Its parameters: {', '.join(known)}."
            )
    return own | others


def execute(
    notebook: Path, output: Path, parameters: dict, *, results: Path, progress: bool = True, figures: bool = True
) -> None:
    """papermill on one notebook.  `output` appears only when every cell has run; else `<output>.failed.ipynb` does.

    figures: whether a cell that draws nothing, and has a figure's caption, is an error.
    """
    with warnings.catch_warnings():  # papermill imports ansicolors' and entry points' old interfaces
        warnings.simplefilter("ignore", DeprecationWarning)
        import papermill
        from nbclient.exceptions import DeadKernelError
        from papermill.exceptions import PapermillExecutionError
    from nearfar.runs import kernels

    partial = output.with_name(f".{output.stem}.{os.getpid()}.ipynb")
    failed = output.with_name(f"{output.stem}.failed.ipynb")
    _make_room(output)
    threads = os.environ.get("OMP_NUM_THREADS") or os.environ.get("NEARFAR_THREADS") or "1"
    settings = {
        "NEARFAR_RESULTS": results,
        "NEARFAR_STATIC": "1",
        "NEARFAR_ROOT": papers.root(),
        "OMP_NUM_THREADS": threads,
    }
    read, written = (str(path).replace("{", "{{").replace("}", "}}") for path in (notebook, partial))  # no templates
    try:
        with (
            kernels.surroundings() as surroundings,
            _environment(surroundings | {name: str(value) for name, value in settings.items()}),
            contextlib.redirect_stdout(io.StringIO()),
            kernels.ended_by_interrupt(),
        ):
            papermill.execute_notebook(
                read, written, parameters=parameters, cwd=str(notebook.parent), progress_bar=progress,
                kernel_name="python3", kernel_manager_class=kernels.Manager, log_output=False,
                request_save_on_cell_execute=False,
            )  # fmt: skip
        executed = json.loads(partial.read_text(encoding="utf-8"))
        if figures and (missing := _undrawn(executed)) is not None:
            os.replace(partial, failed)
            raise NearFarError(
                f"{notebook.name}, cell {missing}: it has a figure's caption and drew none (executed: {failed})"
            )
        _compact_figures(executed)
        partial.write_text(json.dumps(executed, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
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


def _make_room(output: Path) -> None:
    """Makes the folder of an executed copy and clears away what killed runs left there."""
    with errors.writing(output.parent):
        output.parent.mkdir(parents=True, exist_ok=True)
        for leftover in output.parent.glob(f".{glob.escape(output.stem)}.*.ipynb"):
            if not processes.alive(int(leftover.name.split(".")[-2])):
                leftover.unlink(missing_ok=True)
        if not os.access(output.parent, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _undrawn(notebook: dict) -> int | None:
    """Number of the first cell whose metadata caption a figure that its outputs do not have; None when all have."""
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code" and "figure" in cell["metadata"].get("mystnb", {}):
            shown = [data for output in cell["outputs"] for data in output.get("data", {}).items()]
            if not any(kind.startswith("image/") or "<img" in "".join(text) for kind, text in shown):
                return number
    return None


def _compact_figures(notebook: dict) -> None:
    """Stores the figures of an executed notebook in fewer colours, where that makes them smaller."""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if drawn := output.get("data", {}).get("image/png"):
                small = plots.compact_png(base64.b64decode("".join(drawn)))
                output["data"]["image/png"] = base64.b64encode(small).decode()


if __name__ == "__main__":  # a page of the book, for the pipeline; where nothing was measured yet it draws nothing
    try:
        execute(*map(paths.given, sys.argv[1:]), {}, results=runs.results_folder(), progress=False, figures=False)
    except NearFarError as problem:
        sys.exit(f"nearfar: {problem}")
