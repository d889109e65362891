"""Bytes of toy files."""

import io
import struct

import numpy as np
from PIL import Image


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png(pixels) -> bytes:
    return encoded(Image.fromarray(np.asarray(pixels, dtype=np.uint8)), "png")


def square(value, size=6, colour=True) -> bytes:
    return png(np.full((size, size, 3) if colour else (size, size), value))


def ubyte(array) -> bytes:
    array = np.asarray(array, dtype=np.uint8)
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
