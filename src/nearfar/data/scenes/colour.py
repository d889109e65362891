"""Hue, saturation and value; the names of colours."""

from __future__ import annotations

import torch
from torch import Tensor

COLOURS = {  # name -> hue in turns
    "red": 0.0, "orange": 0.08, "yellow": 0.14, "green": 0.33, "cyan": 0.5, "blue": 0.61, "purple": 0.76, "pink": 0.9,
}  # fmt: skip
UNTIL = (0.04, 0.105, 0.19, 0.44, 0.55, 0.7, 0.83, 0.955)  # where each name ends; after the last it is red again


def hsv_to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Colours (..., 3) in [0, 1] of three tensors (...), hue in turns (0 red, 1/3 green, 2/3 blue, 1 red again)."""
    k = (torch.tensor([5.0, 3.0, 1.0], device=hue.device, dtype=hue.dtype) + 6 * hue[..., None]) % 6
    return value[..., None] * (1 - saturation[..., None] * torch.minimum(k, 4 - k).clamp(0, 1))


def colour_index(hue: Tensor) -> Tensor:
    """Number in COLOURS of the name that people give to each hue (...); green takes up more of the circle than red."""
    return torch.bucketize(hue.remainder(1), torch.tensor(UNTIL, device=hue.device, dtype=hue.dtype)) % len(COLOURS)
