"""One readable training loop, with checkpoints and exact resume."""

from nearfar.train.loop import OPTIMISERS, embed, fit, index_batches

__all__ = ["OPTIMISERS", "embed", "fit", "index_batches"]
