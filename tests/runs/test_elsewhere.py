"""Where Unix's own modules are not there, as on Windows, the package is imported and a chapter runs."""

import json
import subprocess
import sys

from toybook import edit

from nearfar.runs import results

HIDE = "import sys; sys.modules.update(dict.fromkeys(['fcntl', 'resource'])); import os; del os.fork, os.sysconf"
LOCKS = (
    "import types; sys.modules['msvcrt'] = types.SimpleNamespace(LK_NBLCK=2, locking=lambda *given: said.append(given))"
)
CODE = f"""
import pkgutil
import psutil, torch, torchvision, pandas, sklearn.linear_model, matplotlib.pyplot, papermill, IPython, ipywidgets
import snakemake, jupyter_book, sphinx  # what others need of the system is theirs
{HIDE}
import types
said = []
sys.modules["msvcrt"] = types.SimpleNamespace(LK_NBLCK=2, locking=lambda *given: said.append(given))
import nearfar
for module in pkgutil.walk_packages(nearfar.__path__, "nearfar."):
    if module.name != "nearfar.__main__":
        __import__(module.name)
from pathlib import Path
from nearfar.runs import execute, forked, pipeline
assert not forked.possible()
pipeline.lock(Path("held")).close()
assert len(said) == 1 and said[0][1:] == (2, 1)
from nearfar import cli
cli.show_record(execute.run("toy", progress=False))
"""


def test_the_package_needs_nothing_of_unix(toybook, tmp_path):
    first = json.dumps(f"import torch; {HIDE}\n")
    edit(toybook / "notebooks/contrastive/toy.ipynb", '"import nearfar\\n"', f'{first}, "import nearfar\\n"')
    done = subprocess.run([sys.executable, "-c", CODE], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    record = results.read(toybook / "results/smoke/toy/seed-0.json")
    assert record["peak_memory"] == {} and "MiB" not in done.stdout and "C1 held" in done.stdout
