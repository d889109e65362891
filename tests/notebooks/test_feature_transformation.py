"""The method cells of the feature transformation against loop transcriptions, hand values, identities and limits."""

import itertools
import math
from functools import partial

import pytest
import torch
from vectors import chance, on_circle, unit

import nearfar
from nearfar import losses

ft = nearfar.method("feature-transformation")
B, K, D, TAU = 5, 12, 6, 0.2


def share(*shape, seed=0):
    return torch.rand(*shape, dtype=torch.float64, generator=chance(seed))


@pytest.fixture
def features():
    return unit(B, D, seed=1), unit(B, D, seed=2), unit(K, D, seed=3)


EX = {"number": 1.3, "batch": torch.tensor(1.7, dtype=torch.float64), "sample": 1 + share(B), "column": 1 + share(B, 1),
      "shared dimensions": 1 + share(1, D), "dimension": 1 + share(B, D)}  # fmt: skip
IN = {"number": 0.3, "batch": torch.tensor(0.7, dtype=torch.float64), "sample": share(K), "column": share(K, 1),
      "shared dimensions": share(1, D), "dimension": share(K, D)}  # fmt: skip


def entry(weight, row, column):
    """λ of one row and dimension, by the rules of broadcasting, in plain numbers."""
    if not isinstance(weight, torch.Tensor) or weight.dim() == 0:
        return float(weight)
    if weight.dim() == 1:
        return float(weight[row])
    return float(weight[row if weight.shape[0] > 1 else 0, column if weight.shape[1] > 1 else 0])


def by_loop(z_q, z_k, Z, lambda_ex, lambda_in, permutation, postmix_norm=False, transformed_query=True, drop=None):
    """Scores and loss, number by number."""
    scores, all_losses = [], []
    for b in range(len(z_q)):
        q_hat, k_hat = [], []
        for i in range(D):
            lam, q, k = entry(lambda_ex, b, i), float(z_q[b, i]), float(z_k[b, i])
            q_hat.append(lam * q + (1 - lam) * k)
            k_hat.append(lam * k + (1 - lam) * q)
        if postmix_norm:
            q_hat, k_hat = ([x / math.sqrt(sum(y * y for y in z)) for x in z] for z in (q_hat, k_hat))
        row = [sum(x * y for x, y in zip(q_hat, k_hat))]
        query, kept = q_hat if transformed_query else z_q[b].tolist(), []
        for j in range(len(Z)):
            other = int(permutation[j])
            n_hat = [
                entry(lambda_in, j, i) * float(Z[j, i]) + (1 - entry(lambda_in, j, i)) * float(Z[other, i])
                for i in range(D)
            ]
            row.append(sum(x * y for x, y in zip(query, n_hat)))
            if drop is None or not (drop[b, j] or drop[b, other]):
                kept.append(row[-1])
        scores.append(row)
        positive = math.exp(row[0] / TAU)
        all_losses.append(-math.log(positive / (positive + sum(math.exp(s / TAU) for s in kept))))
    return scores, all_losses


# ---------------------------------------------------------------------------------------------- the transformed loss
@pytest.mark.parametrize("kind", EX)
@pytest.mark.parametrize("options", [{}, {"postmix_norm": True}, {"transformed_query": False}], ids=str)
def test_scores_logits_and_loss_are_the_formulas(features, kind, options):
    permutation = torch.randperm(K, generator=chance())
    scores, expected = by_loop(*features, EX[kind], IN[kind], permutation, **options)
    S, S_neg = ft.ft_scores(*features, EX[kind], IN[kind], permutation, **options)
    scores = torch.tensor(scores, dtype=torch.float64)
    assert torch.allclose(S, scores[:, 0], rtol=0, atol=1e-12)
    assert torch.allclose(S_neg, scores[:, 1:], rtol=0, atol=1e-12)
    logits = ft.ft_logits(*features, EX[kind], IN[kind], permutation, TAU, **options)
    assert torch.allclose(logits, scores / TAU, rtol=0, atol=1e-11)
    loss = ft.ft_loss(*features, EX[kind], IN[kind], permutation, TAU, **options)
    assert loss.tolist() == pytest.approx(expected, rel=1e-11)


def test_dropped_entries_are_in_no_mixture_either(features):
    drop = torch.zeros(B, K, dtype=torch.bool)
    drop[0, 3] = drop[2, 7] = drop[2, 8] = True
    permutation = torch.randperm(K, generator=chance(1))
    _, expected = by_loop(*features, 1.4, 0.3, permutation, drop=drop)
    assert ft.ft_loss(*features, 1.4, 0.3, permutation, TAU, drop=drop).tolist() == pytest.approx(expected, rel=1e-11)
    left = torch.ones(B, K, dtype=torch.bool)
    left[:, :4] = False
    fewer = ft.ft_loss(features[0], features[1], features[2][:4], 1.4, temperature=TAU)
    assert torch.allclose(ft.ft_loss(*features, 1.4, temperature=TAU, drop=left), fewer)


def test_without_transformation_it_is_mocos_loss(features):
    q, k, Q = features
    theirs = losses.info_nce(q, k, negatives=Q, temperature=TAU, reduction="none")
    permutation = torch.randperm(K, generator=chance())
    assert torch.allclose(ft.ft_loss(q, k, Q, temperature=TAU), theirs, rtol=1e-12)
    assert torch.allclose(ft.ft_loss(q, k, Q, 1.0, 1.0, permutation, TAU), theirs, rtol=1e-12)
    assert torch.allclose(ft.ft_loss(q, k, Q, 1.0, 0.0, permutation, TAU), theirs, rtol=1e-12)  # λ = 0 only reorders
    assert torch.allclose(ft.ft_loss(q, k, Q, 1.0, 0.4, torch.arange(K), TAU), theirs, rtol=1e-12)


# ---------------------------------------------------------------------------------------------- positives
def test_extrapolation_by_hand():
    q, k = on_circle(0), on_circle(60)  # S = 1/2
    q_hat, k_hat = ft.extrapolate(q, k, 1.5)
    assert q_hat[0].tolist() == pytest.approx([1.25, -math.sqrt(3) / 4])
    assert k_hat[0].tolist() == pytest.approx([0.25, 3 * math.sqrt(3) / 4])
    assert float(q_hat[0] @ k_hat[0]) == pytest.approx(-0.25)
    assert ft.positive_score(torch.tensor(0.5), 1.5).item() == pytest.approx(-0.25)
    assert ft.squared_length(torch.tensor(0.5), 1.5).item() == pytest.approx(1.75)
    assert ft.positive_score(torch.tensor(0.5), 2).item() == pytest.approx(-1.5)  # 5 S − 4
    assert ft.positive_score(torch.tensor(0.5), 0.5).item() == pytest.approx(0.75)  # interpolated: easier


@pytest.mark.parametrize("kind", ["number", "batch", "sample"])
def test_score_and_length_identities(features, kind):
    q, k, _ = features
    lam, S = EX[kind], (q * k).sum(dim=1)
    q_hat, k_hat = ft.extrapolate(q, k, lam)
    assert torch.allclose((q_hat * k_hat).sum(dim=1), ft.positive_score(S, lam), rtol=0, atol=1e-14)
    assert torch.allclose(q_hat.square().sum(dim=1), ft.squared_length(S, lam), rtol=0, atol=1e-14)
    assert torch.allclose(k_hat.square().sum(dim=1), ft.squared_length(S, lam), rtol=0, atol=1e-14)
    assert torch.allclose(q_hat + k_hat, q + k)  # the middle stays
    wide = 2 * (lam if kind != "sample" else lam[:, None]) - 1
    assert torch.allclose(q_hat - k_hat, wide * (q - k))  # the distance grows by 2 λ − 1
    harder, easier = ft.positive_score(S, lam), ft.positive_score(S, lam - 1)
    assert (harder < S).all() and (harder >= 5 * S - 4).all() and (easier > S).all()


def test_per_dimension_the_identity_holds_by_coordinate(features):
    q, k, _ = features
    for lam in EX.values():
        q_hat, k_hat = ft.extrapolate(q, k, lam)
        each = ft.positive_score_per_dimension(q, k, lam)
        assert torch.allclose(q_hat * k_hat, each, rtol=0, atol=1e-14) and (each <= q * k + 1e-15).all()
    assert torch.allclose(
        ft.positive_score_per_dimension(q, k, 1.6).sum(dim=1), ft.positive_score((q * k).sum(dim=1), 1.6)
    )


def test_two_different_lambdas_break_the_identity(features):
    q, k, _ = features
    q_hat, k_hat = ft.extrapolate(q, k, 1.2)[0], ft.extrapolate(q, k, 1.8)[1]
    S = (q * k).sum(dim=1)
    assert ((q_hat * k_hat).sum(dim=1) - ft.positive_score(S, 1.5)).abs().min() > 1e-3


def test_swapping_query_and_key_swaps_the_results(features):
    q, k, _ = features
    (a, b), (c, d) = ft.extrapolate(q, k, 1.4), ft.extrapolate(k, q, 1.4)
    assert torch.equal(a, d) and torch.equal(b, c)


# ---------------------------------------------------------------------------------------------- negatives
def test_interpolation_by_hand():
    Z = on_circle(0, 90, 180)
    mixed = ft.interpolate_negatives(Z, 0.75, torch.tensor([1, 2, 0]))
    assert mixed.flatten().tolist() == pytest.approx([0.75, 0.25, -0.25, 0.75, -0.5, 0.0], abs=1e-15)


def test_interpolation_keeps_the_mean_and_lowers_the_variance():
    q, Q = unit(7, 8, seed=4), unit(4000, 8, seed=5)
    before = ft.score_statistics(torch.zeros(7), q @ Q.T)
    for lam in (0.1, 0.3, 0.5):
        permutation = torch.randperm(4000, generator=chance(9))
        _, S_neg = ft.ft_scores(q, q, Q, 1.0, lam, permutation)
        after = ft.score_statistics(torch.zeros(7), S_neg)
        assert torch.allclose(after["negative mean"], before["negative mean"], atol=1e-14)
        ratio = after["negative variance"] / before["negative variance"]
        assert torch.allclose(ratio, torch.full_like(ratio, ft.variance_factor(lam)), atol=0.06)
    q, Q = unit(7, 3, seed=6), unit(4, 3, seed=7)
    orders = [torch.tensor(order) for order in itertools.permutations(range(4))]  # averaged over all, it is exact
    each = torch.stack([ft.ft_scores(q, q, Q, 1.0, 0.3, order)[1].var(dim=1) for order in orders])
    assert torch.allclose(each.mean(dim=0), ft.variance_factor(0.3) * (q @ Q.T).var(dim=1))


def test_statistics_are_the_formulas(features):
    q, k, Q = features
    S, S_neg = (q * k).sum(dim=1), q @ Q.T
    found = ft.score_statistics(S, S_neg, TAU)
    for b in range(B):
        row = S_neg[b].tolist()
        mean = sum(row) / K
        assert found["negative mean"][b].item() == pytest.approx(mean)
        assert found["negative variance"][b].item() == pytest.approx(sum((s - mean) ** 2 for s in row) / (K - 1))
        assert found["exp negative mean"][b].item() == pytest.approx(sum(math.exp(s / TAU) for s in row) / K)
        assert found["exp positive"][b].item() == pytest.approx(math.exp(float(S[b]) / TAU))
    assert torch.equal(found["positive"], S)


# ---------------------------------------------------------------------------------------------- draws
def test_draws_have_their_distribution_and_repeat():
    many = ft.beta(1.6, (20000,), chance(3))
    assert many.dtype == torch.float64 and many.min() >= 0 and many.max() <= 1
    assert many.mean().item() == pytest.approx(0.5, abs=0.01)
    assert many.var().item() == pytest.approx(1 / (4 * (2 * 1.6 + 1)), abs=0.003)
    assert torch.equal(many, ft.beta(1.6, (20000,), chance(3)))
    assert torch.isfinite(ft.beta(1e-3, (2000,), chance())).all()
    z, Z = torch.zeros(4, 3), torch.zeros(9, 3, dtype=torch.float64)
    state = torch.get_rng_state()
    for per, shape in (("batch", ()), ("sample", (4,)), ("dimension", (4, 3))):
        lam = ft.draw_lambda_ex(z, chance(), per=per)
        assert lam.shape == shape and lam.dtype == torch.float32 and (lam >= 1).all() and (lam <= 2).all()
        inner = ft.draw_lambda_ex(z, chance(), per=per, extrapolation=False)
        assert torch.allclose(inner + 1, lam)
    for per, shape in (("batch", ()), ("sample", (9,)), ("dimension", (9, 3))):
        lam, permutation = ft.draw_lambda_in(Z, chance(), per=per)
        assert lam.shape == shape and lam.dtype == torch.float64 and sorted(permutation.tolist()) == list(range(9))
    assert torch.equal(state, torch.get_rng_state())  # nothing global is touched


# ---------------------------------------------------------------------------------------------- gradients
def test_gradient_flows_through_both_transformed_vectors_to_the_query_only(features):
    q, k, Q = (z.clone().requires_grad_() for z in features)
    permutation = torch.randperm(K, generator=chance())
    ft.ft_loss(q, k, Q, 1.5, 0.3, permutation, TAU).sum().backward()
    assert k.grad is None and Q.grad is None
    with torch.no_grad():  # ∂Ŝ/∂z_q = (λ² + (1 − λ)²) z_k + 2 λ (1 − λ) z_q;  ∂(ẑ_q·n̂)/∂z_q = λ n̂
        logits = ft.ft_logits(q, k, Q, 1.5, 0.3, permutation, TAU)
        p = logits.softmax(dim=1)
        pull = (1.5**2 + 0.5**2) * k - 2 * 1.5 * 0.5 * q
        push = 1.5 * p[:, 1:] @ ft.interpolate_negatives(Q, 0.3, permutation)
        expected = ((p[:, :1] - 1) * pull + push) / TAU
    assert torch.allclose(q.grad, expected, rtol=1e-9)
    q, k = q.detach(), k.detach()
    across = pull - (pull * q).sum(dim=1, keepdim=True) * q  # what a change of direction sees
    assert torch.allclose(across, ft.pull(q, k, 1.5)) and torch.allclose(across, 2.5 * ft.pull(q, k, 1.0))


def test_the_pull_is_the_formula(features):
    q, k, _ = features
    for lam in (1.4, EX["batch"], EX["sample"]):
        found = ft.pull(q, k, lam)
        for b in range(B):
            S, weight = float(q[b] @ k[b]), entry(lam, b, 0)
            expected = [(1 + 2 * weight * (weight - 1)) * float(k[b, i] - S * q[b, i]) for i in range(D)]
            assert found[b].tolist() == pytest.approx(expected, abs=1e-14)


def test_with_the_plain_query_it_is_moco_with_a_steeper_positive(features):
    q, k, Q = features
    steeper = 1 + 2 * EX["sample"] * (EX["sample"] - 1)
    S = steeper * (q * k).sum(dim=1) - (steeper - 1)
    logits = torch.cat([S[:, None], q @ Q.T], dim=1) / TAU
    expected = torch.nn.functional.cross_entropy(logits, torch.zeros(B, dtype=torch.long), reduction="none")
    assert torch.allclose(ft.ft_loss(q, k, Q, EX["sample"], temperature=TAU, transformed_query=False), expected)


def test_gradcheck(features):
    q, k, Q = features
    permutation = torch.randperm(K, generator=chance())
    for options in ({}, {"postmix_norm": True}, {"transformed_query": False}):
        loss = partial(ft.ft_loss, z_k=k, Z_neg=Q, lambda_ex=EX["dimension"], lambda_in=IN["sample"], **options)
        assert torch.autograd.gradcheck(partial(loss, permutation=permutation), q.clone().requires_grad_())
    pair = (q.clone().requires_grad_(), k.clone().requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: ft.extrapolate(a, b, 1.5), pair)


def test_precision_is_kept(features):
    narrow = [z.float() for z in features]
    permutation = torch.randperm(K, generator=chance())
    loss = ft.ft_loss(*narrow, EX["dimension"], IN["batch"], permutation, TAU)  # λ in float64
    assert loss.dtype == torch.float32
    wide = ft.ft_loss(*(z.double() for z in narrow), EX["dimension"], IN["batch"], permutation, TAU)
    assert torch.allclose(loss.double(), wide, rtol=1e-5)


def test_runs_on_a_fake_gpu(fake_cuda, features):
    features, generator, none = [z.float() for z in features], chance(), torch.zeros(B, K, dtype=torch.bool)
    with fake_cuda as fake:
        q, k, Q, drop = (fake(z) for z in (*features, none))
        lambda_ex = ft.draw_lambda_ex(q, generator, per="dimension")
        lambda_in, permutation = ft.draw_lambda_in(Q, generator)
        S, S_neg = ft.ft_scores(q, k, Q, lambda_ex, lambda_in, permutation, postmix_norm=True)
        for result in (
            lambda_ex,
            lambda_in,
            permutation,
            *ft.score_statistics(S, S_neg).values(),
            ft.ft_loss(q, k, Q, lambda_ex, lambda_in, permutation, drop=drop),
            ft.positive_score(S, ft.draw_lambda_ex(q, generator)),
            ft.squared_length(S, 1.5),
            ft.positive_score_per_dimension(q, k, lambda_ex),
        ):
            assert result.device.type == "cuda"


def test_bad_input(features):
    q, k, Q = features
    permutation = torch.arange(K)
    for arguments, name in (
        ({"temperature": 0.0}, "temperature"),
        ({"lambda_ex": torch.ones(B + 1)}, "lambda_ex must"),
        ({"lambda_ex": torch.ones(B, D, 1)}, "lambda_ex must"),
        ({"lambda_in": torch.ones(B)}, "lambda_in must"),
        ({"permutation": permutation[:-1]}, "permutation"),
        ({"permutation": permutation.double()}, "permutation"),
        ({"drop": torch.zeros(B, K)}, "drop"),
    ):
        with pytest.raises(ValueError, match=name):
            ft.ft_loss(q, k, Q, **{"lambda_ex": 1.5, "lambda_in": 0.5, "permutation": permutation, **arguments})
    with pytest.raises(ValueError, match="z_q and z_k"):
        ft.ft_loss(q, k[:2], Q)
    for lambda_in in (0.5, torch.tensor(1.0)):  # which would change nothing, silently
        with pytest.raises(ValueError, match="give a permutation"):
            ft.ft_loss(q, k, Q, lambda_in=lambda_in)
    with pytest.raises(ValueError, match="Z_neg"):
        ft.ft_loss(q, k, Q[:, :3])
    with pytest.raises(ValueError, match="alpha"):
        ft.beta(0.0, (3,), chance())
    for draw in (ft.draw_lambda_ex, ft.draw_lambda_in):
        with pytest.raises(ValueError, match="per must"):
            draw(q, chance(), per="image")
    with pytest.raises(ValueError, match="S_neg"):
        ft.score_statistics(torch.zeros(3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="temperature"):
        ft.score_statistics(torch.zeros(2), torch.zeros(2, 4), 0)
