"""Recorded runs as tables: what is read, what is refused and named."""

import json
import math

import pytest
from toybook import edit

import nearfar
from nearfar.errors import NearFarError
from nearfar.runs import results, verdicts


@pytest.fixture
def recorded(toybook):
    for seed in (0, 1, 2):
        toy = nearfar.start("toy", "smoke", seed, "cpu")
        for size, value in ((10, 0.4), (20, 0.6)):
            toy.record("accuracy", value + seed / 100, method="ours", size=size)
            toy.record("accuracy", value - 0.1, method="theirs", size=size)
        toy.headline(metric="accuracy", method="ours", baseline="theirs")
        toy.claim("C1", "ours wins", seed == 0, "numbers")
        toy.claim("C2", "by a point", kind="superiority", difference=10 + 0.5 * seed, margin=1, evidence="differences")
        toy.finish(budget={})
    return toybook


def test_table_and_claims(recorded):
    table = results.table("toy")
    assert len(table) == 12 and set(table["seed"]) == {0, 1, 2} and not table["stale"].any()
    claims = results.claims("toy")
    first, second = claims[claims["id"] == "C1"], claims[claims["id"] == "C2"]
    assert first["verdict"].tolist() == ["held", "failed", "failed"] and set(first["over_seeds"]) == {"mixed"}
    assert set(first["kind"]) == {"mechanism"} and first["difference"].isna().all()
    assert set(second["kind"]) == {"superiority"} and set(second["over_seeds"]) == {"held"}
    assert second["difference"].tolist() == [10, 10.5, 11] and set(second["margin"]) == {1}
    row, _ = verdicts.over_seeds(results.read_all("toy")[0])
    assert row["verdict"] == "mixed" and row["summary"] == "mixed: held in 1 of 3 seeds"
    assert row["evidence"] == [(1, "failed", "numbers"), (0, "held", "numbers")]
    assert results.headline(results.read_all("toy")[0])[1].value == pytest.approx(2 ** (0.11 / 0.2), rel=0.01)


def test_records_from_before_claims_had_a_kind_are_read(recorded):
    for path in recorded.glob("results/*/*/*.json"):
        record = json.loads(path.read_text())
        old = [{name: claim[name] for name in ("id", "text", "verdict", "evidence")} for claim in record["claims"]]
        path.write_text(json.dumps({**record, "claims": old}))
    claims = results.claims("toy")
    assert set(claims["kind"]) == {"mechanism"} and claims["margin"].isna().all()
    assert claims["over_seeds"].tolist() == ["mixed", "held"] * 3


def test_a_record_older_than_the_code_is_stale(recorded):
    edit(recorded / "notebooks/contrastive/toy.ipynb", "return 2 * x", "return x + x")
    assert results.table("toy")["stale"].all()


def test_show_without_and_with_records(recorded):
    import matplotlib.figure

    assert isinstance(results.show("toy"), matplotlib.figure.Figure)

    def titles(*given):
        return [ax.get_title(loc="left") + ax.get_title() for ax in results.show("toy", *given).axes]

    run = nearfar.start("toy", "medium", 0, "cpu")
    assert titles(run) == [f"recorded, {title}" for title in titles()] != []
    for size in (10, 20):
        run.record("accuracy", size / 40, method="ours", size=size)
        run.record("accuracy", size / 50, method="theirs", size=size)
    run.headline(metric="accuracy", method="ours", baseline="theirs")
    mine, *others = titles(run)
    assert mine.startswith("this run, medium\n") and len(others) == len(titles())
    for path in recorded.glob("results/*/*/*.json"):
        path.unlink()
    assert "nearfar run toy" in results.show("toy")


def with_claim(record, **fields):
    """The record as text, its first claim with other fields."""
    return json.dumps({**record, "claims": [{**record["claims"][0], **fields}, *record["claims"][1:]]})


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
        (lambda r: with_claim(r, kind="magic"), "one of mechanism, superiority, equivalence, not 'magic'"),
        (lambda r: with_claim(r, margin=1), "claim C1: a mechanism claim takes holds"),
        (lambda r: with_claim(r, kind="superiority"), "claim C1: superiority needs a difference"),
        (lambda r: with_claim(r, kind="superiority", margin=True), "claim C1 has no proper 'margin'"),
        (lambda r: with_claim(r, kind="superiority", margin=-1), "claim C1: the margin of superiority"),
        (lambda r: with_claim(r, kind="superiority", margin=1, difference="2"), "claim C1 has no proper 'difference'"),
        (lambda r: with_claim(r, kind="superiority", margin=1, difference=math.inf), "claim C1: the difference is inf"),
        (lambda r: with_claim(r, kind="superiority", margin=1, difference=2), "says 'failed', its difference"),
        (lambda r: json.dumps({**r, "seed": 7}), "move it there or delete it"),
        (lambda r: json.dumps({**r, "headline": {"metric": 1}}), "the headline has no proper 'metric'"),
    ],
)
def test_a_broken_or_older_record_is_named_and_the_rest_is_read(recorded, change, message):
    path = recorded / "results/smoke/toy/seed-1.json"
    path.write_text(change(json.loads(path.read_text())))
    records, problems = results.read_all()
    assert len(records) == 2 and len(problems) == 1
    assert "seed-1.json" in problems[0] and "\n" not in problems[0]
    with pytest.raises(NearFarError, match=message):
        results.table("toy")
