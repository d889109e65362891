"""Vectors that the tests of several chapters draw: float64, the same for the same seed."""

import math

import torch


def chance(seed=0):
    """A generator."""
    return torch.Generator().manual_seed(seed)


def unit(*shape, seed=0):
    """Random directions: rows of length one."""
    return torch.nn.functional.normalize(torch.randn(*shape, dtype=torch.float64, generator=chance(seed)), dim=-1)


def on_circle(*degrees):
    """Points of the unit circle: (N, 2)."""
    return torch.tensor([[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in degrees], dtype=torch.float64)
