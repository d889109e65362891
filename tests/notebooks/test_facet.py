"""The method cells of the facet chapter: against loops, hand values, scipy, torchvision, and the card's identities."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

import nearfar

m = nearfar.method("facet")
NAN = math.nan


def double(*values) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def chance(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def people():
    """60 people of 4 classes: predictions f, classes c, second classes c2, labels w of 3 values (some have two)."""
    g = chance(1)
    c, f = torch.randint(4, (60,), generator=g), torch.randint(4, (60,), generator=g)
    f = torch.where(torch.rand(60, generator=g) < 0.6, c, f)
    c2 = torch.where(torch.rand(60, generator=g) < 0.3, (c + 1) % 4, -1)
    w = torch.nn.functional.one_hot(torch.randint(3, (60,), generator=g), 3)
    w[:5, 0] = 1  # labels of one attribute need not exclude each other
    return f, c, c2, w


def loop_recall(f, c, w, K, c2=None, n=None, least=0.0):
    """Eq. (1) with lists and loops; NaN for a group that nobody is in or that is too small."""
    R = [[NAN] * K for _ in range(w.shape[1])]
    for label, C in itertools.product(range(w.shape[1]), range(K)):
        hits = count = 0.0
        for i in range(len(c)):
            if C in (c[i], -2 if c2 is None else c2[i]):
                weight = float(w[i, label]) * (1.0 if n is None else float(n[i]))
                count += weight
                hits += weight * (int(f[i]) == C)
        if count > 0 and count >= least:
            R[label][C] = hits / count
    return double(*R).view(w.shape[1], K)


def same(found, expected, **how):
    return torch.allclose(found.double(), expected.double(), equal_nan=True, **{"rtol": 1e-12, "atol": 1e-12, **how})


# ---------------------------------------------------------------------------------------------- recall and disparity
@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("least", [0.0, 1.0, 6.0])
def test_recall_equals_loops(people, second, least):
    f, c, c2, w = people
    c2 = c2 if second else None
    h, counted = m.class_hits(f, c, 4, c2)
    found = m.group_recall(h, w, counted, least=least)
    assert found.dtype == torch.float64 and found.shape == (3, 4)
    assert same(found, loop_recall(f, c, w, 4, c2, least=least))


def test_weighted_recall_and_resamples_equal_loops(people):
    f, c, _, w = people
    w = w * torch.rand(60, 3, generator=chance(2), dtype=torch.float64)
    n = torch.randint(3, (5, 60), generator=chance(3))
    h, counted = m.class_hits(f, c, 4)
    found = m.group_recall(h, w, counted, n)
    assert found.shape == (5, 3, 4)
    for row, times in zip(found, n):
        assert same(row, loop_recall(f, c, w, 4, n=times))
    assert same(m.group_recall(h, w, counted, n[0]), found[0])


def test_recall_by_hand():
    c, f = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 0, 1])
    w = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0]])
    h, counted = m.class_hits(f, c, 2)
    assert h.tolist() == [[True, False], [False, False], [True, False], [False, True]]
    R = m.group_recall(h, w, counted)
    assert same(R, double([0.5, NAN], [NAN, 1.0], [1.0, NAN]))
    assert same(m.disparity(R, 0, 2), double(-0.5, NAN)) and same(m.disparity(R, 2, 0), double(0.5, NAN))


def test_second_class_counts_for_both():
    """A person of classes 0 and 1 who is called 1: missed as 0, found as 1."""
    h, counted = m.class_hits(torch.tensor([1]), torch.tensor([0]), 3, torch.tensor([1]))
    assert h.tolist() == [[False, True, False]] and counted.tolist() == [[True, True, False]]


def test_all_alike_is_the_pooled_recall(people):
    f, c, _, _ = people
    found = m.group_recall((f == c)[:, None], torch.ones(60, 1))
    assert math.isclose(found.item(), (f == c).float().mean().item(), rel_tol=1e-6)


def test_everyone_twice_changes_nothing(people):
    f, c, _, w = people
    h, counted = m.class_hits(f, c, 4)
    assert same(m.group_recall(h, w, counted, torch.full((60,), 2)), m.group_recall(h, w, counted))


def test_order_of_people_and_permuted_labels(people):
    f, c, _, w = people
    h, counted = m.class_hits(f, c, 4)
    order = torch.randperm(60, generator=chance(4))
    R = m.group_recall(h, w, counted)
    assert same(m.group_recall(h[order], w[order], counted[order]), R)
    assert same(m.group_recall(h, w[:, [2, 0, 1]], counted), R[[2, 0, 1]])


def test_disparity_is_antisymmetric_and_bounded(people):
    f, c, _, w = people
    h, counted = m.class_hits(f, c, 4)
    R = m.group_recall(h, w, counted)
    D = m.disparity(R, 0, 1)
    assert same(D, -m.disparity(R, 1, 0)) and (D.abs() <= 1).all() and same(m.disparity(R, 1, 1), torch.zeros(4))
    worst = m.group_recall(torch.tensor([[True], [False]]), torch.eye(2))
    assert m.disparity(worst, 0, 1).tolist() == [1.0]


def test_base_rates_are_recalls_of_what_is_called(people):
    f, c, _, w = people
    rates = m.group_recall(f[:, None] == torch.arange(4), w)
    assert same(rates.sum(dim=1), torch.ones(3))
    assert math.isclose(rates[1, 2], float(((f == 2) & (w[:, 1] > 0)).sum() / w[:, 1].sum()), rel_tol=1e-6)
    always = m.group_recall(torch.zeros(60, 1, dtype=torch.long) == torch.arange(4), w)
    assert same(always[:, 0], torch.ones(3))  # a model that always says 0


def test_mean_over_classes():
    D = double(0.2, NAN, -0.1)
    assert math.isclose(m.mean_over_classes(D), 0.05, abs_tol=1e-15)
    assert m.mean_over_classes(D, torch.tensor([True, True, False])).isnan()
    assert math.isclose(m.mean_over_classes(D, torch.tensor([True, False, False])), 0.2)
    assert m.mean_over_classes(double(NAN, NAN)).isnan()
    assert m.mean_over_classes(torch.zeros(5, 2, 3)).shape == (5, 2)


def test_simpsons_reversal():
    """Pooled recall favours the first group, each class the second."""
    cells = torch.tensor([[0, 0, 80, 100], [0, 1, 1, 10], [1, 0, 19, 20], [1, 1, 36, 90]])
    group, c = cells[:, :2].repeat_interleave(cells[:, 3], dim=0).T
    hit = torch.cat([torch.arange(size) < hits for _, _, hits, size in cells])
    w = torch.nn.functional.one_hot(group, 2)
    f = torch.where(hit, c, 1 - c)
    h, counted = m.class_hits(f, c, 2)
    assert m.disparity(m.group_recall(hit[:, None], w), 0, 1)[0] > 0.2
    assert (m.disparity(m.group_recall(h, w, counted), 0, 1) < 0).all()


def test_argmax_over_the_names_of_the_benchmark():
    scores = double([1, 5, 2, 3], [9, 0, 1, 0.5])
    assert m.predict(scores).tolist() == [1, 0]
    assert m.predict(scores, torch.tensor([2, 3])).tolist() == [1, 0]  # numbers count within the names
    assert m.predict(scores, torch.tensor([3, 2])).tolist() == [0, 1]


def test_intersections(people):
    *_, w = people
    v = torch.nn.functional.one_hot(torch.arange(60) % 2, 2)
    found = m.cross(w, v)
    assert found.shape == (60, 6) and torch.equal(found[:, 3], w[:, 1] * v[:, 1])
    assert torch.equal(found.view(60, 3, 2).sum(dim=2), w)
    assert m.cross(w.bool(), v.bool()).dtype == torch.bool


# ---------------------------------------------------------------------------------------------- votes
def test_votes_by_hand():
    s = torch.zeros(4, 10, dtype=torch.long)
    s[0, 1], s[0, 2], s[1, 9], s[3, 4], s[3, 6] = 2, 1, 5, 2, 2
    w = m.tone_weights(s)
    assert same(w[0, :4], double(0, 2 / 3, 1 / 3, 0)) and w[1, 9] == 1 and (w[2] == 0).all()
    majority = m.tone_weights(s, "majority")
    assert majority.argmax(dim=1).tolist() == [1, 9, 0, 4] and same(majority.sum(dim=1), double(1, 1, 0, 1))
    bins = ((1, 3), (4, 7), (8, 10))
    assert same(m.tone_weights(s, bins=bins), double([1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0]))
    assert same(m.tone_weights(s, "majority", bins), double([1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0]))


def test_recall_by_level_equals_loops():
    s = torch.randint(0, 3, (40, 10), generator=chance(5)) * (torch.rand(40, 1, generator=chance(6)) < 0.9)
    hit = torch.rand(40, generator=chance(7)) < 0.5
    found = m.group_recall(hit[:, None], m.tone_weights(s))[:, 0]
    for k in range(10):
        top = sum(float(s[i, k]) / float(s[i].sum()) * bool(hit[i]) for i in range(40) if s[i].sum())
        below = sum(float(s[i, k]) / float(s[i].sum()) for i in range(40) if s[i].sum())
        assert math.isclose(found[k], top / below, rel_tol=1e-12)


def test_one_vote_each_makes_all_ways_equal():
    s = torch.nn.functional.one_hot(torch.randint(10, (30,), generator=chance(8)), 10)
    assert torch.equal(m.tone_weights(s), m.tone_weights(s, "majority")) and torch.equal(m.tone_weights(s), s.double())
    assert same(m.tone_weights(7 * s), m.tone_weights(s))


# ---------------------------------------------------------------------------------------------- detection
def test_iou_by_hand_and_torchvision():
    from torchvision.ops import box_iou

    assert same(m.iou(double([0, 0, 10, 10]), double([5, 0, 10, 10], [20, 20, 1, 1], [0, 0, 10, 10])),
                double([1 / 3, 0, 1]))  # fmt: skip
    corner, size = (10 * torch.rand(2, 7, 2, generator=chance(9), dtype=torch.float64)).unbind()
    b, d = torch.cat([corner, size], dim=1)[:4], torch.cat([corner, size], dim=1)[2:]
    xyxy = torch.cat([corner, corner + size], dim=1)
    assert same(m.iou(b, d), box_iou(xyxy[:4], xyxy[2:])) and same(m.iou(xyxy[:4], xyxy[2:], "xyxy"), m.iou(b, d))
    assert same(m.iou(d, b), m.iou(b, d).T)
    assert m.iou(double([1, 1, 0, 0]), double([1, 1, 0, 0])).item() == 0  # without area


def loop_match(overlap, scores, t, most=100, least_score=-math.inf, counted=None):
    """Greedy matching at one threshold, as the card says it; with `counted` as COCO's evaluation does."""
    P, Q = overlap.shape
    found = [-1] * P
    for q in sorted(range(Q), key=lambda q: -float(scores[q]))[:most]:
        if scores[q] < least_score:
            continue
        able = [p for p in range(P) if found[p] < 0 and overlap[p, q] >= t]
        if counted is not None and any(bool(counted[p]) for p in able):
            able = [p for p in able if counted[p]]
        if able:
            found[max(able, key=lambda p: (float(overlap[p, q]), -p))] = q
    return found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("groups", [False, True])
@pytest.mark.parametrize("options", [{}, {"most": 3}, {"least_score": 0.4}])
def test_match_equals_loops(seed, groups, options):
    g = chance(seed)
    overlap, scores = torch.rand(5, 7, generator=g).double(), torch.rand(7, generator=g).double()
    overlap, scores = (overlap * 10).round() / 10, (scores * 5).round() / 5  # with ties
    t = double(0.3, 0.5, 0.8)
    options = options | {"counted": torch.tensor([True, False, True, False, False])} if groups else options
    found = m.match(overlap, scores, t, **options)
    assert found.tolist() == [loop_match(overlap, scores, float(each), **options) for each in t]
    for row in found:
        used = row[row >= 0].tolist()
        assert len(used) == len(set(used))  # one to one


def test_default_thresholds_and_empty_sides():
    found = m.match(double([0.55], [0.1]), double(0.9))
    assert found.shape == (10, 2) and (found[:, 0] >= 0).tolist() == [True] * 2 + [False] * 8  # at least t, not above
    assert m.match(torch.zeros(0, 3), torch.zeros(3)).shape == (10, 0)
    assert (m.match(torch.zeros(2, 0), torch.zeros(0)) == -1).all()


def test_coco_counts_one_box_for_two_groups():
    overlap, score = double([0.9], [0.7]), double(0.9)
    assert m.match(overlap, score, double(0.5)).tolist() == [[0, -1]]
    for i in range(2):
        assert m.match(overlap, score, double(0.5), counted=torch.arange(2) == i)[0, i] == 0


def test_matching_is_joint_over_groups():
    """The surer detection takes the better overlap, whoever that is; the other person is left for the second one."""
    overlap = double([0.8, 0.75], [0.6, 0.1])
    assert m.match(overlap, double(0.9, 0.8), double(0.5)).tolist() == [[0, -1]]
    assert m.match(overlap, double(0.8, 0.9), double(0.5)).tolist() == [[1, 0]]


def test_average_recall_equals_loops():
    matched = torch.rand(10, 30, generator=chance(10)) < torch.linspace(0.9, 0.1, 10)[:, None]
    w = torch.nn.functional.one_hot(torch.arange(30) % 3, 3)
    for label, found in enumerate(m.average_recall(matched, w)):
        mine = [i for i in range(30) if w[i, label]]
        expected = sum(sum(bool(matched[t, i]) for i in mine) / len(mine) for t in range(10)) / 10
        assert math.isclose(found, expected, rel_tol=1e-12)
    n = torch.randint(1, 3, (4, 30), generator=chance(11))
    assert m.average_recall(matched, w, n).shape == (4, 3)
    assert same(m.average_recall(torch.ones(10, 30, dtype=torch.bool), w), torch.ones(3))


# ---------------------------------------------------------------------------------------------- uncertainty
def test_people_of_one_image_stay_together():
    image, drawn = torch.tensor([0, 0, 1, 2]), torch.tensor([[0, 0, 2], [1, 1, 1], [0, 1, 2]])
    assert m.resample(image, drawn).tolist() == [[2, 2, 0, 1], [0, 0, 3, 0], [1, 1, 1, 1]]


def test_resampled_recall_is_that_of_repeated_people(people):
    f, c, _, w = people
    image = torch.arange(60) // 3
    drawn = torch.randint(20, (3, 20), generator=chance(12))
    h, counted = m.class_hits(f, c, 4)
    found = m.group_recall(h, w, counted, m.resample(image, drawn))
    for row, images in zip(found, drawn):
        rows = torch.cat([torch.where(image == i)[0] for i in images])
        assert same(row, m.group_recall(h[rows], w[rows], counted[rows]))


def test_images_vary_more_than_people():
    """Three people of an image who are found together: the interval over images is wider."""
    hit = (torch.rand(40, generator=chance(13)) < 0.5).repeat_interleave(3)[:, None]
    image, w = torch.arange(40).repeat_interleave(3), torch.ones(120, 1, dtype=torch.float64)
    together = m.resample(image, torch.randint(40, (500, 40), generator=chance(14)))
    apart = m.resample(torch.arange(120), torch.randint(120, (500, 120), generator=chance(14)))
    wide, narrow = (m.group_recall(hit, w, n=n)[:, 0, 0].std() for n in (together, apart))
    assert 1.5 < wide / narrow < 2  # the root of three


def test_interval_equals_numpys_and_counts_what_is_dropped():
    D = torch.randn(200, 3, generator=chance(15), dtype=torch.float64)
    D[:7, 1] = NAN
    low, high, dropped = m.interval(D)
    np.testing.assert_allclose(low, np.nanpercentile(D.numpy(), 2.5, axis=0), rtol=1e-12)
    np.testing.assert_allclose(high, np.nanpercentile(D.numpy(), 97.5, axis=0), rtol=1e-12)
    assert dropped.tolist() == [0, 7, 0]
    narrow = m.interval(D, level=0.5)
    assert (narrow[0] > low).all() and (narrow[1] < high).all()


def test_half_width_of_a_small_cell():
    """The card's rule of thumb: with 20 people a recall is known to 0.2."""
    hit, w = (torch.arange(20) < 12)[:, None], torch.ones(20, 1, dtype=torch.float64)
    n = m.resample(torch.arange(20), torch.randint(20, (1000, 20), generator=chance(16)))
    low, high, _ = m.interval(m.group_recall(hit, w, n=n)[:, 0, 0])
    assert 0.17 < (high - low) / 2 < 0.26


def test_shuffles_stay_within_classes():
    c = torch.tensor([2, 0, 1, 0, 2, 1, 0])
    order = m.shuffle_within(c, torch.rand(50, 7, generator=chance(17)))
    assert (c[order] == c).all() and (order.sort(dim=1).values == torch.arange(7)).all()
    assert len({tuple(row) for row in order.tolist()}) > 15  # of 3! · 2 · 2
    by_hand = m.shuffle_within(torch.tensor([1, 0, 1]), double([0.3, 0.5, 0.1]).view(1, 3))
    assert by_hand.tolist() == [[2, 1, 0]]  # the two of class 1 in the order of u: person 2, then person 0


def test_permutation_test_equals_loops(people):
    f, c, _, w = people
    u = torch.rand(80, 60, generator=chance(18), dtype=torch.float64)
    h, counted = m.class_hits(f, c, 4)
    D, p = m.permutation_test(h, counted, c, w, 0, 2, u)
    R = loop_recall(f, c, w, 4)
    assert same(D, R[0] - R[2])
    more = [0] * 4
    for row in u:
        moved = w.clone()
        for k in range(4):
            mine = [i for i in range(60) if c[i] == k and (w[i, 0] or w[i, 2])]
            for i, j in zip(mine, sorted(mine, key=lambda i: float(row[i]))):
                moved[i, [0, 2]] = w[j, [0, 2]]
        R_star = loop_recall(f, c, moved, 4)
        for k in range(4):
            more[k] += abs(R_star[0, k] - R_star[2, k]) >= abs(R[0, k] - R[2, k]) - 1e-12
    assert same(p, double(*[(1 + float(count)) / 81 for count in more]))


def test_permutation_test_agrees_with_fishers_law():
    """Two groups, one class: D is decided by the hits of the first group, which follow the hypergeometric law."""
    from scipy.stats import hypergeom

    hits, size = (17, 9), (25, 20)
    hit = torch.cat([torch.arange(size[0]) < hits[0], torch.arange(size[1]) < hits[1]])[:, None]
    w = torch.nn.functional.one_hot(torch.arange(45) // 25, 2).double()
    u = torch.rand(4000, 45, generator=chance(19), dtype=torch.float64)
    D, p = m.permutation_test(hit, torch.ones_like(hit), torch.zeros(45, dtype=torch.long), w, 0, 1, u)
    gap = {k: k / 25 - (26 - k) / 20 for k in range(6, 26)}
    law = sum(hypergeom.pmf(k, 45, 26, 25) for k in gap if abs(gap[k]) >= abs(D.item()) - 1e-12)
    assert math.isclose(D.item(), gap[17]) and abs(p.item() - law) < 0.03


def test_p_is_one_without_a_gap_and_smallest_with_the_largest():
    w = torch.nn.functional.one_hot(torch.arange(40) % 2, 2).double()
    u, c = torch.rand(199, 40, generator=chance(20)), torch.zeros(40, dtype=torch.long)
    everyone, first = torch.ones(40, 1, dtype=torch.bool), w[:, :1] > 0
    assert m.permutation_test(everyone, everyone, c, w, 0, 1, u)[1].item() == 1
    D, p = m.permutation_test(first, everyone, c, w, 0, 1, u)
    assert D.item() == 1 and math.isclose(p.item(), 1 / 200)
    empty = torch.cat([w, torch.zeros(40, 1)], dim=1)
    assert all(x.isnan().all() for x in m.permutation_test(first, everyone, c, empty, 0, 2, u))


@pytest.mark.parametrize("seed", range(4))
def test_corrections_equal_scipys_and_loops(seed):
    from scipy.stats import false_discovery_control

    p = (torch.rand(12, generator=chance(seed), dtype=torch.float64) * 20).round() / 40 + 0.001  # with ties
    np.testing.assert_allclose(m.adjust(p), false_discovery_control(p.numpy()), rtol=1e-12)
    order, M = p.argsort(stable=True).tolist(), len(p)
    holm, largest = [0.0] * M, 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (M - rank) * float(p[place])))
        holm[place] = largest
    assert same(m.adjust(p, "holm"), double(*holm)) and torch.equal(m.adjust(p, "none"), p)
    assert (m.adjust(p) >= p).all() and (m.adjust(p, "holm") >= m.adjust(p) - 1e-15).all()


def test_corrections_by_hand_and_without_what_was_not_tested():
    p = double(0.01, NAN, 0.04, 0.03, NAN)
    assert same(m.adjust(p), double(0.03, NAN, 0.04, 0.04, NAN))
    assert same(m.adjust(p, "holm"), double(0.03, NAN, 0.06, 0.06, NAN))
    assert m.adjust(double(NAN, NAN)).isnan().all()


# ---------------------------------------------------------------------------------------------- precision and input
def test_gradcheck_of_what_is_smooth():
    """Recall of soft hits, and IoU where boxes overlap."""
    h = torch.rand(9, 2, generator=chance(21), dtype=torch.float64, requires_grad=True)
    w = torch.rand(9, 3, generator=chance(22), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda h, w: m.group_recall(h, w), (h, w))
    b = double([0, 0, 5, 6], [1, 1, 4, 4]).requires_grad_()
    assert torch.autograd.gradcheck(m.iou, (b, double([0.5, 0.4, 5.2, 5.1])))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_precision_is_kept(people, dtype):
    f, c, _, w = people
    h, counted = m.class_hits(f, c, 4)
    expected, found = m.group_recall(h, w, counted), m.group_recall(h, w.to(dtype), counted)
    assert found.dtype == dtype and same(found, expected, rtol=4 * torch.finfo(dtype).eps)
    s = torch.randint(0, 4, (20, 10), generator=chance(23))
    assert m.tone_weights(s.to(dtype)).dtype == dtype
    D = m.disparity(found, 0, 1)
    assert D.dtype == dtype and m.mean_over_classes(D).dtype == dtype
    assert m.interval(D.expand(5, 4))[0].dtype == dtype and m.adjust(found[0].nan_to_num(1)).dtype == dtype
    u = torch.rand(20, 60, generator=chance(24))
    assert all(x.dtype == dtype for x in m.permutation_test(h, counted, c, w.to(dtype), 0, 1, u))


def test_counts_in_half_precision_do_not_saturate():
    w = torch.ones(5000, 1, dtype=torch.float16)
    assert m.group_recall((torch.arange(5000) < 2500)[:, None], w).item() == 0.5


def test_runs_on_a_fake_gpu(people, fake_cuda):
    f, c, c2, w = people
    w, u, drawn = w.float(), torch.rand(6, 60), torch.randint(60, (6, 60))
    boxes, scores = torch.rand(5, 4), torch.rand(5)
    with fake_cuda as fake:
        f, c, c2, w, u, drawn = map(fake, (f, c, c2, w, u, drawn))
        h, counted = m.class_hits(f, c, 4, c2)
        n = m.resample(fake(torch.arange(60)), drawn)
        R = m.group_recall(h, w, counted, n)
        found = [R, m.mean_over_classes(m.disparity(R, 0, 1)), *m.interval(m.disparity(R, 0, 1)), m.cross(w, w)]
        found += [*m.permutation_test(h, counted, c, w, 0, 1, u), m.tone_weights(w), m.predict(w, c[:2])]
        found += [m.adjust(R[0, 0]), m.adjust(R[0, 0], "holm"), m.tone_weights(w, "majority", ((1, 2), (3, 3)))]
        matched = m.match(m.iou(fake(boxes), fake(boxes)), fake(scores), counted=fake(torch.arange(5) < 2))
        found += [matched, m.average_recall(matched >= 0, fake(torch.ones(5, 2)))]
        assert all(x.device.type == "cuda" for x in found) and R.shape == (6, 3, 4) and matched.shape == (10, 5)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: m.group_recall(torch.ones(4), torch.ones(4, 1)), "h and m must have shape"),
        (lambda: m.group_recall(torch.ones(4, 2), torch.ones(4, 1), torch.ones(4, 3)), "h and m must have shape"),
        (lambda: m.group_recall(torch.ones(4, 2), torch.ones(3, 1)), "w must have shape"),
        (lambda: m.group_recall(torch.ones(4, 2), torch.ones(4, 1), n=torch.ones(2, 5)), "n must have shape"),
        (lambda: m.class_hits(torch.zeros(3), torch.zeros(4), 2), "f, c and c2 must have shape"),
        (lambda: m.class_hits(torch.zeros(4), torch.zeros(4), 2, torch.zeros(3)), "f, c and c2 must have shape"),
        (lambda: m.tone_weights(torch.ones(10)), "s must have shape"),
        (lambda: m.tone_weights(torch.ones(2, 10), "median"), "how must be"),
        (lambda: m.iou(torch.ones(2, 4), torch.ones(4)), "boxes must have shapes"),
        (lambda: m.iou(torch.ones(2, 4), torch.ones(2, 4), "cxcywh"), "form must be"),
        (lambda: m.match(torch.ones(2, 3), torch.ones(2)), "scores must have shape"),
        (lambda: m.match(torch.ones(2, 3), torch.ones(3), most=0), "most must be"),
        (lambda: m.resample(torch.zeros(3, 1).long(), torch.zeros(2, 3).long()), "image must have shape"),
        (lambda: m.interval(torch.zeros(3), level=1.0), "level must lie"),
        (lambda: m.shuffle_within(torch.zeros(3).long(), torch.rand(2, 4)), "u must have shape"),
        (lambda: m.adjust(torch.ones(2, 2)), "p must have shape"),
        (lambda: m.adjust(torch.ones(2), "bonferroni"), "how must be"),
    ],
)
def test_bad_input(call, said):
    with pytest.raises(ValueError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)
