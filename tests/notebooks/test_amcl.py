"""AMCL's method cells against loop transcriptions, hand values, identities and limits of the paper."""

import math

import pytest
import torch
from vectors import unit

import nearfar
from nearfar import losses, nn

amcl = nearfar.method("amcl")
C, B, N, D = 3, 4, 7, 6


def chance(*shape, seed=0):
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def regulariser(tau, d_prime):
    return d_prime / 2 * math.log(tau) + 1 / tau


def cosine(a, b):
    a, b = a.tolist(), b.tolist()
    return sum(x * y for x, y in zip(a, b)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


@pytest.fixture
def pairs():
    """Similarities and temperatures: s_pos, s_neg, tau_pos, tau_neg."""
    return (
        2 * chance(C, B) - 1,
        2 * chance(C, B, N, seed=1) - 1,
        0.1 + chance(C, B, seed=2),
        0.1 + chance(C, B, N, seed=3),
    )


# ---------------------------------------------------------------------------------------------- the likelihood
def test_the_regulariser_is_the_likelihoods():
    z, z_prime, tau = unit(5, D), unit(5, D, seed=1), 0.1 + chance(5)
    gaussian = D / 2 * tau.log() + (z - z_prime).square().sum(dim=1) / (2 * tau)
    assert torch.allclose(amcl.negative_log_likelihood((z * z_prime).sum(1), tau, D), gaussian, rtol=1e-12)
    for value in (0.05, 0.3, 2.0):
        assert amcl.omega(torch.tensor(value).double(), 9).item() == pytest.approx(regulariser(value, 9), rel=1e-7)
    assert amcl.omega(torch.ones(()), 5).item() == 1.0


@pytest.mark.parametrize("beta", [0.4, 1.0])
def test_the_best_temperature_is_a_minimum(beta):
    s = torch.linspace(-0.9, beta - 0.05, 9, dtype=torch.float64)
    best = amcl.optimal_tau(s, D, beta).requires_grad_()

    def cost(tau):
        return beta * amcl.omega(tau, D) - s / tau

    (slope,) = torch.autograd.grad(cost(best).sum(), best)
    assert slope.abs().max() < 1e-9
    assert (cost(1.01 * best) > cost(best)).all() and (cost(0.99 * best) > cost(best)).all()
    assert amcl.optimal_tau(torch.tensor([0.5]), 4).item() == pytest.approx(0.25)
    assert amcl.optimal_tau(torch.tensor([beta, 1.0]), D, beta).tolist() == [0, 0]


def test_the_cost_of_a_negative_has_no_minimum():
    s = torch.full((3,), 0.4, dtype=torch.float64)
    best = amcl.optimal_tau(s, 8)
    low, middle, high = -amcl.negative_log_likelihood(s, best * torch.tensor([0.01, 1.0, 1e4]), 8)
    assert low < middle and high < middle


# ---------------------------------------------------------------------------------------------- temperatures
def test_temperatures_stay_between_their_bounds():
    tau = amcl.bounded_tau(torch.tensor([-1e4, 0.0, 1e4], dtype=torch.float64), 0.05, 2.0)
    assert tau.tolist() == pytest.approx([0.05, 1.025, 2.0], rel=1e-12)
    for u in (-1.3, 0.2):
        by_hand = 0.1 + 0.8 / (1 + math.exp(-u))
        assert amcl.bounded_tau(torch.tensor(u).double(), 0.1, 0.9).item() == pytest.approx(by_hand, rel=1e-7)
    start = torch.tensor(amcl.starting_u(0.2, 0.05, 2.0), dtype=torch.float64)
    assert amcl.bounded_tau(start, 0.05, 2.0).item() == pytest.approx(0.2, rel=1e-12)


def test_dot_scores_are_a_gram_matrix():
    phi = chance(2, 5, 3)
    u = amcl.dot_scores(phi)
    for c in range(2):
        for i in range(5):
            for j in range(5):
                assert u[c, i, j].item() == pytest.approx(sum(float(phi[c, i, k] * phi[c, j, k]) for k in range(3)))
    own = u.diagonal(dim1=1, dim2=2)
    assert (u <= (own[:, :, None] + own[:, None]) / 2 + 1e-12).all()  # the dot product takes sides


def test_concat_scores_are_the_perceptron_of_the_concatenation():
    z_i, z_j = unit(5, D), unit(5, D, seed=1)
    W_1, b_1, w_2, b_2 = chance(8, 2 * D) - 0.5, chance(8, seed=1) - 0.5, chance(8, seed=2) - 0.5, chance((), seed=3)
    u = amcl.concat_scores(z_i, z_j, W_1, b_1, w_2, b_2)
    grid = amcl.concat_scores(z_i[:, None], z_j, W_1, b_1, w_2, b_2)
    assert grid.shape == (5, 5) and torch.allclose(grid.diagonal(), u, rtol=1e-12)
    for i in range(5):
        for j in range(5):
            hidden = (W_1 @ torch.cat([z_i[i], z_j[j]]) + b_1).clamp(min=0)
            assert grid[i, j].item() == pytest.approx((hidden @ w_2 + b_2).item(), rel=1e-10)


@pytest.mark.parametrize("form", ["dot", "concat"])
def test_the_networks_matrix_holds_its_pairs(form):
    net = amcl.PairTemperature(C, D, form, tau_l=0.1, tau_u=1.0, tau_0=0.3, hidden=8, k=4, seed=3).double()
    z = unit(C, 2 * B, D)
    tau = net(z)
    assert tau.shape == (C, 2 * B, 2 * B) and ((tau > 0.1) & (tau < 1.0)).all()
    assert (tau - 0.3).abs().max() < 0.2
    for c in range(C):
        for i in range(2 * B):
            for j in range(2 * B):
                f, a, b = net.phi[c], z[c, i], z[c, j]
                u = f(a) @ f(b) if form == "dot" else f(torch.cat([a, b]))[0]
                by_hand = 0.1 + 0.9 * torch.sigmoid(u + net.b[c, 0, 0])
                assert tau[c, i, j].item() == pytest.approx(by_hand.item(), rel=1e-10)
    assert torch.allclose(net.pairs(z[:, :B], z[:, B:]), amcl.of_positives(tau)[:, :B], rtol=1e-12)
    if form == "dot":
        assert torch.allclose(tau, tau.mT, rtol=1e-12)
    else:
        assert not torch.allclose(tau, tau.mT)


def test_heads_are_alike_in_shape_and_different_in_weights():
    heads = amcl.Heads(2, [5, 8, D], seed=1).double()
    z = heads(unit(6, 5))
    assert z.shape == (6, 2, D) and torch.allclose(z.norm(dim=-1), torch.ones(6, 2, dtype=torch.float64))
    assert not torch.allclose(z[:, 0], z[:, 1])
    one = amcl.Heads(1, [5, 8, D], seed=1).double()(unit(6, 5))
    assert torch.allclose(one[:, 0], z[:, 0], rtol=0, atol=1e-15)  # more heads leave the first as it was


# ---------------------------------------------------------------------------------------------- pairs of a batch
def test_pairs_of_a_batch():
    z = unit(C, 2 * B, D)
    s_pos, s_neg = amcl.pair_similarities(z)
    for c in range(C):
        for i in range(2 * B):
            partner = (i + B) % (2 * B)
            assert s_pos[c, i].item() == pytest.approx(cosine(z[c, i], z[c, partner]), rel=1e-10)
            for j in range(2 * B):
                if j in (i, partner):
                    assert s_neg[c, i, j] == -math.inf
                else:
                    assert s_neg[c, i, j].item() == pytest.approx(cosine(z[c, i], z[c, j]), rel=1e-10)


# ---------------------------------------------------------------------------------------------- the losses
def loops(pairs, beta, d_prime, soft, with_positive=False):
    s_pos, s_neg, tau_pos, tau_neg = (x.tolist() for x in pairs)
    found = []
    for i in range(B):
        total = 0.0
        for c in range(C):
            those = [(s, tau) for s, tau in zip(s_neg[c][i], tau_neg[c][i]) if s > -math.inf]
            if with_positive:
                those.append((s_pos[c][i], tau_pos[c][i]))
            if soft:
                terms = [math.exp(s / tau) for s, tau in those]
                negative = math.log(sum(terms))
                charge = sum(e / sum(terms) * regulariser(tau, d_prime) for e, (_, tau) in zip(terms, those))
            else:
                s, tau = max(those)
                negative, charge = s / tau, regulariser(tau, d_prime)
            total += -s_pos[c][i] / tau_pos[c][i] + negative + beta * (regulariser(tau_pos[c][i], d_prime) - charge)
        found.append(total)
    return found


@pytest.mark.parametrize("with_positive", [False, True])
@pytest.mark.parametrize("beta", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("soft", [False, True])
def test_the_losses_are_the_formulas(pairs, soft, beta, with_positive):
    loss = amcl.amcl_loss_soft if soft else amcl.amcl_loss_max
    assert loss(*pairs, beta, 5, with_positive).tolist() == pytest.approx(
        loops(pairs, beta, 5, soft, with_positive), rel=1e-10
    )
    pairs[1][:, 1, 2:] = -math.inf  # left out
    assert loss(*pairs, beta, 5, with_positive).tolist() == pytest.approx(
        loops(pairs, beta, 5, soft, with_positive), rel=1e-10
    )
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    shuffled = pairs[0], pairs[1][..., order], pairs[2], pairs[3][..., order]
    assert torch.allclose(loss(*shuffled, beta, 5), loss(*pairs, beta, 5), rtol=1e-10)
    assert torch.allclose(loss(*(x.flip(0) for x in pairs), beta, 5), loss(*pairs, beta, 5), rtol=1e-10)  # heads


def test_the_losses_by_hand():
    one = [torch.tensor(x, dtype=torch.float64) for x in ([[0.5]], [[[0.0, -0.5]]], [[0.5]], [[[1.0, 0.5]]])]
    assert amcl.amcl_loss_max(*one, 1.0, 2).item() == pytest.approx(-math.log(2))
    w = math.e / (math.e + 1)
    soft = 1 - math.log(2) + math.log(1 + 1 / math.e) - w - (1 - w) * (2 - math.log(2))
    assert amcl.amcl_loss_soft(*one, 1.0, 2).item() == pytest.approx(soft)


def test_constant_temperature_gives_nt_xent():
    z = unit(1, 2 * B, D)
    s_pos, s_neg = amcl.pair_similarities(z)
    loss = amcl.amcl_loss_soft(s_pos, s_neg, 0.3, 0.3, beta=0.7, with_positive=True)
    assert torch.allclose(loss.mean(), losses.nt_xent(z[0, :B], z[0, B:], temperature=0.3), rtol=1e-12)
    without = amcl.amcl_loss_soft(s_pos, s_neg, 0.3, 0.3, beta=0.7)
    for i in range(2 * B):
        negatives = [math.exp(float(s) / 0.3) for s in s_neg[0, i]]
        assert without[i].item() == pytest.approx(-float(s_pos[0, i]) / 0.3 + math.log(sum(negatives)), rel=1e-10)
    tensor = torch.tensor(0.3, dtype=torch.float64)
    assert torch.equal(without, amcl.amcl_loss_soft(s_pos, s_neg, tensor, tensor, beta=0.7))


def test_beta_one_is_a_likelihood_ratio_and_collapse_is_worth_zero(pairs):
    s_pos, s_neg, tau_pos, tau_neg = pairs
    s, n = s_neg.max(dim=2)
    ratio = amcl.negative_log_likelihood(s_pos, tau_pos, D) - amcl.negative_log_likelihood(
        s, tau_neg.gather(2, n[..., None])[..., 0], D
    )
    assert torch.allclose(amcl.amcl_loss_max(*pairs, 1.0, D), ratio.sum(0), rtol=1e-10)
    same = amcl.pair_similarities(unit(1, 1, D).expand(C, 2 * B, D))
    assert amcl.amcl_loss_max(*same, 0.2, 0.2).abs().max() < 1e-12
    assert torch.allclose(amcl.amcl_loss_soft(*same, 0.2, 0.2), torch.tensor(C * math.log(2 * B - 2)).double())
    easy = amcl.amcl_loss_max(torch.ones(C, B).double(), s_neg.clamp(max=0.9), tau_pos, tau_neg, 0.4, D, True)
    assert easy.abs().max() < 1e-9  # the positive wins its own maximum


def test_the_soft_form_tends_to_the_maximum(pairs):
    s_pos, s_neg = pairs[:2]
    tau = 1e-4
    soft, hard = amcl.amcl_loss_soft(s_pos, s_neg, tau, tau), amcl.amcl_loss_max(s_pos, s_neg, tau, tau)
    assert torch.allclose(tau * soft, tau * hard, atol=C * tau * math.log(N) + 1e-9)


@pytest.mark.parametrize("name", ["amcl_loss_max", "amcl_loss_soft"])
def test_gradients(pairs, name):
    loss = getattr(amcl, name)
    inputs = [x.clone().requires_grad_() for x in pairs]
    beta = 0.3 if name == "amcl_loss_max" else 0.0  # the soft form's weights are constants: no derivative of its value
    assert torch.autograd.gradcheck(lambda *x: loss(*x, beta, 5), inputs)
    pairs[1][:, 0, :3] = -math.inf
    inputs = [x.clone().requires_grad_() for x in pairs]
    loss(*inputs, 0.3, 5).sum().backward()
    assert all(torch.isfinite(x.grad).all() for x in inputs)
    assert (inputs[1].grad[:, 0, :3] == 0).all() and (inputs[3].grad[:, 0, :3] == 0).all()
    assert (inputs[3].grad != 0).any() and (inputs[2].grad != 0).all()  # temperatures are trained


def test_the_soft_weights_are_constants(pairs):
    s_pos, s_neg, tau_pos, tau_neg = pairs
    s, tau = s_neg.clone().requires_grad_(), tau_neg.clone().requires_grad_()
    amcl.amcl_loss_soft(s_pos, s, tau_pos, tau, 0.3, 5).sum().backward()
    w = (s_neg / tau_neg).softmax(dim=2)
    assert torch.allclose(s.grad, w / tau_neg, rtol=1e-10)  # nothing through the regulariser
    slope = 5 / (2 * tau_neg) - 1 / tau_neg**2
    assert torch.allclose(tau.grad, w * (-s_neg / tau_neg**2 - 0.3 * slope), rtol=1e-9)


# ---------------------------------------------------------------------------------------------- other frameworks
def test_simsiam_is_the_formula():
    z, z_plus, h, h_plus = unit(C, B, D), 2 * unit(C, B, D, seed=1), unit(B, D, seed=2), 3 * unit(B, D, seed=3)
    tau, tau_tilde = 0.1 + chance(C, B), 0.1 + chance(C, B, seed=1)
    found = amcl.amcl_simsiam(z, z_plus, h, h_plus, tau, tau_tilde, 0.3, 5)
    for i in range(B):
        total = 0.0
        for c in range(C):
            a, b = float(tau[c, i]), float(tau_tilde[c, i])
            total -= cosine(z[c, i], h_plus[i]) / (2 * a) + cosine(z_plus[c, i], h[i]) / (2 * b)
            total += 0.3 * (regulariser(a, 5) + regulariser(b, 5))
        assert found[i].item() == pytest.approx(total, rel=1e-10)
    ones = torch.ones(1, B, dtype=torch.float64)
    plain = amcl.amcl_simsiam(z[:1], z_plus[:1], h, h_plus, ones, ones, 0.0)
    simsiam = -torch.cosine_similarity(z[0], h_plus) / 2 - torch.cosine_similarity(z_plus[0], h) / 2
    assert torch.allclose(plain, simsiam, rtol=1e-12)
    leaves = [x.clone().requires_grad_() for x in (z, z_plus, h, h_plus, tau)]
    amcl.amcl_simsiam(*leaves, tau_tilde).sum().backward()
    assert (
        leaves[2].grad is None and leaves[3].grad is None and leaves[0].grad is not None and leaves[4].grad is not None
    )
    assert torch.autograd.gradcheck(
        lambda z, tau: amcl.amcl_simsiam(z, z_plus, h, h_plus, tau, tau_tilde), (leaves[0], leaves[4])
    )


def test_cross_correlation_and_barlow_are_the_formulas():
    z, z_plus = chance(2, 9, 4), chance(2, 9, 4, seed=1)
    found = amcl.cross_correlation(z, z_plus)
    for c in range(2):
        for i in range(4):
            for j in range(4):
                a, b = z[c, :, i] - z[c, :, i].mean(), z_plus[c, :, j] - z_plus[c, :, j].mean()
                assert found[c, i, j].item() == pytest.approx(cosine(a, b), rel=1e-9)
    tau = 0.2 + chance(2, 4, 4, seed=2)
    total = 0.0
    for c in range(2):
        for i in range(4):
            for j in range(4):
                t, r = float(tau[c, i, j]), float(found[c, i, j])
                total += (
                    (1 - r / t) ** 2 + 0.3 * regulariser(t, 5) if i == j else 0.01 * r**2 / t - 0.3 * regulariser(t, 5)
                )
    assert amcl.amcl_barlow(found, tau, 0.01, 0.3, 5).item() == pytest.approx(total, rel=1e-10)
    ones, same = torch.ones(2, 4, 4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    plain = ((found - same) * (same + math.sqrt(0.01) * (1 - same))).square().sum()
    assert torch.allclose(amcl.amcl_barlow(found, ones, 0.01, 0.0), plain, rtol=1e-12)
    assert amcl.amcl_barlow(same[None], ones[:1], beta=0.0) == 0  # perfect: identical views, independent dimensions
    assert torch.autograd.gradcheck(
        lambda z, tau: amcl.amcl_barlow(amcl.cross_correlation(z, z_plus), tau, 0.01, 0.3, 5),
        (z.requires_grad_(), tau.requires_grad_()),
    )


# ---------------------------------------------------------------------------------------------- measures
def test_overlap_and_spearman():
    s = 2 * chance(400) - 1
    assert amcl.overlap(s, s).item() == pytest.approx(1)
    assert amcl.overlap(torch.full((3,), 0.5), torch.full((9,), -0.5)) == 0
    assert amcl.overlap(torch.tensor([0.5, 0.5, -0.5, -0.5]), torch.tensor([0.5, -0.9]), bins=2).item() == 1
    assert amcl.overlap(torch.tensor([0.5, 0.5, 0.5, -0.5]), torch.tensor([0.5, -0.9]), bins=2).item() == 0.75
    assert amcl.overlap(torch.tensor([1.0, -1.0]), torch.tensor([0.99, -0.99])).item() == 1  # the edges count
    a, b = chance(3, 30), chance(3, 30, seed=1)
    from scipy.stats import spearmanr

    for c in range(3):
        assert amcl.spearman(a, b)[c].item() == pytest.approx(spearmanr(a[c], b[c]).statistic, rel=1e-9)
    assert torch.allclose(amcl.spearman(a, a.exp()), torch.ones(3).double())
    assert torch.allclose(amcl.spearman(a, -a), -torch.ones(3).double())


def test_precision_is_kept(pairs):
    narrow = [x.float() for x in pairs]
    for loss in (amcl.amcl_loss_max, amcl.amcl_loss_soft):
        assert loss(*narrow).dtype == torch.float32 and loss(*pairs).dtype == torch.float64
        assert torch.allclose(loss(*narrow).double(), loss(*pairs), rtol=1e-4, atol=1e-4)


def test_runs_on_a_fake_gpu(fake_cuda, pairs):
    net, other = amcl.PairTemperature(C, D), amcl.PairTemperature(C, D, "concat")
    heads = amcl.Heads(C, [5, 8, D])
    z, h = unit(C, 2 * B, D).float(), unit(2 * B, 5).float()
    with fake_cuda as fake:
        z, h = fake(z), fake(h)
        net, other, heads = fake(net), fake(other), fake(heads)
        s_pos, s_neg = amcl.pair_similarities(heads(h).transpose(0, 1))
        tau = net(z)
        results = [amcl.amcl_loss_max(s_pos, s_neg, amcl.of_positives(tau), tau), other(z), net.pairs(z, z)]
        results += [amcl.amcl_loss_soft(s_pos, s_neg, 0.2, 0.2, with_positive=True), amcl.overlap(s_pos, s_neg)]
        results += [amcl.amcl_loss_soft(s_pos, s_neg, amcl.of_positives(tau), tau), amcl.spearman(s_pos, s_pos)]
        results += [amcl.amcl_simsiam(z, z, z[0], z[0], s_pos.exp(), s_pos.exp())]
        correlation = amcl.cross_correlation(z, z)
        results += [amcl.amcl_barlow(correlation, correlation.exp())]
        assert all(result.device.type == "cuda" for result in results)


def test_bad_input(pairs):
    s_pos, s_neg, tau_pos, tau_neg = pairs
    for loss in (amcl.amcl_loss_max, amcl.amcl_loss_soft):
        for arguments, name in (
            ((s_pos[0], s_neg, tau_pos, tau_neg), "s_pos"),
            ((s_pos, s_neg[:, :2], tau_pos, tau_neg), "s_neg"),
            ((s_pos, s_neg, -tau_pos, tau_neg), "tau_pos"),
            ((s_pos, s_neg, tau_pos, 0.0), "tau_neg"),
            ((s_pos, s_neg, tau_pos[:, :2], tau_neg), "tau_pos"),
            ((s_pos, s_neg - math.inf, tau_pos, tau_neg), "without negatives"),
        ):
            with pytest.raises(ValueError, match=name):
                loss(*arguments)
    for call, name in (
        (lambda: amcl.omega(torch.zeros(2), 4), "tau"),
        (lambda: amcl.optimal_tau(s_pos, 4, 0.0), "beta"),
        (lambda: amcl.bounded_tau(s_pos, 0.5, 0.4), "tau_l"),
        (lambda: amcl.starting_u(3.0), "tau_0"),
        (lambda: amcl.PairTemperature(1, 4, "sum"), "form"),
        (lambda: amcl.concat_scores(unit(2, D), unit(2, D), torch.ones(3, 5), 0, 0, 0), "W_1"),
        (lambda: amcl.of_positives(torch.ones(1, 5, 5)), "pairs"),
        (lambda: amcl.pair_similarities(unit(1, 3, D)), "pairs"),
        (
            lambda: amcl.amcl_simsiam(unit(C, B, D), unit(C, B, D), unit(B, 3), unit(B, 3), tau_pos, tau_pos),
            "h, h_plus",
        ),
        (lambda: amcl.cross_correlation(unit(1, 1, D), unit(1, 1, D)), "z, z_plus"),
        (lambda: amcl.amcl_barlow(torch.ones(1, 3, 3), torch.ones(1, 3, 2)), "tau"),
        (lambda: amcl.overlap(s_pos, s_neg, bins=0), "bins"),
        (lambda: amcl.spearman(s_pos, s_neg), "a and b"),
    ):
        with pytest.raises(ValueError, match=name):
            call()


def test_a_small_training_learns_temperatures():
    """Two clusters of anchors, tight and loose positives: with β = 1 the loose ones end with the larger temperature."""
    z = unit(1, 16, D, seed=4)
    noise = torch.cat([torch.full((8, 1), 0.05), torch.full((8, 1), 0.9)]).double()
    z_plus = nn.normalise(z[0] + noise * unit(16, D, seed=5))[None]
    s_pos = (z * z_plus).sum(dim=-1)
    u = torch.zeros(1, 16, dtype=torch.float64, requires_grad=True)
    rule = torch.optim.Adam([u], lr=0.1)
    for _ in range(400):
        tau = amcl.bounded_tau(u, 0.001, 2.0)
        loss = amcl.negative_log_likelihood(s_pos, tau, D).sum()
        rule.zero_grad()
        loss.backward()
        rule.step()
    assert torch.allclose(tau, amcl.optimal_tau(s_pos, D), rtol=0.05, atol=2e-3)
    assert tau[0, 8:].mean() > 5 * tau[0, :8].mean()
