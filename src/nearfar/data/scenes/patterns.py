"""Textures of objects and families of backgrounds, as fields of a tone between 0 (first colour) and 1 (second)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from nearfar.data.scenes.chance import numbers
from nearfar.data.scenes.colour import hsv_to_rgb

# Textures: u, v (n, S, S) in the object's own frame, where it has radius 1; pixel (n, 1, 1) is a pixel's width there.


def _wave(u: Tensor, period: float, pixel: Tensor) -> Tensor:
    """An antialiased square wave: 1 on one half of each period, 0 on the other."""
    return (0.5 + (period / 4 - ((u / period).remainder(1) - 0.5).abs() * period) / pixel).clamp(0, 1)


def _plain(u, v, pixel, seed):
    return torch.zeros_like(u)


def _stripes(u, v, pixel, seed):
    return _wave(v, 0.56, pixel)


def _checks(u, v, pixel, seed):
    across, down = _wave(u + 0.2, 0.8, pixel), _wave(v + 0.2, 0.8, pixel)
    return across + down - 2 * across * down


def _dots(u, v, pixel, seed):
    period = 0.58
    row = ((u / period).remainder(1) - 0.5) * period, ((v / period).remainder(1) - 0.5) * period
    return (0.5 + (0.19 - torch.hypot(*row)) / pixel).clamp(0, 1)


def _gradient(u, v, pixel, seed):
    return (0.5 - 0.62 * v).clamp(0, 1)


def _noise(u, v, pixel, seed):
    """A mosaic of random tones, fixed to the object."""
    cells = 12
    cell = ((u + 1.05) * (cells / 2.1)).long().clamp(0, cells - 1) * cells
    cell = cell + ((v + 1.05) * (cells / 2.1)).long().clamp(0, cells - 1)
    return numbers(seed, cells * cells, stream=1).gather(1, cell.flatten(1)).view_as(u) ** 1.5


TEXTURE_TONES = {
    "plain": _plain, "stripes": _stripes, "checks": _checks, "dots": _dots, "gradient": _gradient, "noise": _noise,
}  # fmt: skip
TEXTURES = tuple(TEXTURE_TONES)
SECOND_TONE = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 0.0])  # 1: the second colour is nearly white, 0: a darker shade


# Backgrounds: x, y (S, S) in image widths from the top left; every image's own seed sets direction and phase.


def _ground_plain(x, y, pixel, seed):
    return torch.zeros(len(seed), *x.shape, device=x.device)


def _along(x: Tensor, y: Tensor, seed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates (n, S, S) along and across a random direction, and the random numbers that are left (n, 4)."""
    chance = numbers(seed, 5, stream=2)[..., None, None]
    angle = chance[:, 0] * math.tau
    return (x - 0.5) * angle.cos() + (y - 0.5) * angle.sin(), (y - 0.5) * angle.cos() - (x - 0.5) * angle.sin(), chance


def _ground_gradient(x, y, pixel, seed):
    along, _, _ = _along(x, y, seed)
    return (along * 0.9 + 0.5).clamp(0, 1) * 1.3


def _ground_stripes(x, y, pixel, seed):
    along, _, chance = _along(x, y, seed)
    return _wave(along + chance[:, 1], 0.26, pixel)


def _ground_waves(x, y, pixel, seed):
    along, across, chance = _along(x, y, seed)
    return _wave(along + chance[:, 1] + 0.055 * torch.sin(14 * across + math.tau * chance[:, 2]), 0.24, pixel)


def _ground_noise(x, y, pixel, seed):
    size = x.shape[-1]
    coarse, fine = numbers(seed, 25, stream=3).view(-1, 1, 5, 5), numbers(seed, 144, stream=4).view(-1, 1, 12, 12)
    cloud = F.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=True)
    grain = F.interpolate(fine, size=(size, size), mode="bilinear", align_corners=True)
    return (1.5 * cloud[:, 0] + 0.7 * grain[:, 0] - 0.6).clamp(0, 1.4)


GROUND_TONES = {
    "plain": _ground_plain, "gradient": _ground_gradient, "stripes": _ground_stripes, "waves": _ground_waves,
    "noise": _ground_noise, "clutter": _ground_plain,
}  # fmt: skip
BACKGROUNDS = tuple(GROUND_TONES)


def add_clutter(canvas: Tensor, x: Tensor, y: Tensor, seed: Tensor, value: Tensor, blobs: int = 9) -> Tensor:
    """Scatter `blobs` ellipses of other, muted colours over images (n, 3, S, S)."""
    chance = numbers(seed, 6 * blobs, stream=5).view(len(seed), blobs, 6, 1, 1)
    size = x.shape[-1]
    for k in range(blobs):
        cx, cy, r, stretch, hue, tone = chance[:, k].unbind(1)
        radius = 0.05 + 0.1 * r
        dx, dy = (x - cx) * (0.7 + 0.6 * stretch), (y - cy) * (1.3 - 0.6 * stretch)
        cover = (0.5 + (radius - torch.hypot(dx, dy)) * size).clamp(0, 1)
        colour = hsv_to_rgb(hue.flatten(), 0.32 + 0.2 * tone.flatten(), value * (0.72 + 0.36 * tone.flatten()))
        canvas = torch.lerp(canvas, colour[..., None, None], cover[:, None])
    return canvas.clamp(0, 1)
