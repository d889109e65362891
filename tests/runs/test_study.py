"""The study trains variants alike, keeps what they are, searches settings once and without the test set."""

import json
import math

import pandas
import pytest
import torch
from torch import nn

import nearfar
from nearfar import study, train
from nearfar.errors import NearFarError

NOISE = torch.randn(48, 3, generator=torch.Generator().manual_seed(3))
Y = NOISE @ torch.tensor([1.0, -2.0, 0.5])


def build(rows, seed, draws, *, scale=1.0):
    network = nn.Linear(3, 1)

    def step(batch, number):
        x = NOISE[rows[batch]] + 0.01 * torch.randn(len(batch), 3, generator=draws)
        return scale * (network(x)[:, 0] - Y[rows[batch]]).square().mean()

    return network, step


def untrained(rows, seed, draws):
    return nn.Linear(3, 1), None


def read(network, rows, held):
    with torch.no_grad():
        error = (network(NOISE[held])[:, 0] - Y[held]).abs().mean()
    return {"error": error, "rows": len(rows)}


@pytest.fixture
def run(toybook, monkeypatch):
    monkeypatch.setenv("NEARFAR_RESULTS", str(toybook / "results"))
    made = nearfar.start("toy", "smoke", 4, "cpu")
    made.datasets["toy"] = "one"
    return made


def frame(run, **more):
    subsets = {16: torch.arange(16), 32: torch.arange(32)}
    options = {"test": torch.arange(40, 48), "validation": torch.arange(32, 40), "steps": 6, "batch": 8, "lr": 0.05}
    return study.Study(run, subsets, read, lower_is_better=["error"], **options | more)


def test_a_grid_records_and_keeps(run):
    made = frame(run)
    table = made.grid({"a": {"build": build}, "fast": {"build": build, "lr": 0.2}, "none": {"build": untrained}})
    assert len(table) == 2 * 2 * 3 and set(made.networks) == {(m, n) for m in ("a", "fast", "none") for n in (16, 32)}
    errors = table[table["metric"] == "error"]
    assert not errors["higher_is_better"].any() and table[table["metric"] == "rows"]["higher_is_better"].all()
    assert len(made.histories["a", 16]["loss"]) == 6 and made.histories["none", 16] == {}
    assert errors.set_index(["method", "size"])["value"]["fast", 32] < errors["value"].max()
    made.grid({"long": {"build": build, "steps": 11, "scale": 2.0}}, sizes=[32])
    assert len(made.histories["long", 32]["loss"]) == 11 and ("long", 16) not in made.networks


def test_variants_start_alike_and_see_the_same_batches(run):
    made = frame(run)
    made.grid({"a": {"build": build}, "b": {"build": build, "scale": 1.0}})
    assert torch.equal(made.networks["a", 32].weight, made.networks["b", 32].weight)
    draws = run.generator(10)
    torch.manual_seed(4)
    network = nn.Linear(3, 1)

    def step(batch, number):
        x = NOISE[batch] + 0.01 * torch.randn(len(batch), 3, generator=draws)
        return (network(x)[:, 0] - Y[batch]).square().mean()

    train.fit(step, network, batches=train.index_batches(32, 8, 6, run.generator(5)), lr=0.05, generator=draws)
    assert torch.equal(network.weight, made.networks["a", 32].weight)


def test_twice_the_steps(run):
    made = frame(run)
    made.grid({"a": {"build": build}}, sizes=[32])
    gain = made.doubled("a", {"build": build}, 32, "error")
    score = made.run.table().query("metric == 'error'").set_index("method")["value"]
    assert gain == pytest.approx(score["a"] - score["a, twice the steps"]) and gain > 0
    assert len(made.histories["a, twice the steps", 32]["loss"]) == 12


def test_a_search_is_made_once_on_the_validation_set(run, toybook):
    seen = []

    def spy(network, rows, held):
        seen.append(held.tolist())
        return read(network, rows, held)

    made = frame(run)
    made.read = spy
    variants, choices = {"a": {"build": build}}, {"a": {"lr": [1e-4, 0.1], "scale": [1.0, 2.0]}}
    tuned = made.tune(variants, choices, size=32, by="error")
    assert len(seen) == 4 and all(held == list(range(32, 40)) for held in seen)
    table = made.tuning_table()
    assert len(table) == 4 and (table["chosen"] == "←").sum() == 1
    best = table.loc[table["validation"].idxmax()]
    assert tuned["a"] == {"build": build, "lr": best["lr"], "scale": best["scale"]} and best["chosen"] == "←"
    assert tuned["a"]["lr"] == 0.1 and run.tuning == {"a": {"lr": 0.1, "scale": best["scale"]}}
    path = toybook / "results/smoke/toy/tuning.json"
    assert len(json.loads(path.read_text())["a"]["tried"]) == 4
    again = frame(nearfar.start("toy", "smoke", 5, "cpu"))
    again.read, again.run.datasets = spy, {"toy": "other rows, the same name"}
    assert again.tune(variants, choices, size=32, by="error") == tuned and len(seen) == 4
    assert again.run.tuning == run.tuning
    again.tune(variants, {"a": {"lr": [0.1]}}, size=32, by=lambda scores: -scores["error"])
    assert len(seen) == 5, "another question is a new search"


def test_what_a_search_is_about_counts_and_a_diverging_setting_loses(run):
    def explodes(rows, seed, draws, *, scale):
        network, step = build(rows, seed, draws)
        return network, lambda batch, number: step(batch, number) * (math.inf if scale > 1 else 1)

    made = frame(run)
    variants, choices = {"a": {"build": explodes}}, {"a": {"scale": [2.0, 1.0]}}
    assert made.tune(variants, choices, size=16, by="error", about={"width": 3})["a"]["scale"] == 1.0
    assert (made.tuning_table()["validation"] == "").tolist() == [True, False]
    made.read = lambda *_: pytest.fail("this search stands in its file")
    made.run._trainings.clear()
    made.tune(variants, choices, size=16, by="error", about={"width": 3})
    with pytest.raises(pytest.fail.Exception):
        made.tune(variants, choices, size=16, by="error", about={"width": 4})


def test_a_search_does_not_depend_on_the_seed_of_the_run(run, toybook):
    first = frame(run)
    first.tune({"a": {"build": build}}, {"a": {"lr": [0.01, 0.1]}}, size=16, by="error")
    path = toybook / "results/smoke/toy/tuning.json"
    before = path.read_text()
    path.unlink()
    second = frame(nearfar.start("toy", "smoke", 7, "cpu"))
    second.run.datasets["toy"] = "one"
    second.tune({"a": {"build": build}}, {"a": {"lr": [0.01, 0.1]}}, size=16, by="error")
    assert path.read_text() == before


def test_what_cannot_be_done_is_said(run, toybook):
    made = frame(run, validation=None)
    with pytest.raises(ValueError, match="validation"):
        made.tune({"a": {"build": build}}, {"a": {"lr": [1.0]}}, size=16, by="error")
    with pytest.raises(ValueError, match="no training set of 17 rows; there are 16, 32"):
        made.grid({"a": {"build": build}}, sizes=[17])
    with pytest.raises(ValueError, match="must name the same"):
        frame(run).tune({"a": {"build": build}}, {"b": {"lr": [1.0]}}, size=16, by="error")
    path = toybook / "results/smoke/toy/tuning.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(NearFarError, match="tuning.json is no readable table"):
        frame(run).tune({"a": {"build": build}}, {"a": {"lr": [1.0]}}, size=16, by="error")


def rows(values, metric="accuracy", better=True):
    return pandas.DataFrame(
        {"metric": metric, "method": m, "size": n, "seed": s, "value": v, "higher_is_better": better}
        for (m, n, s), v in values.items()
    )


def test_gains_are_paired_over_seeds():
    table = rows(
        {("a", n, s): n + s for n in (10, 20) for s in (0, 1)} | {("b", n, s): 2 * s for n in (10, 20) for s in (0, 1)}
    )
    found = study.gains(table, "accuracy", "a", "b")
    assert found.loc[0, 10] == 10 and found.loc[1, 20] == 19
    assert study.gains(table.assign(higher_is_better=False), "accuracy", "a", "b").loc[1, 20] == -19
    relative = study.gains(
        rows({("a", 5, 0): 2.0, ("b", 5, 0): 4.0}, better=False), "accuracy", "a", "b", relative=True
    )
    assert relative.loc[0, 5] == pytest.approx(math.log(2))
    with pytest.raises(ValueError, match="table has no 'accuracy' of 'c'"):
        study.gains(table, "accuracy", "a", "c")
    with pytest.raises(ValueError, match="not recorded for the same seeds"):
        study.gains(table[~((table["method"] == "a") & (table["seed"] == 1))], "accuracy", "a", "b")
