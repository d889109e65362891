"""Measures on scores and predictions: detection (AUROC, FPR at a TPR), calibration, groups."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar import nn
from nearfar.evaluate.tables import check_size
from nearfar.precision import wide


def _sorted_scores(scores: Tensor, positives: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Check a detection problem; ascending scores of positives and of negatives, +inf at the end, and their numbers."""
    if scores.dim() != 1 or len(scores) == 0 or not scores.is_floating_point():
        raise ValueError(f"scores must be a float vector (N,), got {tuple(scores.shape)} {scores.dtype}")
    if positives.shape != scores.shape or positives.dtype != torch.bool:
        raise ValueError(
            f"positives must be boolean of shape {tuple(scores.shape)}, got {tuple(positives.shape)} {positives.dtype}"
        )
    if nn.readable(scores) and not torch.isfinite(scores).all():
        raise ValueError("scores holds NaN or infinity")
    if nn.readable(positives) and (positives.all() or not positives.any()):
        raise ValueError("positives must hold both kinds, true and false")
    ascending = [scores.masked_fill(~kind, torch.inf).sort().values for kind in (positives, ~positives)]
    return *ascending, positives.sum(), (~positives).sum()


@torch.no_grad()
def auroc(scores: Tensor, positives: Tensor) -> Tensor:
    """P(score of a positive > score of a negative), a tie counting one half: the area under the ROC curve; 0-d float64.

    scores: (N,) floats, higher for positives; positives: (N,) booleans.
    Raises ValueError for other shapes, NaN or infinite scores, or positives of one kind only.
    """
    _, negative, n_positive, n_negative = _sorted_scores(scores, positives)
    below = torch.searchsorted(negative, scores)  # negatives with a smaller score
    upto = torch.searchsorted(negative, scores, right=True)  # … and those with an equal one
    wins = ((below + upto).double() / 2 * positives).sum()
    return wins / (n_positive.double() * n_negative.double())


@torch.no_grad()
def fpr_at_tpr(scores: Tensor, positives: Tensor, tpr: float = 0.95) -> Tensor:
    """False positive rate at the highest threshold whose true positive rate is at least tpr (FPR95); 0-d float64.

    scores: (N,) floats, "positive" where score ≥ threshold; positives: (N,) booleans.
    Raises ValueError for tpr outside (0, 1], other shapes, NaN or infinite scores, or positives of one kind only.
    """
    if not 0 < tpr <= 1:
        raise ValueError(f"tpr must lie in (0, 1], got {tpr}")
    positive, negative, n_positive, n_negative = _sorted_scores(scores, positives)
    needed = (tpr * n_positive.double() - 1e-9).ceil().long().clamp(min=1)  # 1e-9: 0.95 · 20 is 19, not 19.000…01
    threshold = positive.gather(0, (n_positive - needed)[None])  # (1,)
    below = torch.searchsorted(negative, threshold)[0]
    return (n_negative - below).double() / n_negative


@torch.no_grad()
def calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> Tensor:
    """Expected calibration error: Σ_b (n_b / N) |accuracy_b − confidence_b| over equal-width bins of the confidence,
    the largest probability [Guo et al., 2017, eq. 3]; 0-d, in the precision of probabilities (at least float32).

    probabilities: (N, C), rows sum to one; labels: (N,) in 0 .. C − 1.
    Raises ValueError for other shapes, rows that are no probabilities, labels out of range, bins < 1.
    """
    nn.check_features(probabilities=probabilities)
    nn.check_labels("labels", labels, len(probabilities), probabilities.shape[1])
    if bins < 1:
        raise ValueError(f"bins must be at least one, got {bins}")
    sums = probabilities.sum(dim=1, dtype=torch.float64)  # (N,)
    if nn.readable(probabilities) and (probabilities.min() < 0 or (sums - 1).abs().max() > 1e-2):
        raise ValueError("probabilities: rows must be non-negative and sum to one; apply softmax to logits first")
    confidence, prediction = probabilities.max(dim=1)  # (N,) both
    confidence = wide(confidence)
    edges = torch.linspace(0, 1, bins + 1, dtype=confidence.dtype, device=confidence.device)
    index = (torch.bucketize(confidence, edges, right=True) - 1).clamp(0, bins - 1)
    excess = (prediction == labels).double() - confidence  # (N,), whose float32 sum over many rows would drift
    gaps = excess.new_zeros(bins).index_add_(0, index, excess)
    return (gaps.abs().sum() / len(labels)).to(confidence)


@torch.no_grad()
def group_metrics(predictions: Tensor, labels: Tensor, groups: Tensor, count: int | None = None) -> dict[str, Tensor]:
    """Accuracy overall and per group, the worst group's, and the gap between best and worst.

    predictions, labels, groups: (N,) integers; groups from zero; count: how many there are (default max + 1).
    Returns {"accuracy", "per_group" (G,), "count" (G,), "worst", "gap"}, float64; a group without samples is NaN in
    per_group and is left out of worst and gap.  Raises ValueError for other shapes, groups out of range, or numbers of
    groups so large that nothing of length G can be held.
    """
    if len(predictions) == 0:
        raise ValueError("predictions is empty")
    nn.check_labels("groups", groups, len(predictions), count)
    for name, values in (("predictions", predictions), ("labels", labels)):
        if values.shape != groups.shape:
            raise ValueError(f"{name} must have shape {tuple(groups.shape)}, got {tuple(values.shape)}")
    count = int(groups.max()) + 1 if count is None else count
    check_size("groups", count)
    right = (predictions == labels).double()
    groups = groups.long()
    sizes = right.new_zeros(count).index_add_(0, groups, torch.ones_like(right))
    per_group = right.new_zeros(count).index_add_(0, groups, right) / sizes
    worst = per_group.nan_to_num(nan=torch.inf).min()
    best = per_group.nan_to_num(nan=-torch.inf).max()
    return {"accuracy": right.mean(), "per_group": per_group, "count": sizes, "worst": worst, "gap": best - worst}
