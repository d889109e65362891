"""The method cells of understanding-contrastive-loss: against loops, hand values, autograd, identities and limits."""

import math

import pytest
import torch
from torch import Tensor

import nearfar
from nearfar import evaluate, losses, nn

m = nearfar.method("understanding-contrastive-loss")
TAUS = (0.02, 0.07, 0.3, 1.0, 5.0)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(11)


@pytest.fixture
def s(generator) -> tuple[Tensor, Tensor]:
    """Similarities as they come: s_pos (6,), s_neg (6, 9), float64 in [-1, 1]."""
    draw = torch.rand(6, 10, generator=generator, dtype=torch.float64) * 2 - 1
    return draw[:, 0], draw[:, 1:]


@pytest.fixture
def z(generator) -> Tensor:
    return nn.normalise(torch.randn(12, 5, generator=generator, dtype=torch.float64))


def loop_loss(s_pos: list[float], s_neg: list[list[float]], tau: float) -> list[float]:
    """Eq. (1), anchor by anchor."""
    values = []
    for positive, negatives in zip(s_pos, s_neg, strict=True):
        denominator = math.exp(positive / tau)
        for negative in negatives:
            denominator += math.exp(negative / tau)
        values.append(-math.log(math.exp(positive / tau) / denominator))
    return values


def loop_kept(negatives: list[float], alpha: float) -> list[float]:
    """The largest round(alpha K) negatives of one anchor, at least one."""
    return sorted(negatives, reverse=True)[: max(1, round(alpha * len(negatives)))]


def close(a: Tensor, b, tolerance: float = 1e-12) -> bool:
    b = torch.as_tensor(b, dtype=a.dtype)
    assert a.shape == b.shape
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance)


# ---------------------------------------------------------------------------------------------- eq. (1)
def test_pairs_take_the_diagonal_apart():
    s = torch.arange(16.0).view(4, 4)
    s_pos, s_neg = m.pairs(s)
    assert s_pos.tolist() == [0, 5, 10, 15]
    assert s_neg.tolist() == [[1, 2, 3], [4, 6, 7], [8, 9, 11], [12, 13, 14]]


@pytest.mark.parametrize("tau", TAUS)
def test_loss_equals_a_loop(s, tau):
    assert close(m.contrastive_loss(*s, tau), loop_loss(s[0].tolist(), s[1].tolist(), tau), 1e-10)


def test_loss_by_hand():
    one = torch.ones(1, dtype=torch.float64)
    assert close(m.contrastive_loss(one, one[:, None], 0.5), [math.log(2)])  # a tie of two
    assert close(m.contrastive_loss(0 * one, torch.zeros(1, 3).double(), 0.1), [math.log(4)])
    assert close(m.contrastive_loss(one, 0 * one[:, None], 0.5), [math.log(1 + math.exp(-2))])


@pytest.mark.parametrize("tau", (0.05, 0.5))
def test_loss_is_the_shared_info_nce(generator, tau):
    a, b = nn.normalise(torch.randn(2, 7, 4, generator=generator, dtype=torch.float64))
    assert close(m.contrastive_loss(*m.pairs(a @ b.T), tau), losses.info_nce(a, b, temperature=tau, reduction="none"))


def test_order_of_negatives_and_anchors_does_not_matter(s, generator):
    s_pos, s_neg = s
    columns, rows = torch.randperm(9, generator=generator), torch.randperm(6, generator=generator)
    for loss in (lambda p, n: m.contrastive_loss(p, n, 0.2), m.simple_loss, lambda p, n: m.hard_simple_loss(p, n, 0.3),
                 lambda p, n: m.hard_contrastive_loss(p, n, 0.2, 0.3)):  # fmt: skip
        assert close(loss(s_pos, s_neg[:, columns]), loss(s_pos, s_neg))
        assert close(loss(s_pos[rows], s_neg[rows]), loss(s_pos, s_neg)[rows])


def test_loss_depends_on_differences_over_tau_only(s):
    s_pos, s_neg = s
    assert close(m.contrastive_loss(s_pos + 3, s_neg + 3, 0.2), m.contrastive_loss(s_pos, s_neg, 0.2), 1e-10)
    assert close(m.contrastive_loss(2 * s_pos, 2 * s_neg, 0.4), m.contrastive_loss(s_pos, s_neg, 0.2))


def test_tiny_temperatures_stay_finite_in_float32_and_types_are_kept(s):
    s_pos, s_neg = (part.float() for part in s)
    for tau in (1e-4, 0.01):
        loss = m.contrastive_loss(s_pos, s_neg, tau)
        assert loss.dtype == torch.float32 and torch.isfinite(loss).all()
        assert torch.allclose(loss.double(), m.contrastive_loss(*s, tau), rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------------------------------------- gradients and penalty
@pytest.mark.parametrize("tau", TAUS)
def test_gradients_equal_autograd_and_balance(s, tau):
    s_pos, s_neg = (part.clone().requires_grad_() for part in s)
    pull, push = torch.autograd.grad(m.contrastive_loss(s_pos, s_neg, tau).sum(), (s_pos, s_neg))
    formula = m.gradients(*s, tau)
    assert close(formula[0], pull, 1e-9) and close(formula[1], push, 1e-9)
    assert torch.allclose(-formula[0], formula[1].sum(dim=1), rtol=1e-12, atol=0)  # pull = sum of pushes
    assert torch.allclose(-pull, push.sum(dim=1), rtol=1e-5, atol=1e-12)


def test_probabilities_are_the_softmax_of_all_keys(s):
    P_pos, P_neg = m.probabilities(*s, 0.3)
    for i in range(6):
        weights = [math.exp(v / 0.3) for v in [float(s[0][i]), *s[1][i].tolist()]]
        assert close(torch.cat([P_pos[i : i + 1], P_neg[i]]), [w / sum(weights) for w in weights])


@pytest.mark.parametrize("tau", TAUS)
def test_relative_penalty_is_push_over_pull(s, tau):
    pull, push = m.gradients(*s, tau)
    r = m.relative_penalty(s[1], tau)
    assert close(r.sum(dim=1), torch.ones(6)) and torch.allclose(r * -pull[:, None], push, rtol=1e-9, atol=1e-300)
    assert torch.equal(r.argsort(dim=1), s[1].argsort(dim=1))  # harder is pushed harder


def test_relative_penalty_by_hand():
    r = m.relative_penalty(torch.tensor([[0.5, 0.0]], dtype=torch.float64), 0.5 / math.log(3))
    assert close(r, [[0.75, 0.25]])
    assert close(m.entropy(r), [-0.75 * math.log(0.75) - 0.25 * math.log(0.25)])


def test_entropy_grows_with_the_temperature_by_variance_over_tau_cubed(s):
    previous = torch.zeros(6, dtype=torch.float64)
    for tau in TAUS:
        t = torch.tensor(tau, dtype=torch.float64, requires_grad=True)
        r = m.relative_penalty(s[1], t)
        (slope,) = torch.autograd.grad(m.entropy(r).sum(), t)
        variance = (r * s[1] ** 2).sum(dim=1) - (r * s[1]).sum(dim=1) ** 2
        assert torch.allclose(slope, (variance / tau**3).sum(), rtol=1e-7, atol=1e-9)
        assert (m.entropy(r) > previous).all()
        previous = m.entropy(r).detach()
    assert (previous < math.log(9)).all()


def test_entropy_at_its_ends():
    same = m.relative_penalty(torch.full((1, 8), 0.4, dtype=torch.float64), 0.1)
    assert close(m.entropy(same), [math.log(8)])
    assert close(m.entropy(torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)), [0.0])


# ---------------------------------------------------------------------------------------------- limits, simple loss
def test_cold_limit_is_a_triplet_loss(s):
    tau = 1e-4
    assert torch.allclose(tau * m.contrastive_loss(*s, tau), tau * m.triplet_limit(*s, tau), atol=1e-9)
    for i, expected in enumerate(m.triplet_limit(*s, 0.5).tolist()):
        assert math.isclose(expected, max(max(s[1][i].tolist()) - float(s[0][i]), 0) / 0.5, rel_tol=1e-12)


def test_hot_limit_is_linear_and_its_error_falls_with_tau_squared(s):
    error = [float((m.contrastive_loss(*s, tau) - m.linear_limit(*s, tau)).abs().max()) for tau in (10.0, 100.0)]
    assert error[0] < 1e-2 and 90 < error[0] / error[1] < 110
    by_hand = -0.6 / 2 + (0.6 + 0.1 - 0.3) / (2 * 3) + math.log(3)
    pair = torch.tensor([0.6], dtype=torch.float64), torch.tensor([[0.1, -0.3]], dtype=torch.float64)
    assert close(m.linear_limit(*pair, 2.0), [by_hand])


def test_hot_gradient_points_where_the_simple_loss_does(s):
    pull, push = m.gradients(*s, 1e6)
    assert close(push / -pull[:, None], torch.full((6, 9), 1 / 9), 1e-5)


@pytest.mark.parametrize("lambda_", (None, 0.0, 0.25))
def test_simple_loss_equals_a_loop(s, lambda_):
    weight = 1 / 9 if lambda_ is None else lambda_
    expected = [-p + weight * sum(n) for p, n in zip(s[0].tolist(), s[1].tolist(), strict=True)]
    assert close(m.simple_loss(*s, lambda_), expected)


# ---------------------------------------------------------------------------------------------- hard negatives
@pytest.mark.parametrize("alpha", (1e-6, 0.1, 0.34, 0.5, 1.0))
def test_hard_losses_equal_a_loop(s, alpha):
    s_pos, s_neg = s[0].tolist(), s[1].tolist()
    kept = [loop_kept(n, alpha) for n in s_neg]
    assert m.hardest(s[1], alpha).sum(dim=1).tolist() == [len(k) for k in kept]
    assert close(m.hard_contrastive_loss(*s, 0.2, alpha), loop_loss(s_pos, kept, 0.2), 1e-10)
    assert close(m.hard_simple_loss(*s, alpha), [-p + sum(k) / len(k) for p, k in zip(s_pos, kept, strict=True)])
    assert close(m.hard_simple_loss(*s, alpha, 0.7), [-p + 0.7 * sum(k) for p, k in zip(s_pos, kept, strict=True)])


def test_alpha_one_is_the_plain_loss_and_less_is_never_more(s):
    plain = m.contrastive_loss(*s, 0.3)
    assert close(m.hard_contrastive_loss(*s, 0.3, 1.0), plain) and close(m.hard_simple_loss(*s, 1.0), m.simple_loss(*s))
    assert (m.hard_contrastive_loss(*s, 0.3, 0.3) < plain).all()


def test_the_quantile_is_of_negatives_only(s):
    for positive in (-5.0, 5.0):
        loss = m.hard_contrastive_loss(torch.full((6,), positive, dtype=torch.float64), s[1], 1.0, 0.3)
        assert close(loss, loop_loss([positive] * 6, [loop_kept(n, 0.3) for n in s[1].tolist()], 1.0), 1e-10)


def test_ties_at_the_threshold_are_kept():
    tied = torch.tensor([[0.5, 0.5, 0.5, 0.1]])
    assert m.hardest(tied, 0.25).tolist() == [[True, True, True, False]]


def test_gradient_reaches_the_kept_negatives_only(s):
    s_pos, s_neg = (part.clone().requires_grad_() for part in s)
    kept = m.hardest(s_neg, 0.34)
    assert not kept.requires_grad
    for loss in (m.hard_contrastive_loss(s_pos, s_neg, 0.2, 0.34), m.hard_simple_loss(s_pos, s_neg, 0.34)):
        pull, push = torch.autograd.grad(loss.sum(), (s_pos, s_neg))
        assert (push[kept] > 0).all() and (push[~kept] == 0).all()
        assert torch.allclose(-pull, push.sum(dim=1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("loss", (
    lambda p, n: m.contrastive_loss(p, n, 0.2), lambda p, n: m.simple_loss(p, n, 0.3),
    lambda p, n: m.hard_contrastive_loss(p, n, 0.2, 0.4), lambda p, n: m.hard_simple_loss(p, n, 0.4),
    lambda p, n: m.triplet_limit(p, n, 0.2), lambda p, n: m.linear_limit(p, n, 0.4),
    lambda p, n: m.relative_penalty(n, 0.3),
))  # fmt: skip
def test_gradcheck(s, loss):
    assert torch.autograd.gradcheck(loss, tuple(part.clone().requires_grad_() for part in s))


# ---------------------------------------------------------------------------------------------- uniformity, tolerance
@pytest.mark.parametrize("t", (0.5, 2.0, 5.0))
def test_uniformity_equals_a_loop_and_the_shared_one(z, t):
    rows = z.tolist()
    terms = [math.exp(-t * math.dist(a, b) ** 2) for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j]
    assert math.isclose(float(m.uniformity_loss(z, t)), math.log(sum(terms) / len(terms)), rel_tol=1e-10)
    assert close(m.uniformity_loss(z, t), evaluate.uniformity(z, t), 1e-9)


def test_uniformity_and_tolerance_by_hand():
    z = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)  # squares 4, 2, 2
    assert math.isclose(float(m.uniformity_loss(z, 2.0)), math.log((math.exp(-8) + 2 * math.exp(-4)) / 3))
    assert float(m.tolerance(z, torch.tensor([0, 0, 1]))) == -1.0
    assert float(m.tolerance(z, torch.tensor([0, 1, 0]))) == 0.0


def test_tolerance_equals_a_loop_and_ignores_an_image_with_itself(z):
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 0, 1, 3, 3, 4])
    products = [sum(a * b for a, b in zip(z[i].tolist(), z[j].tolist(), strict=True))
                for i in range(12) for j in range(12) if i != j and labels[i] == labels[j]]  # fmt: skip
    assert math.isclose(float(m.tolerance(z, labels)), sum(products) / len(products), rel_tol=1e-12)
    assert float(m.tolerance(z[:1].expand(4, -1), torch.zeros(4))) == pytest.approx(1.0)  # all alike


def test_measures_do_not_change_under_rotation_and_order(z, generator):
    rotation, _ = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64))
    labels, order = torch.arange(12) % 3, torch.randperm(12, generator=generator)
    assert close(m.uniformity_loss((z @ rotation)[order]), m.uniformity_loss(z), 1e-10)
    assert close(m.tolerance((z @ rotation)[order], labels[order]), m.tolerance(z, labels), 1e-10)


# ---------------------------------------------------------------------------------------------- errors and devices
@pytest.mark.parametrize("tau", (0.0, -0.1, math.nan))
def test_a_temperature_must_be_positive(s, tau):
    calls = [lambda: m.relative_penalty(s[1], tau), lambda: m.hard_contrastive_loss(*s, tau, 0.5)]
    calls += [lambda f=f: f(*s, tau) for f in (m.contrastive_loss, m.gradients, m.triplet_limit, m.linear_limit)]
    for call in calls:
        with pytest.raises(ValueError, match="tau must be greater than zero"):
            call()


@pytest.mark.parametrize("alpha", (0.0, -0.2, 1.01, math.nan))
def test_alpha_must_be_a_share(s, alpha):
    for call in (lambda: m.hardest(s[1], alpha), lambda: m.hard_simple_loss(*s, alpha),
                 lambda: m.hard_contrastive_loss(*s, 0.2, alpha)):  # fmt: skip
        with pytest.raises(ValueError, match="alpha must lie in"):
            call()


def test_negatives_are_needed(s):
    none = s[1][:, :0]
    for call in (lambda: m.contrastive_loss(s[0], none, 0.1), lambda: m.simple_loss(s[0], none),
                 lambda: m.hard_contrastive_loss(s[0], none, 0.1, 0.5), lambda: m.relative_penalty(none, 0.1),
                 lambda: m.hard_simple_loss(s[0], none, 0.5), lambda: m.pairs(torch.ones(1, 1))):  # fmt: skip
        with pytest.raises(ValueError, match="no negatives"):
            call()


def test_shapes_must_fit(s):
    with pytest.raises(ValueError, match="square matrix"):
        m.pairs(torch.ones(2, 3))
    with pytest.raises(ValueError, match="s_pos must be"):
        m.contrastive_loss(s[0][:4], s[1], 0.1)
    with pytest.raises(ValueError, match="no two samples share a class"):
        m.tolerance(torch.eye(3), torch.arange(3))
    with pytest.raises(ValueError, match="no pairs"):
        m.uniformity_loss(torch.ones(1, 2))


def test_everything_runs_forward_on_another_device(fake_cuda):
    s, z, labels = torch.rand(6, 6), torch.rand(6, 4), torch.arange(6) % 2
    with fake_cuda as fake:
        s_pos, s_neg = m.pairs(fake(s))
        results = [
            m.contrastive_loss(s_pos, s_neg, 0.1), *m.gradients(s_pos, s_neg, 0.1), m.relative_penalty(s_neg, 0.1),
            m.triplet_limit(s_pos, s_neg, 0.1), m.linear_limit(s_pos, s_neg, 0.1), m.simple_loss(s_pos, s_neg),
            m.hard_contrastive_loss(s_pos, s_neg, 0.1, 0.4), m.hard_simple_loss(s_pos, s_neg, 0.4),
            m.entropy(m.relative_penalty(s_neg, 0.1)), m.uniformity_loss(fake(z)), m.tolerance(fake(z), fake(labels)),
        ]  # fmt: skip
        assert all(result.device.type == "cuda" and result.dtype == torch.float32 for result in results)
