"""Decoded data sets on disk: one safetensors file each, memory-mapped when read, never a pickle.

A file is written under a name of its own and moved into place, so a reader sees a whole file or none, also when two
processes write at once or one is killed.  Every read checks the content against the identity stored in the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import struct
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

from nearfar import paths
from nearfar.data.arrays import ArrayDataset, DataError, content_identity

FORMAT = 3
WHOLE_FILE_HASH = 64 << 20  # larger files are named by their size, date and both ends


def user_folder() -> Path:
    """This user's folder for downloads and decoded data."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nearfar"


def folder() -> Path:
    """Where decoded sets are kept: $NEARFAR_CACHE, else nearfar/decoded in the user's cache folder."""
    return paths.named("NEARFAR_CACHE") or user_folder() / "decoded"


def features_folder() -> Path:
    """Where features of frozen networks are kept: $NEARFAR_CACHE/features, else nearfar/features beside the sets."""
    return (paths.named("NEARFAR_CACHE") or user_folder()) / "features"


def cached(name: str, split: str, size: int | None, files: Iterable[Path], decode: Callable[[], ArrayDataset]):
    """The decoded set from the cache if it is there and sound, else from `decode`, which then fills the cache.

    files: the source files that the decoded set depends on; a changed file makes a new entry.
    """
    key = hashlib.sha256(json.dumps([FORMAT, name, split, size, [_source(f) for f in files]]).encode()).hexdigest()
    return kept(folder() / f"{name}-{split}-{size or 'original'}-{key[:16]}.safetensors", decode)


def kept(path: Path, make: Callable[[], ArrayDataset]) -> ArrayDataset:
    """The set in the file `path` if it is there and sound, else the one that `make` gives, which is then kept there."""
    dataset = _read(path)
    if dataset is None:
        dataset = make()
        dataset.identity = content_identity(dataset.inputs, dataset.labels, dataset.attributes, dataset.classes)
        _write(path, dataset)
    return dataset


def _source(file: Path) -> list:
    """What identifies a source file: its name, size, date and a hash of its content (of a big file: of its ends).

    The end of a zip is its directory, which holds name, size and checksum of every entry.
    """
    try:
        status = file.stat()
        with file.open("rb") as stream:
            if status.st_size <= WHOLE_FILE_HASH and file.suffix != ".zip":
                content = hashlib.file_digest(stream, "sha256")
            else:
                content = hashlib.sha256(stream.read(1 << 20))
                stream.seek(max(0, status.st_size - _tail_length(stream, status.st_size, file.suffix)))
                content.update(stream.read())
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror or error}") from None
    return [file.name, status.st_size, status.st_mtime_ns, content.hexdigest()]


def _tail_length(stream, size: int, suffix: str) -> int:
    """How many bytes at the end to hash: a zip's whole directory if it is found, else the last mebibyte."""
    if suffix == ".zip":
        stream.seek(max(0, size - 65_557))  # the directory's end record is within the last 64 KiB + 22 bytes
        tail = stream.read()
        start = tail.rfind(b"PK\x05\x06")
        if start >= 0 and len(tail) - start >= 22:
            length, offset = struct.unpack("<II", tail[start + 12 : start + 20])
            return min(size, length + len(tail) - start) if offset != 0xFFFFFFFF else 8 << 20
    return 1 << 20


def _read(path: Path) -> ArrayDataset | None:
    """The set in `path`, or None if the file is absent or damaged (it is then written anew)."""
    if not path.is_file():
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["nearfar"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (safe_open is not a dict)
        inputs, labels, classes = tensors.pop("inputs"), tensors.pop("labels"), tuple(about["classes"])
        attributes = {key.removeprefix("attribute."): value for key, value in tensors.items()}
        sound = about["identity"] == content_identity(inputs, labels, attributes, classes)
        dataset = ArrayDataset(inputs, labels, attributes, classes, about["name"], about["identity"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return None
    return dataset if sound else None


def _write(path: Path, dataset: ArrayDataset) -> None:
    """Write `dataset` to `path` in one move; a cache that cannot be written costs time, not the run."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    about = {"name": dataset.name, "classes": list(dataset.classes), "identity": dataset.identity}
    tensors = {f"attribute.{key}": value.contiguous() for key, value in dataset.attributes.items()}
    tensors |= {"inputs": dataset.inputs.contiguous(), "labels": dataset.labels.contiguous()}
    partial = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path.parent)
        save_file(tensors, partial, metadata={"nearfar": json.dumps(about)})
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        if partial.exists():
            partial.unlink()
        warnings.warn(f"decoded {dataset.name} was not kept in {path.parent}: {error}", stacklevel=2)


def _remove_leftovers(where: Path, older_than: float = 3600.0) -> None:
    """Delete half-written files that a killed process left more than `older_than` seconds ago."""
    for partial in where.glob("*.tmp"):
        try:
            if time.time() - partial.stat().st_mtime > older_than:
                partial.unlink()
        except FileNotFoundError:  # another process tidied up first
            continue
