"""`load`: any named data set, from a zip, from torchvision's files, or fetched; decoded once and kept."""

from __future__ import annotations

import os
import shutil
import socket
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import torch

from nearfar import parallel, paths, processes
from nearfar.data.archives import image_folder
from nearfar.data.arrays import ArrayDataset, DataError, content_identity
from nearfar.data.cache import cached, user_folder
from nearfar.data.canonical import canonical
from nearfar.data.sources import SOURCES, Source
from nearfar.errors import nearest

SECONDS_TO_ANSWER = 15.0


def data_root(root: str | Path | None = None) -> Path:
    """The folder that data sets are looked for in: `root`, else $NEARFAR_DATA, else the user's cache folder."""
    return paths.given(root) if root else paths.named("NEARFAR_DATA") or user_folder()


def names(root: str | Path | None = None) -> tuple[str, ...]:
    """Names that `load` knows: the built-in ones, and every <name>.zip in the data folder."""
    built_in = ("digits", *SOURCES)
    return (*built_in, *sorted(p.stem for p in data_root(root).glob("*.zip") if p.stem.lower() not in built_in))


def load(
    name: str, split: str = "train", root: str | Path | None = None, download: bool = True, size: int | None = None
) -> ArrayDataset:
    """A data set in memory: uint8 images (N, C, H, W) with labels, attributes and class names.

    name: digits (bundled, 8 × 8), mnist, fashion-mnist, kmnist, cifar10, cifar100 (attribute superclass, named by
        data.CIFAR100_SUPERCLASSES), svhn, stl10, omniglot (attributes alphabet, character, drawer), eurosat, dtd,
        flowers102, pets, or the stem of any <name>.zip of split/class/image files, such as one's own classes.
        Capitals make no difference.
    split: "train" or "test"; also "val" (dtd, flowers102), "extra" (svhn), "unlabeled" (stl10; its labels are -1),
        "small1" and "small2" (omniglot's small background sets), or whatever folders a zip has.
    root: folder to look in and to download to; else $NEARFAR_DATA, else nearfar in the user's cache folder.
        Order: <name>.zip, then the files as torchvision lays them out, then a download through torchvision.
        All three give a built-in set the same rows in the same order, by a hash of each row (so classes come mixed;
        digits and omniglot keep their files' order), and the same identity.
    size: images are resized and centre-cropped to size × size (image files only: zips, omniglot, eurosat, dtd,
        flowers102 and pets, the last four 64 by default except omniglot's own 105).

    Raises DataError (one line that says what to do) for an unknown name or split, absent data without network,
    damaged or unsafe files, and a size that is not positive or does not apply.
    """
    with parallel.first_one():
        return _load(name, split, data_root(root), download, size)


def _load(wanted: str, split: str, root: Path, download: bool, size: int | None) -> ArrayDataset:
    name, archive = wanted.lower(), _archive(wanted, root)
    if size is not None and size < 1:
        raise DataError(f"size: {size} is not a positive number of pixels")
    if name == "digits":
        return _digits(split, size)
    if archive:
        dataset = cached(name, split, size, [archive], lambda: canonical(name, image_folder(archive, split, size)))
        return replace(dataset, name=f"{name}/{split}")
    if name not in SOURCES:
        known = names(root)
        hint = nearest(name, known) or f" There are {', '.join(known)}."
        raise DataError(f"unknown data set {name!r}.{hint} Own images go to {root / f'{name}.zip'}")
    return replace(_from_source(name, split, root, download, size), name=f"{name}/{split}")


def _archive(wanted: str, root: Path) -> Path | None:
    """The zip of this name in the folder: spelled so if there is one, else with other capitals."""
    found = [path for path in sorted(root.glob("*.zip")) if path.stem.lower() == wanted.lower() and path.is_file()]
    return min(found, key=lambda path: path.stem != wanted, default=None)


def _from_source(name: str, split: str, root: Path, download: bool, size: int | None) -> ArrayDataset:
    source = SOURCES[name]
    _check_split(name, split, source.splits)
    if size is not None and source.size is None and name != "omniglot":
        raise DataError(f"size: {name} is read at its own size; resize the tensor, or use augment")
    size = size or source.size
    root = next((r for r in (root, user_folder()) if not _missing(source, r, split)), root)
    if _missing(source, root, split):
        root = _fetch(name, split, source, root, download)
    try:
        files = source.files(root, split)
        return cached(name, split, size, files, lambda: canonical(name, source.read(root, split, size)))
    except DataError:
        raise
    except (RuntimeError, OSError, ValueError, EOFError) as error:
        where = source.files(root, split)[0].parent
        raise DataError(f"{name}: the files in {where} are incomplete or corrupt ({_line(error)}): "
                        "delete them and run again") from None  # fmt: skip


def _missing(source: Source, root: Path, split: str) -> list[Path]:
    return [path for path in source.files(root, split) if not path.is_file()]


def _fetch(name: str, split: str, source: Source, root: Path, download: bool) -> Path:
    """Download through torchvision, to the root or, where that cannot be written, to the user's cache folder.

    What was fetched and unpacked is moved to its place when all of it is there, so that a kill leaves no part of it.
    """
    lacking = _missing(source, root, split)[0]
    todo = f"put {lacking} there (torchvision's layout) or a zip of split/class/image files at {root / name}.zip"
    if not download:
        raise DataError(f"{name} ({split}) is not in {root}: {todo}, or allow the download")
    existing = next(p for p in (root, *root.absolute().parents) if p.exists())
    target = root if os.access(existing, os.W_OK) else user_folder()
    try:
        target.mkdir(parents=True, exist_ok=True)
        for leftover in target.glob(".download-*"):  # of runs that were killed
            if not processes.alive(int(leftover.name.rpartition("-")[2])):
                shutil.rmtree(leftover, ignore_errors=True)
        part = target / f".download-{name}-{os.getpid()}"
        try:
            with _patience(SECONDS_TO_ANSWER):
                source.fetch(part, split)
            for fetched in part.iterdir():
                _move(fetched, target / fetched.name)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except (URLError, OSError, RuntimeError) as error:
        raise DataError(f"{name} ({split}) is not in {root} and could not be downloaded ({_line(error)}): {todo}"
                        ) from None  # fmt: skip
    return target


def _move(fetched: Path, place: Path) -> None:
    """Puts a file or folder in its place; what stood there under the same names gives way."""
    if fetched.is_dir() and place.is_dir():
        for inner in fetched.iterdir():
            _move(inner, place / inner.name)
    else:
        if place.is_dir():
            shutil.rmtree(place)
        os.replace(fetched, place)


@contextmanager
def _patience(seconds: float):
    """Give up on a server that does not answer for so long (torchvision sets no limit of its own)."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _digits(split: str, size: int | None) -> ArrayDataset:
    """scikit-learn's 1,797 digits of 8 × 8, grey levels 0-16 scaled to 0-255, in a fixed stratified split."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    _check_split("digits", split, ("train", "test"))
    if size is not None:
        raise DataError("size: digits is read at its own size; resize the tensor, or use augment")
    images, labels = load_digits(return_X_y=True)
    train, test = train_test_split(range(len(labels)), test_size=360, random_state=0, stratify=labels)
    rows = sorted(train if split == "train" else test)
    inputs = torch.from_numpy(images[rows] * (255 / 16)).round().to(torch.uint8).view(-1, 1, 8, 8)
    targets, classes = torch.from_numpy(labels[rows]).long(), tuple("0123456789")
    return ArrayDataset(inputs, targets, {}, classes, f"digits/{split}",
                        content_identity(inputs, targets, {}, classes))  # fmt: skip


def _check_split(name: str, split: str, splits: tuple[str, ...]) -> None:
    if split not in splits:
        raise DataError(f"{name} has the splits {', '.join(splits)}, not {split!r}")


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(": ")
