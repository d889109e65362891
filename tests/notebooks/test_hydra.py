"""SimLAP's method cells against loop transcriptions, hand values, identities and limits of the paper."""

import math

import pytest
import torch
from vectors import chance

import nearfar
from nearfar import losses, nn

hydra = nearfar.method("hydra")
B, D, T, C = 9, 6, 0.1, 4


@pytest.fixture
def batch():
    z = torch.randn(B, D, dtype=torch.float64, generator=chance(1))
    gate = torch.rand(B, D, dtype=torch.float64, generator=chance(2))
    labels = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 0])
    partners = torch.tensor([1, 1, 0, 2, 3, 0, 2, 1, 0])
    return z, gate, labels, partners


def gated_cosine(g, a, b):
    x, y = [float(p * q) for p, q in zip(g, a)], [float(p * q) for p, q in zip(g, b)]
    length = math.sqrt(sum(p * p for p in x)) * math.sqrt(sum(p * p for p in y))
    return sum(p * q for p, q in zip(x, y)) / length


def dot_form(g, a, b):
    length = math.sqrt(sum(float(p) ** 2 for p in a)) * math.sqrt(sum(float(p) ** 2 for p in b))
    return sum(float(k) ** 2 * float(p) * float(q) for k, p, q in zip(g, a, b)) / length


def loss_by_loops(scores, labels, partners, key_labels, average, skip_itself=False, epsilon=1e-6):
    total, count, per_anchor = 0.0, 0, []
    for i in range(len(labels)):
        negatives = [m for m in range(len(key_labels)) if key_labels[m] not in (labels[i], partners[i])]
        positives = [n for n in range(len(key_labels)) if key_labels[n] == partners[i] and not (skip_itself and n == i)]
        below = sum(math.exp(scores[i][m]) for m in negatives)
        terms = [math.log(math.exp(scores[i][n]) + below) - scores[i][n] for n in positives]
        total, count = total + sum(terms), count + len(terms)
        per_anchor.append(sum(terms) / (len(terms) + epsilon))
    return total / max(count, 1) if average == "positives" else sum(per_anchor) / len(labels)


# ---------------------------------------------------------------------------------------------- eqs. (1) and (2)
def test_partners_of_each_mode():
    labels = torch.arange(10).repeat(500)
    arbitrary = hydra.partner_classes(labels, "arbitrary", generator=chance())
    assert torch.equal(arbitrary.sort().values, labels.sort().values)  # a permutation of the batch
    assert (arbitrary == labels).double().mean().item() == pytest.approx(0.1, abs=0.02)
    assert torch.equal(hydra.partner_classes(labels, "identical"), labels)
    distinct = hydra.partner_classes(labels, "distinct", 10, chance())
    assert (distinct != labels).all() and distinct.min() == 0 and distinct.max() == 9
    shift = (distinct - labels) % 10
    assert shift.bincount(minlength=10)[1:].min() > 450  # all other classes, about evenly
    assert torch.equal(distinct, hydra.partner_classes(labels, "distinct", 10, chance()))
    pairs = hydra.partner_classes(torch.arange(2).repeat(50), "distinct", 2, chance())
    assert torch.equal(pairs, 1 - torch.arange(2).repeat(50))


def test_weighted_partners():
    distance = torch.tensor([[0.0, 1.0, 3.0], [1.0, 0.0, 1.0], [3.0, 1.0, 0.0]])
    drawn = hydra.weighted_partners(torch.zeros(20000, dtype=torch.long), distance, 1.0, chance())
    assert (drawn.bincount() / 20000).tolist() == pytest.approx([4 / 7, 2 / 7, 1 / 7], abs=0.02)
    even = hydra.weighted_partners(torch.zeros(20000, dtype=torch.long), distance, 0.0, chance())
    assert (even.bincount() / 20000).tolist() == pytest.approx([1 / 3] * 3, abs=0.02)


def test_masks_are_the_sets(batch):
    _, _, labels, partners = batch
    for diagonal in (False, True):
        positives, negatives = hydra.masks(labels, partners, diagonal)
        for i in range(B):
            for n in range(B):
                positive = labels[n] == partners[i] and not (diagonal and n == i)
                assert positives[i, n] == positive
                assert negatives[i, n] == (labels[n] != labels[i] and labels[n] != partners[i])
    positives, negatives = hydra.masks(labels, partners, key_labels=torch.tensor([3, 1]))
    assert (
        positives.shape == (B, 2) and positives[0].tolist() == [False, True] and negatives[0].tolist() == [True, False]
    )


# ---------------------------------------------------------------------------------------------- eq. (3)
def test_the_gate_is_the_formula_and_symmetric():
    with nn.seeded(0):
        gate = hydra.Gate(C, D, 5, 7).double()
    for part in gate.mlp:  # running statistics that are not those of the start
        if isinstance(part, torch.nn.BatchNorm1d):
            part.running_mean.copy_(torch.randn(part.num_features, generator=chance()))
            part.running_var.copy_(1 + torch.rand(part.num_features, generator=chance()))
    y, y_prime = torch.tensor([0, 1, 3]), torch.tensor([2, 1, 0])
    gate.eval()
    found, first, second = gate(y, y_prime), gate.mlp[2], gate.mlp[5]

    def norm(part, x):
        return (x - part.running_mean) / (part.running_var + part.eps).sqrt() * part.weight + part.bias

    for i in range(3):
        mean = (gate.E.weight[y[i]] + gate.E.weight[y_prime[i]]) / 2
        hidden = first.weight @ norm(gate.mlp[1], mean.clamp(min=0)) + first.bias
        a = second.weight @ norm(gate.mlp[4], hidden.clamp(min=0)) + second.bias
        assert torch.allclose(found[i], 1 / (1 + (-a).exp()), rtol=1e-10)
    assert torch.equal(found, gate(y_prime, y))
    assert torch.allclose(gate(y, y), gate(y))  # a class with itself
    gate.fuse = False
    assert torch.allclose(gate(y, y_prime), gate(y) * gate(y_prime))


def test_kinds_of_gates():
    a = torch.linspace(-3, 3, 13, dtype=torch.float64)[None].requires_grad_()
    assert torch.allclose(hydra.gumbel_gate(a, 0.5), (2 * a).sigmoid())
    hard = hydra.gumbel_gate(a, hard=True)
    assert set(hard.detach()[0].tolist()) <= {0.0, 1.0}
    (slope,) = torch.autograd.grad(hard.sum(), a)
    assert torch.allclose(slope, a.sigmoid() * (1 - a.sigmoid()))  # the soft gate's gradient
    assert torch.equal(hydra.stochastic_gate(a).detach(), (a.detach() + 0.5).clamp(0, 1))
    zeros = torch.zeros(100, 100, dtype=torch.float64)
    noise = torch.logit(hydra.gumbel_gate(zeros, generator=chance()))
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.05) and noise.var().item() == pytest.approx(
        1.645, abs=0.1
    )
    noisy = hydra.stochastic_gate(zeros, 0.1, chance())
    assert noisy.mean().item() == pytest.approx(0.5, abs=0.01) and noisy.std().item() == pytest.approx(0.1, abs=0.01)
    y = torch.arange(C)
    for kind in hydra.KINDS:
        with nn.seeded(0):
            gate = hydra.Gate(C, D, 5, 7, kind=kind, norm="layer")
        g = gate(y, y.flip(0), chance())
        assert g.shape == (C, D) and g.min() >= 0 and g.max() <= 1
        assert torch.equal(g, gate(y, y.flip(0), chance()))
    assert (hydra.Gate(C, D, kind="open")(y) == 1).all() and not list(hydra.Gate(C, D, kind="open").parameters())


# ---------------------------------------------------------------------------------------------- eqs. (4) to (6)
@pytest.mark.parametrize(("form", "one"), [("cosine", gated_cosine), ("dot", dot_form)])
def test_logits_are_the_formula(batch, form, one):
    z, gate, _, _ = batch
    keys = torch.randn(4, D, dtype=torch.float64, generator=chance(5))
    for candidates in (None, keys):
        scores = hydra.gated_logits(z, gate, T, form, candidates)
        for i in range(B):
            for n, key in enumerate(z if candidates is None else keys):
                assert scores[i, n].item() == pytest.approx(one(gate[i], z[i], key) / T, rel=1e-11, abs=1e-11)


def test_scales_and_the_open_gate(batch):
    z, gate, _, _ = batch
    scores, open_gate = hydra.gated_logits(z, gate), torch.ones_like(gate)
    assert torch.allclose(hydra.gated_logits(3 * z, 0.2 * gate), scores, rtol=1e-10)
    assert torch.allclose(hydra.gated_logits(z, 0.2 * gate, form="dot"), 0.04 * hydra.gated_logits(z, gate, form="dot"))
    assert torch.allclose(hydra.gated_logits(z, open_gate), hydra.gated_logits(z, open_gate, form="dot"), rtol=1e-10)
    assert torch.allclose(scores.diagonal(), torch.full((B,), 10.0, dtype=torch.float64))  # an anchor with itself
    closed = hydra.gated_logits(z, torch.zeros_like(gate).requires_grad_())
    assert (closed == 0).all() and torch.autograd.grad(closed.sum(), closed)[0].isfinite().all()


@pytest.mark.parametrize("average", ["positives", "anchors"])
def test_the_loss_is_the_formula(batch, average):
    z, gate, labels, partners = batch
    scores = hydra.gated_logits(z, gate)
    for diagonal in (False, True):
        found = hydra.simlap_loss(scores, *hydra.masks(labels, partners, diagonal), average)
        expected = loss_by_loops(
            scores.tolist(), labels.tolist(), partners.tolist(), labels.tolist(), average, diagonal
        )
        assert found.item() == pytest.approx(expected, rel=1e-10)


def test_the_loss_by_hand():
    z = torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)
    where = hydra.masks(torch.arange(4), torch.tensor([1, 0, 3, 2]))
    for gate, value in (([1.0, 1.0], math.log(2 + math.exp(-1))), ([1.0, 0.0], math.log(math.e + 2 / math.e) - 1)):
        g = torch.tensor([gate], dtype=torch.float64).expand(4, 2)
        assert hydra.simlap_loss(hydra.gated_logits(z, g, 1.0), *where).item() == pytest.approx(value, rel=1e-12)


def test_with_two_images_per_class_it_is_supcon(batch):
    z = batch[0][:8]
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    where = hydra.masks(labels, hydra.partner_classes(labels, "identical"), mask_diagonal=True)
    ours = hydra.simlap_loss(hydra.gated_logits(z, torch.ones_like(z), 0.2), *where)
    assert torch.allclose(ours, losses.supcon(z, labels, 0.2), rtol=1e-10)


def test_order_and_shift_do_not_matter(batch):
    z, gate, labels, partners = batch
    order = torch.randperm(B, generator=chance(7))
    value = hydra.simlap_loss(hydra.gated_logits(z, gate), *hydra.masks(labels, partners))
    moved = hydra.simlap_loss(hydra.gated_logits(z[order], gate[order]), *hydra.masks(labels[order], partners[order]))
    assert torch.allclose(value, moved, rtol=1e-10)
    shift = torch.randn(B, 1, dtype=torch.float64, generator=chance(8))
    lifted = hydra.simlap_loss(hydra.gated_logits(z, gate) + shift, *hydra.masks(labels, partners))
    assert torch.allclose(value, lifted, rtol=1e-10)


def test_nothing_to_pull_or_to_push(batch):
    z, gate, labels, _ = batch
    z = z.clone().requires_grad_()
    absent = torch.full_like(labels, 77)  # a partner class that is not in the batch
    for average in ("positives", "anchors"):
        loss = hydra.simlap_loss(hydra.gated_logits(z, gate), *hydra.masks(labels, absent), average)
        (slope,) = torch.autograd.grad(loss, z)
        assert loss.item() == 0 and (slope == 0).all()
    two = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1, 0])  # two classes, distinct partners: nobody is a negative
    loss = hydra.simlap_loss(hydra.gated_logits(z, gate), *hydra.masks(two, 1 - two))
    (slope,) = torch.autograd.grad(loss, z)
    assert loss.item() == 0 and slope.isfinite().all()


@pytest.mark.parametrize("form", ["cosine", "dot"])
def test_gradcheck(batch, form):
    z, gate, labels, partners = batch
    where = hydra.masks(labels, partners)

    def loss(z, gate):
        return hydra.simlap_loss(hydra.gated_logits(z, gate, 0.5, form), *where)

    assert torch.autograd.gradcheck(loss, (z.clone().requires_grad_(), gate.clone().requires_grad_()))


# ---------------------------------------------------------------------------------------------- eq. (7), the model
@pytest.mark.parametrize("average", ["positives", "anchors"])
def test_two_views_are_the_formula(batch, average):
    z, gate, labels, partners = batch
    k = torch.randn(B, D, dtype=torch.float64, generator=chance(9))
    s = torch.tensor(math.log(7.0), dtype=torch.float64, requires_grad=True)
    one = torch.ones(D)
    both = [[(dot_form(gate[i], z[i], k[n]), dot_form(one, z[i], k[n])) for n in range(B)] for i in range(B)]
    scores = [[7 * (gated - 0.3 * plain) for gated, plain in row] for row in both]
    found = hydra.two_view_loss(z, k, gate, labels, partners, s, alpha=0.3, average=average)
    expected = loss_by_loops(scores, labels.tolist(), partners.tolist(), labels.tolist(), average)
    assert found.item() == pytest.approx(expected, rel=1e-10)
    found.backward()
    assert s.grad.abs() > 0  # the scale is learnt
    plain = hydra.simlap_loss(hydra.gated_logits(z, gate, T, "dot", k), *hydra.masks(labels, partners), average)
    assert torch.allclose(hydra.two_view_loss(z, k, gate, labels, partners, average=average), plain, rtol=1e-10)


def model(**options):
    with nn.seeded(3):
        backbone = nn.backbone("tiny-mlp", channels=5, size=1, width=8)
        return hydra.SimLAP(backbone, C, 16, D, gate={"embedding": 5, "hidden": 7}, **options).double()


def test_the_model_is_its_parts(batch):
    labels, x = batch[2], torch.randn(B, 5, dtype=torch.float64, generator=chance(4))
    for mode in hydra.MODES:
        simlap = model(mode=mode)
        h, z = simlap(x)
        partners = hydra.partner_classes(labels, mode, C, chance(6))
        where = hydra.masks(labels, partners, mode == "identical")
        expected = hydra.simlap_loss(hydra.gated_logits(z, simlap.gate(labels, partners)), *where)
        assert torch.allclose(simlap.contrast(z, labels, chance(6)), expected)
        kinds = [type(part).__name__ for part in simlap.projector]
        assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Linear", "LayerNorm"] and simlap.projector[3].bias is None
        assert z.dtype == torch.float64 and z.shape == (B, D) and h.shape == (B, 8)


def test_who_learns_from_what(batch):
    labels, x = batch[2], torch.randn(B, 5, dtype=torch.float64, generator=chance(4))
    for sup_loss in (False, True):
        simlap = model(sup_loss=sup_loss)
        simlap.probe_loss(simlap(x)[0], labels).backward()
        assert all((p.grad is not None) == sup_loss for p in simlap.backbone.parameters())
        assert simlap.probe.weight.grad is not None and simlap.gate.E.weight.grad is None
    simlap = model()
    simlap.contrast(simlap(x)[1], labels, chance()).backward()
    assert simlap.probe.weight.grad is None
    for part in (simlap.gate, simlap.backbone):
        assert all(p.grad is not None for p in part.parameters())


# ---------------------------------------------------------------------------------------------- measures
def test_effective_rank():
    eye = torch.eye(5, dtype=torch.float64)
    assert hydra.effective_rank(eye).item() == pytest.approx(5)
    assert hydra.effective_rank(torch.outer(torch.arange(1.0, 5), torch.ones(3))).item() == pytest.approx(1, abs=1e-3)
    s = torch.tensor([3.0, 1.0], dtype=torch.float64)
    assert hydra.effective_rank(s.diag()).item() == pytest.approx(
        math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    )
    shifted = torch.randn(20, 4, dtype=torch.float64, generator=chance()) + 100
    assert hydra.effective_rank(shifted) < 1.5 < 3 < hydra.effective_rank(shifted, centre=True)


def test_gate_measures_by_hand():
    found = hydra.gate_statistics(torch.tensor([[0.5, 1.0], [0.0, 0.5]], dtype=torch.float64))
    assert found["activation"].item() == 0.5 and found["entropy"].item() == pytest.approx(math.log(2) / 2)
    gates = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    pairs = torch.tensor([[0, 1], [2, 3], [4, 5], [0, 6]])
    same, different = hydra.gate_likeness(gates, pairs, torch.tensor([0, 0, 1, 1]), centre=False)
    # the same thing, disjoint: (0, 1), (2, 3); different, disjoint: (0, 2), (1, 2), (1, 3), but not (0, 3): both hold 0
    assert same.item() == pytest.approx((2 + 2 * math.sqrt(0.5)) / 4)
    assert different.item() == pytest.approx(math.sqrt(0.5) / 3)


def test_precision_is_kept(batch):
    z, gate, labels, partners = batch
    where = hydra.masks(labels, partners)
    narrow = hydra.simlap_loss(hydra.gated_logits(z.float(), gate.float()), *where)
    assert narrow.dtype == torch.float32
    wide = hydra.simlap_loss(hydra.gated_logits(z, gate), *where)
    assert torch.allclose(narrow.double(), wide, rtol=1e-5)


def test_runs_on_a_fake_gpu(fake_cuda, batch):
    z, gate, labels, partners = batch
    x, whole = torch.randn(B, 5, dtype=torch.float64), model(mode="distinct")
    with fake_cuda as fake:
        z, gate, labels, partners, whole, x = (fake(t) for t in (z, gate, labels, partners, whole, x))
        where = hydra.masks(labels, partners, mask_diagonal=True)
        h, made = whole(x)
        for result in (
            hydra.simlap_loss(hydra.gated_logits(z, gate), *where),
            hydra.two_view_loss(z, z, gate, labels, partners, alpha=0.1),
            hydra.weighted_partners(labels, fake(torch.ones(C, C)), 1.0, chance()),
            whole.contrast(made, labels, chance()),
            whole.probe_loss(h, labels),
            hydra.gumbel_gate(gate, generator=chance()),
            hydra.stochastic_gate(gate, generator=chance()),
            hydra.effective_rank(z, centre=True),
            hydra.gate_statistics(gate)["entropy"],
        ):
            assert result.device.type == "cuda"


def test_bad_input(batch):
    z, gate, labels, partners = batch
    where = hydra.masks(labels, partners)
    for call, name in (
        (lambda: hydra.partner_classes(labels, "random"), "mode"),
        (lambda: hydra.partner_classes(labels, "arbitrary"), "generator"),
        (lambda: hydra.partner_classes(labels, "distinct", 1, chance()), "classes"),
        (lambda: hydra.partner_classes(labels.double(), "identical"), "labels"),
        (lambda: hydra.weighted_partners(labels, torch.ones(2, 3), 1.0, chance()), "distance"),
        (lambda: hydra.masks(labels, partners[:2]), "partners"),
        (lambda: hydra.masks(labels, partners, True, labels[:2]), "mask_diagonal"),
        (lambda: hydra.Gate(C, kind="soft"), "kind"),
        (lambda: hydra.Gate(C, norm="group"), "norm"),
        (lambda: hydra.gated_logits(z, gate[:2]), "gate"),
        (lambda: hydra.gated_logits(z, gate, 0.0), "temperature"),
        (lambda: hydra.gated_logits(z, gate, form="sine"), "form"),
        (lambda: hydra.simlap_loss(gate, *where), "logits"),
        (lambda: hydra.simlap_loss(hydra.gated_logits(z, gate), *where, average="all"), "average"),
        (lambda: hydra.two_view_loss(z, z[:2], gate, labels, partners), "k must"),
        (lambda: hydra.effective_rank(z[0]), "H must"),
    ):
        with pytest.raises(ValueError, match=name):
            call()
