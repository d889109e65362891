"""Nested training sets of growing size: balanced, long-tailed, or with an attribute tied to the class."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor


def subsets(
    labels: Tensor,
    sizes: Iterable[int],
    seed: int = 0,
    imbalance: float = 1.0,
    attribute: Tensor | None = None,
    correlation: float | None = None,
    bins: int | None = None,
) -> dict[int, Tensor]:
    """Row numbers of nested subsets, size -> LongTensor (size,): every smaller set is contained in every larger one.

    labels: (N,) integer classes, or float targets (then random subsets, or balanced over `bins` quantile bins).
    imbalance: how many times more frequent the first class is than the last; classes between follow an exponential
        long tail (Cui et al. 2019).  At 1 the class counts of a subset differ by at most one, as long as no class has
        run out; then the others fill up.  Every class gets its first sample before any class gets a second.
    attribute, correlation: (N,) integer values a and P(a = the class's own value), where class c's own value is the
        (c mod A)-th of the A values; the rest is spread evenly over the other values.

    Raises ValueError naming the argument: sizes below 1 or above N, imbalance below 1, a correlation outside [0, 1] or
    without attribute, labels that are not 1-D, a class (and attribute value) with too few samples for what was asked.
    """
    sizes = [int(size) for size in sizes]
    _check(labels, sizes, imbalance, attribute, correlation, bins)
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
    if labels.is_floating_point() and bins is None:
        return {size: shuffled[:size] for size in sizes}
    if labels.is_floating_point():
        groups = labels.argsort().argsort() * bins // len(labels)
    else:
        groups = labels.unique(return_inverse=True)[1]
    groups = groups.cpu()
    largest, supply = max(sizes), groups.bincount()

    share = float(imbalance) ** -torch.linspace(0, 1, len(supply), dtype=torch.float64)
    free = imbalance == 1 and attribute is None
    tie_break = torch.randperm(len(supply), generator=generator)
    order = _apportion(share, largest, supply if free else None, tie_break, everyone_first=True)  # (largest,) classes
    wanted = order.bincount(minlength=len(supply))
    for c in range(len(supply)):
        if wanted[c] > supply[c]:
            have = f"class {c} has {int(supply[c])}"
            raise ValueError(f"sizes: {largest} needs {int(wanted[c])} samples of a class, but {have}")

    rows = torch.empty(largest, dtype=torch.long)
    by_class = shuffled[groups[shuffled].argsort(stable=True)].split(supply.tolist())
    for c, members in enumerate(by_class):
        if attribute is not None:
            members = _correlate(members, attribute.cpu(), c, int(wanted[c]), correlation, generator)
        rows[order == c] = members[: int(wanted[c])]
    return {size: rows[:size] for size in sizes}


def _apportion(share: Tensor, total: int, supply: Tensor | None, tie_break: Tensor, everyone_first: bool) -> Tensor:
    """Which group each of `total` seats goes to, in an order whose every prefix has the shares (Webster's method).

    Seat k of group g has priority share_g / (2k + 1); taking seats by priority keeps every prefix close to its quota
    and only ever adds seats, so the prefixes are nested.
    """
    enough = 2 + 2 * math.ceil(total * float(share.max() / share.sum())) if supply is None else int(supply.max())
    seats = torch.arange(min(total, enough))
    priority = share[tie_break, None] / (2 * seats + 1)  # (G, seats), rows in tie-break order
    if everyone_first:
        priority[:, 0] = torch.inf
    priority[share[tie_break] == 0] = -1
    if supply is not None:
        priority[seats >= supply[tie_break, None]] = -1
    best = priority.T.flatten().argsort(descending=True, stable=True)[:total]
    return tie_break[best % len(share)]


def _correlate(members: Tensor, attribute: Tensor, c: int, wanted: int, correlation: float, generator) -> Tensor:
    """The first `wanted` members of class c in an order whose every prefix has the asked share of each value."""
    values = attribute.unique()
    share = torch.full((len(values),), (1 - correlation) / max(1, len(values) - 1), dtype=torch.float64)
    share[c % len(values)] = correlation
    order = _apportion(share, wanted, None, torch.randperm(len(values), generator=generator), everyone_first=False)
    rows = torch.empty(wanted, dtype=torch.long)
    for number, value in enumerate(values):
        cell, seats = members[attribute[members] == value], order == number
        if int(seats.sum()) > len(cell):
            raise ValueError(
                f"correlation: {correlation} needs {int(seats.sum())} samples of class {c} with attribute "
                f"{value.item()}, but there are {len(cell)}"
            )
        rows[seats] = cell[: int(seats.sum())]
    return rows


def _check(labels, sizes, imbalance, attribute, correlation, bins) -> None:
    if labels.ndim != 1:
        raise ValueError(f"labels: expected shape (N,), got {tuple(labels.shape)}")
    if not sizes:
        raise ValueError("sizes: at least one size is needed")
    for size in sizes:
        if not 1 <= size <= len(labels):
            raise ValueError(f"sizes: {size} is not between 1 and the {len(labels)} samples there are")
    if imbalance < 1:
        raise ValueError(f"imbalance: {imbalance} is below 1 (most frequent over least frequent class)")
    if (attribute is None) != (correlation is None):
        raise ValueError("attribute and correlation must be given together")
    if attribute is not None and (attribute.shape != labels.shape or attribute.is_floating_point()):
        raise ValueError(f"attribute: expected (N,) integers, got {attribute.dtype} {tuple(attribute.shape)}")
    if correlation is not None and not 0 <= correlation <= 1:
        raise ValueError(f"correlation: {correlation} is not between 0 and 1")
    if labels.is_floating_point() and (attribute is not None or (imbalance != 1 and bins is None)):
        raise ValueError("labels: attribute and imbalance need classes, or float labels with bins=")
    if bins is not None and not (labels.is_floating_point() and 1 <= bins <= len(labels)):
        raise ValueError(f"bins: {bins} applies to float labels only and lies between 1 and N")
