"""Recorded runs as tables; the data multiplier against curves whose answer is known."""

import json
import math

import pandas
import pytest
from toybook import edit

import nearfar
from nearfar.errors import NearFarError
from nearfar.runs import results, verdicts

SIZES = [100, 200, 400, 800]


def curve(method, values, seeds=(0,), jitter=0.0, sizes=SIZES, higher=True):
    return [
        {"metric": "m", "method": method, "size": n, "seed": s, "value": v + jitter * s, "higher_is_better": higher}
        for s in seeds
        for n, v in zip(sizes, values, strict=True)
    ]


def multiplier(ours, theirs, **options):
    return results.data_multiplier(pandas.DataFrame(ours + theirs), "ours", "theirs", "m", **options)


def logarithmic(shift=1.0):
    return [math.log(n * shift) for n in SIZES]


def test_a_tie_is_one():
    assert multiplier(curve("ours", logarithmic()), curve("theirs", logarithmic())).value == pytest.approx(1)


@pytest.mark.parametrize("factor", [1.5, 2.0, 3.0])
def test_known_factor_on_logarithmic_curves(factor):
    found = multiplier(curve("ours", logarithmic(factor)), curve("theirs", logarithmic()))
    exact = {n: ratio for n, (ratio, kind) in found.per_size.items() if kind == "exact"}
    assert all(ratio == pytest.approx(factor) for ratio in exact.values()) and len(exact) >= 2
    assert found.value == pytest.approx(factor)
    ratio, kind = found.per_size[800]  # nothing beyond 800 was run
    assert (ratio, kind) == (1.0, "at least")
    assert found.at_least is not None and found.at_most is None


def test_a_worse_method_has_a_multiplier_below_one():
    found = multiplier(curve("ours", logarithmic(0.5)), curve("theirs", logarithmic()))
    assert found.value == pytest.approx(0.5)
    assert found.per_size[100] == (1.0, "at most")


def test_lower_is_better_gives_the_same():
    ours = curve("ours", [-v for v in logarithmic(2)], higher=False)
    theirs = curve("theirs", [-v for v in logarithmic()], higher=False)
    assert multiplier(ours, theirs).value == pytest.approx(2)


def test_out_of_range_is_a_bound_not_a_number():
    above = multiplier(curve("ours", [9.0] * 4), curve("theirs", [1.0, 2.0, 3.0, 4.0]))
    assert above.value is None and str(above).startswith("≥")
    assert above.at_least == pytest.approx((8 * 4 * 2 * 1) ** 0.25)
    below = multiplier(curve("ours", [0.0] * 4), curve("theirs", [1.0, 2.0, 3.0, 4.0]))
    assert below.value is None and str(below).startswith("≤")
    assert below.at_most == pytest.approx((1 * 0.5 * 0.25 * 0.125) ** 0.25)


def test_the_first_crossing_counts_on_a_curve_that_falls():
    found = multiplier(curve("ours", [1.5] * 4), curve("theirs", [1.0, 2.0, 1.0, 3.0]))
    assert found.per_size[100][0] == pytest.approx(2**0.5)


def test_bootstrap_interval_covers_and_is_repeatable():
    seeds = range(5)
    ours = curve("ours", logarithmic(2), seeds, jitter=0.05)
    theirs = curve("theirs", logarithmic(), seeds, jitter=0.0)
    found = multiplier(ours, theirs)
    assert found.low < found.value < found.high
    assert (found.low, found.high) == (multiplier(ours, theirs).low, multiplier(ours, theirs).high)
    assert math.isnan(multiplier(curve("ours", logarithmic()), curve("theirs", logarithmic())).low)


def test_missing_cells_are_an_error():
    with pytest.raises(ValueError, match="no 'm' of 'ours'"):
        multiplier([], curve("theirs", logarithmic()))
    with pytest.raises(ValueError, match="every size for every seed"):
        multiplier(curve("ours", logarithmic(), (0, 1))[:-1], curve("theirs", logarithmic()))


@pytest.fixture
def recorded(toybook):
    for seed in (0, 1):
        toy = nearfar.start("toy", "smoke", seed, "cpu")
        for size, value in ((10, 0.4), (20, 0.6)):
            toy.record("accuracy", value + seed / 100, method="ours", size=size)
            toy.record("accuracy", value - 0.1, method="theirs", size=size)
        toy.headline(metric="accuracy", method="ours", baseline="theirs")
        toy.claim("C1", "ours wins", seed == 0, "numbers")
        toy.finish(budget={})
    return toybook


def test_table_and_claims(recorded):
    table = results.table("toy")
    assert len(table) == 8 and set(table["seed"]) == {0, 1} and not table["stale"].any()
    assert results.claims("toy")["verdict"].tolist() == ["held", "failed"]
    (row,) = verdicts.over_seeds(results.read_all("toy")[0])
    assert row["verdict"] == "mixed" and row["summary"] == "mixed over 2 seeds"
    assert row["evidence"] == [(0, "held", "numbers"), (1, "failed", "numbers")]
    assert results.headline(results.read_all("toy")[0])[1].value == pytest.approx(1.43, abs=0.03)


def test_a_record_older_than_the_code_is_stale(recorded):
    edit(recorded / "notebooks/contrastive/toy.ipynb", "return 2 * x", "return x + x")
    assert results.table("toy")["stale"].all()


def test_show_without_and_with_records(recorded):
    import matplotlib.figure

    assert isinstance(results.show("toy"), matplotlib.figure.Figure)
    for path in recorded.glob("results/*/*/*.json"):
        path.unlink()
    assert "nearfar run toy" in results.show("toy")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda r: "{", "no readable record"),
        (lambda r: json.dumps([r]), "not an object"),
        (lambda r: json.dumps({**r, "schema": 0}), "record schema 0"),
        (lambda r: json.dumps({**r, "seconds": "long"}), "no proper 'seconds'"),
        (lambda r: json.dumps({**r, "claims": [{"id": "C1"}]}), "a claim has no proper 'text'"),
        (lambda r: json.dumps({**r, "measurements": [{**r["measurements"][0], "value": math.inf}]}), "not finite"),
        (lambda r: json.dumps({**r, "claims": [{**r["claims"][0], "verdict": "yes"}]}), "unknown verdict"),
        (lambda r: json.dumps({**r, "seed": 7}), "move it there or delete it"),
        (lambda r: json.dumps({**r, "headline": {"metric": 1}}), "the headline has no proper 'metric'"),
    ],
)
def test_a_broken_or_older_record_is_named_and_the_rest_is_read(recorded, change, message):
    path = recorded / "results/smoke/toy/seed-1.json"
    path.write_text(change(json.loads(path.read_text())))
    records, problems = results.read_all()
    assert len(records) == 1 and len(problems) == 1
    assert "seed-1.json" in problems[0] and "\n" not in problems[0]
    with pytest.raises(NearFarError, match=message):
        results.table("toy")
