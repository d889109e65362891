"""Networks that several chapters share, the moving-average copy with its queue, and checks of features and labels."""

from nearfar.nn import momentum
from nearfar.nn.backbones import (
    VisionTransformer,
    backbone,
    parameters_count,
    projector,
    seeded,
    tiny,
    tiny_mlp,
    vit_tiny,
)
from nearfar.nn.momentum import MomentumPair, Queue, ema_update
from nearfar.nn.vectors import check_features, check_labels, normalise, readable

__all__ = [
    "MomentumPair", "Queue", "VisionTransformer", "backbone", "check_features", "check_labels", "ema_update",
    "momentum", "normalise", "parameters_count", "projector", "readable", "seeded", "tiny", "tiny_mlp", "vit_tiny",
]  # fmt: skip
