"""A book of one toy chapter in a temporary folder, for tests that run, break or extend a checkout."""

import contextlib
import textwrap
from pathlib import Path

import pytest
from jupyter_client.provisioning import KernelProvisionerFactory

from nearfar.chapters import papers
from nearfar.press import skeleton
from nearfar.runs import forked

CHAPTER = textwrap.dedent(
    '''
    # %% [markdown]
    # # Toy

    # %% tags=["parameters"]
    tier = "smoke"
    seed = 0
    device = "auto"
    crash = False

    # %%
    import nearfar
    run = nearfar.start("toy", tier, seed, device)
    budget = {"smoke": {"sizes": [10, 20]}, "small": {}, "medium": {}, "full": {}}[tier]

    # %% tags=["method"]
    def double(x):
        """Twice x."""
        return 2 * x

    # %%
    if crash:
        raise RuntimeError("the cell was asked to crash")
    noise = float(nearfar.start.__module__ == "nearfar.runs.run") + seed
    for size in (10, 20):
        run.record("accuracy", size / 40 + noise / 100, method="ours", size=size)
        run.record("accuracy", size / 50, method="theirs", size=size)
    run.headline(metric="accuracy", method="ours", baseline="theirs")

    # %%
    # NBVAL_CHECK_OUTPUT
    run.claim("C1", "ours wins", True, "by a margin")
    run.finish(budget=budget)
    '''
)
NAME = "a b & {c} $d;e'f"  # of its folder: users may call theirs anything
TOC = """format: jb-book
root: book/index
parts:
  - caption: Learning without labels
    chapters:
      - file: book/parts/contrastive
        sections:
          - file: notebooks/contrastive/toy
  - caption: Results
    chapters:
      - file: book/how-to-read
      - file: book/results
"""
BIB = """@misc{toy,
  title  = {A Toy},
  author = {Doe, Jane and Roe, Rob},
  year   = {2024},
}
"""


def make(folder: Path) -> Path:
    """Writes the toy checkout's files."""
    files = {
        "_toc.yml": TOC,
        **{name: (papers.root() / name).read_text(encoding="utf-8") for name in ("_config.yml", "Snakefile")},
        "book/references.bib": BIB,
        "book/index.md": "# Toy book\n",
        "book/how-to-read.md": "# How to read it\n",
        "book/parts/contrastive.md": "# Part\n\n```{include} ../_generated/gallery-contrastive.md\n```\n",
        "notebooks/contrastive/toy.ipynb": skeleton.notebook_json(CHAPTER, "toy"),
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def toybook(tmp_path: Path, monkeypatch) -> Path:
    """Root of the toy checkout; NEARFAR_ROOT points at it, results go below it."""
    folder = make(tmp_path / NAME)
    monkeypatch.setenv("NEARFAR_ROOT", str(folder))
    monkeypatch.delenv("NEARFAR_RESULTS", raising=False)
    return folder


@pytest.fixture(scope="session")
def variables():
    """What the environment is given for kernels to be forked; nothing where that is impossible."""
    with forked.parent() as given:
        yield given


@pytest.fixture
def forking(variables, monkeypatch):
    """Kernels forked from one process, for tests that are about something else than how kernels start."""
    KernelProvisionerFactory.clear_instance()  # it reads the environment once
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(forked, "parent", lambda device: contextlib.nullcontext(variables))
    yield
    KernelProvisionerFactory.clear_instance()


def edit(path: Path, old: str, new: str) -> None:
    """Replaces text in a file; the text must be there."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
