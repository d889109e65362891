"""WhitenedCSE's method cells against loop transcriptions, hand values, identities and limits of the paper."""

import math

import pytest
import torch
from vectors import chance, unit

import nearfar
from nearfar import losses

white = nearfar.method("whitenedcse")
M, N, D, G, TAU = 3, 24, 12, 3, 0.05
EYE = torch.eye(D // G, dtype=torch.float64)


def correlated(*shape, seed=0):
    """Anisotropic rows off the origin, float64; the spectrum is distinct."""
    mixing = torch.randn(shape[-1], shape[-1], dtype=torch.float64, generator=chance(99))
    return torch.randn(*shape, dtype=torch.float64, generator=chance(seed)) @ mixing + 3


def inverse_root(Sigma, eps):
    """(Σ + ε)^(−1/2) by the iteration of Denman and Beavers: no eigenvectors."""
    Y, Z = Sigma + eps * torch.eye(len(Sigma), dtype=Sigma.dtype), torch.eye(len(Sigma), dtype=Sigma.dtype)
    for _ in range(60):
        Y, Z = (Y + torch.linalg.inv(Z)) / 2, (Z + torch.linalg.inv(Y)) / 2
    return Z


def by_loop(X, groups, permutation=None, eps=0.0, whitening="zca"):
    """One view (N, D), as it is told: permute, cut, centre, whiten, undo."""
    n, channels = X.shape
    order = list(range(channels)) if permutation is None else permutation.tolist()
    d = channels // groups
    result = torch.empty_like(X)
    for g in range(groups):
        mine = order[g * d : (g + 1) * d]
        part = torch.stack([X[:, c] - sum(X[:, c]) / n for c in mine], dim=1)
        entries = [[sum(part[:, a] * part[:, b]).item() / n for b in range(d)] for a in range(d)]
        Sigma = torch.tensor(entries, dtype=X.dtype)
        if whitening == "zca":
            part = part @ inverse_root(Sigma, eps)
        else:  # forward substitution with the rows of L, sentence by sentence
            L = torch.linalg.cholesky(Sigma + eps * torch.eye(d, dtype=X.dtype))
            solved = torch.zeros_like(part)
            for k in range(d):
                solved[:, k] = (part[:, k] - sum(L[k, j] * solved[:, j] for j in range(k))) / L[k, k]
            part = solved
        for place, channel in enumerate(mine):
            result[:, channel] = part[:, place]
    return result


# ---------------------------------------------------------------------------------------------- eq. (1)
@pytest.mark.parametrize("whitening", ["zca", "cholesky"])
@pytest.mark.parametrize("eps", [0.0, 1e-3])
@pytest.mark.parametrize("shuffled", [False, True])
def test_group_whitening_is_the_formula(whitening, eps, shuffled):
    X, order = correlated(N, D), white.draw_permutations(1, D, chance())[0] if shuffled else None
    found = white.group_whiten(X, G, order, eps=eps, whitening=whitening)
    assert found.dtype == torch.float64
    assert torch.allclose(found, by_loop(X, G, order, eps, whitening), rtol=1e-8, atol=1e-9)


def test_by_hand():
    root = math.sqrt(3)
    corners = torch.tensor([[root, root], [-root, -root], [1, -1], [-1, 1]], dtype=torch.float64)
    W = torch.tensor([[1 / root + 1, 1 / root - 1], [1 / root - 1, 1 / root + 1]], dtype=torch.float64) / 2
    covariance = white.group_covariance(corners, 1)[0]
    assert torch.allclose(covariance, torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64))
    assert torch.allclose(white.whitening_matrix(covariance, 0.0), W)
    lower = torch.tensor([[1 / math.sqrt(2), -1 / math.sqrt(6)], [0, math.sqrt(2 / 3)]], dtype=torch.float64)
    assert torch.allclose(white.whitening_matrix(covariance, 0.0, "cholesky"), lower)
    assert torch.allclose(white.group_whiten(corners, 1, eps=0.0)[0], torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("whitening", ["zca", "cholesky"])
def test_inside_a_group_the_covariance_is_the_identity_and_outside_it_is_not(whitening):
    X, orders = correlated(M, N, D), white.draw_permutations(M, D, chance(1))
    Y = white.shuffled_group_whitening(X, G, orders, eps=0.0, whitening=whitening)
    assert torch.allclose(white.group_covariance(Y, G, orders), EYE.expand(M, G, -1, -1), atol=1e-9)
    assert Y.mean(dim=1).abs().max() < 1e-12
    whole = white.group_covariance(Y, 1)[:, 0]
    assert not torch.allclose(whole, torch.eye(D, dtype=torch.float64), atol=0.1)


def test_one_channel_a_group_is_batch_norm():
    X = correlated(N, D)
    norm = torch.nn.functional.batch_norm(X, None, None, training=True, eps=1e-5)
    assert torch.allclose(white.group_whiten(X, D, eps=1e-5), norm)
    order = white.draw_permutations(1, D, chance())[0]
    assert torch.allclose(white.group_whiten(X, D, order), white.group_whiten(X, D))


def test_one_group_is_full_zca():
    X = correlated(N, D)
    Xc = X - X.mean(dim=0)
    U, s, V = torch.linalg.svd(Xc, full_matrices=False)
    assert torch.allclose(white.group_whiten(X, 1, eps=0.0), math.sqrt(N) * U @ V, atol=1e-8)  # by another way
    order = white.draw_permutations(1, D, chance())[0]
    assert torch.allclose(white.group_whiten(X, 1, order), white.group_whiten(X, 1), atol=1e-8)


def test_the_permutation_is_undone():
    X, order = correlated(N, D), white.draw_permutations(1, D, chance(4))[0]
    Y = white.group_whiten(X, G, order, eps=0.0)
    assert torch.allclose(Y[:, order], white.group_whiten(X[:, order], G, eps=0.0))
    already = white.group_whiten(Y, G, order, eps=0.0)
    assert torch.allclose(already, Y, atol=1e-9)  # whitening twice is whitening once
    correlation = torch.corrcoef(torch.cat([X.T, Y.T]))[:D, D:].diagonal()
    assert (correlation > 0).all()  # channels stay in their places, and ZCA keeps each near itself


def test_invariances():
    X, order = correlated(N, D), white.draw_permutations(1, D, chance(2))[0]
    Y = white.group_whiten(X, G, order, eps=0.0)
    shift = torch.randn(D, dtype=torch.float64, generator=chance(5))
    assert torch.allclose(white.group_whiten(X + 50 * shift, G, order, eps=0.0), Y, atol=1e-8)
    assert torch.allclose(white.group_whiten(7 * X, G, order, eps=0.0), Y, atol=1e-8)
    rows = torch.randperm(N, generator=chance(6))
    assert torch.allclose(white.group_whiten(X[rows], G, order, eps=0.0), Y[rows], atol=1e-8)
    Q = torch.linalg.qr(torch.randn(D, D, dtype=torch.float64, generator=chance(7))).Q
    full = white.group_whiten(X, 1, eps=0.0)
    assert torch.allclose(white.group_whiten(X @ Q, 1, eps=0.0), full @ Q, atol=1e-8)  # ZCA turns with the input


def test_zca_is_nearest_and_symmetric():
    X = correlated(N, D)
    X = X - X.mean(dim=0)
    Sigma = white.group_covariance(X, 1)[0]
    W = white.whitening_matrix(Sigma, 0.0)
    assert torch.allclose(W, W.T) and torch.linalg.eigvalsh(W).min() > 0
    moved = (X @ W - X).square().sum()
    for seed in range(10):
        Q = torch.linalg.qr(torch.randn(D, D, dtype=torch.float64, generator=chance(seed))).Q
        assert (X @ W @ Q - X).square().sum() > moved
    assert (X @ white.whitening_matrix(Sigma, 0.0, "cholesky") - X).square().sum() > moved


# ---------------------------------------------------------------------------------------------- eq. (2)
def through_eigenvectors(Sigma, eps):
    eigenvalues, U = torch.linalg.eigh(Sigma)
    return U @ torch.diag((eigenvalues + eps) ** -0.5) @ U.T


@pytest.mark.parametrize("whitening", ["zca", "cholesky"])
def test_gradients_numerically(whitening):
    X, order = correlated(9, 6).requires_grad_(), white.draw_permutations(1, 6, chance())[0]
    assert torch.autograd.gradcheck(lambda X: white.group_whiten(X, 2, order, eps=1e-3, whitening=whitening), X)


def test_the_gradient_is_that_of_the_eigendecomposition_where_this_has_one():
    Sigma = white.group_covariance(correlated(N, 5), 1)[0]
    slopes = []
    for root in (through_eigenvectors, white.whitening_matrix):
        S = Sigma.clone().requires_grad_()
        weight = torch.randn(5, 5, dtype=torch.float64, generator=chance(1))
        (slope,) = torch.autograd.grad((root(S, 1e-3) * weight).sum(), S)
        slopes.append((slope + slope.T) / 2)
    assert torch.allclose(*slopes, rtol=1e-8)


def test_the_gradient_survives_equal_eigenvalues():
    S = (4 * torch.eye(3, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda S: white.whitening_matrix((S + S.T) / 2, 0.0), S)
    weight = torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]], dtype=torch.float64)
    (slope,) = torch.autograd.grad((white.whitening_matrix(S, 0.0) * weight).sum(), S)
    assert torch.allclose(slope, -(weight + weight.T) / 2 / 16)  # dΣ^(−1/2) = −dΣ / (2 · 4^(3/2))
    (through,) = torch.autograd.grad((through_eigenvectors(S, 0.0) * weight).sum(), S)
    assert not torch.isfinite(through).all()  # what the formula with differences makes of it


def test_a_constant_W_gets_no_gradient():
    X = correlated(N, D).requires_grad_()
    order, weight = white.draw_permutations(1, D, chance())[0], correlated(N, D, seed=3)
    (slope,) = torch.autograd.grad((white.group_whiten(X, G, order, detach_W=True) * weight).sum(), X)
    expected = torch.zeros_like(weight)
    for mine in order.view(G, -1):  # of X̄ W with W as a number: the centred weight times Wᵀ
        W = white.whitening_matrix(white.group_covariance(X.detach()[:, mine], 1)[0])
        expected[:, mine] = (weight - weight.mean(dim=0))[:, mine] @ W.T
    assert torch.allclose(slope, expected, rtol=1e-9)
    (whole,) = torch.autograd.grad((white.group_whiten(X, G, order) * weight).sum(), X)
    assert not torch.allclose(slope, whole)
    assert torch.equal(white.group_whiten(X, G, order, detach_W=True), white.group_whiten(X, G, order))
    blind = (whole * (X - X.mean(dim=0)).detach()).sum()
    assert abs(blind) < 1e-3 * whole.norm()  # the scale of all channels is undone: no slope along it (but for eps)


# ---------------------------------------------------------------------------------------------- eq. (3), views
def test_permutations_are_permutations_and_repeat_with_the_seed():
    orders = white.draw_permutations(4, D, chance(3))
    assert orders.shape == (4, D) and orders.dtype == torch.int64
    assert (orders.sort(dim=1).values == torch.arange(D)).all() and len({tuple(o) for o in orders.tolist()}) == 4
    assert torch.equal(orders, white.draw_permutations(4, D, chance(3)))


def test_each_view_has_its_own_statistics_and_permutation():
    X, orders = correlated(M, N, D), white.draw_permutations(M, D, chance())
    Y = white.shuffled_group_whitening(X, G, orders)
    for m in range(M):
        assert torch.allclose(Y[m], by_loop(X[m], G, orders[m], white.EPS), atol=1e-8)
    fixed = white.shuffled_group_whitening(X, G, None)
    assert torch.allclose(fixed[1], by_loop(X[1], G, None, white.EPS), atol=1e-8)
    shared = white.group_whiten(X, G, orders[0])
    assert torch.allclose(shared[2], by_loop(X[2], G, orders[0], white.EPS), atol=1e-8)


@pytest.mark.parametrize("sentences", [12, 13])  # 13: a cut runs through a sentence
def test_thirds_are_the_official_interleaving(sentences):
    X, orders = correlated(M, sentences, 6), white.draw_permutations(M, 6, chance())
    found = white.shuffled_group_whitening(X, 2, orders, "thirds", eps=1e-4)
    rows = [(i, m) for i in range(sentences) for m in range(M)]  # s0v0, s0v1, s0v2, s1v0, ...
    for part in range(M):
        mine = rows[part * sentences : (part + 1) * sentences]
        expected = by_loop(torch.stack([X[m, i] for i, m in mine]), 2, orders[part], 1e-4)
        for (i, m), row in zip(mine, expected):
            assert torch.allclose(found[m, i], row, atol=1e-8)
    same = X[:1].expand(M, -1, -1)  # no dropout: within a third, all views of a sentence come out alike
    together = white.shuffled_group_whitening(same, 2, orders, "thirds", eps=1e-4)
    assert torch.allclose(together[0, :4], together[2, :4])
    assert not torch.allclose(*white.shuffled_group_whitening(same, 2, orders, eps=1e-4)[:2])


# ---------------------------------------------------------------------------------------------- eqs. (4), (5), head
def cosine(a, b):
    return sum(float(x) * float(y) for x, y in zip(a, b)) / math.sqrt(
        sum(float(x) ** 2 for x in a) * sum(float(y) ** 2 for y in b)
    )


@pytest.mark.parametrize("views", [2, 3, 4])
def test_the_loss_is_the_formula(views):
    z, total = torch.randn(views, 5, 6, dtype=torch.float64, generator=chance(views)), 0.0
    for m in range(1, views):
        for i in range(5):
            scores = [math.exp(cosine(z[0, i], z[m, j]) / TAU) for j in range(5)]
            total -= math.log(scores[i] / sum(scores)) / 5
    assert white.multi_positive_loss(z, TAU).item() == pytest.approx(total, rel=1e-9)
    assert white.multi_positive_loss(z, TAU, "mean").item() == pytest.approx(total / (views - 1), rel=1e-9)


def test_two_views_are_simcse_and_the_loss_by_hand():
    z = unit(2, 7, 6, seed=1)
    assert torch.allclose(white.multi_positive_loss(z, TAU), losses.info_nce(z[0], z[1], temperature=TAU))
    corners = torch.eye(2, dtype=torch.float64).expand(2, 2, 2)
    assert white.multi_positive_loss(corners, 1.0).item() == pytest.approx(math.log(1 + math.exp(-1)))
    scale = torch.tensor([0.5, 2.0], dtype=torch.float64)[:, None, None]
    assert torch.allclose(white.multi_positive_loss(z * scale, TAU), white.multi_positive_loss(z, TAU))


def test_gradient_of_the_loss():
    z = unit(3, 4, 5, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: white.multi_positive_loss(z, 0.5), z)


def test_the_head_is_tanh_of_a_line():
    head, x = white.Head(4, chance()).double(), unit(2, 3, 4)
    for v in range(2):
        for i in range(3):
            for o in range(4):
                line = sum(head.A[o, c].item() * x[v, i, c].item() for c in range(4)) + head.b[o].item()
                assert head(x)[v, i, o].item() == pytest.approx(math.tanh(line), rel=1e-10)
    assert torch.equal(white.Head(4, chance()).A, white.Head(4, chance()).A)
    assert len(list(head.parameters())) == 2 and head.A.abs().max() <= 0.5


def test_whitening_afterwards():
    H, new = correlated(60, 6), correlated(9, 6, seed=8)
    mu, W = white.fit_whitening(H)
    out = (H - mu) @ W
    assert torch.allclose(out.T @ out / 60, torch.eye(6, dtype=torch.float64), atol=1e-9)
    assert torch.allclose(mu, H.mean(dim=0))
    zca = (H - mu) @ white.whitening_matrix(white.group_covariance(H, 1)[0], 0.0)
    assert torch.allclose(out @ out.T, zca @ zca.T, atol=1e-8)  # a rotation apart: the same cosines
    _, W2 = white.fit_whitening(H, k=2)
    assert torch.equal(W2, W[:, :2])
    spread = ((H - mu) @ torch.nn.functional.normalize(W, dim=0)).var(dim=0)
    assert (spread[:-1] > spread[1:]).all()  # largest first
    assert ((new - mu) @ W2).shape == (9, 2)


# ---------------------------------------------------------------------------------------------- types, devices, errors
def test_half_precision_is_whitened_in_single_also_under_autocast():
    X, orders = correlated(M, N, D).float(), white.draw_permutations(M, D, chance())
    assert white.shuffled_group_whitening(X.bfloat16(), G, orders).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        inside, loss = white.shuffled_group_whitening(X, G, orders), white.multi_positive_loss(X, TAU)
    assert torch.equal(inside, white.shuffled_group_whitening(X, G, orders)) and loss.dtype == torch.float32


@pytest.mark.parametrize("layout", ["views", "thirds"])
def test_runs_on_a_fake_gpu(fake_cuda, layout):
    X, orders, head = correlated(M, N, D).float(), white.draw_permutations(M, D, chance()), white.Head(D, chance())
    with fake_cuda as fake:
        X, head = fake(X), fake(head)
        for permutations in (None, fake(orders)):
            x = white.shuffled_group_whitening(X, G, permutations, layout)
            loss = white.multi_positive_loss(head(x), TAU)
            assert x.device.type == loss.device.type == "cuda" and x.shape == X.shape and loss.shape == ()
        assert white.group_whiten(X, G, fake(orders), whitening="cholesky").device.type == "cuda"
        assert all(part.device.type == "cuda" for part in white.fit_whitening(X[0], 3, 1e-5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda X: white.group_whiten(X[0], 5), "G must divide"),
        (lambda X: white.group_whiten(X[0], 0), "G must divide"),
        (lambda X: white.group_whiten(X[0, :4], G, eps=0.0), "N must exceed d"),
        (lambda X: white.group_whiten(X[0, :1], G), "N must exceed d"),
        (lambda X: white.group_whiten(X[0], G, eps=-1.0), "eps"),
        (lambda X: white.group_whiten(X[0], G, whitening="pca"), "whitening"),
        (lambda X: white.group_whiten(X[0], G, torch.zeros(D, dtype=torch.long)), "permutation"),
        (lambda X: white.group_whiten(X[0], G, torch.arange(D - 1)), "permutation"),
        (lambda X: white.group_covariance(X[0], 7), "G must divide"),
        (lambda X: white.shuffled_group_whitening(X[:1], G), "M = 2"),
        (lambda X: white.shuffled_group_whitening(X[0], G), "M = 2"),
        (lambda X: white.shuffled_group_whitening(X, G, layout="halves"), "layout"),
        (lambda X: white.multi_positive_loss(X[:1]), "M = 2"),
        (lambda X: white.multi_positive_loss(X[:, :1]), "N = 2"),
        (lambda X: white.multi_positive_loss(X, 0.0), "tau"),
        (lambda X: white.multi_positive_loss(X, 0.1, "max"), "over_views"),
        (lambda X: white.fit_whitening(X[0], k=13), "k must lie"),
        (lambda X: white.fit_whitening(X[0, :6]), "N must exceed d"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(correlated(M, N, D))
