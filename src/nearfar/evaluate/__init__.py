"""Measures of a representation: neighbours, linear probe, clusters, retrieval, detection, calibration, groups, spread.

Tensors in, 0-d tensors (on the same device, in the features' precision or float64) or dictionaries of them out.
Half precision is computed and returned in float32.  Features of one call must not mix float32 and float64.
Bad input raises a ValueError that names the argument; values are read for that wherever they can be.
"""

from nearfar.evaluate.classification import auroc, calibration_error, fpr_at_tpr, group_metrics
from nearfar.evaluate.features import (
    alignment,
    clustering_accuracy,
    knn_accuracy,
    knn_predict,
    nmi,
    recall_at_k,
    retrieval_map,
    uniformity,
)
from nearfar.evaluate.probe import linear_probe

__all__ = [
    "alignment", "auroc", "calibration_error", "clustering_accuracy", "fpr_at_tpr", "group_metrics", "knn_accuracy",
    "knn_predict", "linear_probe", "nmi", "recall_at_k", "retrieval_map", "uniformity",
]  # fmt: skip
