"""The method cells of the sbcl chapter: against loops, hand values, numpy, and the paper's identities."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from vectors import chance, on_circle, unit

import nearfar
from nearfar import losses

m = nearfar.method("sbcl")


def double(*values) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture
def batch():
    """Two views of eight images: z (16, 5), y and g (16,); three classes, the first with three subclasses."""
    y = torch.tensor([0, 0, 0, 0, 1, 1, 2, 0]).repeat(2)
    g = torch.tensor([0, 0, 1, 1, 3, 3, 4, 2]).repeat(2)
    return unit(16, 5, seed=1), y, g


def loop_loss(z, y, g, tau_1, tau_2, beta, s, partner) -> float:
    """Eq. (4)-(6) word for word, with plain exponentials and no tensors."""
    z, y, g, total = z.tolist(), y.tolist(), g.tolist(), 0.0
    n = len(z)

    def dot(i, j):
        return sum(a * b for a, b in zip(z[i], z[j]))

    for i in range(n):
        own = tau_2[y[i]].item() if isinstance(tau_2, Tensor) else tau_2
        other = (i + n // 2) % n
        V = [j for j in range(n) if j != i]
        M = [j for j in V if g[j] == g[i]]
        R = [j for j in V if g[j] != g[i] or (partner and j == other)]
        Q = [j for j in V if (y[j] == y[i] and g[j] != g[i]) or (partner and j == other)]
        for weight, positives, among, tau in ((s, M, V, tau_1), (beta, Q, R, own)):
            if positives:
                denominator = sum(math.exp(dot(i, a) / tau) for a in among)
                shares = [math.log(math.exp(dot(i, p) / tau) / denominator) for p in positives]
                total -= weight * sum(shares) / len(positives)
    return total / n


# ---------------------------------------------------------------------------------------------- the loss
@pytest.mark.parametrize("partner", [True, False])
@pytest.mark.parametrize(("beta", "s"), [(0.25, 0.1 / 0.07), (1.0, 1.0), (0.0, 2.0), (0.2, 0.0)])
@pytest.mark.parametrize("tau_2", [0.1, 0.5, double(0.08, 0.1, 0.15)])
def test_loss_equals_a_double_loop(batch, partner, beta, s, tau_2):
    expected = loop_loss(*batch, 0.1, tau_2, beta, s, partner)
    found = m.sbcl_loss(*batch, tau_1=0.1, tau_2=tau_2, beta=beta, s=s, partner=partner)
    assert found.dtype == torch.float64 and found.dim() == 0
    assert math.isclose(found, expected, rel_tol=1e-10)


def test_loss_by_hand():
    """Two images at a right angle, one class, two subclasses: share e / (e + 2), and a mean similarity of 1/3."""
    z, y, g = torch.eye(2, dtype=torch.float64).repeat(2, 1), torch.zeros(4).long(), torch.tensor([0, 1, 0, 1])
    first = math.log(math.e + 2) - 1
    second = math.log(math.e + 2) - 1 / 3  # Q and R are everything else
    assert math.isclose(m.sbcl_loss(z, y, g, 1.0, 1.0, 0.5, 2.0), 2 * first + 0.5 * second, rel_tol=1e-12)
    # without the other view the class level has the two others only, both at similarity 0
    expected = first + math.log(2)
    assert math.isclose(m.sbcl_loss(z, y, g, 1.0, 1.0, 1.0, 1.0, partner=False), expected, rel_tol=1e-12)


def test_loss_by_hand_on_the_circle():
    """An anchor's own subclass is neither positive nor negative at the class level."""
    z, y, g = on_circle(0, 0, 180, 0, 0, 180), torch.zeros(6).long(), torch.tensor([0, 0, 1, 0, 0, 1])
    tau = 2.0
    near, far = math.exp(1 / tau), math.exp(-1 / tau)
    # anchors at 0°: M has three at cos 1; Q and R are the other view (1) and the two of the other subclass (−1)
    sub_0 = math.log(3 * near + 2 * far) - 1 / tau
    class_0 = math.log(near + 2 * far) - (1 - 1 - 1) / 3 / tau
    # anchors at 180°: M is the other view; Q and R are all others
    sub_1 = math.log(near + 4 * far) - 1 / tau
    class_1 = math.log(near + 4 * far) - (1 - 4) / 5 / tau
    expected = (4 * (sub_0 + 0.3 * class_0) + 2 * (sub_1 + 0.3 * class_1)) / 6
    assert math.isclose(m.sbcl_loss(z, y, g, tau, tau, 0.3, 1.0), expected, rel_tol=1e-12)


def test_defaults_are_those_of_the_cifar_code(batch):
    expected = m.sbcl_loss(*batch, tau_1=0.1, tau_2=0.1, beta=0.25, s=0.1 / 0.07, partner=True)
    assert torch.equal(m.sbcl_loss(*batch), expected)


def test_pair_sets_by_hand():
    y, g = torch.tensor([0, 0, 1, 0, 0, 1]), torch.tensor([0, 1, 2, 0, 1, 2])
    V, M, R, Q = m.pair_sets(y, g)
    assert not V.diagonal().any() and V.sum() == 30
    assert M.nonzero().tolist() == [[i, (i + 3) % 6] for i in range(6)]
    assert torch.equal(R, V)  # everything outside the own subclass, and the other view, which is all of the own
    assert Q[0].nonzero()[:, 0].tolist() == [1, 3, 4] and Q[2].nonzero()[:, 0].tolist() == [5]
    *_, R, Q = m.pair_sets(y, g, partner=False)
    assert R[0].nonzero()[:, 0].tolist() == [1, 2, 4, 5] and Q[0].nonzero()[:, 0].tolist() == [1, 4]
    assert not Q[2].any()


def test_one_subclass_per_class_is_supcon_and_a_simclr_without_false_negatives(batch):
    """Exercise 1: Q_i is the other view, and R_i has other classes and the other view."""
    z, y, _ = batch
    expected, n = 1.7 * losses.supcon(z, y, 0.1).item(), len(z)
    for i in range(n):
        partner = math.exp(float(z[i] @ z[(i + 8) % 16]) / 0.1)
        others = sum(math.exp(float(z[i] @ z[j]) / 0.1) for j in range(n) if y[j] != y[i])
        expected -= 0.4 * math.log(partner / (partner + others)) / n
    assert math.isclose(m.sbcl_loss(z, y, y, beta=0.4, s=1.7), expected, rel_tol=1e-10)


def test_limits_of_the_subclass_level(batch):
    z, y, _ = batch
    assert torch.isclose(m.sbcl_loss(z, y, y, beta=0.0, s=1.0), losses.supcon(z, y, 0.1))
    itself = torch.arange(8).repeat(2)
    assert torch.isclose(m.sbcl_loss(z, y, itself, beta=0.0, s=1.0), losses.nt_xent(z[:8], z[8:], 0.1))


def test_the_class_level_of_single_images_is_supcon(batch):
    """With every image a subclass of its own, Q_i is P_i and R_i is V_i."""
    z, y, _ = batch
    found = m.sbcl_loss(z, y, torch.arange(8).repeat(2), tau_2=0.3, beta=1.0, s=0.0)
    assert torch.isclose(found, losses.supcon(z, y, 0.3))


def test_the_class_level_does_not_see_the_own_subclass(batch):
    """Moving another image of the own subclass leaves an anchor's class level as it was."""
    z, y, g = batch
    moved = z.clone()
    moved[[1, 9]] = unit(2, 5, seed=7)
    *_, R, Q = m.pair_sets(y, g)
    before, after = (m.mean_log_share(x @ x.T / 0.1, Q, R) for x in (z, moved))
    assert torch.allclose(before[[0, 8]], after[[0, 8]]) and not torch.allclose(before, after)


def test_order_of_images_and_names_of_subclasses_do_not_matter(batch):
    z, y, g = batch
    order = torch.randperm(8, generator=chance(3))
    both = torch.cat([order, order + 8])
    found = m.sbcl_loss(z[both], y[both], 10 - g[both])
    assert torch.isclose(found, m.sbcl_loss(z, y, g))
    swapped = torch.cat([torch.arange(8, 16), torch.arange(8)])
    assert torch.isclose(m.sbcl_loss(z[swapped], y, g), m.sbcl_loss(z, y, g))


def test_a_table_of_equal_temperatures_is_a_number(batch):
    assert torch.isclose(m.sbcl_loss(*batch, tau_2=double(0.2, 0.2, 0.2)), m.sbcl_loss(*batch, tau_2=0.2))


@pytest.mark.parametrize("partner", [True, False])
def test_gradcheck(batch, partner):
    z, y, g = batch
    tau_2 = double(0.3, 0.4, 0.5)
    assert torch.autograd.gradcheck(
        lambda z: m.sbcl_loss(z, y, g, 0.5, tau_2, 0.7, partner=partner), z.clone().requires_grad_()
    )


def test_no_gradient_to_temperatures_and_none_is_nan(batch):
    z, tau_2 = batch[0].clone().requires_grad_(), double(0.1, 0.2, 0.3).requires_grad_()
    m.sbcl_loss(z, *batch[1:], tau_2=tau_2, partner=False).backward()  # anchors without a positive
    assert tau_2.grad is None and torch.isfinite(z.grad).all() and z.grad.abs().sum() > 0


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05), (torch.float16, 0.02)])
def test_low_precision(batch, dtype, tolerance):
    z, y, g = batch
    z = torch.nn.functional.normalize(z[:8].repeat(2, 1) + 0.01 * z, dim=1)  # e^(1/0.07) is beyond half precision
    tau_2 = double(0.07, 0.08, 0.09)
    found = m.sbcl_loss(z.to(dtype), y, g, 0.07, tau_2.to(dtype))
    assert found.dtype == dtype and math.isclose(found, m.sbcl_loss(z, y, g, 0.07, tau_2), rel_tol=tolerance)


@pytest.mark.parametrize(
    ("change", "name"),
    [({"z": torch.ones(16)}, "z must"), ({"z": torch.ones(15, 5)}, "z must"), ({"y": torch.zeros(8).long()}, "y and g"),
     ({"g": torch.zeros(16, 1).long()}, "y and g"), ({"tau_1": 0.0}, "tau_1"), ({"tau_1": math.nan}, "tau_1"),
     ({"beta": -1.0}, "beta"), ({"tau_2": 0.0}, "tau_2"), ({"tau_2": torch.tensor(0.1)}, "tau_2")],
)  # fmt: skip
def test_bad_input(batch, change, name):
    with pytest.raises(ValueError, match=name):
        m.sbcl_loss(**dict(zip("zyg", batch)) | change)


def test_runs_on_a_fake_gpu(batch, fake_cuda):
    z, y, g = batch[0].float(), *batch[1:]
    with fake_cuda as fake:
        z, y, g = fake(z), fake(y), fake(g)
        phi = m.concentration(z, y, 3)
        counts = m.subclass_counts(fake(torch.tensor([30, 20, 10])))
        tau_2 = m.class_temperatures(phi, counts)
        loss = m.sbcl_loss(z, y, g, tau_2=tau_2)
        assert loss.device.type == tau_2.device.type == counts.device.type == "cuda"
        assert loss.shape == () and loss.dtype == tau_2.dtype == torch.float32


# ---------------------------------------------------------------------------------------------- how many subclasses
@pytest.mark.parametrize("delta", [1, 5, 10, 20])
def test_subclass_counts_are_those_of_a_loop(delta):
    n = [500, 200, 77, 20, 19, 10, 9, 5]
    expected = [max(1, c // max(min(n), delta)) for c in n]
    found = m.subclass_counts(torch.tensor(n), delta)
    assert found.tolist() == expected and found.dtype == torch.long


# ---------------------------------------------------------------------------------------------- clusters
def loop_assignment(S, rescale) -> list[int]:
    """Both walks as the card has them, on lists."""
    S = [[value / sum(row) for value in row] if rescale else row for row in S.tolist()]
    count, n = len(S), len(S[0])
    pairs = sorted(((S[c][j], c, j) for c in range(count) for j in range(n)), reverse=True)
    k, size, left = {}, [0] * count, n % count
    for most, allowed in ((n // count, n), (n // count + 1, left)):
        for _, c, j in pairs:
            if allowed and j not in k and size[c] < most:
                k[j], size[c], allowed = c, size[c] + 1, allowed - 1
    return [k[j] for j in range(n)]


@pytest.mark.parametrize(("count", "n"), [(1, 7), (3, 12), (4, 14), (5, 7), (7, 7)])
@pytest.mark.parametrize("rescale", [False, True])
def test_balanced_assignment_equals_a_loop(count, n, rescale):
    S = torch.randn(count, n, dtype=torch.float64, generator=chance(n))
    k = m.balanced_assignment(S, rescale)
    assert k.tolist() == loop_assignment(S, rescale)
    sizes = k.bincount(minlength=count)
    assert sizes.max() - sizes.min() <= 1


def test_balanced_assignment_by_hand():
    """All three samples prefer centroid 0; it gets the best, the other the next, and the last goes where it fits."""
    S = double(0.9, 0.8, 0.7, 0.1, 0.2, 0.6).view(2, 3)
    # first walk, one each: (0, 0) 0.9, then (1, 2) 0.6; second walk: (0, 1) 0.8
    assert m.balanced_assignment(S).tolist() == [0, 0, 1]
    assert m.balanced_assignment(S, rescale=True).tolist() == [0, 0, 1]  # rows .375 .333 .292 and .111 .222 .667


def test_rescaling_reverses_a_row_with_a_negative_sum():
    S = double(0.5, 0.4, -0.3, -0.6).view(2, 2)
    assert m.balanced_assignment(S).tolist() == [0, 1]
    assert m.balanced_assignment(S, rescale=True).tolist() == [0, 1]  # −0.6 became the largest of its row
    S = double(0.5, 0.4, -0.6, -0.3).view(2, 2)
    assert m.balanced_assignment(S).tolist() == [0, 1]
    assert m.balanced_assignment(S, rescale=True).tolist() == [1, 0]


def loop_kmeans(z, start, iterations, balanced):
    z = z.numpy()
    mu = z[start].copy()
    for _ in range(iterations):
        S = np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in z] for a in mu])
        k = np.array(loop_assignment(torch.from_numpy(S), False)) if balanced else S.argmax(axis=0)
        new = np.array([z[k == c].mean(axis=0) for c in range(len(mu))])
        shift, mu = sum(np.linalg.norm(a - b) for a, b in zip(new, mu)), new
        if shift**2 < 1e-3:
            break
    return k, mu


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("iterations", [1, 2, 50])
@pytest.mark.parametrize("length", [1.0, 3.0])
def test_kmeans_equals_a_loop(balanced, iterations, length):
    z, start = length * unit(20, 4, seed=5), torch.tensor([3, 11, 0])
    k, mu = loop_kmeans(z, start.numpy(), iterations, balanced)
    found, means = m.cluster(z, 3, start, balanced=balanced, iterations=iterations)
    assert found.tolist() == k.tolist() and np.allclose(means, mu, rtol=1e-12)


@pytest.mark.parametrize("balanced", [True, False])
def test_kmeans_finds_clear_clusters(balanced):
    z = on_circle(0, 2, 4, 120, 122, 124, 240, 242, 244)
    k, mu = m.cluster(z, 3, torch.tensor([0, 3, 6]), balanced=balanced)
    assert k.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert torch.allclose(mu, z.view(3, 3, 2).mean(dim=1))


def test_an_empty_cluster_starts_again_at_a_sample():
    """Two equal first centroids: the second gets nothing, and takes a drawn sample."""
    z = on_circle(0, 10, 20, 30)
    _, mu = m.cluster(z, 2, torch.tensor([1, 1]), balanced=False, iterations=1, generator=chance(0))
    drawn = int(torch.randint(4, (1,), generator=chance(0)))
    assert torch.allclose(mu, torch.stack([z.mean(dim=0), z[drawn]]))


def test_a_start_is_drawn_from_the_generator_and_differs_between_seeds():
    z = unit(30, 6, seed=2)
    same = [m.cluster(z, 5, generator=chance(4))[0] for _ in range(2)]
    assert torch.equal(*same) and not torch.equal(same[0], m.cluster(z, 5, generator=chance(5))[0])
    start = torch.randperm(30, generator=chance(4))[:5]
    assert torch.equal(m.cluster(z, 5, start)[0], same[0])


def test_clusters_take_no_gradient_and_keep_the_precision():
    z = unit(12, 3).float().requires_grad_()
    k, mu = m.cluster(z, 3, generator=chance(1))
    assert not mu.requires_grad and mu.dtype == torch.float32 and k.dtype == torch.long


@pytest.mark.parametrize("count", [0, 5])
def test_cluster_names_a_bad_number(count):
    with pytest.raises(ValueError, match="m must lie between 1 and the number of samples 4"):
        m.cluster(unit(4, 2), count)


@pytest.mark.parametrize("balanced", [True, False])
def test_subclasses_are_numbered_over_classes(balanced):
    """Rows in any order; a class with one subclass is not clustered."""
    y = torch.tensor([2, 0, 1, 0, 2, 0, 0, 1, 0, 0, 2, 0])
    z, counts = unit(12, 4, seed=8), torch.tensor([3, 1, 1])
    g = m.subclasses(z, y, counts, balanced=balanced, generator=chance(2))
    own, _ = m.cluster(z[y == 0], 3, balanced=balanced, generator=chance(2))
    assert torch.equal(g[y == 0], own) and set(g[y == 1].tolist()) == {3} and set(g[y == 2].tolist()) == {4}
    if balanced:
        assert sorted(g.bincount().tolist()) == [2, 2, 2, 3, 3]


def test_no_subclass_reaches_twice_the_smallest_class():
    n = torch.tensor([143, 60, 31, 12])
    y = torch.arange(4).repeat_interleave(n)
    g = m.subclasses(unit(len(y), 3), y, m.subclass_counts(n), iterations=2, generator=chance(3))
    assert g.bincount().max() < 24 and len(g.unique()) == 11 + 5 + 2 + 1


# ---------------------------------------------------------------------------------------------- temperatures
@pytest.mark.parametrize("epsilon", [0.0, 1e-6])
def test_concentration_equals_a_loop(epsilon):
    z, y = unit(25, 4, seed=3), torch.randint(3, (25,), generator=chance(1))
    expected = []
    for c in range(3):
        mine = z[y == c]
        lengths = torch.nn.functional.pairwise_distance(mine, mine.mean(dim=0)[None], eps=epsilon)
        expected.append(lengths.mean().item() / math.log(len(mine) + 10))
    assert np.allclose(m.concentration(z, y, 3, epsilon), expected, rtol=1e-12)


def test_concentration_by_hand():
    z = double(1, 0, 0, 1, -1, 0).view(3, 2)
    phi = m.concentration(z, torch.tensor([0, 0, 1]), 3)
    assert math.isclose(phi[0], math.sqrt(0.5) / math.log(12), rel_tol=1e-12) and phi[1] == 0
    assert torch.isnan(phi[2])  # no sample


@pytest.mark.parametrize("form", ["ratio", "exponential"])
@pytest.mark.parametrize(("low", "high"), [(20, 80), (10, 90), (0, 100), (50, 50)])
def test_temperatures_equal_numpys(form, low, high):
    phi, counts = torch.rand(7, dtype=torch.float64, generator=chance(6)), torch.tensor([5, 3, 1, 2, 1, 1, 2])
    clipped = np.clip(phi.numpy(), np.percentile(phi, low), np.percentile(phi, high))
    ratio = clipped / clipped.mean()
    expected = 0.07 * (ratio if form == "ratio" else np.exp(ratio))
    expected[counts.numpy() == 1] = 0.07
    assert np.allclose(m.class_temperatures(phi, counts, 0.07, low, high, form), expected, rtol=1e-12)


def test_temperatures_by_hand():
    """The percentiles of five values at 20 and 80 lie a fifth of the way to the ends: 1.8 and 4.2."""
    tau = m.class_temperatures(double(1, 2, 3, 4, 5), torch.tensor([2, 2, 2, 2, 1]))
    assert torch.allclose(tau, 0.1 * double(1.8, 2, 3, 4, 3) / 3)  # the last has one subclass
    assert (m.class_temperatures(double(1, 2, 3), torch.full((3,), 2), form="exponential") > 0.1).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_temperatures_keep_the_precision_and_take_no_gradient(dtype):
    phi = double(1, 2, 3, 4).to(dtype).requires_grad_()
    tau = m.class_temperatures(phi, torch.tensor([2, 2, 2, 1]))
    assert tau.dtype == dtype and not tau.requires_grad
    z = unit(6, 3).to(dtype).requires_grad_()
    phi = m.concentration(z, torch.tensor([0, 0, 0, 1, 1, 1]), 2)
    assert phi.dtype == dtype and not phi.requires_grad


def test_temperatures_name_a_bad_form():
    with pytest.raises(ValueError, match="form must be"):
        m.class_temperatures(double(1, 2), torch.tensor([1, 2]), form="linear")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_concentration_of_many_images_in_half_precision(dtype):
    z = unit(6000, 4, seed=3)
    y = torch.arange(6000) % 2
    expected = m.concentration(z.to(dtype).double(), y, 2)
    found = m.concentration(z.to(dtype), y, 2)
    assert found.dtype == dtype and torch.allclose(found.double(), expected, rtol=2 * torch.finfo(dtype).eps)


def test_temperatures_of_an_empty_class_and_of_no_spread():
    phi = double(1, float("nan"), 3, 2)
    tau = m.class_temperatures(phi, torch.full((4,), 2))
    full = m.class_temperatures(double(1, 3, 2), torch.full((3,), 2))
    assert torch.equal(tau[[0, 2, 3]], full) and tau[1] == 0.1
    assert (m.class_temperatures(torch.zeros(3), torch.full((3,), 2)) == torch.tensor(0.1)).all()


@pytest.mark.parametrize(("balanced", "most"), [(True, 50), (False, 35)])
def test_iterations_left_open_are_those_of_the_code(balanced, most):
    z, start = unit(40, 6, seed=8), torch.arange(5)
    found = m.cluster(z, 5, start, balanced, tolerance=-1.0)  # never at rest
    expected = m.cluster(z, 5, start, balanced, tolerance=-1.0, iterations=most)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
