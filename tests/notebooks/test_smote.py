"""The method cells of the smote chapter: against loops, hand values, imbalanced-learn, scipy, and identities."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import nearfar

m = nearfar.method("smote")


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(7)


@pytest.fixture
def rows(generator) -> Tensor:
    return torch.randn(23, 4, generator=generator, dtype=torch.float64)


def loop_neighbours(X: list[list[float]], k: int) -> list[list[int]]:
    """Plain transcription: every distance to every other row, sorted."""
    found = []
    for i, a in enumerate(X):
        others = [(math.dist(a, b), j) for j, b in enumerate(X) if j != i]
        found.append([j for _, j in sorted(others)[:k]])
    return found


# ---------------------------------------------------------------------------------------------- neighbours and eq. (1)
@pytest.mark.parametrize("k", [1, 5, 22])
def test_neighbours_equal_a_loop(rows, k):
    assert m.minority_neighbours(rows, k).tolist() == loop_neighbours(rows.tolist(), k)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_neighbours_do_not_depend_on_the_chunk(rows, chunk):
    assert torch.equal(m.minority_neighbours(rows, 5, chunk=chunk), m.minority_neighbours(rows, 5))


def test_an_identical_twin_is_a_neighbour_but_never_the_row_itself():
    X = torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [5.0, 5.0]])
    assert m.minority_neighbours(X, 2).tolist() == [[1, 2], [0, 2], [0, 1], [0, 1]]


def test_smote_equals_the_papers_loop(rows):
    """Seeds in order, floor(N / 100) rows for each, the same draws."""
    N, k = 320, 5
    new = m.smote(rows, N, k, generator=torch.Generator().manual_seed(1))
    draws = torch.Generator().manual_seed(1)
    columns = torch.randint(k, (3 * len(rows),), generator=draws)
    u = torch.rand(3 * len(rows), 1, generator=draws, dtype=torch.float64)
    X, near, expected = rows.tolist(), loop_neighbours(rows.tolist(), k), []
    for i in range(len(X)):
        for repeat in range(N // 100):
            number = 3 * i + repeat
            partner, gap = X[near[i][columns[number]]], float(u[number])
            expected.append([X[i][a] + gap * (partner[a] - X[i][a]) for a in range(4)])
    torch.testing.assert_close(new, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


def test_hand_value():
    new = m.interpolate(torch.tensor([[2.0, 0.0]]), torch.tensor([[4.0, 8.0]]), torch.tensor([[0.25]]))
    assert new.tolist() == [[2.5, 2.0]]
    box = m.interpolate(torch.tensor([[2.0, 0.0]]), torch.tensor([[4.0, 8.0]]), torch.tensor([[0.25, 0.5]]))
    assert box.tolist() == [[2.5, 4.0]]


@pytest.mark.parametrize(("N", "count"), [(0, 0), (4, 0), (9, 2), (50, 11), (99, 22), (100, 23), (199, 23), (500, 115)])
def test_amounts_of_the_paper(rows, generator, N, count):
    assert m.smote(rows, N, generator=generator).shape == (count, 4)


def test_below_100_every_seed_is_used_at_most_once(generator):
    seeds, columns = m.draw_paper(40, 75, 5, generator)
    assert len(seeds) == len(set(seeds.tolist())) == 30
    assert seeds.tolist() != sorted(seeds.tolist()) and columns.min() >= 0 and columns.max() < 5


def test_above_100_every_row_is_a_seed_equally_often(generator):
    assert m.draw_paper(6, 300, 2, generator)[0].bincount().tolist() == [3] * 6


def test_draws_with_replacement_take_any_number_of_rows(generator):
    seeds, columns = m.draw_with_replacement(10, 33_333, 3, generator)
    assert len(seeds) == 3333
    cells = (seeds * 3 + columns).bincount(minlength=30)
    assert (cells - 111.1).abs().max() < 5 * 111.1**0.5  # uniform over the 10 x 3 neighbour table


# ---------------------------------------------------------------------------------------------- geometry
def test_segment_rows_lie_between_seed_and_neighbour(rows, generator):
    seeds, columns = m.draw_paper(len(rows), 1000, 5, generator)
    a, b = rows[seeds], rows[m.minority_neighbours(rows, 5)[seeds, columns]]
    new = m.interpolate(a, b, torch.rand(len(a), 1, generator=generator, dtype=torch.float64))
    detour = (new - a).norm(dim=1) + (new - b).norm(dim=1) - (a - b).norm(dim=1)
    assert detour.abs().max() < 1e-12


def test_segment_rows_stay_in_the_convex_hull_and_box_rows_may_leave_it():
    from scipy.spatial import Delaunay

    X = torch.tensor([[0.0, 0.0], [1.0, 0.2], [2.0, 2.0], [0.2, 1.0]], dtype=torch.float64)
    hull = Delaunay(X.numpy())
    inside = {}
    for variant in ("segment", "box"):
        new = m.smote(X, 5000, 3, variant=variant, generator=torch.Generator().manual_seed(0))
        assert (new >= X.amin(0)).all() and (new <= X.amax(0)).all()
        inside[variant] = float((hull.find_simplex(new.numpy(), tol=1e-9) >= 0).mean())
    assert inside["segment"] == 1.0 and inside["box"] < 0.95


def test_two_thirds_of_the_covariance_for_independent_pairs(generator):
    X = torch.randn(400, 3, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 2.0, 0.5])
    new = m.smote(X, 20_000, 399, generator=generator)  # any row may be the partner
    torch.testing.assert_close(new.T.cov(), 2 / 3 * X.T.cov(), rtol=0.03, atol=0.03)


def test_near_neighbours_shrink_less_than_any_neighbours(generator):
    X = torch.randn(300, 2, generator=generator, dtype=torch.float64)
    spread = {k: m.smote(X, 2000, k, generator=generator).var(dim=0).sum() / X.var(dim=0).sum() for k in (5, 299)}
    assert 2 / 3 - 0.03 < spread[299] < 0.75 < 0.85 < spread[5] < 1


def test_copies_only_give_copies(generator):
    X = torch.ones(7, 2, dtype=torch.float64)
    assert torch.equal(m.smote(X, 300, generator=generator), torch.ones(21, 2, dtype=torch.float64))


# ---------------------------------------------------------------------------------------------- invariances
def test_order_of_the_rows_does_not_matter(rows, generator):
    """The neighbours of a row are the same rows after a permutation."""
    order = torch.randperm(len(rows), generator=generator)
    near, shuffled = m.minority_neighbours(rows, 4), m.minority_neighbours(rows[order], 4)
    assert torch.equal(order[shuffled], near[order])


def test_shift_and_scale_move_the_new_rows_along(rows):
    def draw(X):
        return m.smote(X, 200, generator=torch.Generator().manual_seed(3))

    torch.testing.assert_close(draw(3 * rows + 5), 3 * draw(rows) + 5, rtol=0, atol=1e-12)


def test_same_generator_same_rows_and_no_global_state(rows):
    before = torch.get_rng_state()
    first, second = (m.smote(rows, 200, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second) and torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keeps_the_dtype(rows, generator, dtype):
    assert m.smote(rows.to(dtype), 300, variant="box", generator=generator).dtype == dtype


def test_interpolation_has_the_right_gradient(rows):
    x, z = rows[:3].clone().requires_grad_(), rows[3:6].clone().requires_grad_()
    u = torch.rand(3, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(m.interpolate, (x, z, u))


def test_forward_on_a_device_that_is_not_here(rows, fake_cuda):
    with fake_cuda as fake:
        X = fake(rows)
        near = m.minority_neighbours(X, 5)
        new = m.interpolate(X, X[near[:, 0]], torch.rand(23, 1, device="cuda", dtype=torch.float64))
        assert near.device.type == new.device.type == "cuda" and near.shape == (23, 5) and new.shape == (23, 4)
        assert m.shift_prior(X[:, 0], 0.5, 0.1).device.type == "cuda"
        assert m.roc_area(X[:, 0], X[:, 1]).device.type == "cuda"


# ---------------------------------------------------------------------------------------------- imbalanced-learn
@pytest.mark.parametrize(("k", "seed"), [(1, 0), (5, 1), (22, 2)])
def test_equals_imbalanced_learn_with_its_own_draws(rows, generator, k, seed):
    from imblearn.over_sampling import SMOTE

    frequent = torch.randn(100, 4, generator=generator, dtype=torch.float64)
    X, y = torch.cat([frequent, rows]).numpy(), np.r_[np.zeros(100), np.ones(23)]
    theirs, labels = SMOTE(k_neighbors=k, random_state=seed).fit_resample(X, y)
    assert labels.sum() == 100 and np.array_equal(theirs[:123], X)
    random = np.random.RandomState(seed)
    cells, u = torch.from_numpy(random.randint(0, 23 * k, 77)), torch.from_numpy(random.uniform(size=77))
    partners = m.minority_neighbours(rows, k)[cells // k, cells % k]
    ours = m.interpolate(rows[cells // k], rows[partners], u[:, None])
    np.testing.assert_allclose(ours.numpy(), theirs[123:], rtol=0, atol=1e-12)


def test_200_percent_is_three_times_the_rows_in_imbalanced_learn(rows, generator):
    from imblearn.over_sampling import SMOTE

    X, y = torch.cat([rows, rows + 50, rows + 90, rows + 70, rows - 50]).numpy(), np.r_[np.ones(23), np.zeros(92)]
    _, labels = SMOTE(sampling_strategy={1: 3 * 23}, random_state=0).fit_resample(X, y)
    assert labels.sum() == 23 + len(m.smote(rows, 200, generator=generator))


def nominal_table(generator):
    numeric = torch.randn(30, 3, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 3.0, 0.4])
    return numeric, torch.stack([torch.randint(v, (30,), generator=generator) for v in (2, 4)], dim=1)


def test_mixed_distance_equals_imbalanced_learns_encoding(generator):
    """There each nominal attribute becomes one-hot columns whose squared difference adds up to the squared median."""
    numeric, nominal = nominal_table(generator)
    median = np.median(numeric.numpy().std(axis=0))
    hot = [np.eye(4)[codes.numpy()] * median / np.sqrt(2) for codes in nominal.T]
    table = np.hstack([numeric.numpy(), *hot])
    expected = np.linalg.norm(table[:, None] - table[None], axis=2)
    np.testing.assert_allclose(m.mixed_distance(numeric, nominal).numpy(), expected, atol=1e-9)


def test_smote_nc_equals_imbalanced_learn_with_its_own_draws(generator):
    from imblearn.over_sampling import SMOTENC

    numeric, nominal = nominal_table(generator)
    more = torch.cat([numeric + 9, numeric - 9])
    X = np.hstack([torch.cat([numeric, more]).numpy(), torch.cat([nominal] * 3).numpy()])
    y = np.r_[np.ones(30), np.zeros(60)]
    theirs, _ = SMOTENC([3, 4], k_neighbors=5, random_state=3).fit_resample(X, y)
    random = np.random.RandomState(3)
    cells, u = torch.from_numpy(random.randint(0, 30 * 5, 30)), torch.from_numpy(random.uniform(size=30))
    new, voted = m.smote_nc(numeric, nominal, cells // 5, cells % 5, u[:, None], k=5)
    np.testing.assert_allclose(new.numpy(), theirs[90:, :3], atol=1e-9)
    distance = m.mixed_distance(numeric, nominal).fill_diagonal_(torch.inf)
    voters = nominal[distance.argsort(dim=1, stable=True)[:, :5]][cells // 5]  # (30, 5, 2)
    counts = torch.nn.functional.one_hot(voters, 4).sum(dim=1)  # (30, 2, 4)
    one_winner = (counts == counts.amax(dim=2, keepdim=True)).sum(dim=2) == 1  # there, ties fall at random
    assert one_winner.double().mean() > 0.5
    assert torch.equal(voted[one_winner], torch.from_numpy(theirs[90:, 3:]).long()[one_winner])


def test_value_difference_hand_value_and_imbalanced_learn():
    """Ten green, ten red and ten blue rows, 8, 7 and 1 of them of class one: the library's own example."""
    from imblearn.metrics.pairwise import ValueDifferenceMetric

    codes = torch.tensor([0] * 10 + [1] * 10 + [2] * 10)[:, None]
    y = torch.tensor([1] * 8 + [0] * 5 + [1] * 7 + [0] * 9 + [1])
    ours = m.value_difference(codes, y)
    # p(1 | green) = 0.8, p(1 | red) = 0.7, p(1 | blue) = 0.1; two classes, so the differences count twice
    assert ours[0, 10].item() == pytest.approx(0.2**2) and ours[0, 20].item() == pytest.approx(1.4**2)
    assert m.value_difference(codes, y, r=1)[10, 20].item() == pytest.approx(1.2)
    theirs = ValueDifferenceMetric().fit(codes.numpy(), y.numpy()).pairwise(codes.numpy())
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-12)


def test_value_difference_is_a_distance_of_rows(generator):
    codes = torch.randint(3, (20, 4), generator=generator)
    distance = m.value_difference(codes, torch.randint(2, (20,), generator=generator))
    assert torch.allclose(distance, distance.T, rtol=0, atol=1e-15)  # sums of at most four shares
    assert (distance.diagonal() == 0).all() and (distance >= 0).all()


def test_smote_n_on_the_papers_example():
    """A B C D E with neighbours A F C G N and H B C D N gives A B C D N (recalled from the paper)."""
    words = torch.tensor([[ord(letter) - ord("A") for letter in word] for word in ("ABCDE", "AFCGN", "HBCDN")])
    new = m.smote_n(words, torch.zeros(3, 3), torch.tensor([0]), k=2)
    assert "".join(chr(ord("A") + code) for code in new[0].tolist()) == "ABCDN"


def test_majority_vote_gives_ties_to_the_smaller_code():
    assert m.majority_vote(torch.tensor([[[3], [1], [3], [1]]])).tolist() == [[1]]


# ---------------------------------------------------------------------------------------------- under-sampling, ROC
@pytest.mark.parametrize(("percent", "kept"), [(10, 200), (25, 200), (50, 100), (100, 50), (200, 25), (1000, 5)])
def test_percentages_of_under_sampling(generator, percent, kept):
    """The paper's example: 50 rare and 200 frequent rows; at 200 % twice as many rare as frequent ones are left."""
    rows = m.under_sample(200, 50, percent, generator=generator)
    assert len(rows) == kept == len(set(rows.tolist())) and rows.max() < 200


def test_area_of_one_point_and_of_none():
    assert m.roc_area(torch.tensor([0.2]), torch.tensor([0.8])).item() == pytest.approx(0.8)  # (1 + tp - fp) / 2
    assert m.roc_area(torch.zeros(0), torch.zeros(0)).item() == pytest.approx(0.5)


def test_area_equals_scikit_learns_on_the_points_of_scores(generator):
    from sklearn.metrics import roc_auc_score, roc_curve

    y = torch.randint(2, (200,), generator=generator).numpy()
    scores = torch.randn(200, generator=generator, dtype=torch.float64).numpy() + y
    fp, tp, _ = roc_curve(y, scores)
    order = torch.randperm(len(fp), generator=generator)
    area = m.roc_area(torch.from_numpy(fp)[order], torch.from_numpy(tp)[order])
    assert area.item() == pytest.approx(roc_auc_score(y, scores), abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_hull_equals_the_upper_hull_of_scipy(seed):
    from scipy.spatial import ConvexHull

    generator = torch.Generator().manual_seed(seed)
    fp, tp = torch.rand(2, 40, generator=generator, dtype=torch.float64)
    fp, tp = torch.cat([fp, torch.tensor([0.0, 1.0])]), torch.cat([torch.maximum(fp, tp), torch.tensor([0.0, 1.0])])
    vertices = ConvexHull(torch.stack([fp, tp], dim=1).numpy()).vertices.tolist()  # counter-clockwise, all of it
    upper = [v for v in vertices if v in (40, 41) or tp[v] > fp[v]]  # none lies below the diagonal
    assert set(m.roc_hull(fp, tp)) == set(upper)
    assert fp[m.roc_hull(fp, tp)].diff().min() > 0


def test_hull_drops_points_below_and_on_a_chord():
    fp = torch.tensor([0.0, 0.5, 0.5, 0.25, 1.0])
    tp = torch.tensor([0.0, 0.9, 0.4, 0.45, 1.0])
    assert m.roc_hull(fp, tp) == [0, 1, 4]


# ---------------------------------------------------------------------------------------------- prior
def test_prior_shift_undoes_resampling_exactly(generator):
    """Bayes' rule by hand: likelihoods 3 and 1, prior 1/2 gives 3/4; at prior 1/5 it is 3 / (3 + 4)."""
    assert m.shift_prior(torch.tensor([0.75]).double(), 0.5, 0.2).item() == pytest.approx(3 / 7)
    p = torch.rand(50, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(m.shift_prior(m.shift_prior(p, 0.5, 0.05), 0.05, 0.5), p, rtol=0, atol=1e-3)
    torch.testing.assert_close(m.shift_prior(p, 0.3, 0.3), p, rtol=0, atol=1e-5)
    assert torch.equal(m.shift_prior(p, 0.5, 0.05).argsort(), p.argsort())  # the ranking stays


# ---------------------------------------------------------------------------------------------- errors
@pytest.mark.parametrize("T", [1, 4, 5])
def test_too_few_rows_for_k_is_an_error_and_not_a_smaller_k(generator, T):
    with pytest.raises(ValueError, match=r"k is 5, but .* minority rows"):
        m.smote(torch.zeros(T, 2), generator=generator)
    numeric = torch.zeros(T, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match="k is 5"):
        m.smote_nc(numeric, numeric.long(), torch.tensor([0]), torch.tensor([0]), torch.tensor([[0.5]]))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"N": -100}, "N is"), ({"N": math.nan}, "N is"), ({"N": math.inf}, "N is"), ({"k": 0}, "k is"),
        ({"variant": "line"}, "variant"), ({"draw": "mine"}, "draw"),
        ({"X": torch.full((9, 2), math.nan)}, "X"), ({"X": torch.zeros(9)}, "X"),
        ({"X": torch.zeros(9, 2).long()}, "X"),
    ],
)  # fmt: skip
def test_bad_input_is_named(generator, change, named):
    given = {"X": torch.zeros(9, 2), "generator": generator, **change}
    with pytest.raises(ValueError, match=named):
        m.smote(given.pop("X"), **given)


def test_bad_percentages_and_priors_are_named(generator):
    with pytest.raises(ValueError, match="percent"):
        m.under_sample(10, 5, 0, generator=generator)
    with pytest.raises(ValueError, match="trained and true"):
        m.shift_prior(torch.tensor([0.5]), 0.5, 1.0)


# --------------------------------------------------------------------------------------- a number of rows, large codes
@pytest.mark.parametrize("draw", ["paper", "imbalanced-learn"])
def test_a_number_of_rows_is_that_number(draw):
    for T in range(2, 40):
        X = torch.arange(T, dtype=torch.float64)[:, None]
        for wanted in (0, 1, T - 1, T, T + 1, 75):
            new = m.smote(X, k=1, draw=draw, rows=wanted, generator=torch.Generator().manual_seed(T))
            assert len(new) == wanted
        even = m.smote(X, k=1, draw=draw, rows="auto", majority=82, generator=torch.Generator().manual_seed(T))
        assert len(even) == 82 - T
    assert len(m.smote(X, k=1, rows="auto", majority=3, generator=torch.Generator().manual_seed(0))) == 0


def test_a_percentage_of_a_number_of_rows_gives_that_number():
    """7 rare and 82 frequent rows: 75 new ones, where rounding down a percentage gave 74."""
    for rare in range(2, 200):
        for more in range(1, 200):
            assert m.share(rare, 100 * more / rare) == more
            assert m.share(rare, 99.999 * more / rare) == more - 1


def test_rows_of_the_papers_algorithm_are_whole_rounds_and_a_random_rest():
    seeds, columns = m.draw_paper(7, 100, 3, torch.Generator().manual_seed(0), rows=75)
    counts = torch.bincount(seeds, minlength=7)
    assert counts.min() == 10 and counts.max() == 11 and (counts == 11).sum() == 5
    assert columns.shape == (75,) and 0 <= columns.min() and columns.max() < 3


@pytest.mark.parametrize(
    ("options", "named"),
    [({"rows": "auto"}, "majority"), ({"rows": -1}, "rows"), ({"rows": 2.5}, "rows"), ({"rows": "many"}, "rows")],
)
def test_a_wrong_number_of_rows_is_named(rows, generator, options, named):
    with pytest.raises(ValueError, match=named):
        m.smote(rows, generator=generator, **options)


def test_large_codes_cost_what_small_ones_do(generator):
    """Memory goes by the codes that occur, not by the largest."""
    small = torch.randint(3, (12, 2), generator=generator)
    y = torch.randint(2, (12,), generator=generator)
    large = small * 10**12
    assert torch.equal(m.value_difference(large, y * 10**12), m.value_difference(small, y))
    votes = small.view(3, 4, 2)
    assert torch.equal(m.majority_vote(votes * 10**12), m.majority_vote(votes) * 10**12)
