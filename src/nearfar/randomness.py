"""Where a run's random numbers come from."""

import random
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def generator(seed: int, stream: int = 0) -> "torch.Generator":
    """A fresh CPU generator: the same seed and `stream` always give the same numbers, other streams others."""
    import torch

    return torch.Generator().manual_seed(random.Random(f"{seed}/{stream}").getrandbits(63))


def seed_everything(seed: int) -> None:
    """Seeds the global generators of Python, torch and, where it is loaded, NumPy."""
    import torch

    random.seed(seed)
    torch.manual_seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed)
