"""Shapes as signed distances: negative inside, positive outside, zero on the outline.

Each takes coordinates (x, y) of any shape, y upwards, and draws its shape within the unit circle, more or less.
Distances are exact along edges.  Beyond a corner they are those of the extended edges, so corners stay crisp; beyond
an acute one the distance to a circle through the corners takes over, so that shadows have no spikes.
Formulas after Inigo Quilez, "2D distance functions".
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def circle(x: Tensor, y: Tensor) -> Tensor:
    return torch.hypot(x, y) - 0.86


def square(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x.abs(), y.abs()) - 0.76


def triangle(x: Tensor, y: Tensor) -> Tensor:
    y = y + 0.2
    edges = torch.maximum(math.sqrt(0.75) * x.abs() + 0.5 * y, -y) - 0.53
    return torch.maximum(edges, torch.hypot(x, y) - 2 * 0.53)


def star(x: Tensor, y: Tensor) -> Tensor:
    """Five points: fold the plane into a tenth, where the outline is one line from (0, 1) to the inner corner."""
    tip, inner = 1.0, 0.46
    turn = torch.atan2(x, y).abs()
    turn = (turn - (turn * (5 / math.tau)).round() * (math.tau / 5)).abs()
    radius = torch.hypot(x, y)
    corner = (inner * math.sin(math.pi / 5), inner * math.cos(math.pi / 5))
    along = (corner[0], corner[1] - tip)
    length = math.hypot(*along)
    normal = (-along[1] / length, along[0] / length)
    edge = radius * (normal[0] * turn.sin() + normal[1] * turn.cos()) - normal[1] * tip
    return torch.maximum(edge, radius - tip)


def cross(x: Tensor, y: Tensor) -> Tensor:
    x, y = x.abs(), y.abs()
    return torch.maximum(torch.maximum(x, y) - 0.9, torch.minimum(x, y) - 0.31)


def ring(x: Tensor, y: Tensor) -> Tensor:
    return (torch.hypot(x, y) - 0.65).abs() - 0.25


def heart(x: Tensor, y: Tensor) -> Tensor:
    x, y = x.abs() / 1.62, y / 1.62 + 0.56
    lobe = torch.hypot(x - 0.25, y - 0.75) - math.sqrt(2) / 4
    fold = (x + y).clamp(min=0) / 2
    edge = torch.minimum(torch.hypot(x, y - 1), torch.hypot(x - fold, y - fold)) * (x - y).sign()
    return 1.62 * torch.where(x + y > 1, lobe, edge)


def hexagon(x: Tensor, y: Tensor) -> Tensor:
    x, y = x.abs(), y.abs()
    return torch.maximum(y, math.sqrt(0.75) * x + 0.5 * y) - 0.8


def diamond(x: Tensor, y: Tensor) -> Tensor:
    width, height = 0.66, 1.0
    edge = (height * x.abs() + width * y.abs() - width * height) / math.hypot(width, height)
    return torch.maximum(edge, torch.hypot(x, y) - height)


def crescent(x: Tensor, y: Tensor) -> Tensor:
    """A disc less another one; beyond the two horns the distance is that to a horn's tip."""
    disc, bite, offset = 0.9, 0.72, 0.4
    x, y = x - 0.12, y.abs()
    horn_x = (disc**2 - bite**2 + offset**2) / (2 * offset)
    horn_y = math.sqrt(disc**2 - horn_x**2)
    arcs = torch.maximum(torch.hypot(x, y) - disc, bite - torch.hypot(x - offset, y))
    beyond = x * horn_y - y * horn_x > offset * (horn_y - y).clamp(min=0)
    return torch.where(beyond, torch.hypot(x - horn_x, y - horn_y), arcs)


def drop(x: Tensor, y: Tensor) -> Tensor:
    """A disc and the two tangents that meet in a tip above it."""
    centre, radius, tip = -0.32, 0.62, 1.0
    x, y = x.abs(), y - centre
    sine = radius / (tip - centre)
    cosine = math.sqrt(1 - sine * sine)
    above = cosine * y > sine * x
    away = torch.hypot(x, y)
    return torch.maximum(torch.where(above, cosine * x + sine * y, away) - radius, away - (tip - centre))


def arrow(x: Tensor, y: Tensor) -> Tensor:
    """Pointing up: a shaft and a head."""
    x = x.abs()
    shaft = torch.maximum(x - 0.27, (y + 0.4).abs() - 0.5)
    head = torch.maximum(torch.maximum(0.74 * x + 0.67 * y - 0.64, 0.02 - y), torch.hypot(x, y - 0.104) - 0.851)
    return torch.minimum(shaft, head)


DISTANCES = {
    f.__name__: f for f in (circle, square, triangle, star, cross, ring, heart, hexagon, diamond, crescent, drop, arrow)
}
SHAPES = tuple(DISTANCES)
AREAS = {  # in units of scale squared, of the shapes with a simple formula
    "circle": math.pi * 0.86**2,
    "square": (2 * 0.76) ** 2,
    "triangle": 3 * math.sqrt(3) * 0.53**2,
    "star": 10 * 0.5 * 0.46 * math.sin(math.pi / 5),
    "cross": 4 * (2 * 0.9 * 0.31 - 0.31**2),
    "ring": math.pi * (0.9**2 - 0.4**2),
    "hexagon": 2 * math.sqrt(3) * 0.8**2,
    "diamond": 2 * 0.66 * 1.0,
}
