"""Features and labels as the functions of this package take them: checked, and at unit length."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nearfar.precision import wide, wide_dtype

_SHORTEST = 1e-12  # what is shorter is scaled before it is measured; by this zero vectors are divided


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
        squares = z.detach().square().sum(dim=1, dtype=wide_dtype(z.dtype))  # (N,)
        if not torch.isfinite(squares).all() and not torch.isfinite(z).all():
            row = int((~torch.isfinite(z)).any(dim=1).nonzero()[0])
            raise ValueError(f"{name} holds NaN or infinity, first in row {row}")
        if nonzero and not squares.all() and (z == 0).all(dim=1).any():
            row = int((z == 0).all(dim=1).nonzero()[0])
            raise ValueError(f"{name} has an all-zero row (row {row}), which has no direction to compare")


def check_alike(**features: Tensor) -> None:
    """Raise a ValueError that names the argument unless all have the D, precision and device of the first.

    features: name=tensor, each (..., D).  Half precision counts as the float32 that it is computed in.
    """
    (first, a), *others = features.items()
    for name, z in others:
        if (z.shape[-1], wide_dtype(z.dtype), z.device) != (a.shape[-1], wide_dtype(a.dtype), a.device):
            raise ValueError(
                f"{name} must have the same D, dtype and device as {first}: "
                f"{tuple(z.shape)} {z.dtype} {z.device} and {tuple(a.shape)} {a.dtype} {a.device}"
            )


def prepare_features(unit: bool, checked: bool = True, **features: Tensor) -> list[Tensor]:
    """Feature matrices to compute with: checked as above, at least float32, with `unit` of rows of length one."""
    check_features(nonzero=unit, checked=checked, **features)
    check_alike(**features)
    return [normalise(wide(z)) if unit else wide(z) for z in features.values()]


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


def normalise(z: Tensor, dim: int = -1) -> Tensor:
    """z scaled to Euclidean length one along `dim`; a zero vector stays zero.  Any shape, floating point.

    Vectors whose squares would underflow or overflow are first divided by their largest entry, which changes neither
    the result nor its gradient.  Half precision is computed in float32 and rounded back.
    """
    exact = wide(z)
    length = exact.norm(dim=dim, keepdim=True)
    lost = ~((length >= _SHORTEST) & (length < torch.inf))
    if not (exact.device.type == "cpu" and readable(exact)) or lost.any():  # an accelerator need not wait to be told
        largest = exact.detach().abs().amax(dim=dim, keepdim=True)
        exact = exact / torch.where(lost & (largest > 0), largest, 1)  # by one, exactly, for all others
        length = exact.norm(dim=dim, keepdim=True)
    return (exact / length.clamp_min(_SHORTEST)).to(z.dtype)
