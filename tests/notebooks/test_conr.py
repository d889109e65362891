"""The method cells of the conr chapter: against loops, hand values, scipy, and the paper's identities."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import nearfar
from nearfar import losses

m = nearfar.method("conr")


def double(*values) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture
def batch():
    """Two views of seven samples: v (14, 5), y, y_hat, eta (14,); labels 0..9, window 1 gives pairs of every kind."""
    g = torch.Generator().manual_seed(3)
    v = torch.randn(14, 5, generator=g, dtype=torch.float64)
    y = (10 * torch.rand(7, generator=g, dtype=torch.float64)).repeat(2)
    y_hat = 5 + 1.2 * torch.randn(14, generator=g, dtype=torch.float64)
    eta = (0.5 + torch.rand(7, generator=g, dtype=torch.float64)).repeat(2)
    return v, y, y_hat, eta


def loop_loss(v, y, y_hat, eta, omega, epsilon, tau, weighting, quirk, count_anchor, outer) -> float:
    """Eq. (1)-(4) word for word, with plain exponentials and no tensors."""
    v, y, y_hat, eta = v.tolist(), y.tolist(), y_hat.tolist(), eta.tolist()
    z = [[a / math.sqrt(sum(b * b for b in row)) for a in row] for row in v]
    M, total = len(v), 0.0
    for i in range(M):

        def similarity(j, i=i):
            return math.exp(sum(a * b for a, b in zip(z[i], z[j])) / tau)

        P = [j for j in range(M) if j != i and abs(y[i] - y[j]) <= omega]
        N = [j for j in range(M) if abs(y[i] - y[j]) > omega and abs(y_hat[i] - y_hat[j]) <= omega]
        if not N or not P:
            continue
        denominator = sum(similarity(p) for p in P) + (M - len(P) if quirk else 0)
        for n in N:
            gap = abs(y[i] - y[n])
            S = eta[i] * math.exp(epsilon * gap) if weighting == "exponential" else epsilon * eta[i] * gap
            denominator += S * similarity(n)
        ell = -sum(math.log(similarity(j) / denominator) for j in P) / (len(P) + count_anchor)
        total += (eta[i] if outer else 1.0) * ell
    return total / M


# ---------------------------------------------------------------------------------------------- against the formula
@pytest.mark.parametrize("quirk", [False, True])
@pytest.mark.parametrize("weighting", ["exponential", "linear"])
@pytest.mark.parametrize(("count_anchor", "outer"), [(False, True), (True, False)])
@pytest.mark.parametrize(("omega", "epsilon", "tau"), [(1.0, 0.01, 0.07), (0.2, 0.2, 0.2), (3.0, 0.5, 1.0)])
def test_equals_a_double_loop(batch, quirk, weighting, count_anchor, outer, omega, epsilon, tau):
    options = dict(omega=omega, epsilon=epsilon, tau=tau, weighting=weighting, quirk=quirk,
                   count_anchor=count_anchor, outer=outer)  # fmt: skip
    expected = loop_loss(*batch, **options)
    found = m.conr_loss(*batch, **options)
    assert found.dtype == torch.float64 and found.dim() == 0
    assert expected > 0 and math.isclose(found, expected, rel_tol=1e-9)


def test_the_code_of_the_paper_on_a_batch(batch):
    """The quirk as the published code computes it: masked similarities are zeros inside the exponential."""
    v, y, y_hat, eta = batch
    z = v / v.norm(dim=1, keepdim=True)
    gap = (y[:, None] - y).abs()
    pos = (gap <= 1) & ~torch.eye(len(y), dtype=torch.bool)
    neg = (gap > 1) & ((y_hat[:, None] - y_hat).abs() <= 1)
    prod = z @ z.T / 0.07
    pushed = (eta[:, None] * torch.exp(0.01 * gap) * torch.exp(prod * neg) * neg).sum(dim=1, keepdim=True)
    inside = torch.exp(prod * pos)
    ell = (-torch.log(inside / (inside.sum(dim=1, keepdim=True) + pushed)) * pos).sum(dim=1) / pos.sum(dim=1)
    expected = (eta * ell * neg.any(dim=1)).mean()
    assert torch.allclose(m.conr_loss(v, y, y_hat, eta, quirk=True), expected, rtol=1e-12)


def test_hand_value():
    """Rare pair at a right angle to a frequent pair, all predicted alike: one positive e¹, two negatives S e⁰."""
    y, y_hat = double(30, 30, 80, 80), double(31, 31, 31, 31)
    v = double(2, 0, 3, 0, 0, 1, 0, 5).view(4, 2)
    S = math.exp(0.5)
    assert math.isclose(m.conr_loss(v, y, y_hat, tau=1.0), math.log(math.e + 2 * S) - 1, rel_tol=1e-12)
    assert math.isclose(m.conr_loss(v, y, y_hat, tau=1.0, quirk=True), math.log(math.e + 3 + 2 * S) - 1, rel_tol=1e-12)
    eta = double(1, 1, 3, 3)
    expected = (math.log(math.e + 2 * S) - 1 + 3 * (math.log(math.e + 6 * S) - 1)) / 2
    assert math.isclose(m.conr_loss(v, y, y_hat, eta, tau=1.0), expected, rel_tol=1e-12)


def test_hand_value_of_the_depth_version():
    y, y_hat, v = double(1, 1, 2), double(1.5, 1.5, 1.5), double(1, 0, 1, 0, 0, 1).view(3, 2)
    # anchors 0 and 1: a positive e⁵, one negative 0.2·1·e⁰, divided by two; anchor 2 has no positive and counts zero
    expected = 2 * (math.log(math.exp(5) + 0.2) - 5) / 2 / 3
    assert math.isclose(m.conr_loss(v, y, y_hat, **m.DEPTH), expected, rel_tol=1e-9)


def test_pair_sets_by_hand():
    P, N = m.pair_sets(double(0, 1, 5, 9), double(2, 4, 3, 20), omega=1.0)
    assert P.nonzero().tolist() == [[0, 1], [1, 0]]
    assert N.nonzero().tolist() == [[0, 2], [1, 2], [2, 0], [2, 1]]


# ---------------------------------------------------------------------------------------------- identities of the paper
def test_quirk_is_one_more_logit(batch):
    """Exercise 1: log(2N − |P_i|) beside the other logits."""
    v, y, y_hat, eta = batch
    z = torch.nn.functional.normalize(v, dim=1)
    P, N = m.pair_sets(y, y_hat, 1.0)
    ell = m.anchor_losses(z, y, y_hat, eta, quirk=True)
    log_S = m.log_pushing_weight(y, eta)
    for i in range(14):
        s = z @ z[i] / 0.07
        logits = torch.cat([s[P[i]], (s + log_S[i])[N[i]], double(math.log(14 - int(P[i].sum())))])
        expected = logits.logsumexp(dim=0) - s[P[i]].mean() if N[i].any() else double(0)[0]
        assert torch.allclose(ell[i], expected)


def test_no_confused_pair_no_loss():
    """Exercise 2: predictions right within ω/2 on a grid wider than 2ω give exactly zero, and no gradient."""
    g = torch.Generator().manual_seed(0)
    y = torch.arange(9, dtype=torch.float64).repeat(2) * 2.01
    v = torch.randn(18, 4, generator=g, dtype=torch.float64, requires_grad=True)
    loss = m.conr_loss(v, y, y + torch.rand(18, generator=g, dtype=torch.float64) - 0.5)
    loss.backward()
    assert loss == 0 and torch.equal(v.grad, torch.zeros_like(v))


def test_all_confused_with_class_labels_is_supcon():
    g = torch.Generator().manual_seed(1)
    labels = torch.arange(5).repeat(3)
    v = torch.randn(15, 6, generator=g, dtype=torch.float64)
    ours = m.conr_loss(v, labels.double(), torch.zeros(15, dtype=torch.float64), omega=0.5, epsilon=0.0, tau=0.2)
    assert torch.allclose(ours, losses.supcon(v, labels, 0.2))


def test_more_negatives_raise_the_loss(batch):
    v, y, y_hat, eta = batch
    z = torch.nn.functional.normalize(v, dim=1)
    few, everything = (m.anchor_losses(z, y, guess, eta) for guess in (y_hat, torch.zeros_like(y)))
    assert (everything >= few - 1e-12).all() and (everything > few + 1e-6).any()


def test_pushing_grows_with_distance_and_rarity():
    y, eta = double(0, 5, 20), double(1, 1, 4)
    S = m.log_pushing_weight(y, eta, epsilon=0.01).exp()
    assert torch.allclose(S[0], torch.exp(0.01 * double(0, 5, 20)))
    assert S[0, 2] > S[0, 1] and torch.allclose(S[2, 0], 4 * S[0, 2])
    linear = m.log_pushing_weight(y, eta, epsilon=0.2, weighting="linear").exp()
    assert torch.allclose(linear[2], 0.2 * 4 * double(20, 15, 0))
    assert torch.equal(m.log_pushing_weight(y, torch.ones(3), epsilon=0.0), torch.zeros(3, 3, dtype=torch.float64))


def test_total_loss():
    assert m.total_loss(double(3)[0], double(0.5)[0]) == 5.0
    assert m.total_loss(double(3)[0], double(0.5)[0], alpha=2.0, beta=0.2) == 6.1


# ---------------------------------------------------------------------------------------------- invariances, gradients
def test_permutation_and_scale_invariance(batch):
    order = torch.randperm(14, generator=torch.Generator().manual_seed(5))
    reference = m.conr_loss(*batch)
    assert torch.allclose(m.conr_loss(*(tensor[order] for tensor in batch)), reference, rtol=1e-12)
    v, *rest = batch
    lengths = torch.linspace(0.1, 30, 14, dtype=torch.float64)[:, None]
    assert torch.allclose(m.conr_loss(v * lengths, *rest), reference, rtol=1e-10)


def test_units_of_labels_and_window_go_together(batch):
    v, y, y_hat, eta = batch
    in_months = m.conr_loss(v, 12 * y, 12 * y_hat, eta, omega=12.0, epsilon=0.01 / 12)
    assert torch.allclose(in_months, m.conr_loss(v, y, y_hat, eta, omega=1.0, epsilon=0.01))


@pytest.mark.parametrize("weighting", ["exponential", "linear"])
@pytest.mark.parametrize("quirk", [False, True])
def test_gradcheck(batch, weighting, quirk):
    v, y, y_hat, eta = batch
    v = v.clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda v: m.conr_loss(v, y, y_hat, eta, tau=0.5, weighting=weighting, quirk=quirk), v
    )


def test_no_gradient_to_predictions(batch):
    v, y, y_hat, eta = batch
    v, y_hat = v.clone().requires_grad_(), y_hat.clone().requires_grad_()
    m.conr_loss(v, y, y_hat, eta).backward()
    assert y_hat.grad is None and v.grad.abs().sum() > 0


# ---------------------------------------------------------------------------------------------- pitfalls
def test_an_anchor_without_a_positive_counts_zero():
    """One view: the published code divides by zero here."""
    y, y_hat = double(0, 10, 20), double(5, 5, 5)
    v = torch.eye(3, dtype=torch.float64, requires_grad=True)
    loss = m.conr_loss(v, y, y_hat)
    loss.backward()
    assert loss == 0 and torch.equal(v.grad, torch.zeros(3, 3, dtype=torch.float64))
    mixed = m.conr_loss(torch.eye(3, dtype=torch.float64), double(0, 0.5, 20), y_hat, tau=1.0)
    anchors = [math.log(1 + math.exp(0.01 * gap)) for gap in (20, 19.5)]
    assert math.isclose(mixed, sum(anchors) / 3, rel_tol=1e-12)


def test_linear_weighting_with_epsilon_zero_has_no_negatives_and_no_nan(batch):
    v, y, y_hat, eta = batch
    v = v.clone().requires_grad_()
    loss = m.conr_loss(v, y, y_hat, eta, epsilon=0.0, weighting="linear")
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(v.grad).all()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_low_precision(batch, dtype, tolerance):
    v, y, y_hat, eta = batch
    y, y_hat = y.round(), y_hat.round() + 0.25  # the same pairs in every precision
    v = torch.cat([v[:7], v[:7] + 0.01 * v[7:]])  # nearly equal views: e^(1/0.07) > 65,504
    found = m.conr_loss(*(tensor.to(dtype) for tensor in (v, y, y_hat, eta)))
    assert torch.isfinite(found) and math.isclose(found, m.conr_loss(v, y, y_hat, eta), rel_tol=tolerance)


def test_very_small_temperature_stays_finite(batch):
    v, *rest = batch
    assert torch.isfinite(m.conr_loss(v.float(), *(tensor.float() for tensor in rest), tau=1e-3))


@pytest.mark.parametrize(
    ("change", "name"),
    [({"tau": 0.0}, "tau"), ({"tau": -1.0}, "tau"), ({"omega": -0.1}, "omega"), ({"epsilon": -0.1}, "epsilon"),
     ({"tau": math.nan}, "tau"), ({"weighting": "square"}, "weighting"), ({"v": torch.ones(14, 2, 2)}, "v must"),
     ({"y": torch.ones(13)}, "y must"), ({"y_hat": torch.ones(14, 1)}, "y_hat"), ({"eta": torch.ones(7)}, "eta")],
)  # fmt: skip
def test_bad_input(batch, change, name):
    arguments = dict(zip(("v", "y", "y_hat", "eta"), batch)) | change
    with pytest.raises(ValueError, match=name):
        m.conr_loss(**arguments)


def test_runs_on_a_fake_gpu(batch, fake_cuda):
    single, errors = [tensor.float() for tensor in batch], [torch.rand(9), torch.rand(9), torch.arange(9) % 3]
    for quirk in (False, True):
        with fake_cuda as fake:
            loss = m.conr_loss(*map(fake, single), quirk=quirk)
            assert loss.device.type == "cuda" and loss.shape == () and loss.dtype == torch.float32
    with fake_cuda as fake:
        error = m.shot_errors(*map(fake, errors))
        assert error["mae"].device.type == "cuda" and error["gm"].shape == (3,)


# ---------------------------------------------------------------------------------------------- companions
def test_depth_maps_are_summarised_by_spatial_means():
    g = torch.Generator().manual_seed(2)
    maps, guesses = (torch.rand(6, 1, 4, 5, generator=g, dtype=torch.float64) for _ in range(2))
    features = torch.randn(6, 3, 2, 2, generator=g, dtype=torch.float64)
    y, y_hat = m.summarise(maps), m.summarise(guesses)
    assert torch.allclose(y, torch.stack([image.mean() for image in maps]))
    options = {**m.DEPTH, "omega": 0.05}
    expected = loop_loss(features.flatten(1), y, y_hat, torch.ones(6), quirk=False, **options)
    assert math.isclose(m.conr_loss(features.flatten(1), y, y_hat, **options), expected, rel_tol=1e-9, abs_tol=1e-12)


@pytest.mark.parametrize(("size", "sigma"), [(5, 2.0), (5, 1.0), (9, 2.0), (3, 2.0)])
def test_lds_kernel_equals_scipys(size, sigma):
    from scipy.ndimage import gaussian_filter1d

    impulse = np.zeros(size)
    impulse[size // 2] = 1
    expected = gaussian_filter1d(impulse, sigma=sigma)
    found = m.lds_kernel(size, sigma)
    np.testing.assert_allclose(found, expected / expected.max(), rtol=1e-12)
    plain = m.lds_kernel(size, sigma, reflected=False)
    np.testing.assert_allclose(plain, np.exp(-0.5 * ((np.arange(size) - size // 2) / sigma) ** 2), rtol=1e-12)


@pytest.mark.parametrize("how", ["inverse", "inverse-sqrt"])
@pytest.mark.parametrize("clip", [None, (5, 1000)])
@pytest.mark.parametrize("smooth", [True, False])
def test_lds_weights_equal_scipys_convolution(how, clip, smooth):
    from scipy.ndimage import convolve1d

    y = 30 * torch.rand(400, generator=torch.Generator().manual_seed(4), dtype=torch.float64) ** 3
    counts = np.histogram(y, bins=30, range=(0, 30))[0].astype(float)
    density = np.sqrt(counts) if how == "inverse-sqrt" else counts
    density = np.clip(density, *clip) if clip else density
    if smooth:
        density = convolve1d(density, weights=m.lds_kernel().numpy(), mode="constant")
    expected = 1 / density[y.long().numpy()]
    found = m.lds_weights(y, torch.linspace(0, 30, 31), how, smooth=smooth, clip=clip)
    np.testing.assert_allclose(found, expected * 400 / expected.sum(), rtol=1e-9)
    assert math.isclose(found.mean(), 1, rel_tol=1e-12) and found[y.argmax()] > found[y.argmin()]


def test_lds_without_weights_and_bad_name():
    assert torch.equal(m.lds_weights(torch.rand(5), torch.linspace(0, 1, 4), "none"), torch.ones(5))
    with pytest.raises(ValueError, match="how"):
        m.lds_weights(torch.rand(5), torch.linspace(0, 1, 4), "square")


def test_shot_errors_by_hand():
    y, y_hat = double(10, 20, 30, 40, 50), double(11, 24, 30, 40.5, 58)
    found = m.shot_errors(y, y_hat, torch.tensor([0, 0, 1, 1, 2]), floor=1e-2)
    assert torch.allclose(found["mae"], double(2.5, 0.25, 8))
    assert torch.allclose(found["gm"], double(2, math.sqrt(0.01 * 0.5), 8))  # a perfect prediction counts as the floor
    assert torch.isnan(m.shot_errors(y, y_hat, torch.zeros(5, dtype=torch.long))["mae"][1:]).all()
