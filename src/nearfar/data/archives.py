"""Images straight from a zip, without unpacking it: a folder of images, one folder per split and class."""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from nearfar.data.arrays import ArrayDataset, DataError

JUNK = re.compile(r"(^|/)(__MACOSX/|\.|Thumbs\.db$|desktop\.ini$)", re.IGNORECASE)  # what file managers leave behind
LARGEST_ENTRY = 256 << 20


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip after checking that it is whole and that no entry leaves its folder.  Raises DataError."""
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes): put the whole file there and run again")
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error):
        raise DataError(f"{path} is truncated or not a zip: put the whole file there and run again") from None
    for entry in archive.infolist():
        if escapes(entry.orig_filename) or escapes(entry.filename):
            archive.close()
            raise DataError(f"{path} is refused: its entry {entry.orig_filename!r} points outside its folder")
    return archive


def escapes(name: str) -> bool:
    """Whether an archive entry's name leaves the folder: `..`, an absolute path, a drive letter, a zero byte."""
    parts = name.replace("\\", "/").split("/")
    return ".." in parts or parts[0] == "" or bool(re.match(r"[A-Za-z]:", name)) or "\0" in name


def image_folder(path: Path, split: str, size: int | None = None) -> ArrayDataset:
    """One split of a zip of `split/class/image` files (a folder around it all is allowed).

    size: images are resized and centre-cropped to size × size; without it all must have the same size already.
    Images come sorted by class, then file name.  Greyscale files give one channel, any colour file three.
    They look as a viewer shows them: upright by their EXIF note, transparent pixels on white, 16 bits brought to 8.
    Raises DataError for a damaged or unsafe zip, another layout, an unknown split, or splits with other classes.
    """
    with open_zip(path) as archive:
        files = [e for e in archive.infolist() if not e.is_dir() and not JUNK.search(e.filename)]
        table = _splits(path, [PurePosixPath(e.filename).parts for e in files])
        if split not in table:
            raise DataError(f"{path.name} has the splits {', '.join(sorted(table))}, not {split!r}")
        classes = sorted(table[split])
        for other, members in table.items():
            if set(members) != set(classes):
                odd = sorted(set(members) ^ set(classes))[0]
                raise DataError(f"{path.name}: class {odd!r} is missing from one of the splits {split!r}, {other!r}")
        chosen = [files[i] for c in classes for i in sorted(table[split][c], key=lambda i: files[i].filename)]
        labels = [number for number, c in enumerate(classes) for _ in table[split][c]]
        images = read_images(path, archive, chosen, size)
    return ArrayDataset(images, torch.tensor(labels), classes=tuple(classes))


def _splits(path: Path, names: list[tuple[str, ...]]) -> dict[str, dict[str, list[int]]]:
    """split -> class -> numbers of the files in it."""
    if not names:
        raise DataError(f"{path} holds no files: expected split/class/image files, such as train/cat/001.jpg")
    if len({parts[0] for parts in names}) == 1 and all(len(parts) == 4 for parts in names):
        names = [parts[1:] for parts in names]
    table: dict[str, dict[str, list[int]]] = {}
    for number, parts in enumerate(names):
        if len(parts) != 3:
            entry = "/".join(parts)
            raise DataError(f"{path}: {entry!r} is not split/class/image, such as train/cat/001.jpg")
        table.setdefault(parts[0], {}).setdefault(parts[1], []).append(number)
    return table


def read_images(path: Path, archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo], size: int | None):
    """Decode zip entries to one uint8 tensor (N, C, H, W).  Raises DataError naming the entry."""

    def read(entry: zipfile.ZipInfo) -> io.BytesIO:
        if entry.file_size > LARGEST_ENTRY:
            raise DataError(f"{path}: {entry.filename!r} is larger than {LARGEST_ENTRY >> 20} MiB")
        try:
            return io.BytesIO(archive.read(entry))
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError, struct.error) as error:
            raise DataError(f"{path} is corrupt at {entry.filename!r}: {error}") from None

    return stack_images(((f"{path}: {e.filename!r}", read, e) for e in entries), len(entries), size, path.name)


def stack_images(items: Iterable[tuple[str, Callable, object]], count: int, size: int | None, what: str):
    """Images as one uint8 tensor (count, C, H, W); each item is (its name, an opener, the opener's argument).

    Raises DataError for a file that is no image, or images of differing sizes when `size` is None.
    """
    from PIL import Image
    from tqdm.auto import tqdm

    arrays: list[np.ndarray] = []
    bar = tqdm(items, desc=f"decoding {what}", total=count, unit="image", delay=2, mininterval=0.5, leave=False)
    for name, opener, argument in bar:
        try:
            with Image.open(opener(argument)) as image:
                array = _pixels(image, size)
        except DataError as problem:
            raise problem if name in str(problem) else DataError(f"{name}: {problem}") from None
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            raise DataError(f"{name} is not a readable image: remove or replace it") from None
        if arrays and array.shape[:2] != arrays[0].shape[:2]:
            (a, b), (h, w) = arrays[0].shape[:2], array.shape[:2]
            raise DataError(f"{what} has images of differing sizes ({b}×{a} and {w}×{h}): pass size=, such as size=64")
        arrays.append(array)
    if not arrays:
        raise DataError(f"{what} holds no images")
    if any(array.ndim == 3 for array in arrays):
        arrays = [array if array.ndim == 3 else np.repeat(array[..., None], 3, axis=2) for array in arrays]
        return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
    return torch.from_numpy(np.stack(arrays))[:, None]


def _pixels(image, size: int | None) -> np.ndarray:
    """A PIL image as uint8 (H, W) if it is greyscale, else (H, W, 3); resized and centre-cropped to `size`.

    As a viewer shows it: turned the way its camera says (EXIF), transparent pixels on white, 16 bits and floats in
    [0, 1] brought to 8.  Raises DataError for numbers whose scale a file does not tell.
    """
    from PIL import Image, ImageOps

    png = image.format == "PNG"
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        image = _eight_bits(image, png)
    grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    image = image.convert("L" if grey else "RGB")
    if size is not None and image.size != (size, size):
        image = ImageOps.fit(image, (size, size), method=Image.Resampling.BICUBIC)
    return np.array(image)


def _eight_bits(image, png: bool):
    """A greyscale image of 16 bits (mode I in a PNG, for some Pillows) or of floats in [0, 1] as one of 8."""
    from PIL import Image

    values = np.asarray(image).astype(np.float64)
    if image.mode.startswith("I;16") or (image.mode == "I" and png):
        values = values / 65535
    elif image.mode != "F" or not (values.min() >= 0 and values.max() <= 1):
        raise DataError(f"pixels from {values.min():g} to {values.max():g} have no known scale: save it with 8 bits")
    return Image.fromarray((255 * values).round().astype(np.uint8))
