"""ConR's method cells against loop transcriptions, hand values, identities and limits."""

import math

import numpy as np
import pytest
import torch

import nearfar
from nearfar import losses

conr = nearfar.method("conr")


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def batch():
    """Two views of 8 samples: features (16, 5), labels, predictions and weights (16,)."""
    y = torch.tensor([0.0, 0.5, 2.0, 2.2, 5.0, 9.0, 9.5, 20.0], dtype=torch.float64)
    y_hat = torch.tensor([1.0, 1.1, 1.3, 6.0, 1.9, 8.8, 1.5, 9.1], dtype=torch.float64)
    eta = torch.tensor([0.5, 0.7, 1.0, 1.1, 1.2, 0.9, 1.4, 2.0], dtype=torch.float64)
    return draw(16, 5), y.repeat(2), y_hat.repeat(2), eta.repeat(2)


def by_loops(
    v, y, y_hat, eta, omega, epsilon, tau, weighting="exponential", quirk=False, count_anchor=False, outer=True
):
    M, total = len(y), 0.0
    z = [row / row.norm() for row in v]
    for i in range(M):
        P = [j for j in range(M) if j != i and abs(y[i] - y[j]) <= omega]
        N = [j for j in range(M) if abs(y[i] - y[j]) > omega and abs(y_hat[i] - y_hat[j]) <= omega]
        if not N or not P:
            continue
        denominator = sum(math.exp(z[i] @ z[p] / tau) for p in P)
        for n in N:
            gap = abs(y[i] - y[n])
            S = eta[i] * math.exp(epsilon * gap) if weighting == "exponential" else epsilon * eta[i] * gap
            denominator += S * math.exp(z[i] @ z[n] / tau)
        if quirk:
            denominator += M - len(P)
        ell = -sum(math.log(math.exp(z[i] @ z[j] / tau) / denominator) for j in P) / (len(P) + count_anchor)
        total += (eta[i] if outer else 1.0) * ell
    return total / M


@pytest.mark.parametrize("quirk", [False, True])
@pytest.mark.parametrize("weighting", ["exponential", "linear"])
@pytest.mark.parametrize("count_anchor, outer", [(False, True), (True, False)])
def test_loss_is_the_formula(batch, weighting, quirk, count_anchor, outer):
    options = {"omega": 1.0, "epsilon": 0.05, "tau": 0.2, "weighting": weighting, "quirk": quirk,
               "count_anchor": count_anchor, "outer": outer}  # fmt: skip
    expected = float(by_loops(*batch, **options))
    assert conr.conr_loss(*batch, **options).item() == pytest.approx(expected, rel=1e-12)


def test_pair_sets_by_hand():
    y = torch.tensor([0.0, 0.5, 3.0, 8.0])
    P, N = conr.pair_sets(y, torch.tensor([1.0, 1.0, 1.5, 9.0]), omega=1.0)
    assert P.nonzero().tolist() == [[0, 1], [1, 0]]
    assert N.nonzero().tolist() == [[0, 2], [1, 2], [2, 0], [2, 1]]


def test_hand_value_on_three_points():
    v = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    y, y_hat = torch.tensor([0.0, 0.0, 5.0]).double(), torch.zeros(3).double()
    # anchors 0 and 1: a positive at cosine 1, a negative at cosine 0 pushed with S = e^{0.5}; anchor 2 has no positive
    ell = -math.log(math.exp(1 / 0.5) / (math.exp(1 / 0.5) + math.exp(0.1 * 5)))
    assert conr.conr_loss(v, y, y_hat, epsilon=0.1, tau=0.5).item() == pytest.approx(2 * ell / 3)


def test_exercise_two_no_confusion_no_loss():
    y = torch.arange(6, dtype=torch.float64).repeat_interleave(2) * 2.5
    y_hat = y + 0.4 * torch.tensor([1.0, -1.0] * 6, dtype=torch.float64)
    assert conr.conr_loss(draw(12, 4), y, y_hat, omega=1.0).item() == 0.0


def test_with_all_pairs_confused_and_flat_weights_it_is_supcon():
    v, y = draw(12, 4), (torch.arange(12) % 3).double() * 10
    value = conr.conr_loss(v, y, torch.zeros_like(y), omega=1.0, epsilon=0.0, tau=0.2)
    assert torch.allclose(value, losses.supcon(v, (y / 10).long(), temperature=0.2))


def test_invariances(batch):
    v, y, y_hat, eta = batch
    value = conr.conr_loss(v, y, y_hat, eta)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(conr.conr_loss(v[order], y[order], y_hat[order], eta[order]), value)
    assert torch.allclose(conr.conr_loss(7 * v, y + 3, y_hat + 5, eta), value)


def test_gradients_reach_the_features_only(batch):
    v, y, y_hat, eta = batch
    v, y_hat = v.clone().requires_grad_(), y_hat.clone().requires_grad_()
    conr.conr_loss(v, y, y_hat, eta).backward()
    assert v.grad.abs().sum() > 0 and y_hat.grad is None
    for quirk in (False, True):
        assert torch.autograd.gradcheck(
            lambda f, q=quirk: conr.conr_loss(f, y, y_hat.detach(), eta, tau=0.3, quirk=q), v
        )


def test_one_view_without_a_positive_is_not_nan():
    v = draw(3, 4).requires_grad_()
    loss = conr.conr_loss(v, torch.tensor([0.0, 5.0, 10.0]).double(), torch.zeros(3).double())
    loss.backward()
    assert loss.item() == 0.0 and torch.isfinite(v.grad).all()


def test_low_precision_does_not_overflow(batch):
    v, y, y_hat, eta = batch
    half = conr.conr_loss(v.bfloat16(), *(t.bfloat16() for t in (y, y_hat, eta)), tau=0.01)
    assert torch.isfinite(half)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"tau": 0.0}, "tau"),
        ({"omega": -1.0}, "omega"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"weighting": "cubic"}, "weighting"),
    ],
)
def test_bad_options_are_named(batch, change, message):
    with pytest.raises(ValueError, match=message):
        conr.conr_loss(*batch, **change)


def test_bad_shapes_are_named(batch):
    v, y, y_hat, eta = batch
    with pytest.raises(ValueError, match="y_hat must have shape"):
        conr.conr_loss(v, y, y_hat[:-1], eta)
    with pytest.raises(ValueError, match="v must have shape"):
        conr.conr_loss(v[:, :, None], y, y_hat, eta)


def test_lds_is_scipys_smoothing():
    from scipy.ndimage import convolve1d, gaussian_filter1d

    impulse = np.array([0.0, 0.0, 1.0, 0.0, 0.0])
    kernel = gaussian_filter1d(impulse, sigma=2)
    assert np.allclose(conr.lds_kernel(), kernel / kernel.max(), rtol=1e-9)
    y = torch.tensor([0.5] * 40 + [1.5] * 10 + [2.5] * 3 + [6.5] * 1, dtype=torch.float64)
    counts = np.array([40, 10, 3, 0, 0, 0, 1.0, 0])
    density = convolve1d(np.sqrt(counts), kernel / kernel.max(), mode="constant")
    eta = 1 / density[y.long().numpy()]
    expected = torch.from_numpy(eta * len(y) / eta.sum())
    assert torch.allclose(conr.lds_weights(y, torch.arange(9.0)), expected, rtol=1e-9)
    assert conr.lds_weights(y, torch.arange(9.0)).mean().item() == pytest.approx(1)


def test_shot_errors_by_hand():
    y, y_hat = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([2.0, 2.0, 7.0, 4.0])
    found = conr.shot_errors(y, y_hat, torch.tensor([0, 0, 1, 2]), floor=0.1)
    assert found["mae"].tolist() == [0.5, 4.0, 0.0]
    assert found["gm"].tolist() == pytest.approx([math.sqrt(0.1), 4.0, 0.1])


def test_total_and_summaries():
    assert conr.total_loss(torch.tensor(2.0), torch.tensor(3.0), alpha=0.5, beta=4.0).item() == 13.0
    maps = draw(3, 4, 5)
    assert torch.allclose(conr.summarise(maps), maps.mean(dim=(1, 2)))


def test_runs_on_a_fake_gpu(fake_cuda, batch):
    # lds_weights counts labels, so its shapes depend on data, which fake tensors do not have
    single = [t.float() for t in batch]
    with fake_cuda as fake:
        v, y, y_hat, eta = (fake(t) for t in single)
        assert conr.conr_loss(v, y, y_hat, eta, quirk=True).device.type == "cuda"
        assert conr.shot_errors(y, y_hat, (y > 5).long())["gm"].device.type == "cuda"
