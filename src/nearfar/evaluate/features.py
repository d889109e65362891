"""Measures on features and their neighbours: kNN, clusters, retrieval, alignment and uniformity."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar import nn
from nearfar.evaluate.neighbours import nearest, rows_per_block
from nearfar.evaluate.tables import check_size

_TABLE = 2**20  # cells of a table of labels and clusters from which absent ones are left out


# ---------------------------------------------------------------------------------------------- neighbours
@torch.no_grad()
def knn_predict(
    train_z: Tensor,
    train_y: Tensor,
    test_z: Tensor,
    k: int = 20,
    temperature: float | None = None,
    classes: int | None = None,
) -> Tensor:
    """Labels (M,) for test_z by a vote of the k training features of highest cosine.

    train_z: (N, D), train_y: (N,) from zero, test_z: (M, D).  temperature None: one vote each; a tie goes to the
    smallest label.  Else a vote weighs exp(cosine/temperature) [Wu et al., 2018, sec. 3.4; they use 0.07].
    On the CPU cosines are compared as neighbours.nearest has them; of equal ones at the k-th place the first training
    rows are taken.  Made in blocks, so that memory stays at some 100 MB, whatever the labels' numbers.
    classes: where given, labels must lie below it; a class without training rows is never predicted.
    Raises ValueError for fewer than k training rows, labels out of range, other shapes, NaN or zero features.
    """
    bank, queries = nn.prepare_features(True, train_z=train_z, test_z=test_z)
    nn.check_labels("train_y", train_y, len(bank), classes)
    if not 1 <= k <= len(train_z):
        raise ValueError(f"k must lie in 1 .. {len(train_z)} (the number of training rows), got {k}")
    if temperature is not None and not temperature > 0:
        raise ValueError(f"temperature must be greater than zero, got {temperature}")
    similarity, index = nearest(queries, bank, k)  # (M, k) both
    # subtracting the largest cosine leaves the argmax as it is and keeps the exponential from overflowing
    if temperature is None:
        weight = torch.ones_like(similarity)
    else:
        weight = similarity.sub_(similarity[:, :1].clone()).div_(temperature).exp_()
    labels = train_y.long()[index]  # (M, k)
    ordered = labels.sort(dim=1).values
    place = torch.searchsorted(ordered, labels)  # of each neighbour's label, the first among equal ones
    votes = torch.zeros_like(weight).scatter_add_(1, place, weight)  # (M, k)
    return ordered.gather(1, votes.argmax(dim=1, keepdim=True))[:, 0]


def knn_accuracy(
    train_z: Tensor,
    train_y: Tensor,
    test_z: Tensor,
    test_y: Tensor,
    k: int = 20,
    temperature: float | None = None,
    classes: int | None = None,
) -> Tensor:
    """Share of test rows whose kNN prediction is right, 0-d float64; arguments as knn_predict, and test_y: (M,)."""
    nn.check_labels("test_y", test_y, len(test_z))
    return (knn_predict(train_z, train_y, test_z, k, temperature, classes) == test_y).double().mean()


# ---------------------------------------------------------------------------------------------- clusters
def _contingency(labels: Tensor, clusters: Tensor) -> Tensor:
    """Counts (L, K) of samples by label and cluster; float64.  Of large tables only rows and columns that occur."""
    nn.check_labels("clusters", clusters, len(clusters))
    nn.check_labels("labels", labels, len(clusters))
    if len(labels) == 0:
        raise ValueError("labels is empty")
    rows, columns = int(labels.max()) + 1, int(clusters.max()) + 1
    if rows * columns > _TABLE:
        labels, clusters = (values.unique(return_inverse=True)[1] for values in (labels, clusters))
        rows, columns = int(labels.max()) + 1, int(clusters.max()) + 1
        check_size("labels and clusters", rows, columns)
    cells = labels.long() * columns + clusters.long()
    return torch.bincount(cells, minlength=rows * columns).view(rows, columns).double()


def clustering_accuracy(labels: Tensor, clusters: Tensor) -> Tensor:
    """Accuracy under the best one-to-one match of clusters and labels (Hungarian algorithm); 0-d float64.

    labels, clusters: (N,) integers from zero.  Samples in clusters without a label of their own count as wrong; numbers
    that do not occur change nothing.  The match is made on the CPU (scipy).
    Raises ValueError for other shapes, negative numbers, or more different values than a table can hold.
    """
    from scipy.optimize import linear_sum_assignment

    counts = _contingency(labels, clusters)
    rows, columns = linear_sum_assignment(counts.cpu().numpy(), maximize=True)
    return counts[torch.as_tensor(rows), torch.as_tensor(columns)].sum() / len(labels)


def nmi(labels: Tensor, clusters: Tensor) -> Tensor:
    """Normalised mutual information 2 I(L; K) / (H(L) + H(K)), 0-d float64 in [0, 1]; one for two single groups.

    labels, clusters: (N,) integers from zero; numbers that do not occur change nothing.
    Raises ValueError for other shapes, negative numbers, or more different values than a table can hold.
    """
    joint = _contingency(labels, clusters) / len(labels)  # (L, K)
    p, q = joint.sum(dim=1), joint.sum(dim=0)
    information = torch.special.entr(p).sum() + torch.special.entr(q).sum() - torch.special.entr(joint).sum()
    entropies = torch.special.entr(p).sum() + torch.special.entr(q).sum()
    return (2 * information / entropies).clamp(0, 1) if entropies > 0 else torch.ones_like(entropies)


# ---------------------------------------------------------------------------------------------- retrieval
def _search(query_z, query_y, gallery_z, gallery_y, k: int) -> tuple[Tensor, Tensor, Tensor, bool]:
    """Check a retrieval problem: unit queries, unit gallery, the gallery's labels, and whether it is the queries."""
    leave_out = gallery_z is None
    if leave_out != (gallery_y is None):
        raise ValueError("gallery_z and gallery_y go together: give both, or neither to search among the queries")
    if leave_out:
        gallery_z, gallery_y = query_z, query_y
    queries, gallery = nn.prepare_features(True, query_z=query_z, gallery_z=gallery_z)
    nn.check_labels("query_y", query_y, len(query_z))
    nn.check_labels("gallery_y", gallery_y, len(gallery_z))
    size = len(gallery_z) - leave_out
    if not 1 <= k <= size:
        raise ValueError(f"k must lie in 1 .. {size} (the number of items to search in), got {k}")
    return queries, gallery, gallery_y, leave_out


def _ascending(values: Tensor) -> Tensor:
    """Rows sorted; on the CPU by numpy, which is up to 20 times faster where no indices are asked for."""
    if values.device.type == "cpu" and nn.readable(values):
        values.numpy().sort(axis=1)
        return values
    return values.sort(dim=1).values


@torch.no_grad()
def retrieval_map(
    query_z: Tensor, query_y: Tensor, gallery_z: Tensor | None = None, gallery_y: Tensor | None = None
) -> Tensor:
    """Mean average precision of retrieval by cosine over the whole gallery; 0-d float64.

    query_z: (M, D), query_y: (M,), gallery_z: (G, D), gallery_y: (G,); without a gallery each query searches among the
    others.  AP = mean over relevant items (same label) of the precision at their cosine, so that equal cosines share
    one precision (as in scikit-learn); queries without a relevant item are left out (NaN if there is none at all).
    Raises ValueError for other shapes, NaN or zero features.
    """
    queries, gallery, gallery_y, leave_out = _search(query_z, query_y, gallery_z, gallery_y, 1)
    rows, total, counted = rows_per_block(3 * len(gallery)), 0.0, 0
    for start in range(0, len(queries), rows):
        similarity = queries[start : start + rows] @ gallery.T  # (B, G)
        relevant = gallery_y == query_y[start : start + rows, None]
        if leave_out:
            similarity.diagonal(start).fill_(-torch.inf)  # a query does not find itself
            relevant.diagonal(start).fill_(False)
        found = relevant.sum(dim=1)
        most = int(found.max()) if nn.readable(found) else len(gallery)
        scores = _ascending(similarity.masked_fill(~relevant, -torch.inf))[:, len(gallery) - most :].contiguous()
        ahead = most - torch.searchsorted(scores, scores)  # (B, most): relevant items with this cosine or more …
        everything = len(gallery) - torch.searchsorted(_ascending(similarity), scores)  # … and all such items
        precision = (ahead.double() / everything).masked_fill_(scores == -torch.inf, 0)
        total = total + (precision.sum(dim=1) / found.clamp(min=1)).sum()
        counted = counted + (found > 0).sum()
    return total / counted


@torch.no_grad()
def recall_at_k(
    query_z: Tensor, query_y: Tensor, gallery_z: Tensor | None = None, gallery_y: Tensor | None = None, k: int = 1
) -> Tensor:
    """Share of queries with at least one item of their label among the k of highest cosine; 0-d float64.

    This is Recall@k of metric learning (a hit rate).  Arguments and errors as retrieval_map; k: at most the gallery.
    """
    queries, gallery, gallery_y, leave_out = _search(query_z, query_y, gallery_z, gallery_y, k)
    index = nearest(queries, gallery, k + leave_out)[1]
    hit = gallery_y[index] == query_y[:, None]  # (M, k or, with the query itself, k + 1)
    if leave_out:  # without the query; where it is not among the k + 1, without the last
        own = index == torch.arange(len(queries), device=index.device)[:, None]
        own[:, -1] |= ~own.any(dim=1)
        hit &= ~own
    return hit.any(dim=1).double().mean()


# ---------------------------------------------------------------------------------------------- geometry
def uniformity(z: Tensor, t: float = 2.0, normalise: bool = True) -> Tensor:
    """log mean over pairs i < j of exp(−t ‖z_i − z_j‖²) [Wang & Isola, 2020, L_uniform]; lower is more uniform.

    z: (N, D), N ≥ 2, scaled to unit length unless told not to.  Made in blocks; differentiable.
    Raises ValueError for t ≤ 0, N < 2, NaN or (if normalised) zero features.
    """
    (z,) = nn.prepare_features(normalise, z=z)
    if not t > 0:
        raise ValueError(f"t must be greater than zero, got {t}")
    if len(z) < 2:
        raise ValueError("z: a single row has no pairs; give two or more")
    n, rows = len(z), rows_per_block(len(z))
    squares = z.square().sum(dim=1)  # (N,)
    parts = []
    for start in range(0, n, rows):
        block = z[start : start + rows]
        distance = (squares[start : start + rows, None] + squares - 2 * block @ z.T).clamp(min=0)  # (B, N)
        lower = torch.ones_like(distance, dtype=torch.bool).tril(start)  # pairs with j ≤ i, and i itself
        parts.append((-t * distance).masked_fill(lower, -torch.inf).flatten().logsumexp(dim=0))
    pairs = torch.tensor(n * (n - 1) / 2, dtype=z.dtype, device=z.device)
    return torch.stack(parts).logsumexp(dim=0) - pairs.log()


def alignment(z_a: Tensor, z_b: Tensor, alpha: float = 2.0, normalise: bool = True) -> Tensor:
    """Mean of ‖z_a_i − z_b_i‖^α over positive pairs [Wang & Isola, 2020, L_align]; lower is better aligned.

    z_a, z_b: (N, D), scaled to unit length unless told not to.  Differentiable.
    Raises ValueError for alpha ≤ 0, other shapes, NaN or (if normalised) zero features.
    """
    z_a, z_b = nn.prepare_features(normalise, z_a=z_a, z_b=z_b)
    if len(z_a) != len(z_b):
        raise ValueError(f"z_b must have the {len(z_a)} rows of z_a, got {len(z_b)}")
    if not alpha > 0:
        raise ValueError(f"alpha must be greater than zero, got {alpha}")
    return (z_a - z_b).norm(dim=1).pow(alpha).mean()
