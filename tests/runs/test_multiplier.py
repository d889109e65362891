"""The data multiplier against curves whose answer is known, and by simulation."""

import math

import numpy as np
import pandas
import pytest

from nearfar.runs import multiplier, results

SIZES = [100, 200, 400, 800]


def curve(method, values, seeds=(0,), jitter=0.0, sizes=SIZES, higher=True):
    return [
        {"metric": "m", "method": method, "size": n, "seed": s, "value": v + jitter * s, "higher_is_better": higher}
        for s in seeds
        for n, v in zip(sizes, values, strict=True)
    ]


def found(ours, theirs):
    return results.data_multiplier(pandas.DataFrame(ours + theirs), "ours", "theirs", "m")


def logarithmic(factor=1.0, sizes=SIZES):
    return [math.log(n * factor) for n in sizes]


def bent(factor=1.0, sizes=SIZES):
    """A parabola in log size, still rising at 64,000 samples."""
    return [10 * math.log(n * factor) - 0.4 * math.log(n * factor) ** 2 for n in sizes]


@pytest.mark.parametrize("shape", [logarithmic, bent])
@pytest.mark.parametrize("factor", [0.3, 0.5, 1.5, 3])
def test_known_factor(shape, factor):
    one = found(curve("ours", shape(factor)), curve("theirs", shape()))
    assert one.kind == "exact" and one.value == pytest.approx(factor, rel=1e-3) and math.isnan(one.low)
    assert str(one) == f"{factor:.2g}×" and one.note == "" and one.label == f"{factor:.2g}× data"


def test_the_two_may_have_different_sizes():
    ours, theirs = [50, 300], [100, 200, 400, 1600]
    same = found(curve("ours", bent(2, ours), sizes=ours), curve("theirs", bent(1, theirs), sizes=theirs))
    assert same.value == pytest.approx(2, rel=1e-3)
    assert (same.smallest, same.largest) == pytest.approx((100 / 300, 1600 / 50))


def test_two_sizes_are_laid_on_a_line():
    two = [100, 400]
    line = found(curve("ours", bent(1.5, two), sizes=two), curve("theirs", bent(1, two), sizes=two))
    assert line.value == pytest.approx(1.5, rel=0.05)


def test_a_curve_that_turns_is_laid_on_a_line():
    values, more = [1.0, 3.0, 4.0, 3.8], [1.5, 3.5, 4.5, 4.3]
    seeds = (0, 1, 2)
    turned = found(curve("ours", more, seeds), curve("theirs", values, seeds))
    slope = np.polyfit(np.log(SIZES), values, 1)[0]
    assert turned.value == pytest.approx(math.exp(0.5 / slope))


def test_lower_is_better_gives_the_same():
    ours = curve("ours", [-v for v in bent(2)], higher=False)
    theirs = curve("theirs", [-v for v in bent()], higher=False)
    assert found(ours, theirs).value == pytest.approx(2, rel=1e-3)


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_beyond_the_range_of_sizes_is_a_bound(seeds):
    theirs = curve("theirs", logarithmic(), seeds)
    above, below = (found(curve("ours", logarithmic(factor), seeds), theirs) for factor in (20, 0.05))
    assert (above.kind, str(above), above.value) == ("above", "> 8×", pytest.approx(8))
    assert (below.kind, str(below), below.value) == ("below", "< 0.13×", pytest.approx(1 / 8))
    assert "leaves the range of sizes" in above.note and math.isnan(above.high)


def test_the_interval_is_that_of_the_seeds_shifts():
    ours = [row for seed, factor in enumerate((1, 2, 4)) for row in curve("ours", logarithmic(factor), (seed,))]
    three = found(ours, curve("theirs", logarithmic(), (0, 1, 2)))
    half = 4.302653 * math.log(2) / math.sqrt(3)  # Student's t with two degrees of freedom
    assert three.value == pytest.approx(2, rel=1e-3)
    assert (three.low, three.high) == pytest.approx((2 * math.exp(-half), 2 * math.exp(half)), rel=1e-3)
    assert str(three) == "2× [0.36, > 8]"
    far = [row for seed, factor in enumerate((1, 1, 99)) for row in curve("ours", logarithmic(factor), (seed,))]
    open_above = found(far, curve("theirs", logarithmic(), (0, 1, 2)))
    assert open_above.kind == "exact" and open_above.high == math.inf and open_above.value == pytest.approx(2, rel=1e-3)
    assert str(open_above) == "2× [< 0.13, > 8]"


@pytest.mark.parametrize(
    ("theirs", "why"),
    [
        (curve("theirs", [4.0, 4.0, 4.0, 4.0], (0, 1, 2)), "curve is flat"),
        (curve("theirs", [4.0, 3.0, 2.0, 1.0], (0, 1, 2)), "curve is flat"),
        (curve("theirs", [4.0, 4.2, 3.9, 4.1], (0,)), "curve is flat"),
        (curve("theirs", [4.0, 5.0, 4.9], (0,), sizes=SIZES[:3]), "does not rise from size to size"),
        (curve("theirs", [4.0], (0, 1, 2), sizes=[100]), "at one size"),
    ],
)
def test_a_flat_baseline_gives_none(theirs, why):
    none = found(curve("ours", logarithmic(), (0, 1, 2)), theirs)
    assert none.kind == str(none) == "undefined" and math.isnan(none.value) and why in none.note
    assert none.label == "data multiplier undefined"


def test_a_method_that_falls_has_no_curve_in_common():
    none = found(curve("ours", [9.0, 6.0, 3.0, 0.0], (0, 1)), curve("theirs", [1.0, 2.0, 3.0, 4.0], (0, 1)))
    assert none.kind == "undefined" and "common to method and baseline does not rise" in none.note


def test_a_tie_is_one():
    seeds = (0, 1, 2)
    tie = found(curve("ours", bent(), seeds, 0.01), curve("theirs", bent(), seeds, 0.01))
    assert str(tie) == "1.00× [1.00, 1.00]"


def test_large_numbers_and_those_around_one_are_read_easily():
    assert str(multiplier.Multiplier(125.4, 60.2, 240.0, "exact", 0.001, 1000)) == "125× [60, 240]"
    assert str(multiplier.Multiplier(2.61, 1.03, 6.2, "exact", 0.001, 1000)) == "2.6× [1.03, 6.2]"


def test_missing_cells_are_an_error():
    theirs = curve("theirs", logarithmic(), (0, 1))
    with pytest.raises(ValueError, match="no 'm' of 'ours'"):
        found([], theirs)
    with pytest.raises(ValueError, match="every size for every seed"):
        found(curve("ours", logarithmic(), (0, 1))[:-1], theirs)
    with pytest.raises(ValueError, match="no seed has 'm' of both"):
        found(curve("ours", logarithmic(), (2,)), theirs)
    with pytest.raises(ValueError, match="below one"):
        found(curve("ours", [1.0], sizes=[0]), theirs)
    assert found(curve("ours", logarithmic(2), (1, 2)), theirs).value == pytest.approx(2, rel=1e-3), (
        "seed 1 is common to both"
    )


AT = np.log(500 * 2.0 ** np.arange(5))


def saturating(at):
    return 60 - 16 * np.exp(-0.4 * (at - AT[0]))  # per cent: 44 to 55 over the five sizes


def drawn(rng, mean, seeds, noise, share):
    """Scores (seeds, sizes); `share` of their variance belongs to the seed, at all sizes alike."""
    own, common = rng.normal(size=(seeds, len(AT))), rng.normal(size=(seeds, 1))
    return mean + noise * (math.sqrt(share) * common + math.sqrt(1 - share) * own)


@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_cover_and_the_mean_is_not_biased(seeds):
    rng, repeats = np.random.default_rng(seeds), 300
    for true in (0.5, 1.0, 2.0):
        inside, away = [], []
        for noise, share in ((0.4, 0.0), (0.4, 0.4), (1.0, 0.2), (1.5, 0.0), (1.5, 0.4)):
            for _ in range(repeats):
                y = drawn(rng, saturating(AT), seeds, noise, share)
                z = drawn(rng, saturating(AT + math.log(true)), seeds, noise, share)
                one = multiplier.estimate(AT, y, AT, z)
                assert one.kind == "exact"
                inside.append(one.low <= true <= one.high)
                away.append(math.log(one.value / true))
        assert np.mean(inside) >= 0.90 and abs(np.mean(away)) < 0.1


@pytest.mark.parametrize("noise", [0.4, 1.5])
@pytest.mark.parametrize("rising", [False, True])
def test_a_flat_baseline_is_seen(noise, rising):
    rng = np.random.default_rng(0)
    method = saturating(AT) if rising else np.full(len(AT), 52.0)
    pairs = [(drawn(rng, 50.0, 3, noise, 0.2), drawn(rng, method, 3, noise, 0.2)) for _ in range(200)]
    kinds = [multiplier.estimate(AT, y, AT, z).kind for y, z in pairs]
    assert kinds.count("undefined") >= 0.90 * len(kinds)
