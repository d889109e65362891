"""Networks that several chapters share, made or pretrained, the moving-average copy with its queue, and checks."""

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
from nearfar.nn.features import frozen_features
from nearfar.nn.momentum import MomentumPair, Queue, ema_update
from nearfar.nn.pretrained import FrozenNetwork, SentenceEmbedder, pretrained
from nearfar.nn.vectors import check_alike, check_features, check_labels, normalise, prepare_features, readable

__all__ = [
    "FrozenNetwork", "MomentumPair", "Queue", "SentenceEmbedder", "VisionTransformer", "backbone", "check_alike",
    "check_features", "check_labels", "ema_update", "frozen_features", "momentum", "normalise", "parameters_count",
    "prepare_features", "pretrained", "projector", "readable", "seeded", "tiny", "tiny_mlp", "vit_tiny",
]  # fmt: skip
