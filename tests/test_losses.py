import math

import pytest
import torch

from nearfar import losses
from nearfar.losses import focal, info_nce, nt_xent, prototype_cross_entropy, sinkhorn_codes, supcon

DOUBLE = dict(dtype=torch.float64)


def features(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def cosine(a, b):
    return float(a @ b / (a.norm() * b.norm()))


# ------------------------------------------------------------------------------------- against the formulas, in loops
def test_info_nce_is_its_formula():
    q, k, t = features(5, 3), features(5, 3, seed=1), 0.2
    expected = []
    for i in range(5):
        terms = [math.exp(cosine(q[i], k[j]) / t) for j in range(5)]
        expected.append(-math.log(terms[i] / sum(terms)))
    assert info_nce(q, k, temperature=t, reduction="none").tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("per_query", [False, True])
def test_info_nce_with_negatives_is_its_formula(per_query):
    q, k, t = features(4, 3), features(4, 3, seed=1), 0.3
    negatives = features(4, 6, 3, seed=2) if per_query else features(6, 3, seed=2)
    expected = []
    for i in range(4):
        positive = math.exp(cosine(q[i], k[i]) / t)
        rows = negatives[i] if per_query else negatives
        expected.append(-math.log(positive / (positive + sum(math.exp(cosine(q[i], row) / t) for row in rows))))
    assert info_nce(q, k, negatives, t, reduction="none").tolist() == pytest.approx(expected, abs=1e-12)


def test_nt_xent_is_its_formula():
    a, b, t = features(4, 3), features(4, 3, seed=1), 0.5
    z, expected = torch.cat([a, b]), []
    for i in range(8):
        j = (i + 4) % 8
        below = sum(math.exp(cosine(z[i], z[k]) / t) for k in range(8) if k != i)
        expected.append(-math.log(math.exp(cosine(z[i], z[j]) / t) / below))
    assert nt_xent(a, b, t, reduction="none").tolist() == pytest.approx(expected, abs=1e-12)
    assert float(nt_xent(a, b, t)) == pytest.approx(sum(expected) / 8, abs=1e-12)


@pytest.mark.parametrize("form", ["out", "in"])
def test_supcon_is_its_formula(form):
    z, labels, t = features(7, 3), torch.tensor([0, 1, 0, 2, 1, 0, 3]), 0.2
    expected = []
    for i in range(7):
        below = sum(math.exp(cosine(z[i], z[a]) / t) for a in range(7) if a != i)
        shares = [math.exp(cosine(z[i], z[p]) / t) / below for p in range(7) if p != i and labels[p] == labels[i]]
        if not shares:
            expected.append(0.0)
        elif form == "out":
            expected.append(-sum(math.log(s) for s in shares) / len(shares))
        else:
            expected.append(-math.log(sum(shares) / len(shares)))
    assert supcon(z, labels, t, form=form, reduction="none").tolist() == pytest.approx(expected, abs=1e-12)
    with_positive = [e for e, label in zip(expected, labels.tolist(), strict=True) if label in (0, 1)]
    assert float(supcon(z, labels, t, form=form)) == pytest.approx(sum(with_positive) / 5, abs=1e-12)


@pytest.mark.parametrize("iterations", [1, 3, 7])
def test_sinkhorn_is_the_official_code(iterations):
    scores, epsilon = features(6, 4).tanh(), 0.05
    q = (scores / epsilon).exp().T  # K × B, as in the authors' repository
    k, b = q.shape
    q = q / q.sum()
    for _ in range(iterations):
        q = q / q.sum(dim=1, keepdim=True) / k
        q = q / q.sum(dim=0, keepdim=True) / b
    torch.testing.assert_close(sinkhorn_codes(scores, epsilon, iterations), (q * b).T, atol=1e-9, rtol=1e-9)


def test_prototype_cross_entropy_is_its_formula():
    scores, codes, t = features(3, 4), features(3, 4, seed=1).softmax(dim=1), 0.1
    expected = []
    for row, code in zip((scores / t).tolist(), codes.tolist(), strict=True):
        top = max(row)
        log_sum = top + math.log(sum(math.exp(s - top) for s in row))
        expected.append(-sum(q * (s - log_sum) for q, s in zip(code, row, strict=True)))
    result = prototype_cross_entropy(scores, codes, t, reduction="none")
    assert result.tolist() == pytest.approx(expected, abs=1e-9)


def test_focal_is_its_formula():
    logits, labels, weights = features(4, 3), torch.tensor([0, 2, 1, 2]), torch.tensor([1.0, 2.0, 0.5], **DOUBLE)
    p = logits.softmax(dim=1)
    expected = [
        -float(weights[y]) * (1 - float(p[i, y])) ** 2.5 * math.log(float(p[i, y]))
        for i, y in enumerate(labels.tolist())
    ]
    assert focal(logits, labels, 2.5, weights, reduction="none").tolist() == pytest.approx(expected, abs=1e-12)
    assert float(focal(logits, labels, 2.5, 0.25)) == pytest.approx(0.25 * float(focal(logits, labels, 2.5)), abs=1e-12)


# ------------------------------------------------------------------------------------- by hand
def test_hand_values():
    axes = torch.eye(2, **DOUBLE)
    assert float(info_nce(axes, axes, temperature=1.0)) == pytest.approx(math.log(1 + math.exp(-1)))
    assert float(nt_xent(axes, axes, 1.0)) == pytest.approx(math.log(math.e + 2) - 1)
    pairs = supcon(torch.cat([axes, axes]), torch.tensor([0, 1, 0, 1]), 1.0)
    assert float(pairs) == pytest.approx(math.log(math.e + 2) - 1)
    assert float(focal(torch.zeros(1, 2, **DOUBLE), torch.tensor([0]))) == pytest.approx(0.25 * math.log(2))
    torch.testing.assert_close(sinkhorn_codes(torch.zeros(4, 2, **DOUBLE)), torch.full((4, 2), 0.5, **DOUBLE))


# ------------------------------------------------------------------------------------- identities and invariances
def test_identities():
    a, b = features(6, 4), features(6, 4, seed=1)
    # one positive each: SupCon in both forms is NT-Xent
    z, labels = torch.cat([a, b]), torch.arange(6).repeat(2)
    for form in ("out", "in"):
        torch.testing.assert_close(supcon(z, labels, 0.3, form=form), nt_xent(a, b, 0.3))
    # gamma 0 is the cross-entropy
    y = torch.tensor([0, 1, 2, 3, 0, 1])
    torch.testing.assert_close(focal(a, y, 0.0), torch.nn.functional.cross_entropy(a, y))
    # hard codes: the cross-entropy
    codes = torch.nn.functional.one_hot(y, 4).to(a)
    torch.testing.assert_close(prototype_cross_entropy(a, codes, 1.0), torch.nn.functional.cross_entropy(a, y))
    # negatives given as "the other keys", query by query
    others = torch.stack([torch.cat([b[:i], b[i + 1 :]]) for i in range(6)])
    torch.testing.assert_close(info_nce(a, b, others, 0.2), info_nce(a, b, temperature=0.2))
    # Jensen: L_in ≤ L_out
    y = torch.tensor([0, 0, 0, 1, 1, 1])
    assert (supcon(a, y, form="in", reduction="none") <= supcon(a, y, reduction="none") + 1e-12).all()


def test_codes_are_balanced():
    codes = sinkhorn_codes(features(64, 8).tanh(), epsilon=0.5, iterations=50)
    torch.testing.assert_close(codes.sum(dim=1), torch.ones(64, **DOUBLE))
    torch.testing.assert_close(codes.sum(dim=0), torch.full((8,), 8.0, **DOUBLE), atol=1e-3, rtol=0)
    assert not sinkhorn_codes(features(4, 3).requires_grad_()).requires_grad


def test_invariances():
    a, b = features(6, 4), features(6, 4, seed=1)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    rotation = torch.linalg.qr(features(4, 4, seed=2)).Q
    for loss in (lambda a, b: info_nce(a, b), lambda a, b: nt_xent(a, b), lambda a, b: supcon(a, labels)):
        torch.testing.assert_close(loss(5 * a, 0.1 * b), loss(a, b))  # scale
        torch.testing.assert_close(loss(a @ rotation, b @ rotation), loss(a, b))
    torch.testing.assert_close(info_nce(a[order], b[order]), info_nce(a, b))
    torch.testing.assert_close(nt_xent(b, a), nt_xent(a, b))
    torch.testing.assert_close(supcon(a[order], labels[order]), supcon(a, labels))
    torch.testing.assert_close(supcon(a, 7 - labels), supcon(a, labels))  # names of labels
    # scaled outside or inside is the same; unscaled features are taken as they are
    unit = torch.nn.functional.normalize
    torch.testing.assert_close(info_nce(unit(a), unit(b), normalise=False), info_nce(a, b))
    assert not torch.allclose(info_nce(a, b, normalise=False), info_nce(a, b))


def test_reductions():
    a, b = features(5, 3), features(5, 3, seed=1)
    y = torch.tensor([0, 0, 1, 1, 1])
    for loss in (
        lambda r: info_nce(a, b, reduction=r),
        lambda r: nt_xent(a, b, reduction=r),
        lambda r: supcon(a, y, reduction=r),
        lambda r: focal(a, y, reduction=r),
        lambda r: prototype_cross_entropy(a, b.softmax(1), reduction=r),
    ):
        torch.testing.assert_close(loss("none").mean(), loss("mean"))
        torch.testing.assert_close(loss("none").sum(), loss("sum"))
        with pytest.raises(ValueError, match="reduction"):
            loss("median")


# ------------------------------------------------------------------------------------- gradients and precision
def test_gradients():
    a, b = features(4, 3).requires_grad_(), features(4, 3, seed=1).requires_grad_()
    negatives, y = features(5, 3, seed=2).requires_grad_(), torch.tensor([0, 0, 1, 2])
    check = torch.autograd.gradcheck
    assert check(lambda a, b: info_nce(a, b, temperature=0.5), (a, b))
    assert check(lambda a, b, n: info_nce(a, b, n, 0.5), (a, b, negatives))
    assert check(lambda a, b: nt_xent(a, b, 0.5), (a, b))
    assert check(lambda a: supcon(a, y, 0.5), (a,))
    assert check(lambda a: supcon(a, y, 0.5, form="in"), (a,))
    assert check(lambda a, b: prototype_cross_entropy(a, b.softmax(1), 0.5), (a, b))
    assert check(lambda a: focal(a, y, 1.5), (a,))


def test_focal_gradient_is_finite_at_certainty():
    logits = torch.tensor([[100.0, 0.0], [0.0, 100.0]], requires_grad=True)
    focal(logits, torch.tensor([0, 0]), gamma=0.5).backward()
    assert torch.isfinite(logits.grad).all()


def test_supcon_without_positives_is_zero_and_differentiable():
    for form in ("out", "in"):
        z = features(3, 2).requires_grad_()
        loss = supcon(z, torch.arange(3), form=form)
        loss.backward()
        assert loss.item() == 0 and not z.grad.any()


@pytest.mark.parametrize("name", ["info_nce", "nt_xent", "supcon", "prototype", "focal"])
def test_half_precision_and_autocast(name):
    a, b, y = features(32, 16, dtype=torch.float32), features(32, 16, seed=1, dtype=torch.float32), torch.arange(32) % 4
    loss = {
        "info_nce": lambda a, b: info_nce(a, b),
        "nt_xent": lambda a, b: nt_xent(a, b),
        "supcon": lambda a, b: supcon(a, y),
        "focal": lambda a, b: focal(a, y),
        "prototype": lambda a, b: prototype_cross_entropy(a, sinkhorn_codes(b.tanh())),
    }[name]
    exact = loss(a, b)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(loss(a, b), exact)  # autocast does not reach inside
    half = loss(a.bfloat16(), b.bfloat16())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact, rtol=2e-2, atol=2e-2)
    assert loss(a.double(), b.double()).dtype == torch.float64


def test_small_temperature_does_not_overflow():
    a, b = features(8, 4, dtype=torch.float32), features(8, 4, seed=1, dtype=torch.float32)
    for value in (info_nce(a, b, temperature=1e-3), nt_xent(a, b, 1e-3), supcon(a, torch.arange(8) % 2, 1e-3)):
        assert torch.isfinite(value)
    assert torch.isfinite(sinkhorn_codes(a, epsilon=1e-3)).all()


# ------------------------------------------------------------------------------------- on a fake CUDA device
def test_runs_on_cuda(fake_cuda):
    a, b, y = features(6, 4, dtype=torch.float32), features(6, 4, seed=1, dtype=torch.float32), torch.arange(6) % 2
    with fake_cuda as fake:
        a, b, y = fake(a), fake(b), fake(y)
        results = [
            info_nce(a, b),
            info_nce(a, b, b),
            info_nce(a, b, b[None].expand(6, 6, 4)),
            nt_xent(a, b),
            supcon(a, y),
            supcon(a, y, form="in"),
            sinkhorn_codes(a),
            prototype_cross_entropy(a, b),
            focal(a, y),
            focal(a, y, alpha=a[0].abs()),
        ]
        assert all(result.device.type == "cuda" for result in results)


# ------------------------------------------------------------------------------------- bad input
def test_bad_input_is_named():
    z, y = features(4, 3), torch.tensor([0, 0, 1, 1])
    broken, empty = z.clone(), z.clone()
    broken[2, 1] = float("nan")
    empty[1] = 0
    cases = [
        (lambda: info_nce(z, z, temperature=0), "temperature"),
        (lambda: nt_xent(z, z, -1), "temperature"),
        (lambda: supcon(z, y, 0.0), "temperature"),
        (lambda: prototype_cross_entropy(z, z, 0.0), "temperature"),
        (lambda: sinkhorn_codes(z, 0.0), "epsilon"),
        (lambda: sinkhorn_codes(z, iterations=0), "iterations"),
        (lambda: focal(z, torch.zeros(4, dtype=torch.long), gamma=-1), "gamma"),
        (lambda: info_nce(z[:1], z[:1]), "batch of one"),
        (lambda: nt_xent(z[:1], z[:1]), "batch of one"),
        (lambda: supcon(z[:1], y[:1]), "batch of one"),
        (lambda: info_nce(z, z[:3]), "keys"),
        (lambda: info_nce(z, z[:, :2]), "same D"),
        (lambda: info_nce(z[0], z[0]), "queries"),
        (lambda: info_nce(z, z, z[None]), "negatives"),
        (lambda: info_nce(z, z, z[:, :2]), "negatives"),
        (lambda: nt_xent(z, z[:3]), "z_b"),
        (lambda: supcon(z, y[:3]), "labels"),
        (lambda: supcon(z, y.double()), "labels"),
        (lambda: supcon(z, y, form="both"), "form"),
        (lambda: prototype_cross_entropy(z, z[:, :2]), "codes"),
        (lambda: focal(z, torch.tensor([0, 1, 2, 3])), "labels must lie in 0 .. 2"),
        (lambda: focal(z, torch.tensor([0, 1, 2, -1])), "labels"),
        (lambda: focal(z, y, alpha=torch.ones(2)), "alpha"),
        (lambda: info_nce(z, broken), "keys holds NaN or infinity, first in row 2"),
        (lambda: nt_xent(broken, z), "z_a holds NaN"),
        (lambda: sinkhorn_codes(broken), "scores holds NaN"),
        (lambda: focal(broken, y), "logits holds NaN"),
        (lambda: supcon(empty, y), r"z has an all-zero row \(row 1\)"),
        (lambda: info_nce(y[:, None], y[:, None]), "floating"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_every_public_loss_is_tested_on_cuda():
    public = {
        name
        for name, value in vars(losses).items()
        if callable(value) and not name.startswith("_") and getattr(value, "__module__", "") == "nearfar.losses"
    }
    assert public == {"info_nce", "nt_xent", "supcon", "sinkhorn_codes", "prototype_cross_entropy", "focal"}
