"""Losses that several chapters use.  A paper's own loss lives in its notebook.

Common rules.  Features are scaled to unit length inside (`normalise=True`); pass `normalise=False` if they already are,
or should not be.  Half precision is computed and returned in float32, also under autocast; float32 and float64 stay,
and features of one call must not mix them (codes and class weights may differ: torch's promotion holds).
`reduction` is "mean", "sum" or "none".  Values (NaN, zero rows, label range) are checked on the CPU only: on an
accelerator that would stall the device at every step, and there `train.fit` stops at the first loss that is not finite.
The contrastive losses need memory for the rows of a batch, not for its pairs (nearfar.losses.blocks): a large batch
can be differentiated once, not twice.  With several processes `train.fit` gives them whole batches; elsewhere, give
them `parallel.gather(z)`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from nearfar import nn, parallel
from nearfar.losses import blocks
from nearfar.precision import wide

gather = parallel.gather  # features of all processes, for these losses
_REDUCTIONS = {"mean": Tensor.mean, "sum": Tensor.sum, "none": lambda losses: losses}


def _reduce(losses: Tensor, reduction: str) -> Tensor:
    if reduction not in _REDUCTIONS:
        raise ValueError(f'reduction must be "mean", "sum" or "none", got {reduction!r}')
    return _REDUCTIONS[reduction](losses)


def _check_positive(**numbers: float) -> None:
    for name, number in numbers.items():
        if not number > 0:
            raise ValueError(f"{name} must be greater than zero, got {number}")


def _features(normalise: bool, **features: Tensor) -> list[Tensor]:
    """Features to compute with; their values are looked at on the CPU only."""
    on_cpu = all(z.device.type == "cpu" for z in features.values())
    return nn.prepare_features(normalise, on_cpu, **features)


def _bound(temperature: float, normalise: bool) -> float:
    """What no |score| exceeds: 1/τ between unit rows."""
    return 1 / temperature if normalise and not isinstance(temperature, Tensor) else math.inf


def _against(positive: Tensor, negatives: Tensor) -> Tensor:
    """−log( e^p / (e^p + e^n) ) = log(1 + e^(n − p)), also where this is tiny."""
    return softplus(negatives - positive, threshold=40)


def info_nce(
    queries: Tensor,
    keys: Tensor,
    negatives: Tensor | None = None,
    temperature: float = 0.1,
    *,
    normalise: bool = True,
    reduction: str = "mean",
) -> Tensor:
    """InfoNCE: L_i = −log( exp(q_i·k_i/τ) / (exp(q_i·k_i/τ) + Σ_{n∈N_i} exp(q_i·n/τ)) ).

    [van den Oord et al., 2018, eq. 4, with scores as in He et al., 2020 (MoCo), eq. 1]

    queries, keys: (N, D); row i of keys is the positive of row i of queries, its only one.
    negatives: (M, D), shared by all queries (the other keys are then not used), or (N, M, D), row i for query i.
               None: N_i are the other keys, k_j with j ≠ i.
    One direction only: for the symmetric loss add info_nce(keys, queries).  Returns a scalar, or (N,) for "none".
    Raises ValueError for temperature ≤ 0, other shapes, N = 1 without negatives, NaN or (if normalised) zero features.
    """
    _check_positive(temperature=temperature)
    with torch.autocast(queries.device.type, enabled=False):
        queries_, keys_ = _features(normalise, queries=queries, keys=keys)  # (N, D), (N, D)
        n, d = queries_.shape
        if keys_.shape != queries_.shape:
            raise ValueError(f"keys must have the shape of queries {tuple(queries.shape)}, got {tuple(keys.shape)}")
        scaled, bound = queries_ / temperature, _bound(temperature, normalise)
        positive = (scaled * keys_).sum(dim=1)  # (N,)
        if negatives is None:
            if n < 2:
                raise ValueError("queries: a batch of one has no negatives; give two or more, or pass negatives")
            itself = torch.arange(n, device=queries_.device)
            return _reduce(_against(positive, blocks.cross(scaled, keys_, itself, bound)), reduction)
        if negatives.dim() not in (2, 3) or (negatives.dim() == 3 and len(negatives) != n):
            raise ValueError(f"negatives must have shape (M, {d}) or ({n}, M, {d}), got {tuple(negatives.shape)}")
        nn.check_alike(queries=queries, negatives=negatives)
        (flat,) = _features(normalise, negatives=negatives.reshape(-1, d))
        if negatives.dim() == 2:
            return _reduce(_against(positive, blocks.cross(scaled, flat, None, bound)), reduction)
        logits = torch.einsum("nd,nmd->nm", scaled, flat.view(negatives.shape))
        return _reduce(_against(positive, logits.logsumexp(dim=1)), reduction)


def nt_xent(
    z_a: Tensor, z_b: Tensor, temperature: float = 0.5, *, normalise: bool = True, reduction: str = "mean"
) -> Tensor:
    """NT-Xent over the 2N views: ℓ_ij = −log( exp(z_i·z_j/τ) / Σ_{k≠i} exp(z_i·z_k/τ) ) [Chen et al., 2020, eq. 1].

    z_a, z_b: (N, D), two views of the same N images; row i of one is the positive of row i of the other, and the
    other 2N − 2 views are the negatives.  Returns a scalar, or (2N,) for "none": first the rows of z_a, then of z_b.
    Raises ValueError for temperature ≤ 0, other shapes, N = 1 (no negatives), NaN or (if normalised) zero features.
    """
    _check_positive(temperature=temperature)
    if z_a.shape != z_b.shape:
        raise ValueError(f"z_b must have the shape of z_a {tuple(z_a.shape)}, got {tuple(z_b.shape)}")
    with torch.autocast(z_a.device.type, enabled=False):
        z = torch.cat(_features(normalise, z_a=z_a, z_b=z_b))  # (2N, D)
        n = len(z_a)
        if n < 2:
            raise ValueError("z_a: a batch of one has no negatives; give two or more images")
        positives = (z[:n] * z[n:]).sum(dim=1) / temperature  # (N,)
        others = blocks.among(z / temperature**0.5, (0, n, -n), None, _bound(temperature, normalise))  # (2N,)
        return _reduce(_against(positives.repeat(2), others), reduction)


def supcon(
    z: Tensor,
    labels: Tensor,
    temperature: float = 0.1,
    *,
    form: str = "out",
    normalise: bool = True,
    reduction: str = "mean",
) -> Tensor:
    """Supervised contrastive loss [Khosla et al., 2020], with P(i) the other rows of i's label and A(i) all other rows:

        "out" (eq. 2): L_i = −1/|P(i)| Σ_{p∈P(i)} log( exp(z_i·z_p/τ) / Σ_{a∈A(i)} exp(z_i·z_a/τ) )
        "in"  (eq. 3): L_i = −log( 1/|P(i)| Σ_{p∈P(i)} exp(z_i·z_p/τ) / Σ_{a∈A(i)} exp(z_i·z_a/τ) )

    z: (N, D), labels: (N,) integers.  For several views of an image, concatenate the views and repeat the labels.
    The mean is over anchors that have a positive; an anchor without one contributes zero (so does a batch without any).
    The official code's factor τ/τ_base is left out.  Returns a scalar, or (N,) for "none".
    Raises ValueError for temperature ≤ 0, other shapes, an unknown form, N = 1, NaN or (if normalised) zero features.
    """
    _check_positive(temperature=temperature)
    if form not in ("out", "in"):
        raise ValueError(f'form must be "out" or "in", got {form!r}')
    with torch.autocast(z.device.type, enabled=False):
        (z_,) = _features(normalise, z=z)
        n = len(z_)
        nn.check_labels("labels", labels, n, checked=False)
        if n < 2:
            raise ValueError("z: a batch of one has no negatives; give two or more rows")
        scaled, bound = z_ / temperature**0.5, _bound(temperature, normalise)
        group, size = _groups(labels)
        count = size - 1  # |P(i)|
        everything = blocks.among(scaled, (0,), None, bound)  # (N,)
        if form == "out":  # Σ_p z_i·z_p = z_i·(the sum over i's class − z_i)
            others = torch.zeros_like(scaled).index_add(0, group, scaled).index_select(0, group) - scaled
            losses = everything - (scaled * others).sum(dim=1) / count.clamp(min=1)
        else:
            losses = everything - blocks.among(scaled, (0,), group.to(z_), bound) + count.clamp(min=1).to(z_).log()
        losses = torch.where(count > 0, losses, 0)
        if reduction == "mean":
            return losses.sum() / (count > 0).sum().clamp(min=1)
        return _reduce(losses, reduction)


def _groups(labels: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) labels of any values -> (N,) the labels' ranks, equal for equal labels, and (N,) how many rows share each.

    What torch.unique gives, without shapes that depend on values.
    """
    ordered, order = labels.sort()
    rank = torch.zeros_like(order)
    rank[1:] = (ordered[1:] != ordered[:-1]).cumsum(dim=0)
    group = torch.empty_like(order).scatter(0, order, rank)
    return group, torch.zeros_like(order).scatter_add(0, group, torch.ones_like(order)).index_select(0, group)


def prototype_nce(
    z: Tensor,
    prototypes: Tensor,
    labels: Tensor,
    temperature: float = 0.1,
    *,
    normalise: bool = True,
    reduction: str = "mean",
) -> Tensor:
    """L_i = −log( exp(z_i·c_{y_i}/τ) / Σ_k exp(z_i·c_k/τ) ): cross-entropy over prototypes.

    [the prototype term of ProtoNCE, Li et al., 2021 (PCL), with one temperature for all prototypes]

    z: (B, D); prototypes: (K, D), c_k; labels: (B,) in 0 .. K − 1, the prototype of each row.
    Returns a scalar, or (B,) for "none"; gradients for z and prototypes.
    Raises ValueError for temperature ≤ 0, other shapes, labels out of range, NaN or (if normalised) zero features.
    """
    _check_positive(temperature=temperature)
    with torch.autocast(z.device.type, enabled=False):
        z_, prototypes_ = _features(normalise, z=z, prototypes=prototypes)
        nn.check_labels("labels", labels, len(z_), len(prototypes_), checked=z_.device.type == "cpu")
        labels, scaled = labels.long(), z_ / temperature  # (B,), (B, D)
        positive = (scaled * prototypes_.index_select(0, labels)).sum(dim=1)  # (B,)
        others = blocks.cross(scaled, prototypes_, labels, _bound(temperature, normalise))
        return _reduce(_against(positive, others), reduction)


@torch.no_grad()
def sinkhorn_codes(scores: Tensor, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Balanced soft codes by Sinkhorn-Knopp, in the log domain [Caron et al., 2020 (SwAV), eq. 3-5].

    scores: (B, K) cosines of features and prototypes.  Starting from exp(scores/ε), each iteration first gives every
    prototype the mass 1/K, then every sample the mass 1/B, in the official code's order; the last step is the samples',
    and the result is multiplied by B.  Returns codes (B, K), without gradient: every row sums to one, and columns sum
    to about B/K.  exp(1/0.05) overflows half precision, hence logarithms.
    Raises ValueError for epsilon ≤ 0, iterations < 1, another shape, NaN.
    """
    _check_positive(epsilon=epsilon)
    if iterations < 1:
        raise ValueError(f"iterations must be at least one, got {iterations}")
    nn.check_features(checked=scores.device.type == "cpu", scores=scores)
    log_q = wide(scores) / epsilon  # (B, K)
    for _ in range(iterations):
        log_q = log_q - log_q.logsumexp(dim=0, keepdim=True)  # every prototype: the same mass
        log_q = log_q - log_q.logsumexp(dim=1, keepdim=True)  # every sample: mass one
    return log_q.exp()


def prototype_cross_entropy(
    scores: Tensor, codes: Tensor, temperature: float = 0.1, *, reduction: str = "mean"
) -> Tensor:
    """ℓ(z, q) = −Σ_k q_k log softmax(scores/τ)_k [Caron et al., 2020 (SwAV), eq. 2].

    scores: (B, K) cosines of one view and the prototypes; codes: (B, K), rows sum to one, of the other view.
    Returns a scalar, or (B,) for "none".  Raises ValueError for temperature ≤ 0, other shapes, NaN.
    """
    _check_positive(temperature=temperature)
    if scores.shape != codes.shape:
        raise ValueError(f"codes must have the shape of scores {tuple(scores.shape)}, got {tuple(codes.shape)}")
    nn.check_features(checked=scores.device.type == "cpu", scores=scores, codes=codes)
    with torch.autocast(scores.device.type, enabled=False):
        log_p = (wide(scores) / temperature).log_softmax(dim=1)  # (B, K)
        return _reduce(-(wide(codes) * log_p).sum(dim=1), reduction)


def focal(
    logits: Tensor, labels: Tensor, gamma: float = 2.0, alpha: float | Tensor | None = None, *, reduction: str = "mean"
) -> Tensor:
    """Focal loss in its softmax form: FL = −α_y (1 − p_y)^γ log p_y [Lin et al., 2017, eq. 5].

    logits: (N, C); labels: (N,) in 0 .. C − 1; alpha: None (one), a number, or (C,) a weight per class.
    γ = 0 and no alpha is the cross-entropy.  The mean is over samples, also with alpha.
    Returns a scalar, or (N,) for "none".  Raises ValueError for gamma < 0, other shapes, labels out of range, NaN.
    """
    if not gamma >= 0:
        raise ValueError(f"gamma must be zero or greater, got {gamma}")
    on_cpu = logits.device.type == "cpu"
    nn.check_features(checked=on_cpu, logits=logits)
    nn.check_labels("labels", labels, len(logits), logits.shape[1], checked=on_cpu)
    with torch.autocast(logits.device.type, enabled=False):
        log_p = wide(logits).log_softmax(dim=1).gather(1, labels[:, None].long()).squeeze(1)  # (N,)
        tiny = torch.finfo(log_p.dtype).tiny  # at p = 1 a power below one has an infinite slope
        losses = -(-torch.expm1(log_p)).clamp(min=tiny).pow(gamma) * log_p
        if isinstance(alpha, Tensor):
            if alpha.shape != (logits.shape[1],):
                raise ValueError(f"alpha must be a number or have shape ({logits.shape[1]},), got {tuple(alpha.shape)}")
            losses = losses * alpha.to(losses)[labels.long()]
        elif alpha is not None:
            losses = losses * alpha
        return _reduce(losses, reduction)
