"""In which precision numbers are computed: half precision holds two or three digits, too few for sums."""

from __future__ import annotations

import torch
from torch import Tensor


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """float32 for half precision; float32 and float64 are themselves."""
    return torch.promote_types(dtype, torch.float32)


def wide(x: Tensor) -> Tensor:
    """x in float32 where it is in half precision, else x itself.  Any shape; differentiable."""
    return x.to(wide_dtype(x.dtype))
