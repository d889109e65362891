"""The definitions that a piece of code depends on are found by following names through the source."""

import pytest

from nearfar import dependencies
from nearfar.errors import NearFarError


def found(source):
    return dependencies.definitions(source, "here")


def names(source):
    return {f"{module}.{name}" for module, texts in found(source).items() for name in texts}


@pytest.mark.parametrize(
    ("source", "used", "unused"),
    [
        ("from nearfar import losses\nlosses.focal(x, y)", "losses.focal nn.check_features", "losses.nt_xent"),
        ("import nearfar\nnearfar.losses.focal(x, y)", "losses.focal nn.check_features", "losses.nt_xent"),
        ("from nearfar.nn import Queue as Q\nQ(3, 4)", "nn.Queue", "nn.backbone losses.focal"),
        ("import nearfar.nn\nnearfar.nn.projector([1])", "nn.projector", "nn.Queue"),
        ("import nearfar\nnearfar.start('a', 'b')", "run.start run.Run randomness.generator", "cli.main"),
        ("from nearfar import data\ndata.subsets(y, [3])", "data.sampling.subsets", "data.loading.load"),
        (
            "from nearfar import augment\nf = lambda x: augment.views(x)",
            "augment.recipes.views",
            "augment.mixing.mixup",
        ),
        ("from nearfar import train\ntrain.fit(f, m)", "train.fit train.OPTIMISERS checkpoints.save", "train.embed"),
        ("def f():\n    from nearfar import nn\n    return nn.normalise", "nn.normalise", "nn.Queue"),
        ("import torch\ntorch.zeros(3)", "", "nn.Queue"),
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
    assert {"nearfar.losses.focal", "nearfar.losses.nt_xent", "nearfar.losses.supcon"} <= names(source)


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
    assert text(plain + "print(LIMIT)\n")["nearfar.toy"][""] == "print(LIMIT)"  # an effect of the import
    dependencies._module.cache_clear()


def test_code_that_does_not_parse_is_named():
    with pytest.raises(NearFarError, match="here is not valid Python.*line 1"):
        found("def f(:")
