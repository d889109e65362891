"""BaCon's method cells against loop transcriptions, hand values, identities and limits of the paper."""

import math

import pytest
import torch
from torch import Tensor

import nearfar
from nearfar import losses

m = nearfar.method("bacon")
K, K_OLD = 5, 3


def double(*values) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def draw(*shape, seed=0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def unit(*shape, seed=0) -> Tensor:
    return torch.nn.functional.normalize(draw(*shape, seed=seed), dim=-1)


def softmax(row, scale) -> list[float]:
    powers = [math.exp(x / scale) for x in row]
    return [p / sum(powers) for p in powers]


@pytest.fixture
def o():
    """Logits of two views of seven images, five classes: cosines."""
    return unit(14, 6, seed=1) @ unit(K, 6, seed=2).T


@pytest.fixture
def n_hat():
    return double(40, 6, 19, 25, 3)


# ---------------------------------------------------------------------------------------------- the PL branch
def test_cosine_logits_by_loops():
    h, c = draw(4, 3, seed=3), draw(2, 3, seed=4)
    found = m.cosine_logits(h, c)
    for i in range(4):
        for k in range(2):
            lengths = math.sqrt(float(h[i] @ h[i])) * math.sqrt(float(c[k] @ c[k]))
            assert math.isclose(found[i, k], float(h[i] @ c[k]) / lengths, rel_tol=1e-12)
    assert torch.allclose(m.cosine_logits(7 * h, 0.1 * c), found, rtol=1e-12)


@pytest.mark.parametrize("tau", [0.1, 0.5])
def test_supervised_loss_by_loops(o, tau):
    y = torch.tensor([0, 2, 1, 0] * 3 + [2, 2])
    expected = -sum(math.log(softmax(o[i].tolist(), tau)[y[i]]) for i in range(14)) / 14
    assert math.isclose(m.supervised_loss(o, y, tau), expected, rel_tol=1e-12)


def test_teacher_temperature_is_the_linspace_of_the_paper():
    line = torch.linspace(0.07, 0.04, 30, dtype=torch.float64).tolist()
    for epoch in range(30):
        assert math.isclose(m.teacher_temperature(epoch), line[epoch], rel_tol=1e-12)
    assert m.teacher_temperature(30) == m.teacher_temperature(199) == pytest.approx(0.04)
    assert m.teacher_temperature(0) == 0.07 and m.teacher_temperature(5, 11, 1.0, 0.0) == pytest.approx(0.5)


@pytest.mark.parametrize(("views", "tau_t", "tau"), [(2, 0.07, 0.1), (2, 0.04, 0.2), (7, 0.05, 0.1)])
def test_distillation_by_loops(o, views, tau_t, tau):
    B, total, pairs = len(o) // views, 0.0, 0
    for v in range(views):
        for w in range(views):
            if v != w:
                pairs += 1
                for i in range(B):
                    q, p = softmax(o[v * B + i].tolist(), tau_t), softmax(o[w * B + i].tolist(), tau)
                    total -= sum(a * math.log(b) for a, b in zip(q, p)) / B
    assert math.isclose(m.distillation_loss(o, tau_t, tau, views), total / pairs, rel_tol=1e-12)


def test_distillation_by_hand():
    """One view certain, the other undecided: each is the target of the other."""
    o = double([1.0, 0.0], [0.0, 0.0])
    p = 1 / (1 + math.exp(-5))
    expected = (math.log(2) - 0.5 * math.log(p) - 0.5 * math.log(1 - p)) / 2  # the first as target, then the second
    found = m.distillation_loss(o.view(2, 2), tau_t=0.1, tau=0.2)
    assert math.isclose(found, expected, rel_tol=1e-12)


@pytest.mark.parametrize("rho", [0.0, 1.0, 1.1])
@pytest.mark.parametrize("tau", [0.1, 0.3])
def test_matching_loss_by_loops(o, n_hat, rho, tau):
    rows = [softmax(row, tau) for row in o.tolist()]
    p_bar = [sum(row[k] for row in rows) / 14 for k in range(K)]
    ratio = [p / float(n) ** rho for p, n in zip(p_bar, n_hat)]
    p_tilde = [r / sum(ratio) for r in ratio]
    expected = sum(p * math.log(p) for p in p_tilde) + math.log(K)
    assert torch.allclose(m.relative_prediction(o, n_hat, rho, tau).exp(), double(*p_tilde), rtol=1e-12)
    assert math.isclose(m.matching_loss(o, n_hat, rho, tau), expected, rel_tol=1e-9, abs_tol=1e-13)


def test_matching_loss_rests_where_the_prediction_follows_the_counts(o, n_hat):
    at_rest = 0.1 * 1.1 * n_hat.log()[None]
    assert abs(m.matching_loss(at_rest, n_hat)) < 1e-12
    assert m.matching_loss(at_rest, n_hat.flip(0)) > 0.1 and m.matching_loss(o, n_hat) > 0
    mean_entropy = torch.special.entr((o / 0.1).softmax(dim=1).mean(dim=0)).sum()
    equal = m.matching_loss(o, torch.full((K,), 17.0))
    assert torch.allclose(equal, math.log(K) - mean_entropy)  # equal counts: the usual regulariser
    assert torch.allclose(m.matching_loss(o, 100 * n_hat), m.matching_loss(o, n_hat))  # counts or shares


def test_matching_loss_lowers_what_is_over_predicted(n_hat):
    o = torch.zeros(1, K, dtype=torch.float64, requires_grad=True)  # all alike, so rare classes are over-predicted
    (slope,) = torch.autograd.grad(m.matching_loss(o, n_hat, rho=1.0), o)
    assert slope[0, 4] > 0 > slope[0, 0]


def test_total_losses():
    one, two, three = double(1.0, 2.0, 3.0)
    assert math.isclose(m.pl_loss(one, two, three), 0.65 * 3 + 0.35 * 3)
    assert math.isclose(m.pl_loss(one, two, three, lam=0.5, w_me=2.0), 0.5 * 5 + 0.5 * 3)
    assert math.isclose(m.cl_loss(one, two, three), 0.65 + 0.175 * 5)
    assert math.isclose(m.cl_loss(one, two), 0.65 + 0.35 * 2)  # the warm-up
    assert math.isclose(m.cl_loss(one, two, three, lam=1.0), 2.5)


# ---------------------------------------------------------------------------------------------- the CL branch
@pytest.mark.parametrize(("t", "tau"), [(0.0, 0.1), (0.5, 0.1), (1.0, 0.3)])
def test_soft_labels_by_loops(o, n_hat, t, tau):
    total = float(n_hat.sum())
    found = m.soft_labels(o, n_hat, t, tau)
    for i in range(7):
        expected = [0.0] * K
        for row in (o[i].tolist(), o[7 + i].tolist()):
            powers = [math.exp(x / tau) / (float(n) / total) ** t for x, n in zip(row, n_hat)]
            expected = [e + p / sum(powers) / 2 for e, p in zip(expected, powers)]
        assert torch.allclose(found[i], double(*expected), rtol=1e-12)
    assert torch.allclose(found.sum(dim=1), torch.ones(7, dtype=torch.float64))


def test_debiasing_shifts_towards_rare_classes(o, n_hat):
    shares = [m.soft_labels(o, n_hat, t)[:, 4].mean() for t in (0.0, 0.5, 1.0)]
    assert shares[0] < shares[1] < shares[2]
    plain = (o / 0.1).softmax(dim=1)
    assert torch.allclose(m.soft_labels(o, n_hat, 0.0), (plain[:7] + plain[7:]) / 2)
    assert torch.allclose(m.soft_labels(o, n_hat, 1.0, views=1), m.soft_labels(o, 9 * n_hat, 1.0, views=1))


def test_pair_weights_by_loops(o, n_hat):
    s = m.soft_labels(o, n_hat)
    W = m.pair_weights(s)
    assert W.shape == (14, 14) and torch.equal(W, W.T)
    for a in range(14):
        for b in range(14):
            i, j = a % 7, b % 7
            expected = 0.0 if a == b else 1.0 if i == j else sum(float(s[i, k] * s[j, k]) for k in range(K))
            assert math.isclose(W[a, b], expected, rel_tol=1e-12)
    assert m.pair_weights(s, views=3).shape == (21, 21)


@pytest.mark.parametrize("tau", [0.07, 0.5])
def test_soft_contrastive_loss_by_loops(o, n_hat, tau):
    u, W = unit(14, 4, seed=5), m.pair_weights(m.soft_labels(o, n_hat))
    total = 0.0
    for a in range(14):
        below = sum(math.exp(float(u[a] @ u[c]) / tau) for c in range(14) if c != a)
        terms = [W[a, b] * math.log(math.exp(float(u[a] @ u[b]) / tau) / below) for b in range(14) if b != a]
        total -= float(sum(terms) / sum(W[a, b] for b in range(14) if b != a)) / 14
    assert math.isclose(m.soft_contrastive_loss(u, W, tau), total, rel_tol=1e-12)
    whole = W + torch.eye(14, dtype=torch.float64)  # a diagonal does not count
    assert torch.equal(m.soft_contrastive_loss(u, whole, tau), m.soft_contrastive_loss(u, W, tau))


def test_soft_contrastive_loss_by_hand():
    """Two images, two views each, at right angles; half a pair across: per anchor log(e + 2) − 1/2."""
    u = double([1, 0], [0, 1], [1, 0], [0, 1]).view(4, 2)
    W = m.pair_weights(double([0.5, 0.5], [0.5, 0.5]))
    assert W[0].tolist() == [0, 0.5, 1, 0.5]
    assert math.isclose(m.soft_contrastive_loss(u, W, tau=1.0), math.log(math.e + 2) - 0.5, rel_tol=1e-12)


def test_certain_labels_give_supcon_and_distinct_ones_nt_xent():
    u = unit(12, 5, seed=6)
    certain = torch.eye(3, dtype=torch.float64)[[0, 1, 2, 2, 1, 0]]
    y = torch.tensor([0, 1, 2, 2, 1, 0]).repeat(2)
    assert torch.allclose(m.soft_contrastive_loss(u, m.pair_weights(certain), 0.2), losses.supcon(u, y, 0.2))
    alone = m.pair_weights(torch.eye(6, dtype=torch.float64))
    assert torch.allclose(m.soft_contrastive_loss(u, alone, 0.2), losses.nt_xent(u[:6], u[6:], 0.2))


def test_order_of_images_does_not_matter(o, n_hat):
    order = torch.randperm(7, generator=torch.Generator().manual_seed(7))
    both = torch.cat([order, 7 + order])
    u = unit(14, 4, seed=8)
    s = m.soft_labels(o, n_hat)
    mixed = m.soft_contrastive_loss(u[both], m.pair_weights(m.soft_labels(o[both], n_hat)))
    assert torch.allclose(mixed, m.soft_contrastive_loss(u, m.pair_weights(s)), rtol=1e-12)
    assert torch.allclose(m.matching_loss(o[both], n_hat), m.matching_loss(o, n_hat), rtol=1e-12)
    assert torch.allclose(m.distillation_loss(o[both], 0.05), m.distillation_loss(o, 0.05), rtol=1e-12)


# ---------------------------------------------------------------------------------------------- sampling
def test_keep_rates_by_loops(n_hat):
    y = torch.tensor([2, 0, 2])
    for alpha, beta in ((0.0, 0.5), (0.8, 0.5), (1.0, 0.0)):
        found = m.keep_rates(n_hat, y, alpha, beta)
        for k in range(K):
            assert math.isclose(found[k], (3.0 / float(n_hat[k])) ** (alpha if k in (0, 2) else beta), rel_tol=1e-12)
    assert m.keep_rates(n_hat, y)[4] == 1 and (m.keep_rates(n_hat, y)[[0, 2]] == 1).all()


def test_the_most_confident_stay():
    s = double([0.6, 0.4], [0.9, 0.1], [0.3, 0.7], [0.8, 0.2], [0.45, 0.55], [0.8, 0.2])
    kept = m.self_balanced_sample(s, torch.ones(2), m=torch.tensor([2, 1]))
    assert kept.tolist() == [False, True, True, True, False, False]  # of equals the first
    assert m.self_balanced_sample(s, torch.ones(2), m=torch.tensor([9, 0])).tolist() == [
        True,
        True,
        False,
        True,
        False,
        True,
    ]


def test_sampling_draws_binomial_numbers(n_hat):
    s = draw(400, K, seed=9).softmax(dim=1)
    r = m.keep_rates(n_hat, torch.tensor([0]))
    g = torch.Generator().manual_seed(0)
    drawn = torch.stack([m.self_balanced_sample(s, r, generator=g) for _ in range(60)])  # (60, 400)
    predicted = s.argmax(dim=1)
    for k in range(K):
        mine = drawn[:, predicted == k].double().sum(dim=1)  # m_k of every draw
        count = int((predicted == k).sum())
        spread = math.sqrt(count * float(r[k] * (1 - r[k])))
        assert abs(float(mine.mean()) - count * float(r[k])) <= 4 * spread / math.sqrt(60) + 1e-9
        if spread > 1:
            assert 0.6 * spread < float(mine.std()) < 1.5 * spread
    again = m.self_balanced_sample(s, r, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again, drawn[0]) and m.self_balanced_sample(s, torch.ones(K)).all()


# ---------------------------------------------------------------------------------------------- counts and scores
def estimate_by_search(clusters, y, labelled) -> list[float]:
    """Over all one-to-one matches, then the re-ordering, word for word."""
    from itertools import permutations

    size = [sum(c == k for c in clusters) for k in range(K)]
    inside = [[0] * K for _ in range(K)]
    for c, k, known in zip(clusters, y, labelled):
        inside[c][k] += known

    def gain(match):
        return sum(inside[match[k]][k] / max(size[match[k]], 1) for k in range(K_OLD))

    match = max(permutations(range(K)), key=gain)  # match[k]: the cluster of class k
    counts = [sum(k == j and known for j, known in zip(y, labelled)) for k in range(K_OLD)]
    by_size, by_count = sorted(size[match[k]] for k in range(K_OLD)), sorted(range(K_OLD), key=lambda k: counts[k])
    found = [0.0] * K
    for k, n in zip(by_count, by_size):
        found[k] = float(n)
    found[K_OLD:] = sorted((float(size[c]) for c in match[K_OLD:]), reverse=True)
    return found


@pytest.mark.parametrize("seed", range(6))
def test_estimate_by_exhaustive_search(seed):
    g = torch.Generator().manual_seed(seed)
    y = torch.multinomial(double(9, 3, 5, 4, 7), 120, replacement=True, generator=g)
    wrong = torch.rand(120, generator=g) < 0.2
    clusters = torch.where(wrong, torch.randint(0, K, (120,), generator=g), (y + 2) % K)
    labelled = (y < K_OLD) & (torch.rand(120, generator=g) < 0.5)
    found = m.estimate_counts(clusters, y, labelled, K, K_OLD)
    assert found.dtype == torch.float32
    assert found.tolist() == estimate_by_search(clusters.tolist(), y.tolist(), labelled.tolist())


def test_perfect_clusters_give_the_counts_back():
    y = torch.tensor([0] * 30 + [1] * 8 + [2] * 12 + [3] * 20 + [4] * 25)
    labelled = (y < 3) & (torch.arange(95) % 2 == 0)
    numbers = torch.tensor([3, 0, 4, 1, 2])  # of clusters: nothing of it may matter
    assert m.estimate_counts(numbers[y], y, labelled, 5, 3).tolist() == [30, 8, 12, 25, 20]
    hidden = torch.where(labelled, y, 0)  # labels of the others are not read
    assert m.estimate_counts(numbers[y], hidden, labelled, 5, 3).tolist() == [30, 8, 12, 25, 20]


def test_an_empty_cluster_counts_one():
    y = torch.tensor([0, 0, 0, 1, 1, 2])
    assert m.estimate_counts(y, y, y < 2, 4, 2).tolist() == [3, 2, 1, 1]


def test_kmeans_finds_directions():
    f = torch.cat([double([5, 0.1], [1, 0.0], [2, -0.1]), double([0.1, 9], [0, 1], [-0.1, 2])]).view(6, 2)
    clusters = m.kmeans_clusters(f, 2, restarts=3)
    assert clusters.dtype == torch.long and clusters[:3].unique().numel() == clusters[3:].unique().numel() == 1
    assert clusters[0] != clusters[3] and torch.equal(clusters, m.kmeans_clusters(f, 2, restarts=3))


def test_hungarian_hits_by_hand():
    y = torch.tensor([0, 0, 0, 1, 1, 2])
    clusters = torch.tensor([2, 2, 1, 1, 1, 0])
    assert m.hungarian_hits(clusters, y, 3).tolist() == [True, True, False, True, True, True]
    g = torch.Generator().manual_seed(1)
    y, clusters = torch.randint(0, 4, (80,), generator=g), torch.randint(0, 4, (80,), generator=g)
    from nearfar import evaluate

    assert m.hungarian_hits(clusters, y, 4).double().mean() == evaluate.clustering_accuracy(y, clusters)


# ---------------------------------------------------------------------------------------------- gradients
def test_gradcheck(o, n_hat):
    logits, u = o.clone().requires_grad_(), draw(14, 4, seed=5).requires_grad_()
    W = m.pair_weights(m.soft_labels(o, n_hat))
    y = torch.arange(14) % K
    check = torch.autograd.gradcheck
    assert check(lambda x: m.matching_loss(x, n_hat), logits)
    assert check(lambda x: m.supervised_loss(x, y), logits)
    assert check(lambda h, c: m.cosine_logits(h, c), (u, draw(3, 4, seed=6).requires_grad_()))
    assert check(lambda x: m.soft_contrastive_loss(torch.nn.functional.normalize(x, dim=1), W, 0.3), u)


def test_gradient_stops(o, n_hat):
    logits = o.clone().requires_grad_()
    s = m.soft_labels(logits, n_hat)
    assert not s.requires_grad and not m.pair_weights(s.clone().requires_grad_()).requires_grad
    W = m.pair_weights(s).requires_grad_()
    u = unit(14, 4).requires_grad_()
    m.soft_contrastive_loss(u, W).backward()
    assert W.grad is None and u.grad.abs().sum() > 0
    # only the predicting view learns: the gradient is that of a cross-entropy with fixed targets
    (found,) = torch.autograd.grad(m.distillation_loss(logits, 0.05), logits)
    q = (o / 0.05).softmax(dim=1).roll(7, 0)  # of the other view
    expected = ((o / 0.1).softmax(dim=1) - q) / 0.1 / 14
    assert torch.allclose(found, expected, rtol=1e-9)


# ---------------------------------------------------------------------------------------------- types, devices, input
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_low_precision(o, n_hat, dtype, tolerance):
    u, y = unit(14, 4, seed=5), torch.arange(14) % K
    s = m.soft_labels(o, n_hat)
    calls = {
        "reg": lambda o, u, s, n: m.matching_loss(o, n),
        "dist": lambda o, u, s, n: m.distillation_loss(o, 0.05),
        "cls": lambda o, u, s, n: m.supervised_loss(o, y),
        "soft": lambda o, u, s, n: m.soft_contrastive_loss(u, m.pair_weights(s)),
        "labels": lambda o, u, s, n: m.soft_labels(o, n)[0],
        "logits": lambda o, u, s, n: m.cosine_logits(u, u)[0],
    }
    for call in calls.values():
        found = call(*(x.to(dtype) for x in (o, u, s)), n_hat.float())
        assert found.dtype == dtype and torch.isfinite(found).all()
        assert torch.allclose(found.double(), call(o, u, s, n_hat), rtol=tolerance, atol=tolerance)


def test_far_logits_stay_finite(n_hat):
    certain = torch.zeros(4, K)
    certain[:, 0] = 1.0
    hard = certain.requires_grad_()
    loss = m.matching_loss(hard, n_hat, tau=1e-3) + m.distillation_loss(hard, 1e-3, 1e-3)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(hard.grad).all()


def test_runs_on_a_fake_gpu(o, n_hat, fake_cuda):
    real = o.float(), n_hat.float(), unit(14, 4).float(), torch.arange(7) % K_OLD
    with fake_cuda as fake:
        o_, n_, u_, y_ = fake(real)
        s = m.soft_labels(o_, n_)
        r = m.keep_rates(n_, y_)
        for result in (
            m.cosine_logits(u_, u_), m.supervised_loss(o_[:7], y_), m.distillation_loss(o_, 0.05),
            m.matching_loss(o_, n_), s, r, m.self_balanced_sample(s, r),
            m.soft_contrastive_loss(u_, m.pair_weights(s)),
        ):  # fmt: skip
            assert result.device.type == "cuda"


def estimate_of(clusters, y, labelled):
    return m.estimate_counts(torch.tensor(clusters), torch.tensor(y), torch.tensor(labelled), K, K_OLD)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda o, n: m.supervised_loss(o, torch.zeros(14).long(), tau=0.0), "tau"),
        (lambda o, n: m.distillation_loss(o, 0.0), "tau_t"),
        (lambda o, n: m.distillation_loss(o, 0.05, tau=-1.0), "tau"),
        (lambda o, n: m.distillation_loss(o[:13], 0.05), "views"),
        (lambda o, n: m.distillation_loss(o, 0.05, views=1), "views"),
        (lambda o, n: m.matching_loss(o, n[:4]), "n_hat"),
        (lambda o, n: m.matching_loss(o, n * torch.tensor([1, 0, 1, 1, 1])), "n_hat"),
        (lambda o, n: m.matching_loss(o, n, tau=0.0), "tau"),
        (lambda o, n: m.soft_labels(o, n[:4]), "n_hat"),
        (lambda o, n: m.soft_labels(o[:13], n), "views"),
        (lambda o, n: m.soft_labels(o, n, tau=0.0), "tau"),
        (lambda o, n: m.soft_contrastive_loss(o, torch.ones(3, 3)), "W must"),
        (lambda o, n: m.soft_contrastive_loss(o, torch.ones(14, 14), tau=0.0), "tau"),
        (lambda o, n: m.keep_rates(n, torch.tensor([0]), beta=-0.5), "beta"),
        (lambda o, n: m.self_balanced_sample(o, n[:4]), "r must"),
        (lambda o, n: estimate_of([0, 5], [0, 1], [True, True]), "clusters"),
        (lambda o, n: estimate_of([0, 1], [0, 3], [True, True]), "labels"),
        (lambda o, n: estimate_of([0, 1], [0, 1], [False, False]), "labels"),
    ],
)  # fmt: skip
def test_bad_input(o, n_hat, call, named):
    with pytest.raises(ValueError, match=named) as caught:
        call(o, n_hat)
    assert "\n" not in str(caught.value)
