"""CACR's method cells against loop transcriptions, hand values, identities and limits of the paper."""

import math

import pytest
import torch
from vectors import on_circle, unit

import nearfar
from nearfar import evaluate, losses

cacr = nearfar.method("cacr")
V, B, D = 4, 5, 6


def gap(a, b):
    return sum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True))


def softmax(scores):
    top = max(scores)
    terms = [math.exp(score - top) for score in scores]
    return [term / sum(terms) for term in terms]


@pytest.fixture
def z():
    return unit(V, B, D, seed=1)


# ---------------------------------------------------------------------------------------------- loop transcriptions
def attraction_by_loop(z, t_plus, uniform=False):
    total = 0.0
    for v in range(len(z)):
        for i in range(z.shape[1]):
            d2 = [gap(z[v, i], z[k, i]) for k in range(len(z)) if k != v]
            pi = [1 / len(d2)] * len(d2) if uniform else softmax([t_plus * d for d in d2])
            total += sum(p * d for p, d in zip(pi, d2, strict=True))
    return total / len(z) / z.shape[1]


def repulsion_by_loop(z, t_minus, uniform=False, rbf=None):
    pairs = []
    for u in range(len(z)):
        for v in range(u + 1, len(z)):
            rows = []
            for i in range(z.shape[1]):
                d2 = [gap(z[u, i], z[v, j]) for j in range(z.shape[1]) if j != i]
                pi = [1 / len(d2)] * len(d2) if uniform else softmax([-t_minus * d for d in d2])
                cost = [-d if rbf is None else math.exp(-rbf * d) for d in d2]
                rows.append(sum(p * c for p, c in zip(pi, cost, strict=True)))
            mean = sum(rows) / len(rows)
            pairs.append(mean if rbf is None else math.log(mean))
    return sum(pairs) / len(pairs)


@pytest.mark.parametrize("views", [2, 3, 4])
@pytest.mark.parametrize("t", [0.0, 0.9, 3.0])
def test_attraction_and_repulsion_are_the_formulas(z, views, t):
    z = z[:views]
    assert cacr.attraction(z, t).item() == pytest.approx(attraction_by_loop(z, t), rel=1e-12)
    assert cacr.repulsion(z, t).item() == pytest.approx(repulsion_by_loop(z, t), rel=1e-12)
    assert cacr.repulsion(z, t, cost="rbf", t=1.5).item() == pytest.approx(repulsion_by_loop(z, t, rbf=1.5), rel=1e-12)


def test_uniform_weights_are_means(z):
    assert cacr.attraction(z, 5.0, "uniform").item() == pytest.approx(attraction_by_loop(z, 0, True), rel=1e-12)
    assert cacr.repulsion(z, 5.0, "uniform").item() == pytest.approx(repulsion_by_loop(z, 0, True), rel=1e-12)
    rbf = cacr.repulsion(z, 5.0, "uniform", cost="rbf")
    assert rbf.item() == pytest.approx(repulsion_by_loop(z, 0, True, 2.0), rel=1e-12)


@pytest.mark.parametrize("choice", ["full", "without_w1", "without_w2", "none"])
def test_choices_and_factors_of_the_whole_loss(z, choice):
    no_w1, no_w2 = choice in ("without_w1", "none"), choice in ("without_w2", "none")
    expected = 0.7 * attraction_by_loop(z, 1.3, no_w1) + 1.9 * repulsion_by_loop(z, 0.6, no_w2)
    found = cacr.cacr_loss(z, t_plus=1.3, t_minus=0.6, alpha=0.7, beta=1.9, choice=choice)
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_the_queue_form_is_the_formula(z):
    keys, queue = unit(V, B, D, seed=2), unit(7, D, seed=3)
    pulled = pushed = 0.0
    for v in range(V):
        for i in range(B):
            d2 = [gap(z[v, i], keys[k, i]) for k in range(V) if k != v]
            pulled += sum(p * d for p, d in zip(softmax([1.2 * d for d in d2]), d2, strict=True)) / V / B
            d2 = [gap(z[v, i], n) for n in queue] + [gap(z[v, i], z[v, j]) for j in range(B) if j != i]
            pushed += sum(p * d for p, d in zip(softmax([-0.8 * d for d in d2]), d2, strict=True)) / V / B
    found = cacr.moco_loss(z, keys, queue, t_plus=1.2, t_minus=0.8, alpha=0.5, beta=2.0)
    assert found.item() == pytest.approx(0.5 * pulled - 2.0 * pushed, rel=1e-12)


def test_the_moco_v3_form_is_the_formula(z):
    key, T, total = unit(B, D, seed=2), 0.4, 0.0
    for n in range(B):
        p = softmax([gap(z[i, n], key[n]) / T for i in range(V)])
        for i in range(V):
            logits = [float(z[i, n] @ key[m]) / T for m in range(B)]
            total += p[i] * (math.log(sum(map(math.exp, logits))) - logits[n]) / B
    assert cacr.moco_v3_loss(z, key, T).item() == pytest.approx(2 * T * total, rel=1e-12)


def test_the_baseline_is_the_mean_of_one_positive_losses(z):
    pairs = [(u, v) for u in range(V) for v in range(V) if u != v]
    mean = sum(losses.info_nce(z[u], z[v], temperature=0.3) for u, v in pairs) / len(pairs)
    assert cacr.contrastive_loss(z, 0.3).item() == pytest.approx(mean.item(), rel=1e-12)


def test_distances(z):
    a, b = 3 * unit(4, D, seed=5), unit(3, D, seed=6)
    found = cacr.squared_distances(a, b)
    assert found.tolist() == [pytest.approx([gap(x, y) for y in b], rel=1e-12) for x in a]
    assert cacr.squared_distances(z, z).shape == (V, B, B) and (cacr.squared_distances(z, z) >= 0).all()
    plus, minus = cacr.positive_distances(z), cacr.negative_distances(z)
    assert plus.shape == (V, B, V - 1) and minus.shape == (V * (V - 1) // 2, B, B - 1)
    assert plus[2, 3].tolist() == pytest.approx([gap(z[2, 3], z[k, 3]) for k in (0, 1, 3)], rel=1e-12)
    assert minus[4, 2].tolist() == pytest.approx([gap(z[1, 2], z[3, j]) for j in (0, 1, 3, 4)], rel=1e-12)


# ---------------------------------------------------------------------------------------------- by hand
def test_by_hand_on_the_circle():
    z = torch.stack([on_circle(0, 180), on_circle(60, 180), on_circle(90, 180)])
    near = 2 - math.sqrt(3)
    queries = [(1, 2), (1, near), (2, near)]
    mean = sum((a * math.exp(a) + b * math.exp(b)) / (math.exp(a) + math.exp(b)) for a, b in queries) / 3
    assert cacr.attraction(z).item() == pytest.approx(mean / 2, rel=1e-12)
    assert cacr.repulsion(z[[0, 1]]).item() == pytest.approx(-(4 + 3) / 2)  # 0° to 180°, and 180° to 60°
    assert cacr.repulsion(z).item() == pytest.approx(-(4 + 3 + 4 + 2 + 3 + 2) / 6)  # each pair of views one way, u < v
    assert cacr.repulsion(torch.stack([on_circle(0, 180)] * 2)).item() == pytest.approx(-4)  # the bound


# ---------------------------------------------------------------------------------------------- identities and limits
def test_identities(z):
    two = z[:2]
    assert cacr.attraction(two, 7.0).item() == pytest.approx(evaluate.alignment(*two).item(), rel=1e-12)
    zero = cacr.cacr_loss(z, t_plus=0.0, t_minus=0.0)
    assert zero.item() == pytest.approx(cacr.cacr_loss(z, choice="none").item(), rel=1e-12)
    hardest = cacr.positive_distances(z).amax(dim=-1).mean()
    assert cacr.attraction(z, 1e6).item() == pytest.approx(hardest.item(), rel=1e-9)
    d2 = cacr.negative_distances(z)
    assert cacr.repulsion(z, 1e6).item() == pytest.approx(-d2.amin(dim=-1).mean().item(), rel=1e-9)
    by_entropy = ((-0.9 * d2).logsumexp(dim=-1) - cacr.entropy(cacr.conditional(d2, -0.9))) / 0.9  # eq. (8)
    assert cacr.repulsion(z, 0.9).item() == pytest.approx(by_entropy.mean().item(), rel=1e-12)
    assert cacr.attraction(z) >= cacr.attraction(z, weights="uniform")  # the far ones count more
    assert cacr.repulsion(z) >= cacr.repulsion(z, weights="uniform")  # and the near ones
    assert -4 <= cacr.repulsion(z) <= 0


def test_constant_weights_are_the_contrastive_repulsion(z):
    z = z.clone().requires_grad_()
    d2 = cacr.negative_distances(z)
    (theirs,) = torch.autograd.grad(((-0.9 * d2).logsumexp(dim=-1) / 0.9).mean(), z)
    (ours,) = torch.autograd.grad(cacr.repulsion(z, 0.9, detach=True), z)
    assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-14)
    assert cacr.cacr_loss(z, detach=True).item() == pytest.approx(cacr.cacr_loss(z).item(), rel=1e-14)


@pytest.mark.parametrize("t", [1.3, -0.9])
@pytest.mark.parametrize("detach", [False, True])
def test_the_slope_is_the_gradient(t, detach):
    d2 = (4 * torch.rand(3, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(2))).requires_grad_()
    (found,) = torch.autograd.grad(cacr.expected(d2, d2, t, "distance", detach).sum(), d2)
    assert torch.allclose(found, cacr.slope(d2, t, detach), rtol=1e-10)
    if not detach:  # some slopes have the other sign: far negatives pulled in, near positives pushed away
        mean = (cacr.conditional(d2, t) * d2).sum(dim=-1, keepdim=True)
        assert ((found < 0) == (1 + t * (d2 - mean) < 0)).all()


def test_order_of_views_and_images_and_rotations_do_not_matter(z):
    turn = torch.linalg.qr(torch.randn(D, D, dtype=torch.float64, generator=torch.Generator().manual_seed(3)))[0]
    images = torch.tensor([3, 0, 4, 1, 2])
    for loss in (cacr.cacr_loss, cacr.contrastive_loss, cacr.attraction):
        value = loss(z).item()
        assert loss(z[:, images]).item() == pytest.approx(value, rel=1e-12)
        assert loss(z @ turn).item() == pytest.approx(value, rel=1e-12)
        if loss is not cacr.cacr_loss:  # of two views u < v, u is the query of the repulsion
            assert loss(z[[2, 0, 3, 1]]).item() == pytest.approx(value, rel=1e-12)


def test_one_query_view_on_moco_v3_is_info_nce(z):
    key = unit(B, D, seed=2)
    expected = 2 * 0.2 * losses.info_nce(z[0], key, temperature=0.2)
    assert cacr.moco_v3_loss(z[:1], key, 0.2).item() == pytest.approx(expected.item(), rel=1e-12)


# ---------------------------------------------------------------------------------------------- gradients
def test_gradcheck(z):
    z = z[:3, :4].clone().requires_grad_()
    key, queue = unit(4, D, seed=2), unit(6, D, seed=3)
    for loss in (
        cacr.cacr_loss,
        lambda z: cacr.cacr_loss(z, 2.0, 1.5, cost="rbf"),
        lambda z: cacr.cacr_loss(z, choice="none"),
        cacr.contrastive_loss,
    ):
        assert torch.autograd.gradcheck(loss, z)
    p = ((z - key).square().sum(dim=-1) / 0.5).softmax(dim=0).detach()

    def fixed(z):  # eq. (6) with its weights as numbers
        logits = z @ key.T / 0.5
        return (p * (logits.logsumexp(-1) - logits.diagonal(dim1=1, dim2=2))).mean(dim=1).sum()

    assert torch.autograd.gradcheck(fixed, z)
    (ours,), (theirs,) = (torch.autograd.grad(f, z) for f in (cacr.moco_v3_loss(z, key, 0.5), fixed(z)))
    assert torch.allclose(ours, theirs, rtol=1e-10)
    assert cacr.moco_loss(z, z, queue).isfinite()


def test_the_queue_form_stops_gradients_where_it_should(z):
    z, keys, queue = (x.clone().requires_grad_() for x in (z, unit(V, B, D, seed=2), unit(7, D, seed=3)))
    cacr.moco_loss(z, keys, queue, beta=0.7).backward()
    assert keys.grad is None and queue.grad is None
    d_plus = torch.stack([((z[v] - keys[[k for k in range(V) if k != v]]) ** 2).sum(-1).T for v in range(V)])
    pi_plus = d_plus.detach().softmax(dim=-1)  # constant
    d_queue = ((z[:, :, None] - queue) ** 2).sum(-1)
    d_batch = torch.stack([((z[:, i, None] - z[:, [j for j in range(B) if j != i]]) ** 2).sum(-1) for i in range(B)], 1)
    pi_minus = (-0.9 * torch.cat([d_queue.detach(), d_batch], dim=-1)).softmax(dim=-1)  # constant for the queue only
    by_hand = (pi_plus * d_plus).sum(-1).mean() - 0.7 * (pi_minus * torch.cat([d_queue, d_batch], -1)).sum(-1).mean()
    expected = torch.autograd.grad(by_hand, z, retain_graph=True)[0]
    assert torch.allclose(z.grad, expected, rtol=1e-9, atol=1e-12)
    nothing_stopped = (-0.9 * torch.cat([d_queue, d_batch], dim=-1)).softmax(dim=-1)
    through = -(nothing_stopped * torch.cat([d_queue, d_batch], -1)).sum(-1).mean()
    assert not torch.allclose(z.grad, torch.autograd.grad(through, z)[0], rtol=1e-3)


def test_the_key_of_moco_v3_gets_no_gradient(z):
    z, key = z.clone().requires_grad_(), unit(B, D, seed=2).requires_grad_()
    cacr.moco_v3_loss(z, key).backward()
    assert key.grad is None and z.grad.abs().sum() > 0


# ---------------------------------------------------------------------------------------------- measures, devices
def test_entropy_by_hand():
    pi = torch.tensor([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    assert cacr.entropy(pi).tolist() == pytest.approx([math.log(4), 0.0])


def test_precision_is_kept(z):
    for loss in (cacr.cacr_loss, cacr.contrastive_loss, lambda z: cacr.repulsion(z, cost="rbf")):
        single = loss(z.float())
        assert single.dtype == torch.float32 and single.item() == pytest.approx(loss(z).item(), rel=1e-4, abs=1e-5)
        assert loss(z).dtype == torch.float64


def test_runs_on_a_fake_gpu(fake_cuda, z):
    z, key, queue = z.float(), unit(B, D, seed=2).float(), unit(7, D, seed=3).float()
    with fake_cuda as fake:
        z, key, queue = fake(z), fake(key), fake(queue)
        for result in (
            cacr.cacr_loss(z),
            cacr.cacr_loss(z, choice="without_w1", detach=True, cost="rbf"),
            cacr.contrastive_loss(z),
            cacr.moco_loss(z, z, queue),
            cacr.moco_v3_loss(z, key),
            cacr.slope(cacr.negative_distances(z), -0.9),
            cacr.entropy(cacr.conditional(cacr.positive_distances(z), 1.0)),
        ):
            assert result.device.type == "cuda"


def test_bad_input(z):
    for arguments, name in (
        ({"t_plus": -1.0}, "t_plus"),
        ({"t_minus": -0.1}, "t_minus"),
        ({"choice": "with_w1"}, "choice"),
        ({"cost": "cosine"}, "cost"),
    ):
        with pytest.raises(ValueError, match=name):
            cacr.cacr_loss(z, **arguments)
    with pytest.raises(ValueError, match="weights"):
        cacr.attraction(z, weights="even")
    for shape in ((1, 5, 6), (4, 1, 6), (5, 6)):
        with pytest.raises(ValueError, match="z_views"):
            cacr.cacr_loss(torch.zeros(shape))
    with pytest.raises(ValueError, match="tau"):
        cacr.contrastive_loss(z, 0.0)
    with pytest.raises(ValueError, match="keys"):
        cacr.moco_loss(z, z[:, :3], z[0])
    with pytest.raises(ValueError, match="queue"):
        cacr.moco_loss(z, z, z[0, :, :4])
    with pytest.raises(ValueError, match="T must"):
        cacr.moco_v3_loss(z, z[0], 0.0)
    with pytest.raises(ValueError, match="key must"):
        cacr.moco_v3_loss(z, z[0, :3])
    with pytest.raises(ValueError, match="a, b"):
        cacr.squared_distances(z, z[..., :3])
