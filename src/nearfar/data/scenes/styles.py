"""Three ways to draw the same scene.  Each style finishes the background and lays objects on it.

`ground(canvas, tone, x, y, seed)` returns the background, `lay(canvas, o)` the canvas with one object on it, where
canvas is (n, 3, S, S) in [0, 1] and `o` holds, for one object per image: d (n, S, S), the signed distance in pixels;
tone (n, S, S), its texture; first, second (n, 3), its colours; dx, dy (n, S, S), the place in units of its radius,
y upwards.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor

from nearfar.data.scenes.chance import numbers

PAPER = torch.tensor([0.985, 0.97, 0.93])
GRAPHITE = torch.tensor([0.2, 0.2, 0.24])


def _fill(o: SimpleNamespace) -> Tensor:
    return torch.lerp(o.first[..., None, None], o.second[..., None, None], o.tone[:, None])


def photo_ground(canvas: Tensor, tone: Tensor, x: Tensor, y: Tensor, seed: Tensor) -> Tensor:
    """Light falls from the upper left; the lower right is a little darker."""
    return canvas * (1.05 - 0.12 * (x + y) / 2)


def photo_lay(canvas: Tensor, o: SimpleNamespace) -> Tensor:
    """A solid body: soft shadow to the lower right, shading towards the rim, a highlight."""
    size = canvas.shape[-1]
    shift = round(0.05 * size)
    below = F.pad(o.d, (shift, 0, shift, 0), mode="replicate")[:, :size, :size]
    shadow = (0.5 - below / (0.11 * size)).clamp(0, 1).mul_(0.42)
    canvas = canvas * (1 - shadow[:, None])
    light = (o.dy - o.dx).mul_(0.13).add_(0.98)
    light.add_(((o.d + 0.1 * size) / (0.1 * size)).clamp_(0, 1).square_(), alpha=-0.13)
    shine = (1 - 4.5 * ((o.dx + 0.34).square_() + (o.dy - 0.36).square_())).clamp_(0, 1).square_().mul_(0.3)
    body = _fill(o).mul_(light[:, None]).clamp_(0, 1)
    body = body + (1 - body) * shine[:, None]
    return torch.lerp(canvas, body, (0.5 - o.d).clamp(0, 1)[:, None])


def sketch_ground(canvas: Tensor, tone: Tensor, x: Tensor, y: Tensor, seed: Tensor) -> Tensor:
    """Paper with a hint of the background's colour and faint pencil where its second tone is."""
    paper = PAPER.to(canvas.device)[:, None, None]
    return torch.lerp(paper.expand_as(canvas), canvas, 0.16) - 0.1 * tone.clamp(0, 1)[:, None]


def sketch_lay(canvas: Tensor, o: SimpleNamespace) -> Tensor:
    """An outline in pencil and a thin wash of colour; the second tone is left almost as paper."""
    size = canvas.shape[-1]
    width = max(1.15, 0.032 * size)
    inside = (0.5 - o.d).clamp(0, 1)
    canvas = torch.lerp(canvas, o.first[..., None, None], (inside * (0.62 - 0.5 * o.tone))[:, None])
    line = (0.5 + width / 2 - o.d.abs()).clamp(0, 1) * 0.9
    ink = GRAPHITE.to(canvas.device) * 0.75 + 0.25 * o.first * 0.6
    return torch.lerp(canvas, ink[..., None, None], line[:, None])


def painting_ground(canvas: Tensor, tone: Tensor, x: Tensor, y: Tensor, seed: Tensor) -> Tensor:
    """Stronger colour, laid on in broad strokes."""
    grey = canvas.mean(1, keepdim=True)
    return (grey + 1.35 * (canvas - grey)) * (0.76 + 0.4 * strokes(x, seed, 6)[:, None])


def painting_lay(canvas: Tensor, o: SimpleNamespace) -> Tensor:
    """Soft, broken edges and visible strokes."""
    size = canvas.shape[-1]
    stroke = strokes(o.d[0], o.seed, 7)
    ragged = o.d + (stroke - 0.5) * (0.045 * size)
    light = 0.72 + 0.46 * stroke + 0.1 * (o.dy - o.dx)
    return torch.lerp(canvas, _fill(o) * light[:, None], (0.5 - ragged / 1.4).clamp(0, 1)[:, None])


def strokes(like: Tensor, seed: Tensor, stream: int) -> Tensor:
    """Slanted smooth streaks (n, S, S) about 0.5, the same for the same seed."""
    size = like.shape[-1]
    coarse = numbers(seed, 16 * 7, stream=stream).view(-1, 1, 16, 7)
    smooth = F.interpolate(coarse, size=(2 * size, size), mode="bilinear", align_corners=True)[:, 0]
    rows = torch.arange(size, device=like.device)
    return smooth[:, rows[:, None] + rows[None, :], rows[None, :].expand(size, size)]  # sheared by 45 degrees


def warp(x: Tensor, y: Tensor, seed: Tensor, amount: float) -> tuple[Tensor, Tensor]:
    """Coordinates (n, S, S) that waver by about `amount` image widths, as a hand does."""
    phase = numbers(seed, 4, stream=9)[..., None, None] * 6.2832
    return (
        x + amount * (torch.sin(15 * y + phase[:, 0]) + 0.6 * torch.sin(29 * y + phase[:, 1])),
        y + amount * (torch.sin(15 * x + phase[:, 2]) + 0.6 * torch.sin(29 * x + phase[:, 3])),
    )


STYLE_STEPS = {  # style -> (background, object, how much its hand wavers)
    "photo": (photo_ground, photo_lay, 0.0),
    "sketch": (sketch_ground, sketch_lay, 0.006),
    "painting": (painting_ground, painting_lay, 0.004),
}
