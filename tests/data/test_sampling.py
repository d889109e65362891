import pytest
import torch

from nearfar.data import subsets


def labels_of(counts, seed=0):
    labels = torch.cat([torch.full((count,), c) for c, count in enumerate(counts)])
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("classes", [1, 2, 7, 40])
def test_nested_and_balanced_to_within_one(classes, seed):
    labels = labels_of([60] * classes, seed)
    sizes = torch.randint(1, 60 * classes, (6,), generator=torch.Generator().manual_seed(seed)).tolist()
    found = subsets(labels, sizes, seed=seed)
    assert list(found) == list(dict.fromkeys(sizes))
    ordered = sorted(found.items())
    for (size, rows), (_, larger) in zip(ordered, ordered[1:] + ordered[-1:], strict=True):
        assert rows.shape == (size,) and len(rows.unique()) == size and rows.dtype == torch.int64
        assert set(rows.tolist()) <= set(larger.tolist())
        counts = labels[rows].bincount(minlength=classes)
        assert counts.max() - counts.min() <= 1


def test_seeds():
    labels = labels_of([50] * 4)
    a, b, c = (subsets(labels, [40], seed=seed)[40] for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a.sort().values, c.sort().values)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    subsets(labels, [40])
    assert torch.equal(torch.get_rng_state(), before)


def test_when_a_class_runs_out_the_others_fill_up():
    labels = labels_of([5, 50, 50])
    found = subsets(labels, [15, 45, 105])
    assert labels[found[15]].bincount().tolist() == [5, 5, 5]
    assert labels[found[45]].bincount().tolist() == [5, 20, 20]
    assert sorted(found[105].tolist()) == list(range(105))


def test_labels_need_not_begin_at_zero():
    labels = labels_of([20, 20]) * 5 - 7
    assert labels[subsets(labels, [10])[10]].unique(return_counts=True)[1].tolist() == [5, 5]


@pytest.mark.parametrize("imbalance", [2, 10, 100])
def test_a_long_tail_follows_the_exponential(imbalance):
    labels = labels_of([2000] * 10)
    found = subsets(labels, [10, 100, 4000], imbalance=imbalance)
    share = float(imbalance) ** -torch.linspace(0, 1, 10)
    expected = 4000 * share / share.sum()
    counts = labels[found[4000]].bincount(minlength=10)
    assert (counts - expected).abs().max() <= 1.5
    assert counts[0] / counts[9] == pytest.approx(imbalance, rel=0.06)
    assert labels[found[10]].bincount().tolist() == [1] * 10  # every class is seen
    assert set(found[10].tolist()) < set(found[100].tolist()) < set(found[4000].tolist())


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("values", [2, 3])
def test_an_attribute_tied_to_the_class(correlation, values):
    labels, attribute = (
        labels_of([900] * 4),
        torch.randint(0, values, (3600,), generator=torch.Generator().manual_seed(1)),
    )
    attribute = attribute * 10  # values need not be 0, 1, 2
    found = subsets(labels, [40, 400], attribute=attribute, correlation=correlation, seed=3)
    for size, rows in found.items():
        assert labels[rows].bincount().tolist() == [size // 4] * 4
        for c in range(4):
            agreeing = (attribute[rows][labels[rows] == c] == 10 * (c % values)).sum()
            assert abs(agreeing - correlation * size / 4) <= 1
    assert set(found[40].tolist()) < set(found[400].tolist())


def test_tail_and_attribute_together():
    labels, attribute = labels_of([600] * 3), torch.arange(1800) % 2
    rows = subsets(labels, [300], imbalance=9, attribute=attribute, correlation=0.8)[300]
    counts = labels[rows].bincount()
    assert counts[0] / counts[2] == pytest.approx(9, rel=0.05)
    assert (attribute[rows][labels[rows] == 0] == 0).float().mean() == pytest.approx(0.8, abs=0.01)


def test_targets():
    targets = torch.rand(200, generator=torch.Generator().manual_seed(0))
    plain = subsets(targets, [10, 50])
    assert set(plain[10].tolist()) < set(plain[50].tolist()) and len(plain[50].unique()) == 50
    binned = subsets(targets, [10, 50], bins=5)
    quintile = targets.argsort().argsort() * 5 // 200
    assert quintile[binned[10]].bincount().tolist() == [2] * 5
    assert quintile[binned[50]].bincount().tolist() == [10] * 5
    assert set(binned[10].tolist()) < set(binned[50].tolist())


Y = torch.arange(20) % 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sizes": [21]}, "sizes: 21 is not between 1 and the 20"),
        ({"sizes": [0]}, "sizes: 0 is not"),
        ({"sizes": [-3]}, "sizes: -3 is not"),
        ({"sizes": []}, "sizes: at least one"),
        ({"labels": Y.view(4, 5)}, r"labels: expected shape \(N,\), got \(4, 5\)"),
        ({"imbalance": 0.5}, "imbalance: 0.5 is below 1"),
        ({"imbalance": 100, "sizes": [20]}, "sizes: 20 needs .* samples of a class, but class 0 has 5"),
        ({"attribute": Y}, "attribute and correlation must be given together"),
        ({"correlation": 0.5}, "attribute and correlation must be given together"),
        ({"attribute": Y % 2, "correlation": 1.5}, "correlation: 1.5 is not between 0 and 1"),
        ({"attribute": Y[:3], "correlation": 0.5}, "attribute: expected"),
        ({"attribute": Y * 0.5, "correlation": 0.5}, "attribute: expected"),
        (
            {"attribute": (Y + 1) % 2, "correlation": 1.0},
            "correlation: 1.0 needs 1 samples of class 0 with attribute 0",
        ),
        ({"labels": Y * 0.5, "imbalance": 2}, "labels: attribute and imbalance need classes"),
        ({"bins": 3}, "bins: 3 applies to float labels only"),
        ({"labels": Y * 0.5, "bins": 0}, "bins: 0"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        subsets(**{"labels": Y, "sizes": [4], **arguments})


def test_many_classes_are_quick():
    import time

    labels = labels_of([20] * 964)
    began = time.process_time()
    subsets(labels, [964, 5000, 19280])
    assert time.process_time() - began < 2
