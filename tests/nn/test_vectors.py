"""Vectors of any size: at unit length, checked, and told apart by precision."""

import copy

import pytest
import torch

from nearfar import losses, nn

HALF = (torch.float16, torch.bfloat16)


def vectors(n=6, d=5, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ordinary_vectors_are_torchs_to_the_last_bit(dtype):
    z = torch.cat([vectors() * 10.0**e for e in range(-9, 10, 3)]).to(dtype).requires_grad_()
    weight = vectors(len(z)).to(dtype)
    for dim in (0, 1, -1):
        ours, theirs = nn.normalise(z, dim), torch.nn.functional.normalize(z, dim=dim)
        assert torch.equal(ours, theirs)
        slopes = [torch.autograd.grad((unit * weight).sum(), z)[0] for unit in (ours, theirs)]
        assert torch.equal(*slopes)


@pytest.mark.parametrize("scale", [1e-37, 1e-30, 1e-15, 1e-13, 1e10, 1e20, 1e37])
def test_short_and_long_vectors_get_unit_length(scale):
    z, weight = vectors(), vectors(seed=1)
    for dtype in (torch.float32, torch.float64):
        given = (z * scale).to(dtype).requires_grad_()
        exact = (given.detach().double() / scale).requires_grad_()
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(nn.normalise(given).double(), nn.normalise(exact), rtol=4 * eps, atol=4 * eps)
        (slope,) = torch.autograd.grad((nn.normalise(given) * weight.to(dtype)).sum(), given)
        (expected,) = torch.autograd.grad((nn.normalise(exact) * weight).sum(), exact)
        if scale > 1e-37:  # there the slope itself is beyond float32
            torch.testing.assert_close(slope.double() * scale, expected, rtol=1e2 * eps, atol=1e2 * eps)


def test_gradients_of_short_and_long_vectors():
    z = vectors(3, 4).requires_grad_()
    for scale in (1e-300, 1e-15, 1.0, 1e20, 1e160):
        assert torch.autograd.gradcheck(lambda z: nn.normalise(z * scale), (z,))  # noqa: B023 - called at once


@pytest.mark.parametrize("dtype", [*HALF, torch.float32, torch.float64])
def test_zero_vectors_stay_zero(dtype):
    z = torch.zeros(2, 3, dtype=dtype, requires_grad=True)
    unit = nn.normalise(z)
    assert unit.dtype == dtype and not unit.any()
    unit.sum().backward()
    if dtype != torch.float16:  # torch's slope of 1e12 is beyond float16
        assert torch.isfinite(z.grad).all()


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_is_rounded_once(dtype):
    for scale in (1e-5, 1.0, 3e4):
        z = (vectors(50, 300) * scale).clamp(-6e4, 6e4).to(dtype)
        assert torch.equal(nn.normalise(z), nn.normalise(z.float()).to(dtype))


def test_losses_do_not_see_the_size_of_features():
    a, b, y = vectors(8).float(), vectors(8, seed=1).float(), torch.arange(8) % 2
    for loss in (
        lambda a, b: losses.nt_xent(a, b),
        lambda a, b: losses.info_nce(a, b, b.flip(0)),
        lambda a, b: losses.supcon(a, y),
        lambda a, b: losses.prototype_nce(a, b, y),
    ):
        for scale in (1e-30, 1e-15, 1e20):
            torch.testing.assert_close(loss(a * scale, b * scale), loss(a, b))


def test_precisions_that_do_not_go_together_are_named():
    z, y = vectors(), torch.arange(6) % 2
    for call, name in [
        (lambda: losses.info_nce(z.float(), z), "keys"),
        (lambda: losses.info_nce(z, z, z.float()), "negatives"),
        (lambda: losses.info_nce(z, z, z.float().expand(6, 6, 5)), "negatives"),
        (lambda: losses.nt_xent(z.bfloat16(), z), "z_b"),
        (lambda: losses.prototype_nce(z, z.float(), y), "prototypes"),
    ]:
        with pytest.raises(ValueError, match=f"^{name} must have the same D, dtype and device as .*float") as caught:
            call()
        assert "\n" not in str(caught.value)
    online = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match="target and online must have the same parameters"):
        nn.ema_update(copy.deepcopy(online).double(), online, 0.5)


def test_half_and_single_precision_go_together():
    """As in a network under autocast, whose outputs are half and whose parameters are not."""
    a, b = vectors().float(), vectors(seed=1).float()
    torch.testing.assert_close(losses.nt_xent(a.bfloat16(), b), losses.nt_xent(a.bfloat16().float(), b))


def test_codes_and_weights_take_part_in_torchs_promotion():
    z, y = vectors().float(), torch.arange(6) % 5
    codes = losses.sinkhorn_codes(z.double().tanh())
    assert losses.prototype_cross_entropy(z, codes).dtype == torch.float64
    assert losses.focal(z, y, alpha=torch.ones(5, dtype=torch.float64)).dtype == torch.float32


def test_normalise_needs_no_values(fake_cuda):
    with fake_cuda as fake:
        z = fake(vectors().float())
        assert nn.normalise(z).device.type == "cuda" and nn.prepare_features(True, z=z)[0].shape == z.shape
