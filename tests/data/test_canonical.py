import os
import time

import numpy as np
import pytest
import torch
import torchvision
from toyfiles import png, ubyte

from nearfar import data
from nearfar.data import canonical
from nearfar.data.arrays import ArrayDataset
from nearfar.data.canonical import CIFAR100_GROUPS, CLASSES, SUPERCLASS, class_names, class_numbers


def images(count, channels=1, size=4):
    shape = (count, size, size, channels)[: 4 if channels > 1 else 3]
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def as_zip(make_zip, name, pixels, labels, folders):
    """Writes data/<name>.zip with the given images, the folder of each class spelled as in `folders`."""
    entries = {f"train/{folders[y]}/{i:03d}.png": png(x) for i, (x, y) in enumerate(zip(pixels, labels))}
    return make_zip(name, entries)


def as_idx(root, folder, pixels, labels):
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").write_bytes(ubyte(pixels))
    (raw / "train-labels-idx1-ubyte").write_bytes(ubyte(labels))


def assert_same_data(a, b):
    assert a.identity == b.identity and a.classes == b.classes and a.name == b.name
    assert torch.equal(a.inputs, b.inputs) and torch.equal(a.labels, b.labels)
    assert a.attributes.keys() == b.attributes.keys()
    assert all(torch.equal(a.attributes[key], b.attributes[key]) for key in a.attributes)


@pytest.mark.parametrize(
    ("name", "folder", "folders"),
    [
        ("mnist", "MNIST", "0123456789"),
        ("mnist", "MNIST", torchvision.datasets.MNIST.classes),  # "0 - zero"
        ("fashion-mnist", "FashionMNIST", "0123456789"),
        ("fashion-mnist", "FashionMNIST",  # not in the order of the alphabet
         "t_shirt_top trouser pullover dress coat sandal shirt sneaker bag ankle_boot".split()),
    ],
)  # fmt: skip
def test_a_zip_and_torchvisions_files_are_the_same_data(root, make_zip, name, folder, folders):
    pixels, labels = images(40), np.arange(40) * 7 % 10
    as_idx(root, folder, pixels, labels)
    plain = data.load(name)
    zipped = as_zip(make_zip, name, pixels, labels, folders)
    assert_same_data(plain, data.load(name))
    zipped.unlink()
    assert_same_data(plain, data.load(name))
    stored = {(x.tobytes(), int(y)) for x, y in zip(pixels, labels)}
    assert {(x.numpy().tobytes(), int(y)) for x, y in zip(plain.inputs, plain.labels)} == stored
    assert plain.classes == class_names(name)


def test_cifar100_in_both_layouts_has_superclasses(monkeypatch, root, make_zip):
    pixels, labels = images(200, channels=3), np.arange(200) % 100
    stored = root / "cifar-100-python" / "train"
    stored.parent.mkdir()
    stored.write_bytes(b"stand-in")

    class Stored:
        def __init__(self, root, train):
            self.data, self.targets, self.classes = pixels, labels.tolist(), list(CLASSES["cifar100"])

    monkeypatch.setattr(torchvision.datasets, "CIFAR100", Stored)
    plain = data.load("cifar100")
    as_zip(make_zip, "cifar100", pixels, labels, CLASSES["cifar100"])
    assert_same_data(plain, data.load("cifar100"))
    trout = plain.labels == plain.classes.index("trout")
    (superclass,) = plain.attributes["superclass"][trout].unique().tolist()
    assert data.CIFAR100_SUPERCLASSES[superclass] == "fish"


def test_other_pixels_labels_or_names_are_other_data(root, make_zip):
    pixels, labels = images(20), np.arange(20) % 10
    identities = set()
    for x, y in ((pixels, labels), (pixels ^ 1, labels), (pixels, labels[::-1])):
        as_zip(make_zip, "mnist", x, y, "0123456789")
        identities.add(data.load("mnist").identity)
    as_zip(make_zip, "mnist", pixels, labels, "abcdefghij")  # someone's own ten classes
    own = data.load("mnist")
    assert len(identities | {own.identity}) == 4 and own.classes == tuple("abcdefghij")
    assert own.labels.tolist() == sorted(labels)  # own sets keep the order of class and file name


def test_the_first_rows_hold_all_classes(root):
    as_idx(root, "MNIST", images(1000), np.arange(1000) // 100)
    assert data.load("mnist").labels[:100].bincount(minlength=10).min() >= 3


def test_cifar100s_superclasses_are_the_published_ones():
    assert len(CLASSES["cifar100"]) == 100 and SUPERCLASS.bincount().tolist() == [5] * 20
    assert len(data.CIFAR100_SUPERCLASSES) == 20 and data.CIFAR100_SUPERCLASSES[18] == "vehicles 1"
    # the numbers in the data set's own files (their coarse labels), of the classes apple to cattle
    assert SUPERCLASS[:20].tolist() == [4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11]
    assert CIFAR100_GROUPS["household furniture"] == "bed chair couch table wardrobe"


@pytest.mark.parametrize(
    ("name", "count"), [("eurosat", 10), ("dtd", 47), ("flowers102", 102), ("pets", 37), ("kmnist", 10), ("own", 0)]
)
def test_numbers_of_classes(name, count):
    assert len(set(class_names(name))) == count


def test_class_numbers():
    assert class_numbers(("T_SHIRT top", "bag"), ("Bag", "T-shirt/top")) == [1, 0]
    assert class_numbers(("00 zero", "01 one"), ("a", "b")) == [0, 1]
    for found in (("a", "c"), ("a",), ("a", "a"), ("1", "2"), ("0", "0 again"), ()):
        assert class_numbers(found, ("a", "b")) is None


def test_sixty_thousand_rows_are_sorted_within_seconds():
    pixels = torch.randint(256, (60_000, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    dataset = ArrayDataset(pixels, torch.arange(60_000) % 10, classes=CLASSES["cifar10"])
    started = time.process_time()
    ordered = canonical.canonical("cifar10", dataset)
    assert time.process_time() - started < 4 and len(ordered) == 60_000  # about 0.7 s where nothing else runs


REAL = os.environ.get("NEARFAR_DATA")


@pytest.mark.skipif(not (REAL and os.path.exists(f"{REAL}/cifar100.zip")), reason="NEARFAR_DATA has no cifar100.zip")
def test_the_real_cifar100_has_superclasses_from_its_zip():
    test = data.load("cifar100", "test", root=REAL)
    assert test.inputs.shape == (10000, 3, 32, 32) and (test.labels.bincount() == 100).all()
    assert (test.attributes["superclass"].bincount() == 500).all()
