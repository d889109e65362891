import math
import weakref

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nearfar import losses
from nearfar.losses import (
    blocks,
    focal,
    info_nce,
    nt_xent,
    prototype_cross_entropy,
    prototype_nce,
    sinkhorn_codes,
    supcon,
)
from nearfar.parallel import gather

DOUBLE = dict(dtype=torch.float64)


def in_blocks_of(scores, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", {"cpu": scores, "cuda": scores})


@pytest.fixture(autouse=True, params=[2**40, 7], ids=["plain", "blocks"])
def blocking(request, monkeypatch):
    """Every test here runs with the plain formulas, and in blocks of seven scores, which leave odd remainders."""
    in_blocks_of(request.param, monkeypatch)
    return request.param


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


def test_prototype_nce_is_its_formula():
    z, prototypes, labels, t = features(6, 3), features(5, 3, seed=1), torch.tensor([0, 4, 2, 2, 3, 0]), 0.2
    expected = []
    for i, y in enumerate(labels.tolist()):
        terms = [math.exp(cosine(z[i], prototypes[k]) / t) for k in range(5)]
        expected.append(-math.log(terms[y] / sum(terms)))
    assert prototype_nce(z, prototypes, labels, t, reduction="none").tolist() == pytest.approx(expected, abs=1e-12)


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
    # prototypes that are the keys
    torch.testing.assert_close(prototype_nce(a, b, torch.arange(6), 0.2), info_nce(a, b, temperature=0.2))
    assert prototype_nce(a, b[:1], torch.zeros(6, dtype=torch.long)) == 0  # one prototype: nothing to tell apart
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
        lambda r: prototype_nce(a, b, y, reduction=r),
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
    for normalise in (True, False):  # scores with and without a bound
        options = dict(normalise=normalise, reduction="none")
        assert check(lambda a, b: info_nce(a, b, temperature=0.5, **options), (a, b))  # noqa: B023 - called at once
        assert check(lambda a, b, n: info_nce(a, b, n, 0.5, **options), (a, b, negatives))  # noqa: B023
        assert check(lambda a, b: nt_xent(a, b, 0.5, **options), (a, b))  # noqa: B023
        assert check(lambda a: supcon(a, y, 0.5, **options), (a,))  # noqa: B023
        assert check(lambda a: supcon(a, y, 0.5, form="in", **options), (a,))  # noqa: B023
        assert check(lambda a, n: prototype_nce(a, n, y, 0.5, **options), (a, negatives))  # noqa: B023
    assert check(lambda b: info_nce(a.detach(), b, temperature=0.5), (b,))  # one side only
    assert check(lambda b, t: nt_xent(a, b, t), (b, torch.tensor(0.5, **DOUBLE, requires_grad=True)))  # a learned τ
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


def test_blocks_say_that_they_differentiate_once(blocking):
    a, b = features(4, 3).requires_grad_(), features(4, 3, seed=1)
    for loss in (nt_xent(a, b), info_nce(a, b)):
        (slope,) = torch.autograd.grad(loss, a, create_graph=True)
        if blocking > 16:
            slope.sum().backward()
        else:
            with pytest.raises(RuntimeError, match="once_differentiable"):
                slope.sum().backward()


@pytest.mark.parametrize("name", ["info_nce", "nt_xent", "supcon", "prototype", "prototype_nce", "focal"])
def test_half_precision_and_autocast(name, blocking):
    a, b, y = features(32, 16, dtype=torch.float32), features(32, 16, seed=1, dtype=torch.float32), torch.arange(32) % 4
    loss = {
        "info_nce": lambda a, b: info_nce(a, b),
        "nt_xent": lambda a, b: nt_xent(a, b),
        "supcon": lambda a, b: supcon(a, y),
        "focal": lambda a, b: focal(a, y),
        "prototype_nce": lambda a, b: prototype_nce(a, b, y),
        "prototype": lambda a, b: prototype_cross_entropy(a, sinkhorn_codes(b.tanh())),
    }[name]
    exact = loss(a, b)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(loss(a, b), exact)  # autocast does not reach inside,
        inside, outside = a.clone().requires_grad_(), a.clone().requires_grad_()
        loss(inside, b).backward()  # in blocks not into the backward pass either
    loss(outside, b).backward()
    if blocking == 7:
        torch.testing.assert_close(inside.grad, outside.grad)
    half = loss(a.bfloat16(), b.bfloat16())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact, rtol=2e-2, atol=2e-2)
    assert loss(a.double(), b.double()).dtype == torch.float64


def test_small_temperature_does_not_overflow():
    a, b = features(8, 4, dtype=torch.float32), features(8, 4, seed=1, dtype=torch.float32)
    for value in (
        info_nce(a, b, temperature=1e-3),
        nt_xent(a, b, 1e-3),
        supcon(a, torch.arange(8) % 2, 1e-3),
        prototype_nce(a, b, torch.arange(8), 1e-3),
    ):
        assert torch.isfinite(value)
    assert torch.isfinite(sinkhorn_codes(a, epsilon=1e-3)).all()


# ------------------------------------------------------------------------------------- large batches
def log_softmax_of(scores, left_out):
    return scores - scores.masked_fill(left_out, -torch.inf).logsumexp(dim=1, keepdim=True)


NAIVE = {  # every pair at once, with features as they come
    "info_nce": lambda a, b, y, t: -log_softmax_of(a @ b.T / t, torch.zeros(len(a), len(a)).bool()).diagonal(),
    "negatives": lambda a, b, y, t: (
        -torch.cat([(a * b).sum(1, keepdim=True), a @ b.flip(0).T], 1).div(t).log_softmax(1)[:, 0]
    ),
    "nt_xent": lambda a, b, y, t: (
        -log_softmax_of(torch.cat([a, b]) @ torch.cat([a, b]).T / t, torch.eye(2 * len(a)).bool())
        .roll(len(a), 1)
        .diagonal()
    ),
    "out": lambda a, b, y, t: naive_supcon(a, y, t, "out"),
    "in": lambda a, b, y, t: naive_supcon(a, y, t, "in"),
    "prototype_nce": lambda a, b, y, t: torch.nn.functional.cross_entropy(a @ b[:51].T / t, y, reduction="none"),
}
OURS = {
    "info_nce": lambda a, b, y, t, **options: info_nce(a, b, temperature=t, **options),
    "negatives": lambda a, b, y, t, **options: info_nce(a, b, b.flip(0), t, **options),
    "nt_xent": lambda a, b, y, t, **options: nt_xent(a, b, t, **options),
    "out": lambda a, b, y, t, **options: supcon(a, y, t, **options),
    "in": lambda a, b, y, t, **options: supcon(a, y, t, form="in", **options),
    "prototype_nce": lambda a, b, y, t, **options: prototype_nce(a, b[:51], y, t, **options),
}


def naive_supcon(z, labels, t, form):
    itself = torch.eye(len(z), dtype=torch.bool)
    positive = (labels[:, None] == labels) & ~itself
    log_p, count = log_softmax_of(z @ z.T / t, itself), positive.sum(dim=1)
    kept = count > 0  # an anchor without positives contributes zero
    if form == "out":
        return -torch.where(positive, log_p, 0).sum(dim=1)[kept] / count[kept]
    return count[kept].to(z).log() - log_p[kept].masked_fill(~positive[kept], -torch.inf).logsumexp(dim=1)


def value_and_gradients(loss, a, b):
    a, b = a.clone().requires_grad_(), b.clone().requires_grad_()
    value = loss(a, b)
    gradients = torch.autograd.grad(value, (a, b), allow_unused=True)
    return value.detach(), torch.cat([g for g in gradients if g is not None])


@pytest.mark.parametrize("temperature", [0.01, 0.3, 10.0])
@pytest.mark.parametrize("name", OURS)
def test_agrees_with_all_pairs_at_once(name, temperature, blocking, monkeypatch):
    if blocking == 7:
        in_blocks_of(4901, monkeypatch)  # of 70 × 70, and 20 left over
    a, b = features(300, 24), features(300, 24, seed=1)
    b = b + a  # views that resemble one another
    a[7], b[40], a[290] = a[3], b[299], a[3]  # duplicates, within a block and across
    labels = torch.arange(300) % 50
    labels[17] = 50  # alone in its class

    def naive(a, b):
        return NAIVE[name](a, b, labels, temperature).mean()

    def ours(a, b):
        return OURS[name](a, b, labels, temperature, normalise=normalise)

    for normalise, scale in ((True, 1), (False, 1), (False, 30)):
        unit = (lambda z: z / z.norm(dim=1, keepdim=True)) if normalise else (lambda z: z)
        single = [scale * z.float() for z in (a, b)]
        double = [z.double() for z in single]
        value, slope = value_and_gradients(lambda a, b: naive(unit(a), unit(b)), *double)  # noqa: B023 - called at once
        largest = max(float(unit(z).square().sum(dim=1).max()) for z in double) / temperature  # of all scores
        for given in (double, single):
            our_value, our_slope = value_and_gradients(ours, *given)
            assert our_value.dtype == our_slope.dtype == given[0].dtype
            # scores are rounded, relative to their size, before their differences count
            eps = torch.finfo(given[0].dtype).eps
            assert float((our_value - value).abs()) < 8 * eps * (float(value.abs()) + largest)
            assert float((our_slope - slope).norm()) < eps * (8 + 2 * largest) * float(slope.norm())


class Held(TorchDispatchMode):
    """The most bytes that tensors made inside the block held at any moment."""

    def __init__(self):
        super().__init__()
        self.sizes, self.now, self.peak = {}, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._hold(tensor.untyped_storage())
        return result

    def _hold(self, storage):
        if (key := storage._cdata) in self.sizes:
            return
        self.sizes[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key):
        self.now -= self.sizes.pop(key)


def test_a_large_batch_is_never_held_as_pairs(blocking, monkeypatch):
    in_blocks_of(2**16, monkeypatch)  # numbers in a block
    a, b, y = features(1024, 16, dtype=torch.float32), features(1024, 16, seed=1, dtype=torch.float32), None
    y = torch.arange(1024) % 64
    for name, ours in OURS.items():
        a.requires_grad_()
        with Held() as held:
            ours(a, b, y % 51, 0.5).backward()
        assert 2**16 * 4 <= held.peak < 1024**2 * 4 / 2, name  # half of one matrix of pairs


def test_nt_xent_of_two_thousand_pairs(monkeypatch):
    monkeypatch.undo()  # the blocks that users get
    a, b = features(2048, 32, dtype=torch.float32).requires_grad_(), features(2048, 32, seed=1, dtype=torch.float32)
    with Held() as held:
        nt_xent(a, b).backward()
    assert held.peak < 4096**2 * 4 / 10  # of one matrix of pairs


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
            prototype_nce(a, b, y),
            gather(a),
            sinkhorn_codes(a),
            prototype_cross_entropy(a, b),
            focal(a, y),
            focal(a, y, alpha=a[0].abs()),
        ]
        assert all(result.device.type == "cuda" for result in results)


def test_slopes_need_no_values():
    with FakeTensorMode():  # on the CPU: backward passes on CUDA need one
        a, y = torch.empty(6, 4, requires_grad=True), torch.zeros(6, dtype=torch.long)
        for loss in OURS.values():
            (slope,) = torch.autograd.grad(loss(a, a.detach(), y, 0.5), a)
            assert slope.shape == a.shape


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
        (lambda: prototype_nce(z, z, y, 0.0), "temperature"),
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
        (lambda: prototype_nce(z, z[:, :2], y), "same D"),
        (lambda: prototype_nce(z, z, y[:3]), "labels"),
        (lambda: prototype_nce(z, z[:2], y + 1), "labels must lie in 0 .. 1, got values from 1 to 2"),
        (lambda: prototype_nce(z, broken, y), "prototypes holds NaN"),
        (lambda: prototype_nce(empty, z, y), "z has an all-zero row"),
        (lambda: prototype_nce(z, z, y, reduction="median"), "reduction"),
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
        if callable(value)
        and not name.startswith("_")
        and getattr(value, "__module__", "").startswith("nearfar.losses")
    }
    contrastive = {"info_nce", "nt_xent", "supcon", "prototype_nce"}
    assert public == contrastive | {"sinkhorn_codes", "prototype_cross_entropy", "focal"}
