"""The package as `pip install nearfar` gives it: a wheel, without a checkout, in an environment of its own."""

import json
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import nearfar.methods
from nearfar.chapters import papers

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ("src", "notebooks", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "_toc.yml")
LOSSES = {  # one loss of every chapter, as a reader would call it; z: (2, 8, 6) unit vectors, two views
    "amcl": "amcl_loss_soft(*module.pair_similarities(z.reshape(1, 16, 6)), 0.2, 0.2).mean()",
    "cacr": "cacr_loss(z)",
    "conr": "conr_loss(z.reshape(16, 6), age, age + 0.4 * age.cos(), torch.ones(16), omega=1.0, epsilon=0.1)",
    "facet": "group_recall(z[0] > 0, torch.nn.functional.one_hot(ell)).sum()",
    "feature_suppression_mcl": "stage_loss(z[0], z[1], ell, 0.5)",
    "feature_transformation": "ft_loss(z[0], z[1], z[1].flip(0)).mean()",
    "groco": "groco_loss(z, k=3)",
    "hydra": "two_view_loss(z[0], z[1], torch.ones(8, 6), ell, ell)",
    "interclr": "inter_loss(z[0], z[1], z[1].flip(0)).mean()",
    "mochi": "mochi_loss(z[0], z[1], z[1].flip(0), 4, 2, 2, generator=torch.Generator().manual_seed(0)).mean()",
    "sbcl": "sbcl_loss(z.reshape(16, 6), ell.repeat(2), torch.arange(8).repeat(2))",
    "sepclr": "sepclr_loss(z[0], z[1], z[0], z[1], ell)",
    "smote": "smote(z[0], 200, 3, generator=torch.Generator().manual_seed(0)).square().sum()",
    "swav": "swapped_loss(z[0], z[1], *map(module.codes, z))",
    "understanding_contrastive_loss": "contrastive_loss(*module.pairs(z[0] @ z[1].T), 0.2).mean()",
    "whitenedcse": "multi_positive_loss(z)",
}
SCRIPT = """
import json, torch
from nearfar import methods
z = torch.nn.functional.normalize(torch.randn(2, 8, 6, generator=torch.Generator().manual_seed(0)), dim=-1)
age, ell = torch.arange(16.0), torch.arange(8) % 2
value = {}
for name, call in json.loads(CALLS).items():
    module = __import__(f"nearfar.methods.{name}", fromlist=[name])
    value[name] = float(eval(f"module.{call}", {**globals(), "module": module}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy: packaging leaves folders behind."""
    copy = tmp_path_factory.mktemp("source of the wheel")
    for name in SOURCE:
        place = ROOT / name
        (shutil.copytree if place.is_dir() else shutil.copy)(place, copy / name)
    (copy / "book").mkdir()
    shutil.copy(ROOT / "book/references.bib", copy / "book")
    build = ["-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(copy), str(copy)]
    subprocess.run([sys.executable, *build], check=True, capture_output=True)
    return next(copy.glob("nearfar-*.whl"))


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """Python of a new environment with that wheel; what the wheel depends on is that of this one."""
    place = tmp_path_factory.mktemp("bare")
    venv.create(place, with_pip=False)
    (library,) = place.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(library)
    (library / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return place / "bin/python"


def run(python, *arguments):
    return subprocess.run([python, *arguments], capture_output=True, text=True, cwd=python.parent)


def values(python, script):
    done = run(python, "-c", f"CALLS = {json.dumps(LOSSES)!r}\n{SCRIPT}\n{script}")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_chapter_is_called():
    assert set(LOSSES) == set(nearfar.methods.papers())


def test_a_loss_of_every_chapter_is_that_of_the_notebook(python):
    installed = values(python, "print(json.dumps(value))")
    assert set(installed) == set(LOSSES) and all(x == x for x in installed.values())
    scope: dict = {"CALLS": json.dumps(LOSSES)}
    exec(SCRIPT, scope)  # this checkout, from the notebooks
    assert installed == pytest.approx(scope["value"], rel=1e-6)
    assert len(set(scope["value"].values())) == len(LOSSES)


def test_methods_say_whose_they_are_and_where_they_are_from(python):
    told = values(python, "import nearfar; print(json.dumps([methods.cacr.__doc__, methods.cacr.__file__, "
                          "dir(methods), nearfar.method('cacr').__doc__]))")  # fmt: skip
    documented, file, listed, again = told
    assert documented.startswith("Contrastive Attraction and Contrastive Repulsion") and "2105.03746" in documented
    assert str(python.parents[1]) in file and {"cacr", "smote", "swav"} <= set(listed) and again == documented


def test_the_command_line_lists_papers_and_says_what_needs_the_book(python):
    listed = run(python, "-m", "nearfar.cli", "list")
    assert listed.returncode == 0, listed.stderr
    assert [line.split()[0] for line in listed.stdout.splitlines()] == [paper.slug for paper in papers.all_papers()]
    for command in ("book", "sweep", "student", "run smote", "new some --part shift"):
        refused = run(python, "-m", "nearfar.cli", *command.split())
        assert refused.returncode != 0 and len(refused.stderr.strip().splitlines()) == 1, (command, refused.stderr)
        assert "checkout of the book" in refused.stderr and "git clone" in refused.stderr


def test_modules_are_imported_by_their_names_in_a_checkout_too():
    from nearfar.methods.cacr import cacr_loss

    from nearfar.methods import cacr

    assert cacr_loss is cacr.cacr_loss and nearfar.methods.cacr is cacr
    assert "cacr" in dir(nearfar.methods) and "Attraction" in cacr.__doc__
    with pytest.raises(AttributeError, match="Did you mean swav"):
        nearfar.methods.swaw  # noqa: B018
    with pytest.raises(ImportError, match="swaw"):
        from nearfar.methods import swaw  # noqa: F401
