"""MCL's method cells against loop transcriptions, hand values, identities and limits of the paper."""

import itertools
import math

import pytest
import torch
from vectors import chance

import nearfar
from nearfar import losses

mcl = nearfar.method("feature-suppression-mcl")
B, D, TAU = 9, 5, 0.4


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=chance(seed))


@pytest.fixture
def batch():
    return normal(B, D, seed=1), normal(B, D, seed=2), torch.tensor([0, 1, 2, 0, 1, 0, 0, 1, 7])


def cosine(a, b):
    product, length_a, length_b = (sum(float(x) * float(y) for x, y in zip(u, v)) for u, v in ((a, b), (a, a), (b, b)))
    return product / math.sqrt(length_a * length_b)


# ---------------------------------------------------------------------------------------------- eq. (3)
def by_loop(z, z_plus, ell, negatives):
    result = []
    for i in range(len(z)):
        positive = math.exp(cosine(z[i], z_plus[i]) / TAU)
        total = positive
        for j in range(len(z)):
            if j != i and (ell is None or ell[j] == ell[i]):
                if negatives in ("anchors", "both"):
                    total += math.exp(cosine(z[i], z[j]) / TAU)
                if negatives in ("positives", "both"):
                    total += math.exp(cosine(z[i], z_plus[j]) / TAU)
        result.append(-math.log(positive / total))
    return torch.tensor(result, dtype=torch.float64)


@pytest.mark.parametrize("negatives", ["anchors", "positives", "both"])
def test_the_restricted_loss_is_the_formula(batch, negatives):
    z, z_plus, ell = batch
    for groups in (ell, None):
        found = mcl.restricted_info_nce(z, z_plus, groups, TAU, negatives)
        assert torch.allclose(found, by_loop(z, z_plus, groups, negatives), rtol=1e-12, atol=1e-12)


def test_a_hand_value():
    z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    loss = mcl.restricted_info_nce(z, z, torch.tensor([4, 4, 9]), tau=1.0)
    expected = math.log(1 + math.exp(-1))  # the positive at cosine 1, one negative of the group at cosine 0
    assert loss.tolist() == pytest.approx([expected, expected, 0.0])
    everyone = mcl.restricted_info_nce(z, z, tau=1.0)
    assert everyone[0].item() == pytest.approx(math.log(1 + math.exp(-1) + math.exp(-2)))


def test_one_group_is_the_unrestricted_loss(batch):
    z, z_plus, _ = batch
    same = torch.full((B,), 3)
    both = torch.cat([mcl.restricted_info_nce(*pair, same, TAU, "both") for pair in ((z, z_plus), (z_plus, z))])
    assert torch.allclose(both, losses.nt_xent(z, z_plus, TAU, reduction="none"), rtol=1e-12)
    assert torch.allclose(mcl.stage_loss(z, z_plus, None, TAU), losses.nt_xent(z, z_plus, TAU), rtol=1e-12)
    keys = mcl.restricted_info_nce(z, z_plus, same, TAU, "positives")
    assert torch.allclose(keys, losses.info_nce(z, z_plus, temperature=TAU, reduction="none"), rtol=1e-12)


def test_a_mask_is_as_good_as_batches_of_one_group(batch):
    z, z_plus, ell = batch
    total = sum(
        mcl.stage_loss(z[ell == g], z_plus[ell == g], None, TAU) * int((ell == g).sum())
        for g in ell.unique()
        if (ell == g).sum() > 1
    )
    assert torch.allclose(mcl.stage_loss(z, z_plus, ell, TAU), total / B, rtol=1e-12)


def test_all_different_groups_teach_nothing(batch):
    z, z_plus, _ = (t.clone() for t in batch)
    z.requires_grad_()
    loss = mcl.restricted_info_nce(z, z_plus, torch.arange(B), TAU, "both").sum()
    loss.backward()
    rounding = torch.finfo(z.dtype).eps / TAU  # of one score, which is subtracted from itself
    assert abs(loss.item()) <= 2 * B * rounding and (z.grad.abs() <= rounding / TAU).all()


def test_a_constant_feature_leaves_the_loss_at_its_ceiling():
    z = normal(1, D).expand(B, D)
    assert mcl.restricted_info_nce(z, z, tau=0.1).tolist() == pytest.approx([math.log(B)] * B)
    assert mcl.restricted_info_nce(z, z, tau=0.1, negatives="both").tolist() == pytest.approx([math.log(2 * B - 1)] * B)


def test_invariances_of_the_loss(batch):
    z, z_plus, ell = batch
    loss = mcl.restricted_info_nce(z, z_plus, ell, TAU, "both")
    order = torch.randperm(B, generator=chance())
    permuted = mcl.restricted_info_nce(z[order], z_plus[order], ell[order], TAU, "both")
    assert torch.allclose(permuted, loss[order], rtol=1e-12)
    assert torch.allclose(mcl.restricted_info_nce(3 * z, 0.5 * z_plus, 40 - ell, TAU, "both"), loss, rtol=1e-12)
    assert (mcl.restricted_info_nce(z, z_plus, None, TAU, "both") >= loss).all()
    swapped = mcl.stage_loss(z_plus, z, ell, TAU)
    assert torch.allclose(swapped, mcl.stage_loss(z, z_plus, ell, TAU), rtol=1e-12)


def test_other_groups_get_no_gradient(batch):
    z, z_plus, ell = batch
    z = z.clone().requires_grad_()
    mcl.restricted_info_nce(z, z_plus, ell, TAU)[0].backward()
    assert torch.equal(z.grad.abs().sum(dim=1) > 0, ell == ell[0])


@pytest.mark.parametrize("negatives", ["anchors", "positives", "both"])
def test_gradcheck(batch, negatives):
    z, z_plus, ell = (t.clone() for t in batch)
    z.requires_grad_()
    z_plus.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: mcl.restricted_info_nce(a, b, ell, TAU, negatives), (z, z_plus))


def test_precision_is_kept(batch):
    z, z_plus, ell = batch
    narrow = mcl.stage_loss(z.float(), z_plus.float(), ell, TAU)
    assert narrow.dtype == torch.float32
    assert narrow.item() == pytest.approx(mcl.stage_loss(z, z_plus, ell, TAU).item(), rel=1e-5)


# ---------------------------------------------------------------------------------------------- eq. (2)
def test_pseudo_labels_are_the_cross_product():
    clusters = [torch.randint(4, (50,), generator=chance(s)) for s in range(3)]
    found = mcl.pseudo_labels(clusters, 4)
    for i in range(50):
        assert found[i] == (int(clusters[0][i]) * 4 + int(clusters[1][i])) * 4 + int(clusters[2][i])
    tuples = [tuple(int(c[i]) for c in clusters) for i in range(50)]
    assert all((found[i] == found[j]) == (tuples[i] == tuples[j]) for i, j in itertools.combinations(range(50), 2))
    assert torch.equal(mcl.pseudo_labels(clusters[:1], 4), clusters[0])
    assert mcl.pseudo_labels([torch.tensor([1]), torch.tensor([2]), torch.tensor([3])], 10).tolist() == [123]


def test_copies_of_one_clustering_are_that_clustering():
    c = torch.randint(5, (60,), generator=chance())
    copies = mcl.pseudo_labels([c, c, c], 5)
    assert torch.equal(copies[:, None] == copies, c[:, None] == c)  # what the official file builds


# ---------------------------------------------------------------------------------------------- the sampler
@pytest.mark.parametrize("order", ["round robin", "shuffled"])
def test_group_batches_are_whole_and_of_one_group(order):
    ell = torch.tensor([2] * 11 + [0] * 7 + [5] * 3 + [9] * 4)[torch.randperm(25, generator=chance())]
    batches = mcl.group_batches(ell, 4, chance(), order)
    assert batches.shape == (4, 4) and batches.dtype == torch.long
    assert len(batches.flatten().unique()) == 16  # no row twice in an epoch
    groups = ell[batches]
    assert (groups == groups[:, :1]).all()
    assert sorted(groups[:, 0].tolist()) == [0, 2, 2, 9]  # the group of three is never seen
    if order == "round robin":
        assert groups[:, 0].tolist() == [0, 2, 9, 2]
    assert mcl.seen_share(ell, 4) == 16 / 25
    assert torch.equal(batches, mcl.group_batches(ell, 4, chance(), order))
    assert not torch.equal(batches, mcl.group_batches(ell, 4, chance(1), order))


def test_every_row_of_a_large_group_is_seen_in_time():
    ell = torch.tensor([0] * 10 + [1] * 9)
    batches = mcl.group_steps(ell, 4, 40, chance())
    assert batches.shape == (40, 4) and len(batches.unique()) == 19
    one = mcl.group_steps(torch.zeros(8, dtype=torch.long), 4, 6, chance())
    for epoch in one.view(3, 8):
        assert sorted(epoch.tolist()) == list(range(8))


def test_joined_batches_are_group_batches_side_by_side():
    ell = torch.arange(60) % 3
    plain = mcl.group_steps(ell, 4, 12, chance(), "round robin")
    joined = mcl.group_steps(ell, 4, 4, chance(), "round robin", joined=3)
    assert torch.equal(joined, plain.view(4, 12))


def test_shuffled_labels_keep_the_sizes():
    ell = torch.tensor([0] * 10 + [1] * 9 + [2] * 3)
    shuffled = ell[torch.randperm(22, generator=chance())]
    assert mcl.seen_share(ell, 4) == mcl.seen_share(shuffled, 4)
    assert len(mcl.group_batches(ell, 4, chance())) == len(mcl.group_batches(shuffled, 4, chance()))


# ---------------------------------------------------------------------------------------------- eq. (1)
def test_kmeans_finds_the_best_of_all_partitions():
    z = normal(7, 2, seed=5)
    best = min(
        sum(float((z[rows] - z[rows].mean(dim=0)).square().sum()) for rows in parts if rows)
        for choice in itertools.product(range(2), repeat=7)
        for parts in [[[i for i in range(7) if choice[i] == g] for g in range(2)]]
    )
    clusters, centres = mcl.kmeans(z, 2, chance(), restarts=20)
    assert float((z - centres[clusters]).square().sum()) == pytest.approx(best)


def test_kmeans_agrees_with_scikit_learn():
    from sklearn.cluster import KMeans

    z = normal(200, 4, seed=6)
    theirs = KMeans(5, init=z[:5].numpy(), n_init=1, max_iter=300, tol=0, algorithm="lloyd").fit(z.numpy())
    clusters, centres = mcl.kmeans(z, 5, start=z[:5], iterations=300, tol=0)
    assert clusters.tolist() == theirs.labels_.tolist()
    assert torch.allclose(centres, torch.from_numpy(theirs.cluster_centers_), atol=1e-9)


def test_kmeans_on_separate_blobs_and_on_duplicates():
    blob = torch.arange(40) % 4
    z = 10 * torch.eye(4, dtype=torch.float64)[blob] + 0.1 * normal(40, 4)
    clusters, centres = mcl.kmeans(z, 4, chance())
    assert torch.equal(clusters[:, None] == clusters, blob[:, None] == blob)
    assert all(torch.allclose(centres[clusters[i]], z[blob == i].mean(dim=0)) for i in range(4))
    assert centres.dtype == torch.float64 and mcl.kmeans(z.float(), 4, chance())[1].dtype == torch.float32
    same, _ = mcl.kmeans(torch.ones(6, 3), 2, chance())
    assert same.shape == (6,) and torch.equal(mcl.kmeans(z, 4, chance())[0], clusters)


# ---------------------------------------------------------------------------------------------- eqs. (4) and (5)
def test_integration_is_the_formula_and_scores_are_weighted_cosines():
    x, y = ([normal(4, d, seed=s + d) * (1 + d) for d in (3, 2, 5)] for s in (0, 10))
    after, each = mcl.scores(x, y), mcl.scores(x, y, "each")
    assert mcl.integrate(x).shape == (4, 10)
    for i in range(4):
        length_x = math.sqrt(sum(float(f[i].square().sum()) for f in x))
        expected = [float(v) / length_x for f in x for v in f[i]]
        assert mcl.integrate(x)[i].tolist() == pytest.approx(expected)
        for j in range(4):
            length_y = math.sqrt(sum(float(f[j].square().sum()) for f in y))
            cosines = [cosine(f[i], g[j]) for f, g in zip(x, y)]
            weights = [float(f[i].norm() * g[j].norm()) / (length_x * length_y) for f, g in zip(x, y)]
            assert float(after[i, j]) == pytest.approx(sum(w * c for w, c in zip(weights, cosines)))
            assert float(each[i, j]) == pytest.approx(sum(cosines) / 3)


def test_limits_of_the_integration():
    f = normal(6, 4)
    assert torch.allclose(mcl.integrate([f]), mcl.unit(f)) and torch.allclose(mcl.integrate([f], "each"), mcl.unit(f))
    unit_lengths = [mcl.unit(normal(6, 4, seed=s)) for s in (1, 2)]
    assert torch.allclose(mcl.integrate(unit_lengths), mcl.integrate(unit_lengths, "each"))
    silent = [f, torch.zeros(6, 3, dtype=torch.float64)]
    assert torch.allclose(mcl.scores(silent, silent), mcl.scores([f], [f]))


def test_the_algorithm_calls_the_stages_in_order():
    colour, shape = torch.arange(24) % 3, torch.arange(24) // 3 % 2
    seen = []

    def train(stage, ell):
        seen.append((stage, ell))
        return stage

    def extract(network):  # stage 0 has learnt colour, stage 1 shape
        return torch.nn.functional.one_hot([colour, shape][network], 3).double() + 0.01 * normal(24, 3)

    networks, clusters, ell = mcl.multistage(train, extract, 2, 3, chance())
    assert networks == [0, 1, 2] and [stage for stage, _ in seen] == [0, 1, 2] and len(clusters) == 2
    assert seen[0][1] is None and torch.equal(seen[1][1], clusters[0]) and torch.equal(seen[2][1], ell)
    assert torch.equal(ell, mcl.pseudo_labels(clusters, 3))
    assert torch.equal(clusters[0][:, None] == clusters[0], colour[:, None] == colour)
    assert all(len(shape[ell == g].unique()) == len(colour[ell == g].unique()) == 1 for g in ell.unique())
    assert mcl.multistage(train, extract, 0, 3, chance()) == ([0], [], None)


# ---------------------------------------------------------------------------------------------- devices, bad input
def test_runs_on_a_fake_gpu(fake_cuda, batch):
    z, z_plus, ell = (t.float() if t.is_floating_point() else t for t in batch)
    with fake_cuda as fake:
        z, z_plus, ell = fake(z), fake(z_plus), fake(ell)
        for result in (
            mcl.restricted_info_nce(z, z_plus, ell, TAU, "both"),
            mcl.stage_loss(z, z_plus, ell, TAU),
            mcl.pseudo_labels([ell, ell], 10),
            mcl.integrate([z, z_plus]),
            mcl.scores([z, z], [z_plus, z_plus], "each"),
        ):
            assert result.device.type == "cuda"


def test_bad_input(batch):
    z, z_plus, ell = batch
    for arguments, name in (
        ((z, z_plus, ell, 0.0), "tau"),
        ((z, z_plus[:2]), "z and z_plus"),
        ((z, z_plus, ell[:3]), "ell"),
        ((z, z_plus, ell.double()), "ell"),
        ((z, z_plus, ell, 0.5, "none"), "negatives"),
    ):
        with pytest.raises(ValueError, match=name):
            mcl.restricted_info_nce(*arguments)
    for clusters, k in (([], 3), ([ell], 5), ([ell, ell[:2]], 10), ([ell] * 70, 10), ([-ell], 10)):
        with pytest.raises(ValueError, match="clusters"):
            mcl.pseudo_labels(clusters, k)
    with pytest.raises(ValueError, match="largest group"):
        mcl.group_batches(ell, 5, chance())
    with pytest.raises(ValueError, match="order"):
        mcl.group_batches(ell, 2, chance(), "sorted")
    with pytest.raises(ValueError, match="batch_size"):
        mcl.group_batches(ell, 0, chance())
    with pytest.raises(ValueError, match="joined"):
        mcl.group_steps(ell, 2, 3, chance(), joined=0)
    for k in (0, B + 1):
        with pytest.raises(ValueError, match="k must"):
            mcl.kmeans(z, k, chance())
    with pytest.raises(ValueError, match="generator"):
        mcl.kmeans(z, 2)
    with pytest.raises(ValueError, match="features"):
        mcl.integrate([])
    with pytest.raises(ValueError, match="features"):
        mcl.integrate([z, z[:2]])
    with pytest.raises(ValueError, match="normalise"):
        mcl.integrate([z], "before")
