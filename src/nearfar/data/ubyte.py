"""The idx format of MNIST and its relatives (`*-ubyte`, also gzipped)."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nearfar.data.arrays import DataError


def read_ubyte(path: Path) -> Tensor:
    """The uint8 tensor in an idx file.  Raises DataError for an empty, truncated, overlong or foreign file."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error):
        raise DataError(f"{path} is truncated or corrupt: delete it and run again") from None
    if not content:
        raise DataError(f"{path} is empty: delete it and run again")
    dimensions = content[3] if len(content) >= 4 else 0
    if content[:3] != b"\0\0\x08" or not 1 <= dimensions <= 4 or len(content) < 4 + 4 * dimensions:
        raise DataError(f"{path} is not an idx file of bytes: delete it and run again")
    shape = struct.unpack(f">{dimensions}I", content[4 : 4 + 4 * dimensions])
    expected = 4 + 4 * dimensions + math.prod(shape)
    if len(content) != expected:
        raise DataError(f"{path} is truncated or corrupt ({len(content):,} bytes, not {expected:,}): "
                        "delete it and run again")  # fmt: skip
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape).copy())
