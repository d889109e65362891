"""SwAV's method cells against loop transcriptions, hand values, identities and limits of the paper."""

import math

import pytest
import torch

import nearfar
from nearfar import losses, nn

swav = nearfar.method("swav")


def draw(*shape, seed=0, scale=1.0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * scale


def unit(*shape, seed=0):
    return torch.nn.functional.normalize(draw(*shape, seed=seed), dim=-1)


@pytest.fixture
def scores():
    """Cosines of 12 features and 5 prototypes in 6 dimensions."""
    return unit(12, 6, seed=1) @ unit(5, 6, seed=2).T


def test_ell_is_the_formula(scores):
    q, tau, total = swav.codes(scores.flip(0)), 0.1, 0.0
    for b in range(12):
        denominator = sum(math.exp(scores[b, k] / tau) for k in range(5))
        for k in range(5):
            total -= q[b, k] * math.log(math.exp(scores[b, k] / tau) / denominator)
    assert swav.ell(scores, q, tau).item() == pytest.approx(float(total) / 12, rel=1e-12)
    assert torch.allclose(swav.ell(scores, q, tau), losses.prototype_cross_entropy(scores, q, tau))


def test_ell_by_hand():
    scores = torch.tensor([[0.1, 0.0]], dtype=torch.float64)  # τ = 0.1: p = (e, 1) / (e + 1)
    q = torch.tensor([[0.25, 0.75]], dtype=torch.float64)
    expected = -0.25 * math.log(math.e / (math.e + 1)) - 0.75 * math.log(1 / (math.e + 1))
    assert swav.ell(scores, q, 0.1).item() == pytest.approx(expected)


def test_the_loss_is_symmetric_in_the_views(scores):
    other = scores.roll(1, 0)
    q, p = swav.codes(scores), swav.codes(other)
    assert torch.allclose(swav.swapped_loss(scores, other, q, p), swav.swapped_loss(other, scores, p, q))


def test_sinkhorn_is_the_official_loop(scores):
    epsilon, K, B = 0.05, 5, 12
    Q = [[math.exp(scores[b, k] / epsilon) for b in range(B)] for k in range(K)]
    total = sum(map(sum, Q))
    Q = [[x / total for x in row] for row in Q]
    for _ in range(3):
        Q = [[x / sum(row) / K for x in row] for row in Q]
        sums = [sum(Q[k][b] for k in range(K)) for b in range(B)]
        Q = [[Q[k][b] / sums[b] / B for b in range(B)] for k in range(K)]
    expected = torch.tensor(Q, dtype=torch.float64).T * B
    assert torch.allclose(swav.codes(scores, epsilon, 3), expected, rtol=1e-12, atol=0)
    assert torch.allclose(losses.sinkhorn_codes(scores, epsilon, 3), expected, rtol=1e-9, atol=0)


def test_marginals(scores):
    for n, Q in enumerate(swav.sinkhorn_steps(scores, iterations=3)):
        assert Q.shape == (5, 12) and Q.sum() == pytest.approx(1)
        if n:
            assert torch.allclose(Q.sum(dim=0), torch.full((12,), 1 / 12, dtype=torch.float64))
    converged = swav.codes(scores, iterations=500)
    assert torch.allclose(converged.sum(dim=0), torch.full((5,), 12 / 5, dtype=torch.float64))


def test_converged_codes_solve_the_transport_problem(scores):
    epsilon = 0.2
    Q = swav.codes(scores, epsilon, 2000).T / 12

    def objective(Q):
        return (Q * scores.T).sum() + epsilon * torch.special.entr(Q).sum()

    for seed in range(20):  # every feasible move lowers the objective of eq. (3)
        move = draw(5, 12, seed=seed)
        move = move - move.mean(0, keepdim=True) - move.mean(1, keepdim=True) + move.mean()
        assert objective(Q + 1e-4 * move) < objective(Q)


def test_limits_of_epsilon(scores):
    assert torch.allclose(swav.codes(scores, 1e7), torch.full((12, 5), 0.2, dtype=torch.float64), atol=1e-6)
    sharp = swav.codes(scores, 0.01)
    assert (sharp.max(dim=1).values > 0.9).double().mean() > 0.5
    assert torch.isfinite(swav.codes(torch.rand(64, 10) * 2 - 1, 0.05)).all()


def test_codes_carry_no_gradient_and_are_equivariant(scores):
    leaf = scores.clone().requires_grad_()
    assert not swav.codes(leaf).requires_grad and not swav.unbalanced_codes(leaf).requires_grad
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    assert torch.allclose(swav.codes(scores[order]), swav.codes(scores)[order])
    assert torch.allclose(swav.codes(scores + 3.0), swav.codes(scores))


def test_hard_and_unbalanced_codes(scores):
    hard = swav.hard_codes(swav.codes(scores))
    assert torch.equal(hard.sum(dim=1), torch.ones(12, dtype=torch.float64))
    assert set(hard.unique().tolist()) == {0.0, 1.0}
    same = torch.zeros(6, 3, dtype=torch.float64)
    same[:, 0] = 1.0
    assert torch.allclose(swav.codes(same, iterations=50), torch.full((6, 3), 1 / 3, dtype=torch.float64))
    assert (swav.unbalanced_codes(same)[:, 0] > 0.99).all()


def test_multi_crop_is_the_mean_over_ordered_pairs(scores):
    crops = [scores.roll(n, 0) for n in range(5)]
    q = [swav.codes(crops[0]), swav.codes(crops[1])]
    total = 0.0
    for i in (0, 1):
        for v in range(5):
            if v != i:
                total += swav.ell(crops[v], q[i], 0.1) / 4
    assert torch.allclose(swav.multi_crop_loss(crops, q, 0.1), total / 2)
    two = swav.multi_crop_loss(crops[:2], q, 0.1)
    assert torch.allclose(two, swav.swapped_loss(crops[0], crops[1], q[0], q[1], 0.1) / 2)


def test_queue_codes_are_the_last_rows_of_the_whole(scores):
    C, past = unit(5, 6, seed=2).T, unit(20, 6, seed=4)
    together = swav.codes(torch.cat([past @ C, scores]))
    assert torch.allclose(swav.codes_with_queue(scores, past, C), together[20:])
    assert torch.allclose(swav.codes_with_queue(scores, past[:0], C), swav.codes(scores))


def test_prototypes_are_normalised_per_column():
    C = swav.normalise_prototypes(draw(6, 5, scale=3.0))
    assert torch.allclose(C.norm(dim=0), torch.ones(5, dtype=torch.float64))


def test_gradients(scores):
    q = [swav.codes(scores)[:4], swav.codes(scores.roll(2, 0))[:4]]
    leaves = [part.clone().requires_grad_() for part in scores.split(4)]
    assert torch.autograd.gradcheck(lambda *s: swav.multi_crop_loss(list(s), q), leaves)


def test_network_keeps_sizes_apart_and_returns_unit_features():
    network = swav.SwAV(nn.backbone("tiny", width=4), head=8, d=6, K=5).eval()
    crops = [torch.rand(3, 3, s, s) for s in (16, 16, 8, 8)]
    z, scores = network(crops)
    assert [tuple(x.shape) for x in z] == [(3, 6)] * 4 and [tuple(x.shape) for x in scores] == [(3, 5)] * 4
    assert torch.allclose(torch.cat(z).norm(dim=1), torch.ones(12), atol=1e-6)
    assert torch.allclose(network([crops[2]])[0][0], z[2], atol=1e-6)
    with pytest.raises(ValueError, match="crops of one size must follow each other"):
        network([crops[0], crops[2], crops[1]])


def test_larc_is_sgd_with_a_scaled_gradient():
    w = torch.nn.Parameter(draw(4, 3))
    start, gradient = w.detach().clone(), draw(4, 3, seed=5)
    optimiser = swav.LARC([w], lr=0.3, momentum=0.9, weight_decay=0.01, trust=0.02)
    w.grad = gradient.clone()
    optimiser.step()
    rate = 0.02 * start.norm() / (gradient.norm() + 0.01 * start.norm() + 1e-8)
    expected = start - 0.3 * rate * (gradient + 0.01 * start)
    assert torch.allclose(w.detach(), expected, rtol=1e-12)


def test_runs_on_a_fake_gpu(fake_cuda, scores):
    single, past, C = scores.float(), unit(20, 6).float(), unit(5, 6).float().T.contiguous()
    network = swav.SwAV(nn.backbone("tiny", width=4), head=8, d=6, K=5).eval()
    crops = [torch.rand(3, 3, s, s) for s in (16, 8)]
    with fake_cuda as fake:
        s = fake(single)
        q = swav.codes(s)
        for result in (
            swav.swapped_loss(s, s, q, q),
            swav.multi_crop_loss([s, s, s], [q, q]),
            swav.codes_with_queue(s, fake(past), fake(C)),
            swav.hard_codes(q),
            swav.unbalanced_codes(s),
            swav.normalise_prototypes(fake(C)),
            fake(network)(fake(crops))[1][1],
        ):
            assert result.device.type == "cuda"
