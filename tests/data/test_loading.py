import os
import socket
import types
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from toyfiles import square, ubyte

from nearfar import data
from nearfar.data import loading
from nearfar.data.canonical import CLASSES
from nearfar.data.sources import SOURCES
from nearfar.errors import NearFarError


@pytest.fixture
def offline(monkeypatch):
    """No network: every download that torchvision begins fails at once, and is counted."""
    tries = []

    def refuse(*arguments, **settings):
        tries.append((arguments, socket.getdefaulttimeout()))
        raise URLError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    return tries


def test_digits():
    train, test = data.load("digits"), data.load("digits", "test")
    assert train.inputs.shape == (1437, 1, 8, 8) and test.inputs.shape == (360, 1, 8, 8)
    assert train.inputs.dtype == torch.uint8 and train.inputs.max() == 255 and train.labels.dtype == torch.int64
    assert (test.labels.bincount() - 36).abs().max() <= 1
    everything = {image.numpy().tobytes() for image in torch.cat([train.inputs, test.inputs])}
    assert len(everything) == 1797  # no image is in both
    assert train.identity == data.load("digits").identity
    assert train.identity.startswith("2841a77cf133")  # the split that recorded results were made with


def test_mnist_reads_plain_and_gzipped_files(toy_mnist):
    train, test = data.load("mnist"), data.load("MNIST", "test")
    assert train.inputs.shape == (20, 1, 4, 4) and test.inputs.shape == (10, 1, 4, 4)
    first = int(train.inputs.flatten(1).sum(dim=1).argmin())
    assert train.inputs[first].flatten().tolist() == list(range(16)) and train.labels[first] == 0
    assert (
        sorted(test.labels.tolist()) == list(range(10))
        and train.classes == tuple("0123456789")
        and train.name == "mnist/train"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (ubyte(np.zeros((20, 4, 4)))[:-1], r"truncated or corrupt \(335 bytes, not 336\)"),
        (ubyte(np.zeros((20, 4, 4))) + b"x", "truncated or corrupt"),
        (b"GIF89a, not idx", "is not an idx file"),
        (b"\0\0\x08\x03\0\0", "is not an idx file"),
        (ubyte(np.zeros((19, 4, 4))), "images and labels of 'train' do not fit"),
        (ubyte(np.zeros(20)), "images and labels of 'train' do not fit"),
    ],
)
def test_damaged_ubyte_files(toy_mnist, content, message):
    (toy_mnist / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(data.DataError, match=message):
        data.load("mnist")


def test_a_truncated_gzip(toy_mnist):
    path = toy_mnist / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(data.DataError, match="truncated or corrupt: delete it"):
        data.load("mnist", "test")


@pytest.mark.parametrize("name", ["mnits", "cifar", "fashon-mnist"])
def test_unknown_names_get_suggestions(name):
    near = {"mnits": "mnist", "cifar": "cifar10", "fashon-mnist": "fashion-mnist"}[name]
    with pytest.raises(data.DataError, match=f"unknown data set '{name}'.* {near}"):
        data.load(name)


@pytest.mark.parametrize("name", ["../friends", "/etc/passwd", "a/b", ""])
def test_a_name_is_not_a_path(name, pets_zip):
    with pytest.raises(data.DataError, match="unknown data set"):
        data.load(name)


@pytest.mark.parametrize("name", ["digits", *SOURCES])
def test_unknown_splits(name, offline):
    with pytest.raises(
        data.DataError, match=f"{name} has the splits train, .*, not 'half'|{name} has the splits train, test"
    ):
        data.load(name, "half")
    assert offline == []


@pytest.mark.parametrize("name", SOURCES)
def test_no_network_and_no_data_is_one_line_that_says_what_to_put_where(name, offline, root):
    with pytest.raises(NearFarError) as caught:
        data.load(name)
    message = str(caught.value)
    assert "\n" not in message and "could not be downloaded" in message and f"{root / name}.zip" in message
    assert str(SOURCES[name].files(root, "train")[0]) in message
    assert offline and all(patience == loading.SECONDS_TO_ANSWER for _, patience in offline)
    assert socket.getdefaulttimeout() is None


def test_no_download_means_no_attempt(offline):
    with pytest.raises(data.DataError, match=r"kmnist \(test\) is not in .* or allow the download"):
        data.load("kmnist", "test", download=False)
    assert offline == []


def test_a_zip_comes_before_other_files(toy_mnist, make_zip):
    make_zip("mnist", {"train/a/0.png": square(3)})
    assert data.load("mnist").inputs.shape == (1, 3, 6, 6)


def test_a_download_is_read_from_where_it_was_put(monkeypatch, root):
    class Fetched(torchvision.datasets.MNIST):
        def __init__(self, root, download):
            raw = root / "MNIST" / "raw"
            raw.mkdir(parents=True)
            (raw / "train-images-idx3-ubyte").write_bytes(ubyte(np.ones((3, 4, 4))))
            (raw / "train-labels-idx1-ubyte").write_bytes(ubyte(np.arange(3)))

    monkeypatch.setattr(torchvision.datasets, "MNIST", Fetched)
    assert sorted(data.load("mnist").labels.tolist()) == [0, 1, 2]
    assert (root / "MNIST").is_dir()
    if os.geteuid():  # root may write anywhere
        root.chmod(0o500)
        (root / "MNIST").rename(root / "gone")
        assert len(data.load("mnist")) == 3 and (loading.user_folder() / "MNIST").is_dir()
        root.chmod(0o700)


@pytest.mark.parametrize("cut", [URLError("connection reset"), KeyboardInterrupt()])
def test_a_download_that_is_cut_leaves_no_part_and_is_tried_again(monkeypatch, root, cut):
    attempts = []

    class Fetched(torchvision.datasets.MNIST):
        def __init__(self, root, download):
            attempts.append(root)
            raw = root / "MNIST" / "raw"
            raw.mkdir(parents=True)
            (raw / "train-images-idx3-ubyte").write_bytes(ubyte(np.ones((3, 4, 4))))
            if len(attempts) == 1:
                raise cut
            (raw / "train-labels-idx1-ubyte").write_bytes(ubyte(np.arange(3)))

    monkeypatch.setattr(torchvision.datasets, "MNIST", Fetched)
    with pytest.raises(data.DataError if isinstance(cut, URLError) else KeyboardInterrupt):
        data.load("mnist")
    assert [path for path in root.rglob("*") if path.is_file()] == [], "nothing half-fetched in its place"
    (root / ".download-mnist-999999999").mkdir()  # of a process that was killed
    (root / "MNIST" / "raw").mkdir(parents=True)  # half of an older attempt by other means
    (root / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(b"half")
    assert sorted(data.load("mnist").labels.tolist()) == [0, 1, 2]
    assert [path.name for path in root.iterdir()] == ["MNIST"]


def test_capitals_and_spaces_in_a_name(make_zip):
    make_zip("MNIST", {"train/a/0.png": square(3)})
    make_zip("my pets", {"train/cat/0.png": square(4)})
    assert data.load("MNIST").inputs.unique().tolist() == [3] and data.load("mnist").name == "mnist/train"
    assert data.load("my pets").classes == ("cat",) and data.load("My Pets").name == "my pets/train"
    assert data.names().count("my pets") == 1 and "MNIST" not in data.names()


def test_the_spelling_that_is_asked_for_comes_first(make_zip):
    make_zip("Birds", {"train/a/0.png": square(1)})
    make_zip("birds", {"train/a/0.png": square(2)})
    if len(list(data.data_root().glob("*.zip"))) == 1:
        pytest.skip("the disk makes no difference between capitals and small letters")
    assert [int(data.load(name).inputs.max()) for name in ("Birds", "birds")] == [1, 2]


@pytest.mark.parametrize("arguments", [("digits", {"size": 16}), ("mnist", {"size": 16}), ("pets", {"size": 0})])
def test_sizes_that_do_not_apply(arguments):
    name, settings = arguments
    with pytest.raises(data.DataError, match="^size: "):
        data.load(name, **settings)


def place(root, name, split):
    for path in SOURCES[name].files(root, split):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"stand-in")


def stand_in(monkeypatch, name, **content):
    """Let torchvision's class of this name hold `content`, whatever it is asked for; returns the requests."""
    requests = []

    def build(root, **settings):
        requests.append(settings)
        return types.SimpleNamespace(**content)

    monkeypatch.setattr(torchvision.datasets, name, build)
    return requests


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar(monkeypatch, root, name):
    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    place(root, name, "test")
    requests = stand_in(monkeypatch, name.upper(), data=images, targets=[1, 0], classes=list(CLASSES[name]))
    dataset = data.load(name, "test")
    assert requests == [{"train": False}] and sorted(dataset.labels.tolist()) == [0, 1]
    where = dataset.labels.tolist().index(1)  # the first of the file's images
    assert torch.equal(dataset.inputs[where, 2], torch.from_numpy(images[0, :, :, 2]))
    assert dataset.classes == CLASSES[name] and ("superclass" in dataset.attributes) == (name == "cifar100")


@pytest.mark.parametrize(("name", "split"), [("svhn", "extra"), ("stl10", "unlabeled")])
def test_sets_that_come_channels_first(monkeypatch, root, name, split):
    place(root, name, split)
    content = {"data": np.ones((2, 3, 4, 4), np.uint8), "labels": np.array([-1, 1]), "classes": list(CLASSES[name])}
    requests = stand_in(monkeypatch, name.upper(), **content)
    dataset = data.load(name, split)
    assert requests == [{"split": split}] and dataset.inputs.shape == (2, 3, 4, 4)
    assert dataset.labels.dtype == torch.int64 and sorted(dataset.labels.tolist()) == [-1, 1]


@pytest.mark.parametrize(
    ("name", "source", "asked", "files"),
    [
        ("dtd", "DTD", "val", ("_image_files", "_labels")),
        ("flowers102", "Flowers102", "test", ("_image_files", "_labels")),
        ("pets", "OxfordIIITPet", "train", ("_images", "_labels")),
    ],
)
def test_sets_of_image_files(monkeypatch, root, name, source, asked, files):
    patterns = {"dtd": ("dtd/dtd/images/x/0.jpg", "dtd/dtd/labels/val1.txt"),
                "flowers102": ("flowers-102/jpg/0.jpg", "flowers-102/setid.mat"),
                "pets": ("oxford-iiit-pet/images/0.jpg", "oxford-iiit-pet/annotations/list.txt")}[name]  # fmt: skip
    for path in patterns:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(square(40, size=9))
    content = {files[0]: [root / patterns[0]] * 2, files[1]: [0, 1], "classes": ["a", "b"]}
    requests = stand_in(monkeypatch, source, **content)
    assert data.load(name, asked).inputs.shape == (2, 3, 64, 64)
    assert data.load(name, asked, size=16).inputs.shape == (2, 3, 16, 16)
    assert requests[0] == {"split": {"pets": "trainval"}.get(name, asked)}


def test_eurosat_is_split_by_class(root):
    for name in ("Forest", "River"):
        folder = root / "eurosat" / "2750" / name
        folder.mkdir(parents=True)
        for i in range(10):
            (folder / f"{name}_{i}.jpg").write_bytes(square(10 * i))
    train, test = data.load("eurosat", size=6), data.load("eurosat", "test", size=6)
    assert (len(train), len(test)) == (16, 4) and train.classes == ("Forest", "River")
    assert test.inputs[:, 0, 0, 0].tolist() == [40, 90, 40, 90] and test.labels.tolist() == [0, 0, 1, 1]


def test_omniglot_is_read_from_its_zip(root, make_zip):
    entries = {
        f"images_background_small1/{a}/character{c:02d}/{10 * c + len(a)}_{d:02d}.png": square(c, colour=False)
        for a in ("Greek", "Latin") for c in (1, 2) for d in (1, 2, 3)
    }  # fmt: skip
    (root / "omniglot-py").mkdir()
    make_zip("omniglot-py/images_background_small1", entries)
    dataset = data.load("omniglot", "small1")
    assert dataset.inputs.shape == (12, 1, 6, 6) and dataset.classes[2] == "Latin/character01"
    assert dataset.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert dataset.attributes["alphabet"].tolist() == [0] * 6 + [1] * 6
    assert dataset.attributes["character"].tolist() == [0, 0, 0, 1, 1, 1] * 2
    assert dataset.attributes["drawer"].tolist() == [0, 1, 2] * 4
    assert data.load("omniglot", "small1", size=3).inputs.shape == (12, 1, 3, 3)
    make_zip("omniglot-py/images_background_small2", {"a/b.png": square(1)})
    with pytest.raises(data.DataError, match="is not an Omniglot zip"):
        data.load("omniglot", "small2")


def test_files_that_torchvision_finds_corrupt(monkeypatch, root):
    place(root, "cifar10", "train")  # their checksums are wrong
    with pytest.raises(data.DataError, match="cifar10: the files in .*cifar-10-batches-py are incomplete or corrupt"):
        data.load("cifar10")


REAL = os.environ.get("NEARFAR_DATA")
SKIP = "NEARFAR_DATA names no folder with {}"


@pytest.mark.skipif(not (REAL and os.path.exists(f"{REAL}/MNIST/raw")), reason=SKIP.format("MNIST/raw"))
def test_the_real_mnist():
    train = data.load("mnist", root=REAL)
    assert train.inputs.shape == (60000, 1, 28, 28) and train.labels.bincount()[:3].tolist() == [5923, 6742, 5958]
    assert train.identity == data.load("mnist", root=REAL).identity


@pytest.mark.skipif(not (REAL and os.path.exists(f"{REAL}/omniglot-py/images_background_small1.zip")),
                    reason=SKIP.format("omniglot-py/images_background_small1.zip"))  # fmt: skip
def test_the_real_omniglot():
    small = data.load("omniglot", "small1", root=REAL)
    assert small.inputs.shape == (2720, 1, 105, 105) and small.attributes["alphabet"].max() == 4
    assert (small.labels.bincount() == 20).all() and set(small.inputs.unique().tolist()) == {0, 255}


@pytest.mark.skipif(not (REAL and os.path.exists(f"{REAL}/cifar10.zip")), reason=SKIP.format("cifar10.zip"))
def test_the_real_cifar10():
    test = data.load("cifar10", "test", root=REAL)
    assert test.inputs.shape == (10000, 3, 32, 32) and (test.labels.bincount() == 1000).all()
