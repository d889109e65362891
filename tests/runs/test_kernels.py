"""A notebook runs in the Python that runs `nearfar`, and how its caller likes Python, IPython and plots is not its."""

import json
import os
import subprocess
import sys

import pytest

from nearfar.errors import NearFarError
from nearfar.runs import execute, forked, kernels, launch, results

SHOWN = {"mystnb": {"figure": {"caption": "A line.", "name": "toy-line"}}}
LOOKS = """import os, sys
import matplotlib.pyplot as plt
leaks = [not __debug__, "stranger" in globals(), plt.rcParams["lines.linewidth"] == 11, "foreign" in os.environ]
if any(leaks):
    raise RuntimeError(f"leaked: {leaks}")
plt.plot([1, 2])
plt.show()
"""


def cells_with(notebook, source, metadata):
    """Puts a cell behind the parameters."""
    content = json.loads(notebook.read_text())
    cell = {"cell_type": "code", "id": "added", "metadata": metadata, "source": source, "outputs": []}
    content["cells"].insert(4, cell | {"execution_count": None})
    notebook.write_text(json.dumps(content))


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """An environment that would change every notebook: a profile of IPython, settings of plots, another python3."""
    profile, kernel = tmp_path / "ipython/profile_default", tmp_path / "jupyter/kernels/python3"
    (profile / "startup").mkdir(parents=True)
    (profile / "startup/00-mine.py").write_text("stranger = 1\n")
    (profile / "ipython_kernel_config.py").write_text("c.InteractiveShellApp.exec_lines = ['stranger = 2']\n")
    (tmp_path / "startup.py").write_text("stranger = 3\n")
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 11\nbackend: agg\n")
    kernel.mkdir(parents=True)
    foreign = {"argv": ["/bin/false", "{connection_file}"], "display_name": "P", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(foreign | {"env": {"foreign": "1"}}))
    for name, value in {
        "MPLBACKEND": "agg", "IPYTHONDIR": tmp_path / "ipython", "PYTHONSTARTUP": tmp_path / "startup.py",
        "MATPLOTLIBRC": tmp_path / "matplotlibrc", "MPLCONFIGDIR": tmp_path, "PYTHONOPTIMIZE": 1,
        "JUPYTER_PATH": tmp_path / "jupyter", "PYTHONWARNINGS": "ignore",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, str(value))


def test_nothing_of_the_callers_environment_reaches_a_chapter_or_its_second_run(toybook, stranger):
    cells_with(toybook / "notebooks/contrastive/toy.ipynb", LOOKS, SHOWN)
    execute.run("toy", progress=False)
    executed = toybook / "_build/runs/smoke/toy/seed-0.ipynb"
    (drawn,) = [c for c in json.loads(executed.read_text())["cells"] if c["metadata"].get("mystnb")]
    assert any("image/png" in output.get("data", {}) for output in drawn["outputs"])
    nbval = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env", executed.name]
    second = subprocess.run(  # as `make test` does
        [sys.executable, "-m", "nearfar.runs.forked", sys.executable, *nbval], cwd=executed.parent,
        env={**os.environ, "NEARFAR_RESULTS": "second"}, capture_output=True, text=True,
    )  # fmt: skip
    assert second.returncode == 0, second.stdout + second.stderr
    assert results.read(executed.parent / "second/smoke/toy/seed-0.json")["claims"], "the caller's folder"


def test_nothing_of_it_reaches_a_page(toybook, stranger):
    page = toybook / "book/page.ipynb"
    page.write_text((toybook / "notebooks/contrastive/toy.ipynb").read_text())
    content = json.loads(page.read_text())
    content["cells"] = [
        {"cell_type": "code", "id": f"cell-{number}", "metadata": metadata, "source": source, "outputs": [],
         "execution_count": None}
        for number, (source, metadata) in enumerate([(LOOKS, SHOWN), ("if leaks[0]: plt.plot([1])", SHOWN)])
    ]  # fmt: skip
    page.write_text(json.dumps(content))
    output = toybook / "_build/pages/page.ipynb"
    command = [sys.executable, "-m", "nearfar.runs.execute", "book/page.ipynb", "_build/pages/page.ipynb"]
    done = subprocess.run(command, cwd=toybook, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "image/png" in output.read_text()


def test_forks_come_from_a_process_that_nobody_changed(toybook, stranger):
    if not forked.possible():
        pytest.skip("kernels are forked on Linux only")
    cells_with(toybook / "notebooks/contrastive/toy.ipynb", "import sys; sys.modules['torch._dynamo']", {})
    cells_with(toybook / "notebooks/contrastive/toy.ipynb", LOOKS, SHOWN)
    command = [sys.executable, "-m", "nearfar.runs.forked", sys.executable, "-m", "nearfar.cli", "run", "toy"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_computes_stays(monkeypatch):
    kept = {"NEARFAR_THREADS": "2", "OMP_NUM_THREADS": "3", "CUDA_VISIBLE_DEVICES": "1", "HOME": "/"}
    for name, value in kept.items():
        monkeypatch.setenv(name, value)
    with kernels.surroundings() as environment:
        assert environment.items() >= kept.items()
        assert os.path.isdir(environment["IPYTHONDIR"]) and os.path.isfile(environment["MATPLOTLIBRC"])
    assert not os.path.exists(environment["IPYTHONDIR"])


def test_folders_of_killed_processes_are_cleared_away(tmp_path, monkeypatch):
    monkeypatch.setattr(kernels.tempfile, "tempdir", str(tmp_path))
    dead, alive = tmp_path / "nearfar-ipython-999999999-x", tmp_path / f"nearfar-ipython-{os.getpid()}-x"
    dead.mkdir(), alive.mkdir()
    with kernels.surroundings():
        assert alive.is_dir() and not dead.exists()


def test_a_captioned_figure_that_is_not_drawn_fails_the_run(toybook, forking):
    notebook = toybook / "notebooks/contrastive/toy.ipynb"
    cells_with(notebook, "import matplotlib.pyplot as plt\nplt.switch_backend('agg')\nplt.plot([1])\nplt.show()", SHOWN)
    with pytest.raises(NearFarError, match=r"toy.ipynb, cell \d+: it has a figure's caption and drew none"):
        execute.run("toy", progress=False)
    assert [p.name for p in (toybook / "_build/runs/smoke/toy").iterdir()] == ["seed-0.failed.ipynb"]


def test_a_frame_of_pictures_is_a_figure():
    cell = {"cell_type": "code", "metadata": SHOWN, "outputs": [{"data": {"text/html": ["<div>", "<img src='x'>"]}}]}
    assert execute._undrawn({"cells": [cell]}) is None
    assert execute._undrawn({"cells": [cell, cell | {"outputs": [{"name": "stdout", "text": "<img"}]}]}) == 1


def test_a_run_under_torchrun_is_as_well_alone(toybook, stranger):
    source = "import os\nassert __debug__\nif os.environ['MATPLOTLIBRC'].endswith('mpl-data/matplotlibrc'): tier\n"
    cells_with(toybook / "notebooks/contrastive/toy.ipynb", source + "else: raise RuntimeError('leaked')", {})
    launch.run("toy", "smoke", 0, "cpu", devices=1)


def test_brackets_in_a_path_are_no_template(toybook, forking):
    output = toybook / "{tier} {0}.ipynb"
    execute.run("toy", progress=False, output=output)
    assert output.is_file()
