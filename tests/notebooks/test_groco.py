"""GroCo's method cells against loop transcriptions, hand values, reference values, identities and limits."""

import math

import pytest
import torch

import nearfar
from nearfar import losses

groco = nearfar.method("groco")


def draw(*shape, seed=0, scale=1.0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * scale


def views(count=3, batch=16, dimension=6, seed=0):
    return [draw(batch, dimension, seed=seed + v).requires_grad_() for v in range(count)]


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def sort_by_loops(values, beta, curve):
    """Odd-even sort of one list with relaxed comparators: sorted values and X as nested lists."""
    n = len(values)
    x, X = list(values), [[float(i == j) for j in range(n)] for i in range(n)]
    for number in range(n):
        for a in range(number % 2, n - 1, 2):
            b = a + 1
            t = beta * (x[b] - x[a])
            alpha = math.atan(t) / math.pi + 0.5 if curve == "cauchy" else 1 / (1 + math.exp(-t))
            x[a], x[b] = alpha * x[a] + (1 - alpha) * x[b], (1 - alpha) * x[a] + alpha * x[b]
            for row in X:
                row[a], row[b] = alpha * row[a] + (1 - alpha) * row[b], (1 - alpha) * row[a] + alpha * row[b]
    return x, X


def loss_by_loops(values, k, beta, curve="cauchy"):
    _, X = sort_by_loops(values, beta, curve)
    n, total = len(values), 0.0
    for i in range(n):
        above, below = sum(X[i][k:]), sum(X[i][:k])
        y = float(i >= k)
        for g, target in ((above, y), (below, 1 - y)):
            total -= (target * math.log(g) + (1 - target) * math.log(1 - g)) / 2
    return total / n


@pytest.mark.parametrize("n", [2, 3, 5, 8, 11])
@pytest.mark.parametrize("curve", ["cauchy", "logistic"])
def test_soft_sort_is_the_loop(n, curve):
    v = draw(4, n, seed=n)
    x, X = groco.soft_sort(v, 2.5, curve)
    for row in range(4):
        by_loops = sort_by_loops(v[row].tolist(), 2.5, curve)
        assert torch.allclose(x[row], torch.tensor(by_loops[0], dtype=torch.float64), rtol=0, atol=1e-13)
        assert torch.allclose(X[row], torch.tensor(by_loops[1], dtype=torch.float64), rtol=0, atol=1e-13)


@pytest.mark.parametrize(("n", "k"), [(2, 1), (5, 3), (11, 10), (13, 10), (6, 1)])
@pytest.mark.parametrize("beta", [1.0, 5.0])
def test_group_loss_is_the_loop(n, k, beta):
    v = draw(5, n, seed=n + k)
    expected = [loss_by_loops(row, k, beta) for row in v.tolist()]
    assert groco.group_loss(v, k, beta).tolist() == pytest.approx(expected, rel=1e-11)


def test_comparator_by_hand():
    a, b = torch.tensor([0.0, 1.0], dtype=torch.float64), torch.tensor([1.0, 0.0], dtype=torch.float64)
    low, high = groco.comparator(a, b)  # arctan(±1) = ±π/4: α = 3/4, then 1/4
    assert low.tolist() == pytest.approx([0.25, 0.25]) and high.tolist() == pytest.approx([0.75, 0.75])
    assert torch.allclose(low + high, a + b)
    steep = groco.comparator(a, b, beta=math.sqrt(3), curve="cauchy")[0]  # arctan √3 = π/3
    assert steep.tolist() == pytest.approx([1 / 6, 1 / 6])


def test_loss_of_two_scores_by_hand():
    v = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    assert groco.group_loss(v, 1).tolist() == pytest.approx([-math.log(0.75), -math.log(0.25)])


@pytest.mark.parametrize(
    ("gap", "beta", "expected", "digits"),
    [(0, 1, 0.202, 3), (0.5, 1, 0.191, 3), (2, 1, 0.147, 3), (-2, 1, 0.264, 3), (2, 5, 0.030, 3), (2, 20, 0.007, 3),
     (2, 100, 0.0015, 4)],
)  # fmt: skip
def test_values_of_the_reference_package(gap, beta, expected, digits):
    v = torch.zeros(1, 11, dtype=torch.float64)
    v[0, 10] = gap
    assert round(groco.group_loss(v, 10, beta).item(), digits) == expected


def test_size_of_loss_and_gradient_of_random_embeddings():
    z = [torch.randn(32, 16, generator=torch.Generator().manual_seed(s)).requires_grad_() for s in (0, 1)]
    loss = groco.groco_loss(z)
    loss.backward()
    assert loss.item() == pytest.approx(0.21, abs=0.01) and 3e-4 < z[0].grad.norm() < 1.2e-3


def test_x_is_doubly_stochastic_and_its_rows_are_inputs():
    v = draw(6, 9, scale=3.0)
    for curve in groco.CURVES:
        for beta in (0.1, 1.0, 30.0):
            X = groco.soft_sort(v, beta, curve)[1]
            assert X.min() >= 0
            for dim in (1, 2):
                assert torch.allclose(X.sum(dim=dim), torch.ones(6, 9, dtype=torch.float64))
    hard = groco.soft_sort(v, 1e9)[1]
    ranks = v.argsort(dim=1).argsort(dim=1)
    assert torch.equal(hard.argmax(dim=2), ranks)


def test_limits_of_beta():
    v = draw(3, 7)
    assert torch.allclose(groco.soft_sort(v, 1e9)[0], v.sort(dim=1).values, atol=1e-6)
    loose = groco.soft_sort(v, 1e-9)[1]
    assert torch.allclose(loose, groco.soft_sort(torch.zeros_like(v))[1])
    ordered = torch.linspace(-0.5, 0.9, 11, dtype=torch.float64)[None]
    assert groco.group_loss(ordered, 10, 1e6) < 1e-5 < 1 < groco.group_loss(ordered.flip(1), 10, 1e6)


@pytest.mark.parametrize("k", [1, 4, 8])
def test_the_short_cut_is_the_column_sum(k):
    v = draw(5, 9, scale=2.0)
    X = groco.soft_sort(v, 2.0)[1]
    g = groco.group_probability(v, k, 2.0)
    assert torch.allclose(g, X[:, :, k:].sum(dim=2), rtol=0, atol=1e-14)
    assert torch.allclose(1 - g, X[:, :, :k].sum(dim=2), rtol=0, atol=1e-14)
    assert torch.allclose(g.sum(dim=1), torch.full((5,), 9.0 - k, dtype=torch.float64))


def test_the_order_inside_a_group_does_not_count():
    p, n = draw(6, 4, seed=1), draw(6, 15, seed=2)
    loss = groco.group_loss(groco.presort(p, n, 5), 5)
    for seed in range(3):
        g = torch.Generator().manual_seed(seed)
        again = groco.presort(p[:, torch.randperm(4, generator=g)], n[:, torch.randperm(15, generator=g)], 5)
        assert torch.equal(groco.group_loss(again, 5), loss)


def test_adding_a_constant_changes_nothing_and_a_better_positive_helps():
    v = groco.presort(draw(6, 2, seed=1), draw(6, 12, seed=2), 10)
    assert torch.allclose(groco.group_loss(v + 3.0), groco.group_loss(v))
    shifted = v.clone()
    shifted[:, 10:] += 0.1
    assert (groco.group_loss(shifted) < groco.group_loss(v)).all()


def test_presort():
    p = torch.tensor([[0.3, 0.9, 0.1]])
    n = torch.tensor([[0.5, -math.inf, 0.2, 0.8, 0.4]])
    assert groco.presort(p, n, 3).tolist() == torch.tensor([[0.4, 0.5, 0.8, 0.1, 0.3, 0.9]]).tolist()
    assert groco.in_order(torch.tensor([[0.1, 0.5, 0.6, 0.7], [0.1, 0.6, 0.5, 0.7]]), 2).tolist() == [True, False]


@pytest.mark.parametrize("large", [None, 2])
def test_groco_loss_is_the_loop_over_views_and_images(large):
    z = views(4, 9)
    k, total, positives = 3, 0.0, 4 if large is None else large
    rows = [x.tolist() for x in z]
    for a in range(4):
        for i in range(9):
            p = sorted(cosine(rows[a][i], rows[v][i]) for v in range(positives) if v != a)
            n = sorted(cosine(rows[a][i], rows[a][j]) for j in range(9) if j != i)[-k:]
            total += loss_by_loops(n + p, k, 2.0) / (4 * 9)
    assert groco.groco_loss(z, k, 2.0, large=large).item() == pytest.approx(total, rel=1e-11)


def test_only_anchors_get_gradient():
    z = views(3, 12)
    v = groco.scores(z, 1, [0, 2], 5)
    slopes = torch.autograd.grad(groco.group_loss(v, 5).sum(), z, allow_unused=True)
    assert slopes[0] is None and slopes[2] is None and slopes[1].abs().sum() > 0
    free = groco.scores(z, 1, [0, 2], 5, stop_grad=False)
    assert torch.equal(free, v)
    slopes = torch.autograd.grad(groco.group_loss(free, 5).sum(), z)
    assert all(slope.abs().sum() > 0 for slope in slopes)


def test_stopped_gradient_is_that_of_fixed_points():
    z = views(2, 12)
    (slope,) = torch.autograd.grad(groco.groco_loss(z, 5), z[:1])
    fixed = [x.detach() for x in z]
    anchor = fixed[0].clone().requires_grad_()
    p = torch.nn.functional.cosine_similarity(anchor, fixed[1])[:, None]
    n = torch.nn.functional.cosine_similarity(anchor[:, None], fixed[0][None], dim=2)
    n = n.masked_fill(torch.eye(12, dtype=torch.bool), -math.inf)
    (expected,) = torch.autograd.grad(groco.group_loss(groco.presort(p, n, 5), 5).mean() / 2, anchor)
    assert torch.allclose(slope, expected)


def test_gradients():
    v = groco.presort(draw(3, 2, seed=1), draw(3, 8, seed=2), 5).requires_grad_()
    for curve in groco.CURVES:
        assert torch.autograd.gradcheck(lambda v, c=curve: groco.group_loss(v, 5, 2.0, c), v)
    assert torch.autograd.gradcheck(lambda v: groco.soft_sort(v, 2.0), v)
    assert torch.autograd.gradcheck(lambda v: groco.hinge_loss(v, 5, 0.2), v)
    z = views(2, 5, 3)
    assert torch.autograd.gradcheck(lambda *z: groco.groco_loss(list(z), 2, stop_grad=False), z)
    assert torch.autograd.gradcheck(lambda *z: groco.top_contrastive_loss(*z, 3, 0.5, stop_grad=False), z)


def test_the_gradient_of_two_scores():
    for d in (-3.0, 0.2, 4.0):
        v = torch.tensor([[0.0, d]], dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(groco.group_loss(v, 1, 2.0).sum(), v)
        alpha = math.atan(2 * d) / math.pi + 0.5
        expected = 2 / math.pi / (1 + 4 * d * d) / alpha
        assert slope[0].tolist() == pytest.approx([expected, -expected])


def test_top_contrastive_loss_is_the_loop():
    z, k, tau = views(2, 7), 4, 0.5
    rows, total = z[0].tolist() + z[1].tolist(), 0.0
    for i in range(14):
        j = (i + 7) % 14
        s = sorted(cosine(rows[i], rows[o]) for o in range(14) if o not in (i, j))[-k:]
        positive = cosine(rows[i], rows[j])
        total -= math.log(math.exp(positive / tau) / sum(math.exp(x / tau) for x in [positive, *s])) / 14
    assert groco.top_contrastive_loss(*z, k, tau).item() == pytest.approx(total)


def test_all_negatives_and_gradient_is_simclr():
    z = views(2, 10)
    ours, theirs = groco.top_contrastive_loss(*z, None, 0.3, False), losses.nt_xent(*z, 0.3)
    assert torch.allclose(ours, theirs)
    for a, b in zip(torch.autograd.grad(ours, z), torch.autograd.grad(theirs, z)):
        assert torch.allclose(a, b)
    assert torch.allclose(groco.top_contrastive_loss(*z, 18, 0.3), theirs)  # stopping the gradient changes no value


def test_hinge_is_the_loop():
    v, expected = draw(5, 6), []
    for row in v.tolist():
        expected.append(sum(max(0.0, 0.1 + n - p) for n in row[:4] for p in row[4:]) / 8)
    assert groco.hinge_loss(v, 4, 0.1).tolist() == pytest.approx(expected)
    assert groco.hinge_loss(torch.tensor([[0.0, 0.1, 0.5]]), 2, 0.2).item() == 0


def test_the_wrong_axis_of_x_is_another_number():
    v = draw(4, 6)
    X = groco.soft_sort(v, 3.0)[1]
    assert not torch.allclose(groco.group_probability(v, 4, 3.0), X[:, 4:].sum(dim=1))


def test_precision_is_kept():
    for dtype in (torch.float32, torch.float64):
        z = [x.detach().to(dtype) for x in views()]
        assert groco.groco_loss(z).dtype == dtype and groco.top_contrastive_loss(*z[:2]).dtype == dtype
    single = groco.groco_loss([x.detach().float() for x in views()])
    assert single.item() == pytest.approx(groco.groco_loss(views()).item(), rel=1e-5)


def test_runs_on_a_fake_gpu(fake_cuda):
    z, v = [x.detach().float() for x in views(4, 12)], draw(5, 12).float()
    with fake_cuda as fake:
        moved = fake(z)
        for result in (
            *groco.soft_sort(fake(v), 2.0),
            groco.group_probability(fake(v), 10, curve="logistic"),
            groco.groco_loss(moved, 10),
            groco.groco_loss(moved, 10, large=2, stop_grad=False),
            groco.top_contrastive_loss(*moved[:2], 10),
            groco.hinge_loss(fake(v), 10),
            groco.in_order(fake(v), 10),
        ):
            assert result.device.type == "cuda"


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: groco.keep(torch.zeros(2), beta=0.0), "beta"),
        (lambda: groco.keep(torch.zeros(2), curve="gauss"), "curve"),
        (lambda: groco.soft_sort(torch.zeros(3)), "v must"),
        (lambda: groco.soft_sort(torch.zeros(3, 1)), "v must"),
        (lambda: groco.soft_sort(torch.zeros(3, 4, dtype=torch.long)), "v must"),
        (lambda: groco.group_loss(torch.zeros(3, 4), k=4), "k must"),
        (lambda: groco.group_loss(torch.zeros(3, 4), k=0), "k must"),
        (lambda: groco.presort(torch.zeros(3, 1), torch.zeros(3, 4), 5), "k must"),
        (lambda: groco.groco_loss(views(2, 10), k=10), "k = 10"),
        (lambda: groco.groco_loss(views(1, 12)), "large"),
        (lambda: groco.groco_loss(views(3, 12), large=4), "large"),
        (lambda: groco.top_contrastive_loss(*views(2, 5), 9), "k must"),
    ],
)
def test_bad_input_is_named(call, name):
    with pytest.raises(ValueError, match=name):
        call()
