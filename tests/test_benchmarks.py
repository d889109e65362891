"""Benchmarks: what is measured is measured the right way round.  No time gates anything here."""

import contextlib
import importlib.util
import io
import json

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pytest
import torch
from torchvision.transforms.functional import to_pil_image

from benchmarks import __main__ as command
from benchmarks import contrast, epoch, measure, record, scores, site, views
from nearfar.chapters import notebooks, papers
from nearfar.data import scenes

PAGE = papers.root() / "book" / "benchmarks.ipynb"


def needs(*packages):
    lacking = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(lacking), reason=f"{', '.join(lacking)} not installed (make bench)")


linux = pytest.mark.skipif(not measure._PEAK.exists(), reason="memory is read from Linux's /proc")


def toy_row(work="work", ours=2.0, theirs=6.0, unit="s", goal=2.0, **more):
    return record.row(work, "peer", [ours], [theirs], unit, goal, "1", **more)


def toy_results():
    growth = [
        record.point(work, who, x_name, x, [x / 10], unit)
        for work, whos, x_name, units in (
            ("two SimCLR views", ("ours", "lightly", "kornia"), "side of the image (pixels)", ("images/s",)),
            ("NT-Xent and its gradient", ("ours", "lightly"), "batch (pairs)", ("s", "MB")),
            ("kNN of 10 queries", ("ours", "scikit-learn"), "training rows", ("s",)),
            ("linear probe", ("ours", "scikit-learn"), "training rows", ("s",)),
        )
        for who in whos
        for unit in units
        for x in (32, 64)
    ]
    rows = [toy_row("quick | work <1>"), toy_row("slow work", goal=4.0, note="known why")]
    return {"machine": measure.machine(), "date": "2030-01-02", "rows": rows, "growth": growth}


# ---------------------------------------------------------------------------------------------- measuring
def test_sides_take_turns_and_the_first_calls_do_not_count():
    calls = []
    seconds = measure.interleaved({name: lambda name=name: calls.append(name) for name in "ab"}, repeats=3)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert [len(values) for values in seconds.values()] == [3, 3]


@pytest.mark.parametrize(("unit", "ratio"), [("s", 3.0), ("MB", 3.0), ("images/s", 1 / 3)])
def test_more_than_one_is_in_our_favour(unit, ratio):
    entry = toy_row(unit=unit)
    assert entry["ratio"] == pytest.approx(ratio)
    assert record.met(entry) is (ratio > 2)


def test_medians_count_and_the_larger_spread_is_kept():
    entry = record.row("work", "peer", [1.0, 9.0, 2.0], [4.0, 6.0, 5.0], "s", 2, "1")
    assert (entry["ours"], entry["theirs"], entry["ratio"], entry["repeats"]) == (2.0, 5.0, 2.5, 3)
    assert entry["spread"] == pytest.approx((9 - 1) / 2)
    assert measure.rates(10, [2.0, 5.0]) == [5.0, 2.0]


def test_threads_are_limited_and_given_back():
    before = torch.get_num_threads()
    with measure.threads(2):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == before


@linux
def test_memory_of_a_fresh_process_is_that_of_the_call():
    found = measure.fresh("contrast", "ours", 256, repeats=2)
    assert len(found["seconds"]) == 2 and 0 <= found["megabytes"] < 300
    assert found["value"] == pytest.approx(float(contrast.prepare("ours", 256)()), rel=1e-5)


@linux
def test_a_fresh_process_that_fails_says_why():
    with pytest.raises(RuntimeError, match=r"contrast \('ours', 0\) in a fresh process: .*Error"):
        measure.fresh("contrast", "ours", 0)


# ---------------------------------------------------------------------------------------------- the file
def test_rows_are_merged_one_by_one_and_another_machine_starts_afresh(tmp_path):
    path = tmp_path / "results.json"
    here = {"cpu": "this"}
    for entry in (toy_row("a"), toy_row("b"), toy_row("a", ours=3.0)):
        record.add(entry, here, path)
    kept = record.read(path)["rows"]
    assert [(row["work"], row["ours"]) for row in kept] == [("a", 3.0), ("b", 2.0)]
    record.keep_only([toy_row("b")], path)
    assert [row["work"] for row in record.read(path)["rows"]] == ["b"]
    record.add(toy_row("c"), {"cpu": "another"}, path)
    assert [row["work"] for row in record.read(path)["rows"]] == ["c"]
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


def test_a_broken_results_file_is_told_from_a_proper_one():
    assert record.problems(toy_results()) == []
    broken = toy_results()
    broken["rows"].append({**toy_row("quick | work <1>"), "ratio": float("nan")})
    broken["growth"][0].pop("value")
    del broken["date"]
    assert record.problems(broken) == [
        "no 'date'",
        "rows[2]: 'ratio' is nan",
        "rows: ('quick | work <1>', 'peer', 's', '1') is there twice",
        "growth[0]: no proper 'value'",
    ]


@pytest.mark.skipif(not record.RESULTS.is_file(), reason="nothing recorded yet (make bench)")
def test_the_recorded_results_are_proper():
    results = record.read()
    assert record.problems(results) == []
    assert results["rows"] and set(measure.machine()) == set(results["machine"])
    for row in results["rows"]:
        lower = record.LOWER_IS_BETTER[row["unit"]]
        assert row["ratio"] == pytest.approx(row["theirs"] / row["ours"] if lower else row["ours"] / row["theirs"])


# ---------------------------------------------------------------------------------------------- the command
def test_a_quick_run_keeps_its_rows(tmp_path, capsys):
    path = tmp_path / "results.json"
    assert command.main(["--quick", "--only", "scores", "--output", str(path)]) == 0
    results = record.read(path)
    assert record.problems(results) == []
    assert len(results["rows"]) == 2 and len(results["growth"]) == 8
    assert "kNN (k = 20) of 200 in 600 × 512" in capsys.readouterr().out


def test_a_missing_peer_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: None if name == "kornia" else True)
    assert command.main(["--only", "views"]) == 1
    assert capsys.readouterr().err == "kornia not installed; `make bench` installs what is compared.\n"


def test_a_family_that_stops_leaves_the_others(monkeypatch, tmp_path, capsys):
    def stops(budget):
        yield toy_row("before it stops")
        raise RuntimeError("not the same work: 1 and 2")

    monkeypatch.setattr(scores, "measure_all", stops)
    monkeypatch.setattr(site, "measure_all", lambda budget: iter([toy_row("after")]))
    path = tmp_path / "results.json"
    assert command.main(["--quick", "--only", "scores", "book", "--output", str(path)]) == 1
    assert [row["work"] for row in record.read(path)["rows"]] == ["before it stops", "after"]
    assert "scores stopped: not the same work: 1 and 2" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- the same work
def test_different_work_is_refused():
    images = scenes.draw(16, size=32, seed=0).inputs
    runs = {"ours": views.ours(images, 8), "peer": lambda look: look([torch.full((16, 3, 32, 32), 0.5)] * 2)}
    with pytest.raises(RuntimeError, match="not the same work: deviation of peer's 32-pixel views"):
        views.compare(runs, 16, 32, tolerance=0.2)
    with pytest.raises(RuntimeError, match="pages that only one site has: a.html"):
        site.compare({"a.html": 1}, {})
    with pytest.raises(RuntimeError, match="a.html: 1 and 2 images"):
        site.compare({"a.html": 1}, {"a.html": 2})
    assert site.compare({"a.html": 3}, {"a.html": 3}) == "1 pages, 3 images"


@needs("lightly", "kornia")
def test_views_of_all_sides_are_alike():
    images = scenes.draw(64, size=32, seed=0).inputs
    torch.manual_seed(0)  # kornia draws from the global state
    runs = {name: views.SIDES[name](images, 16) for name in ("ours", "kornia")}
    assert views.compare(runs, 64, 32, tolerance=0.3).startswith("shapes, range")
    pair = views.simclr_lightly(32)(to_pil_image(images[0]))
    assert [tuple(view.shape) for view in pair] == [(3, 32, 32)] * 2


@needs("lightly")
def test_both_losses_and_gradients_are_the_same():
    assert contrast.compare(96).startswith("loss within")


@needs("lightly")
def test_both_epochs_take_the_same_steps(monkeypatch):
    monkeypatch.setattr(views, "WORKERS", 1)
    images = scenes.draw(16, size=32, seed=0).inputs
    assert [len(make(images, 8)()) for make in (epoch.ours, epoch.lightly)] == [2, 2]


def test_scores_of_both_sides_agree():
    train_z, train_y = scores.features(400, seed=2)
    test_z, test_y = scores.features(100, seed=3)
    assert train_z.shape == (400, scores.DIMENSION) and train_z.dtype == torch.float32
    sides = (scores.knn_ours, scores.knn_theirs)
    assert scores.agreement(*(side(train_z, train_y, test_z)() for side in sides)) == 1
    sides = (scores.probe_ours, scores.probe_theirs)
    assert scores.agreement(*(side(train_z, train_y, test_z, test_y)() for side in sides)) > 0.95


# ---------------------------------------------------------------------------------------------- the page
def drawn(folder, monkeypatch, results):
    """What the page's cells put out with these results, or without any: HTML, and titles of its figures' panels."""
    (folder / "benchmarks").mkdir()
    (folder / "_toc.yml").write_text("root: book/index\n")
    if results:
        (folder / "benchmarks" / "results.json").write_text(json.dumps(results), encoding="utf-8")
    monkeypatch.setenv("NEARFAR_ROOT", str(folder))
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda thing: shown.append(thing.data))
    namespace: dict = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for number, source, _ in notebooks.code_cells(PAGE):
            exec(compile(source, f"cell {number}", "exec"), namespace)
    titles = [ax.get_title(loc="left") for n in plt.get_fignums() for ax in plt.figure(n).axes]
    plt.close("all")
    return "\n".join(shown), titles


def test_the_page_shows_results_that_meet_their_goal_and_those_that_do_not(tmp_path, monkeypatch):
    text, titles = drawn(tmp_path, monkeypatch, toy_results())
    assert "quick | work &lt;1&gt;" in text and "<1>" not in text
    assert text.count(">met<") == 1 and text.count(">not met<") == 1 and "3.0×" in text and "known why" in text
    assert "Measured on 2030-01-02" in text
    assert titles == ["", "Two views of each image", "Time", "Memory", "kNN", "Linear probe"]


def test_the_page_says_what_to_do_when_nothing_is_recorded(tmp_path, monkeypatch):
    text, titles = drawn(tmp_path, monkeypatch, None)
    assert "make bench" in text and titles == []


def test_the_page_has_alt_text_and_captions():
    cells = json.loads(PAGE.read_text(encoding="utf-8"))["cells"]
    figures = [cell["metadata"]["mystnb"] for cell in cells if "plt.subplots" in "".join(cell["source"])]
    assert len(figures) == 4
    assert all(figure["image"]["alt"] and figure["figure"]["caption"] for figure in figures)
