"""Losses that several chapters use; a paper's own loss lives in its notebook."""

from nearfar.losses.contrastive import (
    focal,
    info_nce,
    nt_xent,
    prototype_cross_entropy,
    prototype_nce,
    sinkhorn_codes,
    supcon,
)

__all__ = [
    "focal", "info_nce", "nt_xent", "prototype_cross_entropy", "prototype_nce", "sinkhorn_codes", "supcon",
]  # fmt: skip
