"""Where each named data set comes from: its files in torchvision's layout, and how to read and to fetch them.

A source is (splits, size by default, files(root, split), read(root, split, size), fetch(root, split)).
`files` lists what must be there to read a split; `fetch` lets torchvision download it, with its checksums.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from nearfar.data.archives import open_zip, read_images, stack_images
from nearfar.data.arrays import ArrayDataset, DataError
from nearfar.data.ubyte import read_ubyte


class Source(NamedTuple):
    splits: tuple[str, ...]
    size: int | None  # None: the images' own size
    files: Callable[[Path, str], list[Path]]
    read: Callable[[Path, str, int | None], ArrayDataset]
    fetch: Callable[[Path, str], object]


def _torchvision(name: str):
    import torchvision

    return getattr(torchvision.datasets, name)


# MNIST and its relatives -------------------------------------------------------------------------------------------


def _idx_files(folder: str, root: Path, split: str) -> list[Path]:
    stem = "t10k" if split == "test" else "train"
    names = [f"{stem}-images-idx3-ubyte", f"{stem}-labels-idx1-ubyte"]
    raw = root / folder / "raw"
    return [raw / n if (raw / n).exists() or not (raw / f"{n}.gz").exists() else raw / f"{n}.gz" for n in names]


def _idx_read(folder: str, root: Path, split: str, size: int | None) -> ArrayDataset:
    images, labels = (read_ubyte(path) for path in _idx_files(folder, root, split))
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise DataError(f"{root / folder / 'raw'}: the images and labels of {split!r} do not fit each other")
    classes = "0123456789" if folder == "MNIST" else _torchvision(folder).classes
    return ArrayDataset(images[:, None], labels.long(), classes=tuple(classes))


def _idx(folder: str) -> Source:
    fetch = lambda root, split: _torchvision(folder)(root, download=True)  # noqa: E731
    return Source(("train", "test"), None, partial(_idx_files, folder), partial(_idx_read, folder), fetch)


# Sets that torchvision holds as one array --------------------------------------------------------------------------


def _cifar_read(name: str, root: Path, split: str, size: int | None) -> ArrayDataset:
    source = _torchvision(name)(root, train=split == "train")
    return ArrayDataset(_channels_first(source.data), torch.tensor(source.targets), classes=tuple(source.classes))


def _cifar(name: str, folder: str) -> Source:
    def files(root: Path, split: str) -> list[Path]:
        single = [split] if name == "CIFAR100" else ["test_batch"]
        batches = [f"data_batch_{i}" for i in range(1, 6)] if name == "CIFAR10" and split == "train" else single
        return [root / folder / batch for batch in batches]

    fetch = lambda root, split: _torchvision(name)(root, download=True)  # noqa: E731
    return Source(("train", "test"), None, files, partial(_cifar_read, name), fetch)


def _svhn_read(root: Path, split: str, size: int | None) -> ArrayDataset:
    source = _torchvision("SVHN")(root, split=split)
    return ArrayDataset(torch.from_numpy(source.data), _int64(source.labels), classes=tuple("0123456789"))


def _stl10_read(root: Path, split: str, size: int | None) -> ArrayDataset:
    source = _torchvision("STL10")(root, split=split)
    return ArrayDataset(torch.from_numpy(source.data), _int64(source.labels), classes=tuple(source.classes))


def _stl10_files(root: Path, split: str) -> list[Path]:
    names = ["unlabeled_X.bin"] if split == "unlabeled" else [f"{split}_X.bin", f"{split}_y.bin", "class_names.txt"]
    return [root / "stl10_binary" / n for n in names]


# Sets of image files -----------------------------------------------------------------------------------------------

OMNIGLOT = {"train": "images_background", "test": "images_evaluation",
            "small1": "images_background_small1", "small2": "images_background_small2"}  # fmt: skip
OMNIGLOT_MD5 = {"small1": "e704a628b5459e08445c13499850abc4", "small2": "b75a71a51d3b13f821f212756fe481fd"}


def _omniglot_files(root: Path, split: str) -> list[Path]:
    return [root / "omniglot-py" / f"{OMNIGLOT[split]}.zip"]


def _omniglot_read(root: Path, split: str, size: int | None) -> ArrayDataset:
    """Entries are <set>/<alphabet>/<character>/<number>_<drawer>.png: black strokes on white, 105 × 105."""
    (path,) = _omniglot_files(root, split)
    with open_zip(path) as archive:
        entries = sorted((e for e in archive.infolist() if e.filename.endswith(".png")), key=lambda e: e.filename)
        parts = [e.filename.removesuffix(".png").split("/") for e in entries]
        if not parts or any(len(p) != 4 or not p[3].rpartition("_")[2].isdigit() for p in parts):
            raise DataError(f"{path} is not an Omniglot zip of set/alphabet/character/number_drawer.png files")
        images = read_images(path, archive, entries, size)
    alphabets = sorted({p[1] for p in parts})
    classes = sorted({f"{p[1]}/{p[2]}" for p in parts})
    number = {c: i for i, c in enumerate(classes)}
    first = {a: min(i for c, i in number.items() if c.startswith(f"{a}/")) for a in alphabets}
    labels = torch.tensor([number[f"{p[1]}/{p[2]}"] for p in parts])
    attributes = {
        "alphabet": torch.tensor([alphabets.index(p[1]) for p in parts]),
        "character": torch.tensor([number[f"{p[1]}/{p[2]}"] - first[p[1]] for p in parts]),
        "drawer": torch.tensor([int(p[3].rpartition("_")[2]) - 1 for p in parts]),
    }
    return ArrayDataset(images, labels, attributes, tuple(classes))


def _omniglot_fetch(root: Path, split: str) -> None:
    from torchvision.datasets.utils import download_url

    source = _torchvision("Omniglot")
    md5 = OMNIGLOT_MD5.get(split) or source.zips_md5[OMNIGLOT[split]]
    download_url(f"{source.download_url_prefix}/{OMNIGLOT[split]}.zip", str(root / "omniglot-py"), md5=md5)


def _file_list(paths: list[Path], labels: list[int], classes: list[str], size: int, what: str) -> ArrayDataset:
    images = stack_images(((str(p), lambda path: path, p) for p in paths), len(paths), size, what)
    return ArrayDataset(images, torch.tensor(labels), classes=tuple(classes))


def _eurosat_files(root: Path, split: str) -> list[Path]:
    return sorted((root / "eurosat" / "2750").glob("*/*.jpg")) or [root / "eurosat" / "2750"]


def _eurosat_read(root: Path, split: str, size: int | None) -> ArrayDataset:
    """EuroSAT has no split of its own: of every class each fifth file, in order of name, is for testing."""
    paths = _eurosat_files(root, split)
    classes = sorted({p.parent.name for p in paths})
    kept, labels = [], []
    for number, name in enumerate(classes):
        members = [p for p in paths if p.parent.name == name]
        chosen = [p for i, p in enumerate(members) if (i % 5 == 4) == (split == "test")]
        kept, labels = kept + chosen, labels + [number] * len(chosen)
    return _file_list(kept, labels, classes, size, "eurosat")


def _listed_read(name: str, splits: dict[str, str], attributes: tuple[str, str], root: Path, split: str, size: int):
    """DTD, Flowers-102 and Oxford pets: torchvision reads the list of files and labels, we decode them."""
    source = _torchvision(name)(root, split=splits[split])
    paths, labels = (getattr(source, attribute) for attribute in attributes)
    classes = getattr(source, "classes", None) or [str(c) for c in range(max(labels) + 1)]
    return _file_list([Path(p) for p in paths], [int(y) for y in labels], classes, size, name.lower())


def _listed(name: str, splits: dict[str, str], attributes: tuple[str, str], folders: tuple[str, str]) -> Source:
    """folders: (glob of the images, glob of the lists) below the root."""

    def files(root: Path, split: str) -> list[Path]:
        place = {pattern: root / pattern.split("/*")[0] for pattern in folders}
        return [p for pattern in folders for p in (sorted(root.glob(pattern)) or [place[pattern]])]

    fetch = lambda root, split: _torchvision(name)(root, split=splits[split], download=True)  # noqa: E731
    return Source(tuple(splits), 64, files, partial(_listed_read, name, splits, attributes), fetch)


def _channels_first(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def _int64(labels: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(labels).long()


THREE = {"train": "train", "val": "val", "test": "test"}
SOURCES = {
    "mnist": _idx("MNIST"),
    "fashion-mnist": _idx("FashionMNIST"),
    "kmnist": _idx("KMNIST"),
    "cifar10": _cifar("CIFAR10", "cifar-10-batches-py"),
    "cifar100": _cifar("CIFAR100", "cifar-100-python"),
    "svhn": Source(
        ("train", "test", "extra"), None,
        lambda root, split: [root / f"{split}_32x32.mat"],
        _svhn_read,
        lambda root, split: _torchvision("SVHN")(root, split=split, download=True),
    ),
    "stl10": Source(
        ("train", "test", "unlabeled"), None, _stl10_files, _stl10_read,
        lambda root, split: _torchvision("STL10")(root, split=split, download=True),
    ),
    "omniglot": Source(tuple(OMNIGLOT), None, _omniglot_files, _omniglot_read, _omniglot_fetch),
    "eurosat": Source(
        ("train", "test"), 64, _eurosat_files, _eurosat_read,
        lambda root, split: _torchvision("EuroSAT")(root, download=True),
    ),
    "dtd": _listed("DTD", THREE, ("_image_files", "_labels"), ("dtd/dtd/images/*/*.jpg", "dtd/dtd/labels/*.txt")),
    "flowers102": _listed("Flowers102", THREE, ("_image_files", "_labels"),
                          ("flowers-102/jpg/*.jpg", "flowers-102/*.mat")),
    "pets": _listed("OxfordIIITPet", {"train": "trainval", "test": "test"}, ("_images", "_labels"),
                    ("oxford-iiit-pet/images/*.jpg", "oxford-iiit-pet/annotations/*.txt")),
}  # fmt: skip
