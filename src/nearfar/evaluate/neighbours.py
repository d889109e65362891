"""Exact nearest neighbours by inner product, screened in a lower precision where that is faster."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar import nn

_BLOCK = 2**24  # numbers in one block of a similarity matrix
_SCREEN = 2**28  # multiplications from which screening is faster than computing everything exactly
_GROUP = 32  # similarities of which only the largest is looked at first


def rows_per_block(columns: int) -> int:
    """How many rows of a matrix with so many columns make one block."""
    return max(1, _BLOCK // max(1, columns))


@torch.no_grad()
def nearest(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k rows of bank with the largest inner product with each query: values and indices, (M, k), best first.

    queries: (M, D), bank: (N, D), k ≤ N; memory stays at some 100 MB.  On the CPU, inner products of float32 rows are
    summed in float64 and rounded once, and of equal ones at the k-th place the first rows of bank are taken.  So the
    result is that of this exact computation however it was found: large problems are screened (see _screen).
    """
    if queries.device.type != "cpu" or not nn.readable(queries) or queries.dtype not in (torch.float32, torch.float64):
        found = [(rows @ bank.T).topk(k, dim=1) for rows in queries.split(rows_per_block(len(bank)))]
        return torch.cat([values for values, _ in found]), torch.cat([index for _, index in found])
    values, index = queries.new_empty(len(queries), k), torch.empty(len(queries), k, dtype=torch.long)
    pending = torch.arange(len(queries))  # queries that are not answered yet
    if queries.dtype == torch.float32 and len(bank) >= 4 * _GROUP * k:
        for precision in (torch.bfloat16, torch.float32) if _fast_bfloat16() else (torch.float32,):
            if len(pending) and len(pending) * bank.numel() >= _SCREEN:
                pending = _screen(queries, bank, k, precision, pending, values, index)
    if len(pending):
        exact = bank.double().T
        for rows in pending.split(max(1, rows_per_block(len(bank)) // 2)):
            values[rows], index[rows] = _first_largest((queries[rows].double() @ exact).to(queries), k)
    return values, index


def _first_largest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """topk along the columns of a matrix that takes the first of equal values: values and indices, (rows, k)."""
    top, index = values.topk(k, dim=1)
    last = top[:, -1:]
    tied = (values >= last).sum(dim=1) > k
    if tied.any():
        rows, last = values[tied], last[tied]
        above, equal = rows > last, rows == last
        keep = above | (equal & (equal.cumsum(dim=1) <= k - above.sum(dim=1, keepdim=True)))
        kept = keep.nonzero()[:, 1].view(len(rows), k)
        order = rows.gather(1, kept).sort(dim=1, descending=True, stable=True).indices
        index[tied] = kept.gather(1, order)
    return top, index


def _fast_bfloat16() -> bool:
    """Whether this CPU has matrix instructions for bfloat16 (AMX)."""
    check = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return check is not None and check()


def _screen(
    queries: Tensor, bank: Tensor, k: int, precision: torch.dtype, pending: Tensor, values: Tensor, index: Tensor
) -> Tensor:
    """Answer the pending queries by approximate inner products, a bound of their error, and exact ones of the rest.

    Neighbours by q·b are neighbours by q·c, c = b − mean.  With q', c' rounded to `precision`, the approximation is off
    by at most  ε = ‖q − q'‖ ‖c'‖ + ‖q‖ ‖c − c'‖ + γ ‖q‖ ‖c‖  (Cauchy-Schwarz; γ: its sums are float32), and a
    relative δ for rounding it; ε has 2⁻²⁴ ‖q‖ ‖b‖ more, by which exact products change when they are rounded.
    Of the k groups of rows with the largest approximations, each group's best is computed in float32: with u the least
    that the smallest of these k products can be, less q·mean, rows whose approximation is below (u − ε)(1 − δ) are none
    of the k nearest.  Only groups that reach this bound are searched for the others; those are compared in float32, and
    what that leaves (with its own bound) is computed exactly.
    Fills in rows of values and index; returns the queries with too many such rows, or a bound that is not positive.
    """
    (n, d), mean = bank.shape, bank.mean(dim=0)
    width = -(-n // (64 * _GROUP)) * 64  # group g: columns g, g + width, g + 2 · width, …
    integer = torch.int16 if precision == torch.bfloat16 else torch.int32
    delta, gamma = torch.finfo(precision).eps, (d + 8) * 2.0**-23
    rounded = torch.zeros(d, width * _GROUP, dtype=precision)
    spread = off = reach = 0.0  # the largest ‖c‖, ‖c − c'‖ and ‖b‖
    for start in range(0, n, 2048):
        c = bank[start : start + 2048] - mean
        r = c.to(precision)
        rounded[:, start : start + len(c)] = r.T
        spread = max(spread, float(c.norm(dim=1).max()))
        off = max(off, float((c - r).norm(dim=1).max()))
        reach = max(reach, float(bank[start : start + 2048].norm(dim=1).max()))
    most = max(4 * k, n // 64)  # with more candidates, the next precision is faster
    left, block = [], max(1, min(len(pending), rows_per_block(n) * 4 // rounded.element_size()))
    buffer = rounded.new_empty(block, rounded.shape[1])
    for chosen in pending.split(block):
        q = queries[chosen]
        r = q.to(precision)
        similarity = torch.mm(r, rounded, out=buffer[: len(q)])  # (B, width · group)
        similarity[:, n:] = -torch.inf
        similarity = similarity.view(len(q), _GROUP, width)
        # positive floats are ordered as their bits are, which are faster to compare; bounds below are positive
        largest = similarity.view(integer).amax(dim=1).view(precision).float()
        norm = q.norm(dim=1, keepdim=True)
        epsilon = (q - r).norm(dim=1, keepdim=True) * (spread + off) + norm * (off + gamma * spread)
        epsilon = 1.01 * (epsilon + norm * reach * 2**-24) + 1e-30
        group = largest.topk(k, dim=1).indices  # (B, k)
        slack = 1.01 * gamma * norm * reach  # the error of products in float32
        best = similarity.gather(2, group[:, None].expand(-1, _GROUP, -1)).argmax(dim=1) * width + group
        u = _products(q, bank, best.clamp_(max=n)).amin(dim=1, keepdim=True) - slack
        u = u - (q.double() @ mean.double())[:, None]
        bound = ((u - epsilon) * (1 - delta)).float()  # (B, 1)
        reached = largest >= bound
        hard = (reached.sum(dim=1) > most) | (bound[:, 0] <= 0)
        row, group = (reached & ~hard[:, None]).nonzero(as_tuple=True)
        entry, member = (similarity[row, :, group] >= bound[row]).nonzero(as_tuple=True)
        row, column = row[entry], member * width + group[entry]
        counts = row.bincount(minlength=len(q))
        hard |= counts > most
        left.append(chosen[hard])
        if not hard.all():
            easy, column = chosen[~hard], column[~hard[row]]
            places = torch.arange(int(counts[~hard].max())) < counts[~hard, None]
            table = torch.full(places.shape, n).masked_scatter_(places, column).sort(dim=1).values
            rough = _products(queries[easy], bank, table)
            far = rough < rough.topk(k, dim=1).values[:, -1:] - 3 * slack[~hard]
            table = table.masked_fill_(far, n).sort(dim=1).values[:, : int((~far & (table < n)).sum(dim=1).max())]
            exact = _products(queries[easy], bank, table, torch.float64)
            exact, order = exact.sort(dim=1, descending=True, stable=True)
            values[easy], index[easy] = exact[:, :k], table.gather(1, order[:, :k])
    return torch.cat(left)


def _products(queries: Tensor, bank: Tensor, table: Tensor, precision: torch.dtype = torch.float32) -> Tensor:
    """queries[i]·bank[table[i, j]], summed in `precision`; −∞ where table holds len(bank)."""
    n, d = bank.shape
    counts = (table < n).sum(dim=1)
    products = queries.new_full(table.shape, -torch.inf)
    for chosen in counts.argsort().split(max(1, 2**17 * len(queries) // (int(counts.sum()) * d))):
        q, columns = queries[chosen], table[chosen, : int(counts[chosen[-1]])]
        rows = bank.index_select(0, columns.flatten().clamp(max=n - 1)).view(*columns.shape, d)
        products[chosen, : columns.shape[1]] = torch.bmm(rows.to(precision), q.to(precision)[:, :, None])[:, :, 0].to(q)
    return products.masked_fill_(table == n, -torch.inf)
