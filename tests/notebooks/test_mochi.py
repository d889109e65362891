"""MoCHi's method cells against loop transcriptions, hand values, identities and limits of the paper."""

import math

import pytest
import torch
from vectors import chance, on_circle, unit

import nearfar
from nearfar import losses

mochi = nearfar.method("mochi")
B, K, D, TAU = 5, 30, 6, 0.2


@pytest.fixture
def features():
    return unit(B, D, seed=1), unit(B, D, seed=2), unit(K, D, seed=3)


def dot(a, b):
    return sum(float(x) * float(y) for x, y in zip(a, b))


# ---------------------------------------------------------------------------------------------- eqs. (1) to (3)
def test_the_loss_and_the_probabilities_are_the_formulas(features):
    q, k, Q = features
    l_pos, l_neg = (q * k).sum(1), q @ Q.T
    loss, (p_k, p_n) = mochi.contrastive_loss(l_pos, l_neg, TAU), mochi.matching_probabilities(l_pos, l_neg, TAU)
    for b in range(B):
        positive = math.exp(dot(q[b], k[b]) / TAU)
        negatives = [math.exp(dot(q[b], n) / TAU) for n in Q]
        total = positive + sum(negatives)
        assert loss[b].item() == pytest.approx(-math.log(positive / total), rel=1e-12)
        assert p_k[b].item() == pytest.approx(positive / total, rel=1e-12)
        assert p_n[b].tolist() == pytest.approx([e / total for e in negatives], rel=1e-12)


def test_the_gradient_is_equation_3(features):
    q, k, Q = features
    q = q.clone().requires_grad_()
    (slope,) = torch.autograd.grad(mochi.mochi_loss(q, k, Q, 4, 0, 0, TAU).sum(), q)
    assert torch.allclose(slope, mochi.query_gradient(q, k, Q, TAU), rtol=1e-10)
    p_k, p_n = mochi.matching_probabilities((q * k).sum(1), q @ Q.T, TAU)
    b, by_loop = 2, [0.0] * D
    for i in range(D):
        by_loop[i] = -((1 - p_k[b]) * k[b, i] - sum(p_n[b, j] * Q[j, i] for j in range(K))).item() / TAU
    assert slope[b].tolist() == pytest.approx(by_loop, rel=1e-10)


def test_without_mixing_it_is_mocos_loss(features):
    q, k, Q = features
    ours = mochi.mochi_loss(q, k, Q, N=4, s=0, s_prime=0, tau=TAU)
    theirs = losses.info_nce(q, k, negatives=Q, temperature=TAU, reduction="none")
    assert torch.allclose(ours, theirs, rtol=1e-12)


# ---------------------------------------------------------------------------------------------- eqs. (4) and (5)
def test_the_hardest_are_sorted_per_query(features):
    q, _, Q = features
    found = mochi.hardest(q @ Q.T, 7)
    for b in range(B):
        order = sorted(range(K), key=lambda j: -dot(q[b], Q[j]))
        assert found[b].tolist() == order[:7]


def test_mixtures_are_the_formulas():
    n_i, n_j, q = unit(2, 3, D, seed=4), unit(2, 3, D, seed=5), unit(2, D, seed=6)
    share = torch.rand(2, 3, dtype=torch.float64, generator=chance())
    h, h_prime = mochi.mix(n_i, n_j, share), mochi.mix_with_query(q, n_j, share)
    for b in range(2):
        for t in range(3):
            a = float(share[b, t])
            for found, first in ((h, n_i[b, t]), (h_prime, q[b])):
                mixed = [a * float(x) + (1 - a) * float(y) for x, y in zip(first, n_j[b, t])]
                length = math.sqrt(sum(x * x for x in mixed))
                assert found[b, t].tolist() == pytest.approx([x / length for x in mixed], rel=1e-12)


def test_mixtures_by_hand():
    half = torch.full((1, 1), 0.5, dtype=torch.float64)
    n = on_circle(60, 100)
    assert torch.allclose(mochi.mix(n[None, :1], n[None, 1:], half)[0], on_circle(80))
    assert torch.allclose(mochi.mix_with_query(on_circle(0), n[None, :1], half)[0], on_circle(30))
    none, all_ = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    assert torch.allclose(mochi.mix(n[None, :1], n[None, 1:], all_)[0], n[:1])
    assert torch.allclose(mochi.mix_with_query(on_circle(0), n[None, :1], none)[0], n[:1])
    assert torch.allclose(mochi.mix_with_query(on_circle(0), n[None, :1], all_)[0], on_circle(0))


def test_a_point_mixed_with_the_query_is_harder():
    q, n = unit(20, D, seed=7), unit(20, 9, D, seed=8)
    beta = torch.rand(20, 9, dtype=torch.float64, generator=chance())
    c = torch.einsum("bd,bsd->bs", q, n)
    harder = torch.einsum("bd,bsd->bs", q, mochi.mix_with_query(q, n, beta))
    formula = (beta + (1 - beta) * c) / (beta**2 + (1 - beta) ** 2 + 2 * beta * (1 - beta) * c).sqrt()
    assert torch.allclose(harder, formula, rtol=1e-10) and (harder > c).all()


def test_synthetic_points_are_mixtures_of_each_querys_own_hardest(features):
    q, _, Q = features
    h, h_prime = mochi.synthesise(q, Q, q @ Q.T, 3, 40, 40, chance())
    assert h.shape == (B, 40, D) and h_prime.shape == (B, 40, D)
    assert torch.allclose(h.norm(dim=-1), torch.ones(B, 40, dtype=torch.float64))
    for b in range(B):
        near = Q[mochi.hardest(q @ Q.T, 3)[b]]
        for basis, points in ((near, h[b]), (torch.cat([near, q[b : b + 1]]), h_prime[b])):
            weights = torch.linalg.lstsq(basis.T, points.T).solution  # how each point is made of the basis
            assert torch.allclose(basis.T @ weights, points.T, atol=1e-9) and (weights > -1e-9).all()
            used = (weights > 1e-9).sum(dim=0)
            assert used.max() == 2 and used.min() >= 1
        shares = weights[-1] / weights.sum(dim=0)  # β, up to the length that both parts share
        assert shares.max() < 0.5 and shares.max() > 0.4 and shares.min() < 0.1
        assert (weights[:3] > 1e-9).any(dim=1).all()  # all three are drawn


def test_bounds_of_the_weights_are_arguments(features):
    q, _, Q = features
    l_neg = q @ Q.T
    h, h_prime = mochi.synthesise(q, Q, l_neg, 4, 8, 8, chance(), alpha=(1.0, 1.0), beta=(1.0, 1.0))
    assert torch.allclose(h_prime, q[:, None].expand_as(h_prime))
    assert torch.isclose(h @ Q.T, torch.ones((), dtype=torch.float64)).any(dim=2).all()  # each is a queue entry
    same = mochi.synthesise(q, Q, l_neg, 4, 8, 8, chance(1)), mochi.synthesise(q, Q, l_neg, 4, 8, 8, chance(1))
    assert torch.equal(same[0][0], same[1][0]) and torch.equal(same[0][1], same[1][1])


# ---------------------------------------------------------------------------------------------- the whole loss
def test_the_loss_appends_each_querys_points_to_its_own_denominator(features):
    q, k, Q = features
    loss = mochi.mochi_loss(q, k, Q, 4, 3, 2, TAU, chance(5))
    h, h_prime = mochi.synthesise(q, Q, q @ Q.T, 4, 3, 2, chance(5))
    for b in range(B):
        others = [*Q, *h[b], *h_prime[b]]
        total = sum(math.exp(dot(q[b], n) / TAU) for n in [k[b], *others])
        assert loss[b].item() == pytest.approx(-math.log(math.exp(dot(q[b], k[b]) / TAU) / total), rel=1e-12)
    assert (loss > mochi.mochi_loss(q, k, Q, 4, 0, 0, TAU)).all()


def test_gradients_stop_where_they_should(features):
    q, k, Q = (z.clone().requires_grad_() for z in features)
    mochi.mochi_loss(q, k, Q, 4, 3, 2, TAU, chance()).sum().backward()
    assert k.grad is None and Q.grad is None
    with torch.no_grad():
        points = torch.cat(mochi.synthesise(q, Q, q @ Q.T, 4, 3, 2, chance()), dim=1)
        expected = torch.zeros_like(q)
        for b in range(B):  # eq. (3) with the points as constants among the negatives
            expected[b] = mochi.query_gradient(q[b : b + 1], k[b : b + 1], torch.cat([Q, points[b]]), TAU)[0]
    assert torch.allclose(q.grad, expected, rtol=1e-9)


def test_gradcheck(features):
    q, k, Q = features
    h = torch.cat(mochi.synthesise(q, Q, q @ Q.T, 4, 3, 2, chance()), dim=1)

    def fixed(q):  # the same points at every evaluation, as constants
        l_all = torch.cat([q @ Q.T, torch.einsum("bd,bmd->bm", q, h)], dim=1)
        return mochi.contrastive_loss((q * k).sum(1), l_all, TAU)

    assert torch.autograd.gradcheck(fixed, q.clone().requires_grad_())
    assert torch.allclose(fixed(q), mochi.mochi_loss(q, k, Q, 4, 3, 2, TAU, chance()))


def test_dropped_entries_are_neither_negatives_nor_mixed(features):
    q, k, Q = features
    drop = torch.zeros(B, K, dtype=torch.bool)
    drop[:, 10:] = True
    ours = mochi.mochi_loss(q, k, Q, 5, 6, 4, TAU, chance(), drop)
    assert torch.allclose(ours, mochi.mochi_loss(q, k, Q[:10], 5, 6, 4, TAU, chance()), rtol=1e-12)
    with pytest.raises(ValueError, match="smaller N"):
        mochi.mochi_loss(q, k, Q, 11, 6, 4, TAU, chance(), drop)


def test_precision_is_kept(features):
    q, k, Q = (z.float() for z in features)
    assert mochi.mochi_loss(q, k, Q, 4, 3, 2, TAU, chance()).dtype == torch.float32
    wide = mochi.mochi_loss(q.double(), k.double(), Q.double(), 4, 3, 2, TAU, chance())
    assert torch.allclose(mochi.mochi_loss(q, k, Q, 4, 3, 2, TAU, chance()).double(), wide, rtol=1e-5)


# ---------------------------------------------------------------------------------------------- measures
def test_measures_by_hand():
    l_pos, l_neg = torch.tensor([0.5, 0.9]), torch.tensor([[0.6, 0.1, 0.3], [0.8, 0.2, 0.1]])
    assert mochi.proxy_accuracy(l_pos, l_neg).item() == 0.5
    p = torch.tensor([[0.1, 0.5, 0.2], [0.3, 0.0, 0.4]])
    assert mochi.ranked_probabilities(p, 2).tolist() == pytest.approx([0.45, 0.25])
    assert mochi.ranked_probabilities(p, 9).shape == (3,)
    same = torch.tensor([[True, False, False], [True, True, False]])
    assert mochi.false_negative_share(l_neg, same, 2).tolist() == [1.0, 0.5]
    even = mochi.relative_entropy(torch.tensor([[0.2, 0.2, 0.2], [0.7, 0.0, 0.0]]))
    assert even.tolist() == pytest.approx([1.0, 0.0])


def test_runs_on_a_fake_gpu(fake_cuda, features):
    q, k, Q = (z.float() for z in features)
    with fake_cuda as fake:
        q, k, Q = fake(q), fake(k), fake(Q)
        drop = fake(torch.zeros(B, K, dtype=torch.bool))
        l_pos, l_neg, l_syn = mochi.similarities(q, k, Q, 4, 3, 2, chance(), drop)
        p_n = mochi.matching_probabilities(l_pos, l_neg, TAU)[1]
        for result in (
            l_syn,
            mochi.mochi_loss(q, k, Q, 4, 3, 2, TAU, chance()),
            mochi.query_gradient(q, k, Q),
            mochi.proxy_accuracy(l_pos, l_neg),
            mochi.ranked_probabilities(p_n, 5),
            mochi.relative_entropy(p_n),
            mochi.false_negative_share(l_neg, drop, 5),
        ):
            assert result.device.type == "cuda"


def test_bad_input(features):
    q, k, Q = features
    for arguments, name in (
        ({"tau": 0.0}, "tau"),
        ({"N": 31}, "N must"),
        ({"N": 0}, "N must"),
        ({"s": -1}, "s, s_prime"),
        ({"beta": (0.0, 1.5)}, "beta"),
    ):
        with pytest.raises(ValueError, match=name):
            mochi.mochi_loss(q, k, Q, **{"N": 4, "s": 3, "s_prime": 2, "generator": chance(), **arguments})
    with pytest.raises(ValueError, match="q, k must be"):
        mochi.mochi_loss(q, k[:2], Q, 4, 3, 2, TAU, chance())
    with pytest.raises(ValueError, match="no negatives"):
        mochi.contrastive_loss(torch.zeros(2), torch.zeros(2, 0))
    with pytest.raises(ValueError, match="l_pos"):
        mochi.contrastive_loss(torch.zeros(3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="p_n"):
        mochi.relative_entropy(torch.ones(2, 1))
