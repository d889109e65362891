"""Features and labels as the functions of this package take them: checked, and at unit length."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def check_features(*, nonzero: bool = False, checked: bool = True, **features: Tensor) -> None:
    """Raise a ValueError that names the argument when a feature matrix is unusable.

    features: name=tensor, each (N, D), floating point, N and D at least one.  With `checked`, values are read too:
    NaN or infinity, and (with `nonzero`) rows that are all zero, whose direction is undefined.
    """
    for name, z in features.items():
        if z.dim() != 2 or 0 in z.shape:
            raise ValueError(f"{name} must have shape (N, D) with N, D >= 1, got {tuple(z.shape)}")
        if not z.is_floating_point():
            raise ValueError(f"{name} must be floating point, got {z.dtype}; convert it, for instance with .float()")
        if not (checked and readable(z)):
            continue
        squares = z.detach().square().sum(dim=1, dtype=torch.promote_types(z.dtype, torch.float32))  # (N,)
        if not torch.isfinite(squares).all() and not torch.isfinite(z).all():
            row = int((~torch.isfinite(z)).any(dim=1).nonzero()[0])
            raise ValueError(f"{name} holds NaN or infinity, first in row {row}")
        if nonzero and not squares.all() and (z == 0).all(dim=1).any():
            row = int((z == 0).all(dim=1).nonzero()[0])
            raise ValueError(f"{name} has an all-zero row (row {row}), which has no direction to compare")


def check_labels(name: str, labels: Tensor, n: int, classes: int | None = None, checked: bool = True) -> None:
    """Raise a ValueError unless labels is an integer vector of length n with values in 0 .. classes - 1."""
    if labels.dim() != 1 or len(labels) != n:
        raise ValueError(f"{name} must have shape ({n},), got {tuple(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"{name} must be integers, got {labels.dtype}")
    if checked and readable(labels) and n:
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or (classes is not None and high >= classes):
            bound = "" if classes is None else f" .. {classes - 1}"
            raise ValueError(f"{name} must lie in 0{bound}, got values from {low} to {high}")


def readable(tensor: Tensor) -> bool:
    """True when values can be looked at: not for fake, meta or otherwise wrapped tensors."""
    return type(tensor) in (Tensor, nn.Parameter) and tensor.device.type != "meta"


def normalise(z: Tensor, dim: int = -1, epsilon: float = 1e-12) -> Tensor:
    """z scaled to Euclidean length one along `dim`; a zero vector stays zero.  Any shape."""
    return nn.functional.normalize(z, dim=dim, eps=epsilon)
