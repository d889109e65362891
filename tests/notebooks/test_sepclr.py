"""SepCLR's method cells against loop transcriptions, hand values, identities and limits of the paper."""

import inspect
import math

import pytest
import torch
from vectors import chance, on_circle, unit

import nearfar

m = nearfar.method("sepclr")
N, DC, DS, TAU = 7, 5, 3, 0.3
Y = torch.tensor([1, 0, 1, 1, 0, 1, 0])


def free(*shape, seed=0):
    """Random codes of any length: float64."""
    return torch.randn(*shape, dtype=torch.float64, generator=chance(seed))


@pytest.fixture
def codes():
    return unit(N, DC, seed=1), unit(N, DC, seed=2), free(N, DS, seed=3), free(N, DS, seed=4)


def square(a, b):
    return sum((float(x) - float(z)) ** 2 for x, z in zip(a, b, strict=True))


def loop_align(a, b, tau, rows=None):
    rows = range(len(a)) if rows is None else rows
    return sum(square(a[i], b[i]) for i in rows) / len(rows) / (2 * tau)


def loop_unif(a, tau):
    values = [math.exp(-square(a[i], a[j]) / (2 * tau)) for i in range(len(a)) for j in range(i + 1, len(a))]
    return math.log(sum(values) / len(values))


def nulled(s, y=Y):
    return [[float(x) if y[i] else 0.0 for x in row] for i, row in enumerate(s)]


def loop_kjem(c, s, tau):
    n, total = len(c), 0.0
    for i in range(n):
        inner = [math.exp(-(square(c[i], c[j]) + square(s[i], s[j])) / (2 * tau)) for j in range(n)]
        total += math.log(sum(inner) / n)
    return total / n


def close(value):
    return pytest.approx(value, rel=1e-10, abs=1e-11)


# ---------------------------------------------------------------------------------------------- the formulas
def test_alignment_and_uniformity_are_the_formulas(codes):
    c1, c2, s1, s2 = codes
    for a, b in ((c1, c2), (s1, s2)):
        assert m.align(a, b, TAU).item() == close(loop_align(a, b, TAU))
        assert m.unif(a, TAU).item() == close(loop_unif(a, TAU))
    assert m.align(s1, s2, TAU, Y == 1).item() == close(loop_align(s1, s2, TAU, [0, 2, 3, 5]))
    assert m.kernel(s1, TAU)[1, 4].item() == close(math.exp(-square(s1[1], s1[4]) / (2 * TAU)))


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_common_and_salient_terms_are_the_formulas(codes, factor):
    c1, c2, s1, s2 = codes
    by_loop = loop_align(c1, c2, TAU) + factor * 0.5 * (loop_unif(c1, TAU) + loop_unif(c2, TAU))
    assert m.common_loss(c1, c2, TAU, factor).item() == close(by_loop)
    spread = 0.5 * (loop_unif(nulled(s1), TAU) + loop_unif(nulled(s2), TAU))
    by_loop = loop_align(s1, s2, TAU, [0, 2, 3, 5]) + factor * spread
    assert m.salient_loss(s1, s2, Y, TAU, factor).item() == close(by_loop)
    assert m.salient_loss(s1, s2, Y.bool(), TAU, factor).item() == close(by_loop)


def test_information_less_and_joint_entropy_are_the_formulas(codes):
    c1, c2, s1, s2 = codes
    null = torch.zeros_like(s1)
    by_loop = 0.5 * (loop_align(s1, null, TAU, [1, 4, 6]) + loop_align(s2, null, TAU, [1, 4, 6]))
    assert m.information_less(s1, s2, Y, TAU).item() == close(by_loop)
    by_loop = loop_kjem(c1, nulled(s1), TAU)
    assert m.kjem_loss(c1, m.null_out(s1, Y), TAU).item() == close(by_loop)
    assert m.joint_entropy(c1, m.null_out(s1, Y), TAU).item() == close(-by_loop)


def test_the_total_is_the_weighted_sum(codes):
    c1, c2, s1, s2 = codes
    terms = {
        "common": m.common_loss(c1, c2, TAU).item(),
        "salient": m.salient_loss(s1, s2, Y, TAU).item(),
        "information-less": m.information_less(s1, s2, Y, TAU).item(),
        "joint entropy": (loop_kjem(c1, nulled(s1), TAU) + loop_kjem(c2, nulled(s2), TAU)) / 2,
    }
    found = m.sepclr_terms(c1, c2, s1, s2, Y, TAU)
    assert {k: v.item() for k, v in found.items()} == close(terms)
    weights = (1, 7.0, 5.0, 3.0)
    expected = sum(w * t for w, t in zip(weights, terms.values(), strict=True))
    assert m.sepclr_loss(c1, c2, s1, s2, Y, TAU, *weights[1:]).item() == close(expected)


def test_defaults_are_the_official_ones():
    defaults = {k: v.default for k, v in inspect.signature(m.sepclr_loss).parameters.items()}
    assert [defaults[k] for k in ("tau", "lambda_S", "lambda_0", "lambda_J", "factor")] == [0.5, 1000, 1000, 10, 2]


def test_supervised_salient_term_is_the_formula():
    s, a, h = free(N, 2, seed=5), free(N, 2, seed=6) / 5, torch.tensor([0.05, 1e-5], dtype=torch.float64)
    a[3] = a[0]  # a pair that the near-delta kernel sees
    t, b, total = [0, 2, 3, 5], [1, 4, 6], 0.0
    for k in range(2):
        pairs = [(i, j) for n, i in enumerate(t) for j in t[n + 1 :]]
        alike = [math.exp(-(float(a[i, k] - a[j, k]) ** 2) / float(h[k])) for i, j in pairs]
        align = sum(w * float(s[i, k] - s[j, k]) ** 2 for w, (i, j) in zip(alike, pairs, strict=True)) / len(pairs)
        assert m.attribute_alignment(s, a, h, Y == 1)[k].item() == close(align)
        pull = sum(float(s[i, k]) ** 2 for i in b) / len(b)
        total += (0.5 * (align + pull) + 1.5 * loop_unif([[row[k]] for row in nulled(s)], TAU)) / 2
    assert m.supervised_salient_loss(s, a, Y, h, TAU, factor=1.5).item() == close(total)
    h_0, extra = torch.tensor([0.05, 1.0], dtype=torch.float64), 19 * sum(float(s[i, 0]) ** 2 for i in b) / 3
    strict = m.supervised_salient_loss(s, a, Y, h, TAU, factor=1.5, h_0=h_0)  # the official script's pull
    assert strict.item() == close(total + extra / 4)
    garbage = torch.where(Y[:, None] == 1, a, math.nan)  # background images have no attributes
    assert m.supervised_salient_loss(s, garbage, Y, h, TAU, factor=1.5).item() == close(total)
    whole = m.attribute_alignment(s, a, 0.05)
    assert whole.shape == (2,) and torch.allclose(whole, m.attribute_alignment(s, a, 0.05, torch.ones(N) == 1))


# ---------------------------------------------------------------------------------------------- by hand
def test_by_hand():
    c = on_circle(0, 90)  # ‖c_0 − c_1‖² = 2; with τ = ½ the exponent is −‖·‖²
    s = torch.tensor([[3.0, 4.0], [9.0, 9.0]], dtype=torch.float64)
    y = torch.tensor([1, 0])
    assert m.unif(c).item() == close(-2.0)
    assert m.align(c, c.flip(0)).item() == close(2.0)
    assert m.null_out(s, y).tolist() == [[3.0, 4.0], [0.0, 0.0]]
    assert m.unif(m.null_out(s, y)).item() == close(-25.0)
    assert m.information_less(s, s, y).item() == close(162.0)
    assert m.kjem_loss(c, m.null_out(s, y)).item() == close(math.log((1 + math.exp(-27)) / 2))
    assert m.common_loss(c, c).item() == close(-4.0) and m.common_loss(c, c, factor=1.0).item() == close(-2.0)
    assert m.salient_loss(s, s, y).item() == close(-50.0)


# ---------------------------------------------------------------------------------------------- identities and limits
def test_zeroed_rows_are_exact_and_without_gradient(codes):
    c1, c2, s1, s2 = codes
    assert (m.null_out(s1, Y)[Y == 0] == 0).all() and torch.equal(m.null_out(s1, Y)[Y == 1], s1[Y == 1])
    wild = s1.clone()
    wild[Y == 0] = math.inf
    assert torch.isfinite(m.null_out(wild, Y)).all()
    s = s1.clone().requires_grad_()
    (m.salient_loss(s, s2, Y) + m.kjem_loss(c1, m.null_out(s, Y))).backward()
    assert (s.grad[Y == 0] == 0).all() and (s.grad[Y == 1] != 0).all()
    s = s1.clone().requires_grad_()
    m.information_less(s, s2, Y).backward()
    assert (s.grad[Y == 1] == 0).all() and torch.allclose(s.grad[Y == 0], s1[Y == 0] / 3)


def test_everything_else_gets_a_gradient(codes):
    leaves = [z.clone().requires_grad_() for z in codes]
    m.sepclr_loss(*leaves, Y).backward()
    assert all((leaf.grad.abs().sum(dim=1) > 0).all() for leaf in leaves)


def test_floor_of_the_salient_uniformity():
    far = 100.0 * torch.arange(1, N + 1, dtype=torch.float64)[:, None] * torch.ones(1, 2, dtype=torch.float64)
    background_pairs = 3 * 2 / (N * (N - 1))
    assert m.unif(m.null_out(far, Y)).item() == close(math.log(background_pairs))
    assert m.unif(torch.zeros(4, 3, dtype=torch.float64)).item() == close(0.0)
    assert math.isfinite(m.unif(far).item())  # all kernels underflow, their logarithm does not


def test_joint_entropy_lies_between_the_single_ones_and_their_limits(codes):
    c, s = codes[0], m.null_out(codes[2], Y)
    alone_c, alone_s = m.joint_entropy(c, torch.zeros_like(s), TAU), m.joint_entropy(torch.zeros_like(c), s, TAU)
    joint = m.joint_entropy(c, s, TAU)
    assert max(alone_c, alone_s) < joint < math.log(N)
    assert m.joint_entropy(c, 1e3 * codes[2], TAU).item() == close(math.log(N))  # nothing but self pairs
    assert m.joint_entropy(torch.zeros_like(c), torch.zeros_like(s), TAU).item() == close(0.0)


def test_the_joint_kernel_factorises_on_a_grid():
    c, s = unit(4, 3, seed=7), free(5, 2, seed=8)  # every c with every s: independent
    grid_c, grid_s = c.repeat_interleave(5, dim=0), s.repeat(4, 1)
    product = m.kernel(grid_c).mean() * m.kernel(grid_s).mean()
    assert (m.kernel(grid_c) * m.kernel(grid_s)).mean().item() == close(product.item())
    both = m.joint_entropy(c, torch.zeros(4, 1, dtype=torch.float64)) + m.joint_entropy(torch.zeros(5, 1).double(), s)
    assert m.joint_entropy(grid_c, grid_s).item() == close(both.item())


def test_kernels_do_not_see_a_common_shift(codes):
    c1, c2, s1, s2 = codes
    shift = free(DS, seed=9)
    here = m.sepclr_terms(c1, c2, s1, s2, Y)
    there = m.sepclr_terms(c1, c2, s1 + shift, s2 + shift, Y, s_prime=shift)
    assert {k: v.item() for k, v in there.items()} == close({k: v.item() for k, v in here.items()})


def test_order_of_images_does_not_matter(codes):
    order = torch.randperm(N, generator=chance(3))
    assert m.sepclr_loss(*codes, Y).item() == close(m.sepclr_loss(*(z[order] for z in codes), Y[order]).item())


def test_gradients_are_right_and_finite_at_coincident_points(codes):
    leaves = [z.clone().requires_grad_() for z in codes]
    assert torch.autograd.gradcheck(lambda *z: m.sepclr_loss(*z, Y, TAU, 3.0, 2.0, 5.0), leaves)
    a = free(N, DS, seed=6)
    assert torch.autograd.gradcheck(lambda s: m.supervised_salient_loss(s, a, Y, 0.5, TAU), leaves[2:3])
    for value in (0.0, 1.0):
        points = [torch.full_like(z, value).requires_grad_() for z in codes]
        m.sepclr_loss(*points, Y).backward()
        assert all(torch.isfinite(z.grad).all() for z in points)


# ---------------------------------------------------------------------------------------------- types, devices, misuse
def test_dtype_stays(codes):
    for dtype in (torch.float32, torch.float64):
        assert m.sepclr_loss(*(z.to(dtype) for z in codes), Y).dtype == dtype
    single = m.sepclr_loss(*(z.float() for z in codes), Y, TAU, 3.0, 2.0, 5.0)
    assert single.item() == pytest.approx(m.sepclr_loss(*codes, Y, TAU, 3.0, 2.0, 5.0).item(), rel=1e-5)


def test_on_an_accelerator(codes, fake_cuda):
    with fake_cuda as fake:
        y = fake(Y)
        assert m.sepclr_loss(*map(fake, codes), y).device.type == "cuda"
        assert m.sepclr_loss(*map(fake, codes), y, s_prime=fake(torch.ones(DS).double())).device.type == "cuda"
        assert m.supervised_salient_loss(fake(codes[2]), fake(codes[3]), y, 0.05).device.type == "cuda"


def test_encoder():
    backbone = nearfar.nn.backbone("tiny", channels=1, width=4, seed=0)
    images = torch.rand(6, 1, 16, 16, generator=chance())
    common, salient = (m.Encoder(backbone, 5, hidden=8, normalised=n, seed=3) for n in (True, False))
    assert torch.allclose(common(images).norm(dim=1), torch.ones(6)) and salient(images).shape == (6, 5)
    assert not torch.allclose(salient(images).norm(dim=1), torch.ones(6), atol=0.05)
    assert common.represent(images).shape == (6, 5)
    state = torch.get_rng_state()
    again = m.Encoder(backbone, 5, hidden=8, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(p, q) for p, q in zip(common.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda c, s: m.align(c, c, 0.0), "tau"),
        (lambda c, s: m.unif(c, -1.0), "tau"),
        (lambda c, s: m.unif(c[:1]), "a must"),
        (lambda c, s: m.common_loss(c, c[:3]), "c1 and c2"),
        (lambda c, s: m.salient_loss(s, s[:, :2], Y), "s1 and s2"),
        (lambda c, s: m.salient_loss(s, s, Y[:3]), "y must"),
        (lambda c, s: m.salient_loss(s, s, torch.zeros(N)), "rows"),
        (lambda c, s: m.information_less(s, s, torch.ones(N)), "rows"),
        (lambda c, s: m.align(c, c, 0.5, torch.ones(3) == 1), "rows"),
        (lambda c, s: m.joint_entropy(c, s[:3]), "c and s_tilde"),
        (lambda c, s: m.attribute_alignment(s, c), "s and a"),
        (lambda c, s: m.attribute_alignment(s, s, rows=torch.arange(N) == 1), "rows"),
        (lambda c, s: m.supervised_salient_loss(s, s, torch.ones(N)), "y"),
    ],
)
def test_misuse_is_named(codes, call, name):
    with pytest.raises(ValueError, match=name):
        call(codes[0], codes[2])
