"""Tables that have a row for each class: how large they may be."""

from __future__ import annotations

import math

_MOST = 2**30  # numbers in a table; 8 GB in float64


def check_size(name: str, *shape: int) -> None:
    """Raise a ValueError that names the argument when a table of that shape, from its largest numbers, is too large."""
    if math.prod(shape) > _MOST:
        size = " × ".join(f"{extent:,}" for extent in shape)
        raise ValueError(
            f"{name}: these numbers need a table of {size}; number them from zero without gaps, "
            "as torch.unique(…, return_inverse=True)[1] does"
        )
