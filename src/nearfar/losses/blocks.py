"""Log-sum-exps of the similarities of all pairs of rows, exact, without holding all pairs.

Scores are computed block by block and thrown away; the backward pass computes them again.  Memory grows with the number
of rows, not of pairs.  What fits in one block is left to the plain formula, which is differentiable twice.
Both functions are exact at every scale of the scores; `bound`, a number that no |score| exceeds (unit rows over a
temperature: its inverse), only saves work: where exp(±bound) can be held, no maxima have to be followed.
Sums are taken in the dtype of the rows: callers widen half precision, and switch autocast off.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = {"cpu": 2**18}  # scores in a block, by type of device: on a CPU it stays in the cache,
_BLOCK_ELSEWHERE = 2**24  # on an accelerator it is large enough to hide the cost of starting a kernel


def cross(a: Tensor, b: Tensor, skip: Tensor | None = None, bound: float = math.inf) -> Tensor:
    """log Σ_{j ≠ skip_i} exp(a_i·b_j): (N, D), (M, D), and (N,) columns to leave out or None -> (N,).

    −inf where there is no other column.
    """
    if len(a) * len(b) <= _block(a.device):
        scores = a @ b.T  # (N, M)
        if skip is None:
            return scores.logsumexp(dim=1)
        left_out = torch.arange(len(b), device=b.device) == skip[:, None]
        return _masked_logsumexp(scores, left_out)
    return _Cross.apply(a, b, skip, _holds(bound, a.dtype))


def among(z: Tensor, offsets: tuple[int, ...] = (0,), labels: Tensor | None = None, bound: float = math.inf) -> Tensor:
    """log Σ_j exp(z_i·z_j) over rows j of the same z: (N, D) -> (N,); −inf for no row.

    Left out are j − i in `offsets` (a set that holds −o with every o, so that the pairs are symmetric) and, if labels
    (N,) in the dtype of z are given, all rows of another label.  Every block serves its rows and its columns, which is
    half the work of `cross`.
    """
    n = len(z)
    if n * n <= _block(z.device):
        left_out = torch.zeros(n, n, dtype=torch.bool, device=z.device)
        for offset in offsets:
            left_out.diagonal(offset).fill_(True)
        if labels is not None:
            left_out |= labels[:, None] != labels
        return _masked_logsumexp(z @ z.T, left_out)
    return _Among.apply(z, offsets, labels, _holds(bound, z.dtype))


def _block(device: torch.device) -> int:
    return BLOCK.get(device.type, _BLOCK_ELSEWHERE)


def _holds(bound: float, dtype: torch.dtype) -> bool:
    """Whether products of exp(±bound) with one another and with sums of many stay clear of overflow and underflow."""
    return bound <= 0.45 * math.log(torch.finfo(dtype).max)  # float32: 39.9


def _masked_logsumexp(scores: Tensor, left_out: Tensor) -> Tensor:
    empty = left_out.all(dim=1)  # logsumexp of nothing is −inf, but its gradient NaN
    logits = scores.masked_fill(left_out & ~empty[:, None], -torch.inf)
    return logits.logsumexp(dim=1).masked_fill(empty, -torch.inf)


# ---------------------------------------------------------------------------------------------- in blocks
class _Sums:
    """Σ exp of scores for every row, as total · exp(top): top follows the largest score seen, or stays 0 if bounded."""

    def __init__(self, n: int, like: Tensor, bounded: bool):
        self.bounded = bounded
        self.top = like.new_full((n,), 0.0 if bounded else torch.finfo(like.dtype).min)
        self.total = like.new_zeros(n)

    def add(self, rows: slice, scores: Tensor, dim: int, work: Tensor) -> None:
        """Sum `scores` over dim into `rows`; `scores` are exponentials already if bounded."""
        top, total = self.top[rows], self.total[rows]
        if self.bounded:
            total += scores.sum(dim=dim)
            return
        higher = torch.maximum(top, scores.amax(dim=dim))
        total *= (top - higher).exp_()
        top.copy_(higher)
        total += _exp_(torch.sub(scores, higher.unsqueeze(dim), out=work)).sum(dim=dim)

    def log(self) -> Tensor:
        result = self.top + self.total.log()
        return result.masked_fill_(result < -torch.finfo(result.dtype).max / 16, -torch.inf)  # nothing but left out


def _exp_(scores: Tensor) -> Tensor:
    """exp in place of scores from which their largest, or their log-sum-exp, was taken; at least 1e-27 in float32.

    No sum can feel that floor, and on a CPU results that underflow take a hundred times as long as others.
    """
    return scores.clamp_(min=0.7 * math.log(torch.finfo(scores.dtype).tiny)).exp_()


class _Buffers:
    """Room for blocks, taken once: fresh memory for every block would cost as much as the exponentials."""

    def __init__(self, like: Tensor, rows: int, columns: int, count: int):
        self.flat = [like.new_empty(rows * columns) for _ in range(count)]

    def shaped(self, rows: slice, columns: slice) -> list[Tensor]:
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        return [flat[: shape[0] * shape[1]].view(shape) for flat in self.flat]


def _slices(n: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


class _Cross(torch.autograd.Function):
    @staticmethod
    def forward(a: Tensor, b: Tensor, skip: Tensor | None, bounded: bool) -> Tensor:
        sums = _Sums(len(a), a, bounded)
        for rows, _, scores, work in _cross_blocks(a, b, skip, bounded, 2):
            sums.add(rows, scores, 1, work)
        return sums.log()

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        a, b, skip, ctx.bounded = inputs
        ctx.save_for_backward(a, b, skip, output)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):  # of the softmax p_ij: Σ_j g_i p_ij b_j and Σ_i g_i p_ij a_i
        a, b, skip, result = ctx.saved_tensors
        wants_a, wants_b = ctx.needs_input_grad[:2]
        with torch.autocast(a.device.type, enabled=False):
            result = result.masked_fill(result == -torch.inf, 0)  # nothing summed: its scores are hugely negative
            weight = (gradient * (-result).exp() if ctx.bounded else gradient)[:, None]  # (N, 1)
            gradient_a, gradient_b = torch.zeros_like(a), torch.zeros_like(b) if wants_b else None
            weighted = weight * a if wants_b else None
            for rows, columns, scores in _cross_blocks(a, b, skip, ctx.bounded, 1):
                if not ctx.bounded:
                    _exp_(scores.sub_(result[rows, None]))
                if wants_a:
                    gradient_a[rows].addmm_(scores, b[columns])
                if wants_b:
                    gradient_b[columns].addmm_(scores.T, weighted[rows])
            return gradient_a.mul_(weight) if wants_a else None, gradient_b, None, None


def _cross_blocks(a: Tensor, b: Tensor, skip: Tensor | None, bounded: bool, buffers: int) -> Iterator[tuple]:
    """(rows, columns, scores, exponentials already if bounded, and more room of that shape) for every block."""
    (n, m), size = (len(a), len(b)), _block(a.device)
    height = min(n, math.isqrt(size))
    width = min(m, size // height)
    height = min(n, size // width)
    room = _Buffers(a, height, width, buffers)
    for columns in _slices(m, width):
        part = b[columns].T
        for rows in _slices(n, height):
            scores, *more = room.shaped(rows, columns)
            torch.mm(a[rows], part, out=scores)
            if skip is not None:
                local = (skip[rows] - columns.start)[:, None]  # (rows, 1)
                inside = (local >= 0) & (local < scores.shape[1])
                local = local.clamp(0, scores.shape[1] - 1)
                scores.scatter_(1, local, scores.gather(1, local).masked_fill_(inside, -torch.inf))
            if bounded:
                scores.exp_()
            yield rows, columns, scores, *more


class _Among(torch.autograd.Function):
    @staticmethod
    def forward(z: Tensor, offsets: tuple[int, ...], labels: Tensor | None, bounded: bool) -> Tensor:
        sums = _Sums(len(z), z, bounded)
        for rows, columns, scores, work in _among_blocks(z, offsets, labels, bounded):
            sums.add(rows, scores, 1, work)
            if rows != columns:
                sums.add(columns, scores, 0, work)
        return sums.log()

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        z, ctx.offsets, labels, ctx.bounded = inputs
        ctx.save_for_backward(z, labels, output)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):  # with the softmax p_ij: Σ_j (g_i p_ij + g_j p_ji) z_j
        z, labels, result = ctx.saved_tensors
        with torch.autocast(z.device.type, enabled=False):
            result = result.masked_fill(result == -torch.inf, 0)
            weight = gradient * (-result).exp() if ctx.bounded else gradient  # (N,)
            total = torch.zeros_like(z)
            for rows, columns, scores, work in _among_blocks(z, ctx.offsets, labels, ctx.bounded):
                if ctx.bounded:
                    torch.add(weight[rows, None], weight[columns], out=work)
                    scores.mul_(work)
                else:
                    _exp_(torch.sub(scores, result[rows, None], out=work)).mul_(weight[rows, None])
                    _exp_(scores.sub_(result[columns])).mul_(weight[columns]).add_(work)
                total[rows].addmm_(scores, z[columns])
                if rows != columns:
                    total[columns].addmm_(scores.T, z[rows])
            return total, None, None, None


def _among_blocks(z: Tensor, offsets: tuple[int, ...], labels: Tensor | None, bounded: bool) -> Iterator[tuple]:
    """As _cross_blocks, of z and z, on and above the diagonal."""
    side = min(len(z), math.isqrt(_block(z.device)))
    room = _Buffers(z, side, side, 2)
    for columns in _slices(len(z), side):
        part = z[columns].T
        for rows in _slices(columns.stop, side):
            scores, work = room.shaped(rows, columns)
            torch.mm(z[rows], part, out=scores)
            for offset in offsets:
                local = offset + rows.start - columns.start  # counted from this block's corner
                if -scores.shape[0] < local < scores.shape[1]:
                    scores.diagonal(local).fill_(-torch.inf)
            if bounded:
                scores.exp_()
            if labels is not None:  # by arithmetic, which is much faster than masks
                pair = labels[rows, None], labels[columns]
                if bounded:
                    scores.mul_(torch.eq(*pair, out=work))
                else:
                    scores.sub_(torch.ne(*pair, out=work), alpha=torch.finfo(z.dtype).max / 8)
            yield rows, columns, scores, work
