"""papermill runs: one line per failure, and nothing half-written, also after kill -9."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from toybook import edit

from nearfar.errors import NearFarError
from nearfar.runs import execute, results


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_a_run_leaves_an_executed_copy_and_a_record(toybook):
    record = execute.run("toy", seed=1, progress=False)
    assert record == toybook / "results/smoke/toy/seed-1.json"
    assert results.read(record)["seed"] == 1
    assert files(toybook / "_build") == ["runs/smoke/toy/seed-1.ipynb"]
    again = execute.run("toy", seed=1, progress=False)
    assert results.read(again)["measurements"] == results.read(record)["measurements"]


def test_an_unknown_parameter_is_refused_before_anything_runs(toybook):
    with pytest.raises(NearFarError, match="no parameter 'crush'. Did you mean crash"):
        execute.run("toy", parameters={"crush": True}, progress=False)
    assert not (toybook / "_build").exists() and not (toybook / "results").exists()


def test_a_cell_that_raises_is_named_and_leaves_no_record(toybook, forking):
    with pytest.raises(NearFarError, match=r"toy.ipynb, cell \d+: RuntimeError: the cell was asked to crash"):
        execute.run("toy", parameters={"crash": True}, progress=False)
    assert files(toybook / "_build") == ["runs/smoke/toy/seed-0.failed.ipynb"]
    assert not (toybook / "results").exists()
    execute.run("toy", progress=False)
    assert files(toybook / "_build") == ["runs/smoke/toy/seed-0.ipynb"]


def test_a_notebook_that_records_nothing_is_an_error(toybook, forking):
    edit(toybook / "notebooks/contrastive/toy.ipynb", '"run.finish(budget=budget)"', '"pass"')
    with pytest.raises(NearFarError, match="wrote no record"):
        execute.run("toy", progress=False)


def test_a_dead_kernel_is_one_line(toybook, forking):
    notebook = toybook / "notebooks/contrastive/toy.ipynb"
    edit(notebook, 'raise RuntimeError(\\"the cell was asked to crash\\")', "os._exit(9)")
    edit(notebook, '"import nearfar\\n"', '"import nearfar, os\\n"')
    with pytest.raises(NearFarError, match="its kernel died"):
        execute.run("toy", parameters={"crash": True}, progress=False)
    assert not (toybook / "results").exists()


@pytest.mark.parametrize("delay", [0.3, 1.5, 3.0])
def test_a_killed_run_leaves_nothing_half_written_and_runs_again(toybook, delay):
    edit(toybook / "notebooks/contrastive/toy.ipynb", '"import nearfar\\n"', '"import nearfar, time; time.sleep(1)\\n"')
    command = [sys.executable, "-m", "nearfar.cli", "run", "toy"]
    process = subprocess.Popen(command, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               start_new_session=True)  # fmt: skip
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    records = list(toybook.glob("results/**/*.json"))
    assert all(json.loads(path.read_text())["claims"] for path in records)
    execute.run("toy", progress=False)
    assert files(toybook / "_build") == ["runs/smoke/toy/seed-0.ipynb"]
    assert files(toybook / "results") == ["smoke/toy/seed-0.json"]


def test_a_notebook_that_wants_too_much_memory_is_one_line(toybook, forking):
    notebook = toybook / "notebooks/contrastive/toy.ipynb"
    edit(notebook, 'raise RuntimeError(\\"the cell was asked to crash\\")', "import torch; torch.empty(2**55)")
    with pytest.raises(NearFarError, match=r"toy.ipynb, cell \d+: .*memory") as caught:
        execute.run("toy", parameters={"crash": True}, progress=False)
    assert "\n" not in str(caught.value) and not (toybook / "results").exists()
