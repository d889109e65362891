"""The linear probe: multinomial logistic regression on frozen features."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nearfar import nn
from nearfar.evaluate.tables import check_size

_SAMPLE = 8  # rows per feature from which the curvature is estimated
_MEMORY = 10  # steps that L-BFGS remembers


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
    scikit-learn's C is 1 / (λ N).  All is computed where the features are, in their precision (at least float32):
    the objective is within about 1e-18 of its minimum for float64 and 1e-8 for float32, given enough `iterations`.

    Returns {"accuracy": 0-d tensor, "penalty": λ, "weight": (classes, D), "bias": (classes,), "predictions": (M,)};
    weight and bias apply to the features as given.  A class without training rows has weight 0 and bias −∞, to which
    the minimum tends: it is never predicted.  Raises ValueError for fewer than two classes among the training labels,
    labels out of range, more classes than a table of weights can hold, other shapes, NaN, or a penalty < 0.
    """
    train_z, test_z = nn.prepare_features(False, train_z=train_z, test_z=test_z)
    if classes is None:
        classes = int(torch.cat([train_y, test_y]).max()) + 1
    nn.check_labels("train_y", train_y, len(train_z), classes)
    nn.check_labels("test_y", test_y, len(test_z), classes)
    check_size("train_y and test_y", classes, train_z.shape[1])
    if len(penalties) == 0 or min(penalties) < 0 or not 0 < validation < 1:
        raise ValueError(f"penalties must be numbers >= 0 and validation in (0, 1), got {penalties} and {validation}")
    present, train_y = train_y.long().unique(return_inverse=True)  # labels that occur (P,), and which of them (N,)
    if len(present) < 2:
        raise ValueError("train_y holds one class only; a probe needs two or more")
    train_z, test_z = train_z.detach(), test_z.detach()
    mean = train_z.mean(dim=0)
    z = train_z - mean  # without `standardise` too: this changes the bias only
    shift = z.mean(dim=0)  # what rounding has left, when the mean is large
    mean, z = mean + shift, z.sub_(shift)
    scale = torch.ones_like(mean)
    if standardise:
        scale = z.square().mean(dim=0).sqrt()
        scale = torch.where(scale > 1e-6 * scale.max(), scale, 1)  # constant columns stay at zero
        z /= scale
    tolerance = 1e-18 if z.dtype == torch.float64 else 1e-8  # of the objective

    path = sorted(penalties, reverse=True)  # from strong to weak: each fit starts from the one before
    held_out = _held_out(train_y, validation, seed)
    penalty, solution = path[len(path) // 2], None
    if len(path) > 1 and held_out.any():
        solutions, scores = [None], []
        fit_z, fit_y, held_z, held_y = z[~held_out], train_y[~held_out], z[held_out], train_y[held_out]
        for candidate in path:
            solution = _minimise(fit_z, fit_y, len(present), candidate, iterations, 1e-6, solutions[-1])
            solutions.append(solution)
            logits = torch.addmm(solution[:, -1], held_z, solution[:, :-1].T)
            right = (logits.argmax(dim=1) == held_y).double().mean()
            scores.append((float(right), -float(torch.nn.functional.cross_entropy(logits, held_y))))
        best = max(range(len(path)), key=scores.__getitem__)
        penalty, solution = path[best], solutions[1 + best]
    solution = _minimise(z, train_y, len(present), penalty, iterations, tolerance, solution)
    weight, bias = solution[:, :-1], solution[:, -1]
    weight = weight / scale  # back to the features as given
    bias = bias - weight @ mean
    predictions = present[torch.addmm(bias, test_z, weight.T).argmax(dim=1)]
    return {
        "accuracy": (predictions == test_y).double().mean(),
        "penalty": penalty,
        "weight": weight.new_zeros(classes, weight.shape[1]).index_copy_(0, present, weight),
        "bias": bias.new_full((classes,), -torch.inf).index_copy_(0, present, bias),
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
    z: Tensor, labels: Tensor, classes: int, penalty: float, iterations: int, tolerance: float, start: Tensor | None
) -> Tensor:
    """The regression's parameters (classes, D + 1), bias last, from `start`, or from a fit to a sample of the rows."""
    n, d = z.shape
    count = max(_SAMPLE * d, 2048)
    # evenly spaced rows: few enough to be cheap, enough for the curvature in all directions
    rows = torch.arange(count, device=z.device) * n // count if n > 2 * count else slice(None)
    if start is None:
        zero = z.new_zeros(classes, d + 1)
        start = _descend(
            z[rows], labels[rows], zero, _preconditioner(z[rows], zero, penalty), penalty, iterations, 1e-3
        )
    return _descend(z, labels, start, _preconditioner(z[rows], start, penalty), penalty, iterations, tolerance)


def _logits(z: Tensor, parameters: Tensor) -> Tensor:
    """(classes, N): with the classes first, sums over them are quick."""
    return torch.addmm(parameters[:, -1], z, parameters[:, :-1].T).T.contiguous()


def _preconditioner(z: Tensor, parameters: Tensor, penalty: float) -> Callable[[Tensor], Tensor]:
    """A function that solves P x = g for an approximation P of the objective's Hessian; g, x: (classes, D + 1).

    The Hessian's block of classes c, c' is  1/N Σ_i (p_ic [c = c'] − p_ic p_ic') z_i z_iᵀ + λ [c = c'] I.  With B, the
    mean of the first factor, and A, the mean of w_i z_i z_iᵀ, where w_i is the trace of i's first factor over B's, it
    is about B ⊗ A + λ I, which the eigenvectors of B and A turn into a diagonal.  The bias is taken by itself, as z has
    zero mean.
    """
    p = _logits(z, parameters).softmax(dim=0)  # (classes, N)
    beta, between = torch.linalg.eigh(p.mean(dim=1).diag() - p @ p.T / len(z))  # (classes,), (classes, classes)
    weight = 1 - p.square().sum(dim=0)  # (N,)
    columns = z * (weight / weight.mean().clamp(min=1e-30)).sqrt()[:, None]
    alpha, within = torch.linalg.eigh(columns.T @ columns / len(z))  # (D,), (D, D)
    beta = beta.clamp(min=1e-6 * float(beta[-1]) + 1e-30)
    alpha = alpha.clamp(min=10 * torch.finfo(z.dtype).eps * float(alpha[-1]) + 1e-30)

    def solve(g: Tensor) -> Tensor:
        turned = between.T @ g
        weights = (turned[:, :-1] @ within / (beta[:, None] * alpha + penalty)) @ within.T
        x = between @ torch.cat([weights, turned[:, -1:] / beta[:, None]], dim=1)
        return x - x.mean(dim=0)  # the same change of all classes changes no probability

    return solve


def _descend(
    z: Tensor,
    labels: Tensor,
    parameters: Tensor,
    solve: Callable[[Tensor], Tensor],
    penalty: float,
    iterations: int,
    tolerance: float,
) -> Tensor:
    """L-BFGS [Nocedal & Wright, 2006, algorithm 7.4] whose first guess of the inverse Hessian is `solve`.

    Along a line the logits are linear, so that steps are searched without a product with z.  Ends when the decrease
    that the quadratic model predicts is at most `tolerance`, when rounding leaves none, or after so many iterations.
    """
    n, columns = len(z), torch.arange(len(z), device=z.device)
    shrink = torch.full_like(parameters, penalty)
    shrink[:, -1] = 0

    def probabilities(logits: Tensor) -> tuple[Tensor, Tensor]:
        p = logits.softmax(dim=0)
        error = p.clone()  # ∂loss/∂logits · N
        error[labels, columns] -= 1
        return p, error

    def gradient(error: Tensor, parameters: Tensor) -> Tensor:
        # the thin matrix first: z.T @ error.T is several times slower in some libraries
        return torch.cat([error @ z, error.sum(dim=1, keepdim=True)], dim=1) / n + shrink * parameters

    logits = _logits(z, parameters)
    g = gradient(probabilities(logits)[1], parameters)
    memory: list[tuple[Tensor, Tensor, Tensor]] = []  # steps s, changes of the gradient y, 1 / sᵀy; the newest last
    for _ in range(iterations):
        direction, factors = -g, []
        for s, y, rho in reversed(memory):
            factors.append(rho * (s * direction).sum())
            direction = direction - factors[-1] * y
        direction = solve(direction)
        if memory:
            _, y, rho = memory[-1]
            direction = direction / (rho * (y * solve(y)).sum())
        for (s, y, rho), factor in zip(memory, reversed(factors), strict=True):
            direction = direction + (factor - rho * (y * direction).sum()) * s
        slope = float((g * direction).sum())
        if not -slope > 2 * tolerance:
            break
        change = _logits(z, direction)
        linear = float((shrink * parameters * direction).sum())
        square = float((shrink * direction * direction).sum())
        low, high, step = 0.0, torch.inf, 1.0
        for _ in range(30):  # Newton's method for a zero of the slope, kept between low and high
            p, error = probabilities(logits + step * change)
            first = float((error * change).sum()) / n + linear + step * square
            if abs(first) <= 0.2 * abs(slope):
                break
            second = float((p * (change - (p * change).sum(dim=0)).square()).sum()) / n + square
            low, high = (step, high) if first < 0 else (low, step)
            most = min(high, 5 * low + 1)
            step = step - first / second if second > 0 else most
            step = step if low < step < most else (low + most) / 2 if high < torch.inf else most
        s = step * direction
        parameters, logits = parameters + s, logits + step * change
        new = gradient(error, parameters)
        y, g = new - g, new
        if float((s * y).sum()) > 0:
            memory = [*memory[1 - _MEMORY :], (s, y, 1 / (s * y).sum())]
    return parameters
