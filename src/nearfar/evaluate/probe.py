"""The linear probe: multinomial logistic regression on frozen features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nearfar import nn


def linear_probe(
    train_z: Tensor,
    train_y: Tensor,
    test_z: Tensor,
    test_y: Tensor,
    *,
    classes: int | None = None,
    penalties: Sequence[float] = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5),
    validation: float = 0.2,
    iterations: int = 200,
    standardise: bool = True,
    seed: int = 0,
) -> dict:
    """Multinomial logistic regression on frozen features, by full-batch L-BFGS:

        min over W, b of  1/N Σ_i −log softmax(W z_i + b)_{y_i} + λ/2 ‖W‖²

    train_z: (N, D), train_y: (N,), test_z: (M, D), test_y: (M,), labels in 0 .. classes − 1 (default: the largest + 1).
    Features are standardised by the training set's mean and deviation.  λ is the one of `penalties` with the best
    accuracy (then the lowest loss) on a share `validation` of each class of the *training* rows; with one penalty, or
    too few rows to hold any out, no search is made (then the middle one of `penalties`).  The test rows choose nothing.
    scikit-learn's C is 1 / (λ N).  The sums are made where the features are, in their precision.

    Returns {"accuracy": 0-d tensor, "penalty": λ, "weight": (classes, D), "bias": (classes,), "predictions": (M,)};
    weight and bias apply to the features as given.  Raises ValueError for fewer than two classes among the training
    labels, labels out of range, other shapes, NaN, or a penalty < 0.
    """
    nn.check_features(train_z=train_z, test_z=test_z)
    if classes is None:
        classes = int(torch.cat([train_y, test_y]).max()) + 1
    nn.check_labels("train_y", train_y, len(train_z), classes)
    nn.check_labels("test_y", test_y, len(test_z), classes)
    if train_z.shape[1] != test_z.shape[1]:
        raise ValueError(f"test_z must have D = {train_z.shape[1]}, got {test_z.shape[1]}")
    if len(penalties) == 0 or min(penalties) < 0 or not 0 < validation < 1:
        raise ValueError(f"penalties must be numbers >= 0 and validation in (0, 1), got {penalties} and {validation}")
    if len(train_y.unique()) < 2:
        raise ValueError("train_y holds one class only; a probe needs two or more")
    train_z, test_z, train_y = train_z.detach(), test_z.detach(), train_y.long()
    mean = train_z.mean(dim=0) if standardise else torch.zeros_like(train_z[0])
    scale = train_z.std(dim=0, correction=0) if standardise else torch.ones_like(train_z[0])
    scale = torch.where(scale > 1e-6 * scale.max(), scale, 1)  # constant columns stay at zero
    z = (train_z - mean) / scale

    path = sorted(penalties, reverse=True)  # from strong to weak: each fit starts from the one before
    held_out = _held_out(train_y, validation, seed)
    penalty = path[len(path) // 2]
    if len(path) > 1 and held_out.any():
        solution, scores = None, []
        for candidate in path:
            solution = _minimise(z[~held_out], train_y[~held_out], classes, candidate, iterations, solution)
            logits = torch.addmm(solution[1], z[held_out], solution[0].T)
            right = (logits.argmax(dim=1) == train_y[held_out]).double().mean()
            scores.append((float(right), -float(torch.nn.functional.cross_entropy(logits, train_y[held_out]))))
        penalty = path[max(range(len(path)), key=scores.__getitem__)]
    weight, bias = _minimise(z, train_y, classes, penalty, iterations)
    weight = weight / scale  # back to the features as given
    bias = bias - weight @ mean
    predictions = torch.addmm(bias, test_z, weight.T).argmax(dim=1)
    return {
        "accuracy": (predictions == test_y).double().mean(),
        "penalty": penalty,
        "weight": weight,
        "bias": bias,
        "predictions": predictions,
    }


def _held_out(labels: Tensor, share: float, seed: int) -> Tensor:
    """A random mask of ⌊share · n_c⌋ rows of each class c."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    ordered = labels.cpu()[order]
    mask = torch.zeros(len(labels), dtype=torch.bool)
    for label in ordered.unique():
        rows = order[ordered == label]
        mask[rows[: int(share * len(rows))]] = True
    return mask.to(labels.device)


def _minimise(
    z: Tensor, labels: Tensor, classes: int, penalty: float, iterations: int, start: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """The regression's weight (classes, D) and bias (classes,); values and gradients in torch, steps by scipy."""
    from scipy.optimize import minimize

    n, d = z.shape
    rows = torch.arange(n, device=z.device)
    if start is None:
        start = z.new_zeros(classes, d), z.new_zeros(classes)

    def unpack(flat) -> tuple[Tensor, Tensor]:
        parameters = torch.as_tensor(flat).to(z).view(classes, d + 1)
        return parameters[:, :d], parameters[:, d]

    def value_and_gradient(flat):
        weight, bias = unpack(flat)
        log_p = torch.addmm(bias, z, weight.T).log_softmax(dim=1)  # (N, classes)
        loss = -log_p[rows, labels].mean() + penalty / 2 * weight.square().sum()
        error = log_p.exp_()
        error[rows, labels] -= 1  # ∂loss/∂logits · N
        gradient = torch.cat([error.T @ z / n + penalty * weight, error.mean(dim=0)[:, None]], dim=1)
        return float(loss), gradient.flatten().double().cpu().numpy()

    flat = torch.cat([start[0], start[1][:, None]], dim=1).flatten().double().cpu().numpy()
    tolerance = 1e-10 if z.dtype == torch.float64 else 1e-7
    solution = minimize(
        value_and_gradient,
        flat,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": iterations, "maxcor": 20, "ftol": tolerance, "gtol": 1e-6},
    )
    return unpack(solution.x)
