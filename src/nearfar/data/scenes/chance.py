"""Random numbers that belong to an image, not to a batch: an image's own seed picks a window of a fixed bank.

So a row drawn alone, in another order or after an edit keeps its clutter, its grain and its noise.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

LENGTH = 1 << 21


@lru_cache(maxsize=2)
def _bank(kind: str) -> Tensor:
    generator = torch.Generator().manual_seed(1906)
    return (torch.rand if kind == "uniform" else torch.randn)(LENGTH, generator=generator)


def numbers(seed: Tensor, count: int, kind: str = "uniform", stream: int = 0) -> Tensor:
    """(n, count) numbers in [0, 1), or standard normal ones, that depend only on each of the n seeds and the stream."""
    start = (seed * 7919 + stream * 104_729) % (LENGTH - count)
    return _bank(kind).unfold(0, count, 1)[start.cpu()].to(seed.device)
