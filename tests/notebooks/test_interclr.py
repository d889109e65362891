"""InterCLR's method cells against loop transcriptions, hand values, identities and limits of the paper."""

import math

import pytest
import torch
from vectors import chance, on_circle, unit

import nearfar
from nearfar import losses

interclr = nearfar.method("interclr")
B, N, D, ROWS, K, TAU = 5, 7, 6, 60, 4, 0.2
STRATEGIES = ("random", "hard", "semi-hard", "semi-easy")


def dot(a, b):
    return sum(float(x) * float(y) for x, y in zip(a, b))


@pytest.fixture
def features():
    return unit(B, D, seed=1), unit(B, D, seed=2), unit(B, N, D, seed=3)


@pytest.fixture
def memory():
    """bank, labels, indices of a batch and its queries"""
    labels = torch.randint(K, (ROWS,), generator=chance(5))
    return unit(ROWS, D, seed=4), labels, torch.tensor([3, 50, 7, 20, 41]), unit(B, D, seed=6)


# ---------------------------------------------------------------------------------------------- eqs. (1) to (3)
@pytest.mark.parametrize("margin", [-0.5, 0.0, 0.2])
def test_the_loss_and_the_pull_are_the_formulas(features, margin):
    q, positives, negatives = features
    loss = interclr.inter_loss(q, positives, negatives, margin, TAU)
    pull = interclr.pull(q, positives, negatives, margin, TAU)
    for b in range(B):
        positive = math.exp((dot(q[b], positives[b]) - margin) / TAU)
        others = sum(math.exp(dot(q[b], m) / TAU) for m in negatives[b])
        assert loss[b].item() == pytest.approx(-math.log(positive / (positive + others)), rel=1e-12)
        assert pull[b].item() == pytest.approx(others / (positive + others), rel=1e-12)


def test_by_hand_and_the_sign_of_the_margin():
    q, positive, negatives = on_circle(0), on_circle(60), on_circle(90, 180)
    plain = interclr.inter_loss(q, positive, negatives, margin=0.0, temperature=1.0)
    assert plain.item() == pytest.approx(math.log(1 + math.exp(-0.5) + math.exp(-1.5)))
    loose = interclr.inter_loss(q, positive, negatives, margin=-0.5, temperature=1.0)
    assert loose.item() == pytest.approx(math.log(1 + math.exp(-1.0) + math.exp(-2.0)))
    strict = interclr.inter_loss(q, positive, negatives, margin=0.5, temperature=1.0)
    assert loose < plain < strict
    same_as = interclr.inter_loss(q, on_circle(0), negatives, margin=0.0, temperature=1.0)  # cos 60° + 0.5 = cos 0°
    assert torch.allclose(loose, same_as)


def test_without_margin_it_is_info_nce(features):
    q, k, _ = features
    queue = unit(30, D, seed=8)
    ours = interclr.inter_loss(q, k, queue, margin=0.0, temperature=TAU)
    theirs = losses.info_nce(q, k, negatives=queue, temperature=TAU, reduction="none")
    assert torch.allclose(ours, theirs, rtol=1e-12)
    for_each = interclr.inter_loss(q, k, queue.expand(B, -1, -1), margin=0.0, temperature=TAU)
    assert torch.allclose(ours, for_each, rtol=1e-12)


def test_left_out_negatives_do_not_count(features):
    q, k, negatives = features
    drop = torch.zeros(B, N, dtype=torch.bool)
    drop[:, 4:] = True
    ours = interclr.inter_loss(q, k, negatives, drop=drop)
    assert torch.allclose(ours, interclr.inter_loss(q, k, negatives[:, :4]), rtol=1e-12)


def test_the_gradient_is_the_pull_and_reaches_the_query_only(features):
    q, positives, negatives = (z.clone().requires_grad_() for z in features)
    interclr.inter_loss(q, positives, negatives, -0.5, TAU).sum().backward()
    assert positives.grad is None and negatives.grad is None
    gradient, q, positives, negatives = q.grad, *features
    pull = interclr.pull(q, positives, negatives, -0.5, TAU)
    for b in range(B):
        push = [math.exp(dot(q[b], m) / TAU) for m in negatives[b]]
        expected = -pull[b] * positives[b] + pull[b] * sum(w / sum(push) * m for w, m in zip(push, negatives[b]))
        assert torch.allclose(gradient[b], expected / TAU, rtol=1e-9)


def test_gradcheck(features):
    q, positives, negatives = features
    loss = lambda q: interclr.inter_loss(q, positives, negatives, -0.5, TAU)  # noqa: E731
    assert torch.autograd.gradcheck(loss, q.clone().requires_grad_())


def test_the_margin_moves_the_point_where_the_pull_fades():
    negatives = on_circle(90, 120, 180)
    angles = on_circle(*range(0, 91, 10))
    q = on_circle(0).expand(len(angles), -1)
    pulls = [interclr.pull(q, angles, negatives, margin, TAU) for margin in (-0.5, 0.0, 0.2)]
    assert (pulls[0] < pulls[1]).all() and (pulls[1] < pulls[2]).all()
    assert (pulls[0].diff() > 0).all()  # the farther the positive, the stronger


def test_the_total_is_the_weighted_sum():
    intra, inter = torch.tensor(2.0), torch.tensor(4.0)
    assert interclr.total_loss(intra, inter).item() == pytest.approx(0.75 * 2 + 0.25 * 4)
    assert interclr.total_loss(intra, inter, 1.0, 0.0) == intra


# ---------------------------------------------------------------------------------------------- pairs
def test_positives_are_uniform_over_the_cluster(memory):
    _, labels, indices, _ = memory
    generator, counts = chance(1), torch.zeros(B, ROWS)
    for _ in range(1500):
        drawn = interclr.sample_positives(labels, indices, generator)
        assert (labels[drawn] == labels[indices]).all()
        counts[torch.arange(B), drawn] += 1
    for b in range(B):
        members = labels == labels[indices[b]]
        share = counts[b, members] / 1500
        assert counts[b, ~members].sum() == 0 and counts[b, indices[b]] > 0  # the image itself may be drawn
        assert torch.allclose(share, torch.full_like(share, 1 / int(members.sum())), atol=0.04)
    alone = torch.arange(ROWS)
    assert torch.equal(interclr.sample_positives(alone, indices, generator), indices)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_negatives_have_other_labels_and_differ(memory, strategy):
    bank, labels, indices, q = memory
    for seed in range(20):
        drawn = interclr.sample_negatives(q, bank, labels, indices, 6, strategy, 12, chance(seed))
        assert drawn.shape == (B, 6)
        assert (labels[drawn] != labels[indices][:, None]).all()
        assert all(len(set(row)) == 6 for row in drawn.tolist())


def test_hard_and_pools_by_loops(memory):
    bank, labels, indices, q = memory
    hard = interclr.sample_negatives(q, bank, labels, indices, 6, "hard")
    seen = {"semi-hard": [set() for _ in range(B)], "semi-easy": [set() for _ in range(B)]}
    for seed in range(150):
        for strategy, sets in seen.items():
            drawn = interclr.sample_negatives(q, bank, labels, indices, 3, strategy, 15, chance(seed))
            for b in range(B):
                sets[b] |= set(drawn[b].tolist())
    for b in range(B):
        order = sorted(range(ROWS), key=lambda j: -dot(q[b], bank[j]))
        other = [j for j in order if labels[j] != labels[indices[b]]]
        assert hard[b].tolist() == other[:6]
        assert seen["semi-hard"][b] == {j for j in order[:15] if j in other}  # the pool is of the whole bank
        assert seen["semi-easy"][b] == {j for j in order[-15:] if j in other}


def test_draws_are_those_of_the_papers_redraw_loop(memory):
    """Uniform over the pool's rows of other labels: first-row frequencies against a redraw loop."""
    bank, labels, indices, q = memory
    order = (q @ bank.T).argsort(dim=1, descending=True)[:, :15]
    ours, theirs, generator = torch.zeros(ROWS), torch.zeros(ROWS), chance(9)
    for _ in range(1000):
        drawn = interclr.sample_negatives(q[:1], bank, labels, indices[:1], 2, "semi-hard", 15, generator)
        ours[drawn[0]] += 1
        for _ in range(2):
            j = order[0, torch.randint(15, (), generator=generator)]
            while labels[j] == labels[indices[0]]:
                j = order[0, torch.randint(15, (), generator=generator)]
            theirs[j] += 1
    assert torch.allclose(ours / 2000, theirs / 2000, atol=0.04)


def test_a_pool_that_is_too_small_is_filled_by_the_next_rows():
    bank, q = on_circle(*range(0, 100, 10)), on_circle(0)
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 1, 1])
    drawn = interclr.sample_negatives(q, bank, labels, torch.tensor([0]), 3, "semi-hard", 5, chance())
    assert sorted(drawn[0].tolist()) == [4, 5, 6]  # the pool has row 4 only
    everything = interclr.sample_negatives(q, bank, labels, torch.tensor([0]), 6, "semi-hard", 10, chance())
    assert sorted(everything[0].tolist()) == [4, 5, 6, 7, 8, 9]
    with pytest.raises(ValueError, match="count"):
        interclr.sample_negatives(q, bank, labels, torch.tensor([0]), 7, "hard")


def test_the_pool_goes_from_hard_to_random(memory):
    bank, labels, indices, q = memory
    draw = lambda count, strategy, pool: interclr.sample_negatives(  # noqa: E731
        q, bank, labels, indices, count, strategy, pool, chance()
    )
    cosine = lambda rows: torch.einsum("bd,bnd->", q, bank[rows]).item()  # noqa: E731
    values = [cosine(draw(6, s, p)) for s, p in [("hard", 6), ("semi-hard", 12), ("random", 60), ("semi-easy", 12)]]
    assert values == sorted(values, reverse=True)
    assert torch.equal(draw(6, "hard", None).sort().values, draw(6, "semi-hard", 6).sort().values)


def test_sampling_repeats_and_leaves_no_gradient(memory):
    bank, labels, indices, q = memory
    for strategy in STRATEGIES:
        a, b = (
            interclr.sample_negatives(q.clone().requires_grad_(), bank, labels, indices, 6, strategy, 12, chance(2))
            for _ in range(2)
        )
        assert torch.equal(a, b) and not a.requires_grad


# ---------------------------------------------------------------------------------------------- eqs. (4) and (5)
@pytest.mark.parametrize("omega", [1.0, 0.5, 0.0])
def test_the_bank_follows_the_keys(memory, omega):
    bank, _, indices, _ = memory
    keys, before = 3 * unit(B, D, seed=9), bank.clone()
    after = interclr.update_bank(bank, indices, keys.clone().requires_grad_(), omega)
    assert torch.equal(bank, before) and not after.requires_grad
    for row in range(ROWS):
        if row not in indices:
            assert torch.equal(after[row], bank[row])
    for b, row in enumerate(indices):
        length = math.sqrt(dot(keys[b], keys[b]))
        mixed = [(1 - omega) * float(m) + omega * float(k) / length for m, k in zip(bank[row], keys[b])]
        size = math.sqrt(sum(x * x for x in mixed))
        assert after[row].tolist() == pytest.approx([x / size for x in mixed], rel=1e-12)
    if omega == 1:
        assert torch.allclose(after[indices], unit(B, D, seed=9))


def test_labels_and_centroids_by_loops(memory):
    bank, labels, indices, _ = memory
    c = torch.randn(K + 1, D, dtype=torch.float64, generator=chance(3))
    new = interclr.relabel(labels, bank, indices, c)
    means = interclr.centroids(bank, labels, c)
    for row in range(ROWS):
        best = max(range(K + 1), key=lambda k: dot(c[k], bank[row]))
        assert new[row] == (best if row in indices else labels[row])
    for k in range(K):
        members = [bank[j] for j in range(ROWS) if labels[j] == k]
        assert torch.allclose(means[k], sum(members) / len(members), rtol=1e-12)
    assert torch.equal(means[K], c[K])  # an empty cluster keeps what it had
    assert means[:K].norm(dim=1).max() < 1  # not put back to length one


def test_unnormalised_centroids_favour_tight_clusters():
    tight, loose = on_circle(0, 2), on_circle(40, 100)
    c = interclr.centroids(torch.cat([tight, loose]), torch.tensor([0, 0, 1, 1]), torch.zeros(2, 2).double())
    between, at = on_circle(36), torch.tensor([0])
    assert interclr.relabel(at, between, at, c).item() == 0
    assert interclr.relabel(at, between, at, interclr.unit(c)).item() == 1


def test_two_means_finds_the_two_groups():
    z = torch.cat([on_circle(0, 5, 10), on_circle(80, 85)])
    second = interclr.two_means(z)
    assert second.tolist() in ([False] * 3 + [True] * 2, [True] * 3 + [False] * 2)
    assert interclr.two_means(torch.ones(5, 3)).tolist() == [False, False, True, True, True]
    with pytest.raises(ValueError, match="z"):
        interclr.two_means(torch.ones(1, 3))


def test_small_clusters_are_emptied_and_reborn():
    bank = on_circle(0, 1, 2, 40, 41, 42, 43, 90, 91, 180, 200)
    labels = torch.tensor([0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 1])
    c = interclr.centroids(bank, labels, torch.zeros(3, 2).double())
    before = labels.clone(), c.clone()
    new, means = interclr.deal_with_small_clusters(bank, labels, c, smallest=2)
    assert torch.equal(labels, before[0]) and torch.equal(c, before[1])
    assert new[7:].tolist() == [1, 1, 1, 1]  # 180° moved in with 90°, 91° and 200°
    assert sorted({tuple(new[:3].tolist()), tuple(new[3:7].tolist())}) in ([(0,) * 3, (2,) * 4], [(0,) * 4, (2,) * 3])
    for k in (0, 2):  # the split cluster and the reborn one: centroids are means
        assert torch.allclose(means[k], bank[new == k].mean(dim=0))
    assert torch.equal(means[1], c[1])  # others wait for eq. (5)


def test_every_small_cluster_is_reborn_in_turn(memory):
    bank = memory[0]
    labels = torch.tensor([0] * 40 + [1] * 12 + [2] * 5 + [3] * 2 + [5])  # 4 is empty, 3 and 5 are small
    c = interclr.centroids(bank, labels, torch.zeros(6, D).double())
    new, means = interclr.deal_with_small_clusters(bank, labels, c, smallest=4)
    assert new.bincount(minlength=6).min() >= 1 and (new[57:] < 6).all()
    for row in (57, 58, 59):  # homeless members go to a large cluster, which may then be split
        large = max((0, 1, 2), key=lambda k: dot(c[k], bank[row]))
        assert new[row] == large or new[row] in (3, 4, 5)
    touched = [k for k in range(6) if not torch.equal(means[k], c[k])]
    assert {3, 4, 5} <= set(touched) and all(torch.allclose(means[k], bank[new == k].mean(dim=0)) for k in touched)


def test_nothing_happens_when_no_cluster_is_small(memory):
    bank, labels, _, _ = memory
    c = interclr.centroids(bank, labels, torch.zeros(K, D).double())
    new, means = interclr.deal_with_small_clusters(bank, labels, c, smallest=2)
    assert torch.equal(new, labels) and torch.equal(means, c)
    with pytest.raises(ValueError, match="smallest"):
        interclr.deal_with_small_clusters(bank, labels, c, smallest=ROWS + 1)


def test_k_means_finds_clear_groups_and_lowers_the_squares(memory):
    angles = [a + 2 * i for a in (0, 120, 240) for i in range(5)]
    found = {tuple(interclr.k_means(on_circle(*angles), 3, generator=chance(s))[0].tolist()) for s in range(8)}
    right = {tuple(k for k in order for _ in range(5)) for order in
             [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]}  # fmt: skip
    assert found & right
    bank = memory[0]
    squares = []
    for iterations in (1, 2, 5, 20):
        labels, c = interclr.k_means(bank, 6, iterations, generator=chance())
        squares.append((bank - c[labels]).square().sum().item())
    assert squares == sorted(squares, reverse=True)
    with pytest.raises(ValueError, match="K must"):
        interclr.k_means(bank, ROWS + 1, generator=chance())


def test_share_of_the_same_class_by_hand():
    truth, indices = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([0, 2])
    assert interclr.same_class_share(truth, indices, torch.tensor([1, 0])).item() == 0.5
    assert interclr.same_class_share(truth, indices, torch.tensor([[1, 2, 3], [2, 3, 0]])).item() == pytest.approx(0.5)


# ---------------------------------------------------------------------------------------------- precision, devices
def test_precision_is_kept(features, memory):
    q, positives, negatives = features
    bank, labels, indices, _ = memory
    assert interclr.inter_loss(q.float(), positives.float(), negatives.float()).dtype == torch.float32
    assert interclr.update_bank(bank.float(), indices, q).dtype == torch.float32
    assert interclr.centroids(bank, labels, bank[:K]).dtype == torch.float64
    narrow = interclr.inter_loss(q.float(), positives.float(), negatives.float())
    assert torch.allclose(narrow.double(), interclr.inter_loss(q, positives, negatives), rtol=1e-5)


def test_runs_on_a_fake_gpu(fake_cuda, features, memory):
    (q, positives, negatives), (bank, labels, indices, _) = features, memory
    with fake_cuda as fake:
        q, positives, negatives = fake(q), fake(positives), fake(negatives)
        bank, labels, indices = fake(bank), fake(labels), fake(indices)
        c = bank[:K]
        results = [
            interclr.inter_loss(q, positives, negatives),
            interclr.inter_loss(q, positives, bank, drop=indices[:, None] == labels),
            interclr.pull(q, positives, negatives),
            interclr.sample_positives(labels, indices, chance()),
            interclr.update_bank(bank, indices, q, 0.5),
            interclr.relabel(labels, bank, indices, c),
            interclr.centroids(bank, labels, c),
            interclr.same_class_share(labels, indices, indices),
            *interclr.k_means(bank, K, 2, generator=chance()),
        ]
        results += [interclr.sample_negatives(q, bank, labels, indices, 6, s, 12, chance()) for s in STRATEGIES]
        assert all(result.device.type == "cuda" for result in results)


def test_bad_input(features, memory):
    (q, positives, negatives), (bank, labels, indices, _) = features, memory
    with pytest.raises(ValueError, match="temperature"):
        interclr.inter_loss(q, positives, negatives, temperature=0.0)
    with pytest.raises(ValueError, match="q and positives"):
        interclr.inter_loss(q, positives[:2], negatives)
    with pytest.raises(ValueError, match="negatives must"):
        interclr.inter_loss(q, positives, negatives[:2])
    with pytest.raises(ValueError, match="negatives holds none"):
        interclr.inter_loss(q, positives, negatives[:, :0])
    for arguments, name in (
        ({"strategy": "hardest"}, "strategy"),
        ({"pool": None}, "pool"),
        ({"pool": 5}, "count and pool"),
        ({"count": 0}, "count and pool"),
        ({"pool": ROWS + 1}, "count and pool"),
        ({"generator": None}, "generator"),
    ):
        settings = {"count": 6, "strategy": "semi-hard", "pool": 12, "generator": chance(), **arguments}
        with pytest.raises(ValueError, match=name):
            interclr.sample_negatives(q, bank, labels, indices, **settings)
    with pytest.raises(ValueError, match="omega"):
        interclr.update_bank(bank, indices, q, 1.5)
    with pytest.raises(ValueError, match="keys"):
        interclr.update_bank(bank, indices, q[:2])
