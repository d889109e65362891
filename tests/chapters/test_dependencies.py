"""The definitions that a piece of code depends on are found by following names through the source."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nearfar.chapters import dependencies
from nearfar.errors import NearFarError


def found(source):
    return dependencies.definitions(source, "here")


def names(source):
    return {f"{module}.{name}" for module, texts in found(source).items() for name in texts}


@pytest.mark.parametrize(
    ("source", "used", "unused"),
    [
        (
            "from nearfar import losses\nlosses.focal(x, y)",
            "losses.contrastive.focal nn.vectors.check_features",
            "losses.contrastive.nt_xent",
        ),
        (
            "import nearfar\nnearfar.losses.focal(x, y)",
            "losses.contrastive.focal nn.vectors.check_features",
            "losses.contrastive.nt_xent",
        ),
        (
            "from nearfar.nn import Queue as Q\nQ(3, 4)",
            "nn.momentum.Queue",
            "nn.backbones.backbone losses.contrastive.focal",
        ),
        ("import nearfar.nn\nnearfar.nn.projector([1])", "nn.backbones.projector", "nn.momentum.Queue"),
        ("import nearfar\nnearfar.start('a', 'b')", "runs.run.start runs.run.Run randomness.generator", "cli.main"),
        ("from nearfar import data\ndata.subsets(y, [3])", "data.sampling.subsets", "data.loading.load"),
        (
            "from nearfar import augment\nf = lambda x: augment.views(x)",
            "augment.recipes.views",
            "augment.mixing.mixup",
        ),
        (
            "from nearfar import train\ntrain.fit(f, m)",
            "train.loop.fit train.loop.OPTIMISERS train.checkpoints.save",
            "train.loop.embed",
        ),
        ("def f():\n    from nearfar import nn\n    return nn.normalise", "nn.vectors.normalise", "nn.momentum.Queue"),
        ("import torch\ntorch.zeros(3)", "", "nn.momentum.Queue"),
    ],
)
def test_names_are_followed(source, used, unused):
    have = names(source)
    assert {f"nearfar.{name}" for name in used.split()} <= have
    assert not {f"nearfar.{name}" for name in unused.split()} & have


@pytest.mark.parametrize(
    "source",
    [
        "from nearfar import losses\ngetattr(losses, 'focal')(x, y)",
        "from nearfar import losses\nlist_of = [losses]",
        "import nearfar.losses as L\nprint(L)",
        "from nearfar import losses\nlosses.a_name_that_it_has_not",
    ],
)
def test_a_module_that_cannot_be_followed_counts_whole(source):
    assert {f"nearfar.losses.contrastive.{name}" for name in ("focal", "nt_xent", "supcon")} <= names(source)


def test_text_has_neither_comments_nor_docstrings(tmp_path, monkeypatch):
    module = tmp_path / "toy.py"

    def text(source):
        module.write_text(source)
        dependencies._module.cache_clear()
        return found("from nearfar import toy\ntoy.f(1)")

    real = dependencies.module_file
    monkeypatch.setattr(dependencies, "module_file", lambda name: module if name == "nearfar.toy" else real(name))
    plain = "LIMIT = 3\n\n\ndef f(x):\n    return g(x) + LIMIT\n\n\ndef g(x):\n    return x\n"
    first = text(plain)
    assert set(first["nearfar.toy"]) == {"f", "g", "LIMIT"}
    talkative = plain.replace("LIMIT = 3", "LIMIT = 3  # a limit").replace(
        "(x):\n", '(x):\n    """Says\n    more."""\n'
    )
    assert text(talkative) == first
    assert text(plain + "\n\ndef h():\n    return 4\n") == first  # unused
    assert text(plain.replace("LIMIT = 3", "LIMIT = 4")) != first
    assert text(plain.replace("return x", "return -x")) != first
    assert text(plain.replace("def g", "@cache\ndef g")) != first
    assert text(plain + "LIMIT = 5\n") != first  # bound a second time
    assert text(plain.replace("LIMIT = 3", "LIMIT = [3]\nLIMIT[0] = 4")) != text(
        plain.replace("LIMIT = 3", "LIMIT = [3]")
    )
    assert text(plain + "print(LIMIT)\n")["nearfar.toy"][""] == normal("print(LIMIT)")  # an effect of the import
    dependencies._module.cache_clear()


def normal(source):
    return dependencies.normal(ast.parse(source).body)


def test_layout_and_place_do_not_count():
    laid = 'def f(a, b=1):\n    """Adds."""\n    return (a + b)  # the sum\n'
    assert normal(laid) == normal("def f(a,\n      b = 1,\n      ):\n    return a + b")
    assert normal("x = 'a' 'b'") == normal('x = "ab"')
    assert normal("from nearfar.losses import focal\nfocal(x)") == normal("from nearfar import losses\nfocal(x)")
    assert normal("from nearfar import nn\nimport math\nx") == normal("import math\nx")
    assert normal("def f():\n    from nearfar import nn\n    return 1") == normal("def f():\n    return 1")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x = 1.0"),
        ("x = None", "x = ..."),
        ("x = y.z", "x = z.y"),
        ("from math import sin as f", "from math import cos as f"),
        ("f(*a)", "f(a)"),
        ("{**a}", "{a: a}"),
        ("x = 'a'", "x = b'a'"),
        ("f'{x!r}'", "f'{x}'"),
        ("if a:\n    b\nc", "if a:\n    b\n    c"),
        ("def f(a, /): pass", "def f(a): pass"),
        ("def f(*, a=None, b): pass", "def f(*, a, b=None): pass"),
    ],
)
def test_what_code_does_counts(one, other):
    assert normal(one) != normal(other)


FOREIGN = """
import ast, hashlib, runpy, sys, types
sys.modules["nearfar"] = types.ModuleType("nearfar")
sys.modules["nearfar.errors"] = types.SimpleNamespace(NearFarError=Exception)
normal = runpy.run_path(sys.argv[1])["normal"]
for path in sys.argv[2:]:
    with open(path, encoding="utf-8") as file:
        print(path, hashlib.sha256(normal(ast.parse(file.read()).body).encode()).hexdigest())
"""


@pytest.mark.parametrize("version", ["3.12", "3.13", "3.14"])
def test_other_pythons_write_the_same(version):
    sources = sorted(Path(dependencies.__file__).parents[1].rglob("*.py"))

    def told(python):
        command = [python, "-c", FOREIGN, dependencies.__file__, *map(str, sources)]
        return subprocess.run(command, capture_output=True, text=True).stdout

    other = shutil.which(f"python{version}")
    if other is None or subprocess.run([other, "-c", ""], capture_output=True).returncode:
        pytest.skip(f"no Python {version} here")
    assert told(other) == told(sys.executable) != ""


def test_code_that_does_not_parse_is_named():
    with pytest.raises(NearFarError, match="here is not valid Python.*line 1"):
        found("def f(:")
