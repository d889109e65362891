"""The table and figures of a part's methods, and the notebooks that carry a part's name."""

import json
import math
import shutil

import matplotlib.pyplot as plt
import pytest
from toybook import edit

from nearfar.chapters import papers
from nearfar.errors import NearFarError
from nearfar.press import comparison, ledger, staging
from nearfar.press.pages import cell
from nearfar.runs import results

SIZES = (100, 400)
MEANS = {"SimCLR": (0.50, 0.60), "toy": (0.55, 0.65), "hydra (labels)": (0.70, 0.80), "untrained": (0.30, 0.31)}


def measurements(seed: int):
    for name, means in MEANS.items():
        for size, mean in zip(SIZES, means, strict=True):
            for metric, less in (("linear accuracy", 0.0), ("kNN accuracy", 0.05)):
                yield {
                    "metric": metric,
                    "value": mean - less + seed / 100,
                    "method": name,
                    "size": size,
                    "higher_is_better": True,
                }


def records(seeds=(0, 1, 2), stale=False):
    common = {"slug": "contrastive", "tier": "small", "device": "cpu", "stale": stale}
    return [{**common, "seed": seed, "measurements": list(measurements(seed))} for seed in seeds]


@pytest.fixture
def compared(toybook):
    """The toy book with a comparison of its part."""
    shutil.copy(papers.notebook("toy"), toybook / "notebooks/contrastive/contrastive.ipynb")
    edit(
        toybook / "_toc.yml", "contrastive/toy", "contrastive/toy\n          - file: notebooks/contrastive/contrastive"
    )
    return toybook


def test_a_comparison_is_run_like_a_chapter_and_is_none(compared):
    assert papers.slugs() == {"toy": "contrastive", "contrastive": "contrastive"}
    assert [paper.slug for paper in papers.all_papers()] == ["toy"]
    (mine,) = papers.comparisons()
    assert mine == papers.get("contrastive") and mine.title == "Learning without labels: the methods compared"
    assert mine.notebook == compared / "notebooks/contrastive/contrastive.ipynb"


def test_the_table_is_sorted_linked_and_says_what_it_is(compared):
    text = comparison.page(records(), "contrastive", "../../").replace(comparison.GAP, " ")
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    names = [row.split(" | ")[0][2:] for row in rows]
    assert names == ["hydra (labels)", "[A Toy](../../notebooks/contrastive/toy.ipynb)", "SimCLR", "untrained"]
    assert "| 56.0 ± 1.0 | 66.0 ± 1.0 | 61.0 |" in rows[1], "means and deviations of seeds 0, 1, 2; kNN at the largest"
    assert rows[2].endswith("| the baseline |") and "3 seeds" in text and "small tier" in text
    table = results.measurements_of(records())
    multiplier = results.data_multiplier(table, "toy", "SimCLR", "linear accuracy")
    assert rows[1].endswith(f"| {cell(str(multiplier))} |") and multiplier.kind == "exact"
    assert "older" not in text
    text = json.dumps(records()).replace('"toy"', '"toy (labels)"')
    labelled = comparison.page(json.loads(text), "contrastive", "")
    assert "| [A Toy](notebooks/contrastive/toy.ipynb) (labels) |" in labelled
    assert "older than the code" in comparison.page(records(stale=True), "contrastive", "../../")


def test_one_seed_has_no_deviation_and_no_record_one_line(compared):
    assert "±" not in comparison.page(records(seeds=[0]), "contrastive", "").split("\n\n")[0]
    nothing = comparison.page(comparison.of_part(records(), "imbalance"), "contrastive", "")
    assert "nearfar sweep --papers contrastive --tiers small" in nothing


def test_dots_show_every_mean_at_its_place(compared):
    table = results.measurements_of(records())
    ax = comparison.dots(table)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["untrained", "SimCLR", "A Toy", "hydra (labels)"]
    drawn = [collection.get_offsets().tolist() for collection in ax.collections if len(collection.get_offsets()) == 2]
    rows = ("untrained", "SimCLR", "toy", "hydra (labels)")
    wanted = [[100 * (mean + 0.01), y] for y, name in enumerate(rows) for mean in MEANS[name]]
    assert [value for point in sum(drawn, []) for value in point] == pytest.approx(sum(wanted, []))
    plt.close("all")
    ax = comparison.dots(results.measurements_of(records(seeds=[0])))
    assert not math.isnan(ax.get_xlim()[0])
    plt.close("all")


def test_the_results_page_sends_to_the_parts_page(compared):
    text = ledger.results_page([{**record, "claims": []} for record in records()], [])
    assert (
        "Learning without labels, all methods on one protocol: see [its part's page](parts/contrastive.md)" in text
        and "run.headline" not in text
    )


def test_rows_keep_their_order_in_every_metric(compared):
    table = results.measurements_of(records())
    better = (table["metric"] == "kNN accuracy") & (table["method"] == "untrained")
    table.loc[better, "value"] = 0.99
    ax = comparison.dots(table, "kNN accuracy")
    assert [label.get_text() for label in ax.get_yticklabels()][0] == "untrained"
    plt.close("all")


def test_recorded_runs_are_drawn_or_missed_in_words(compared, monkeypatch):
    assert "have not been compared yet" in comparison.recorded("contrastive")
    monkeypatch.setattr(results, "read_all", lambda slug: (records(stale=True), []))
    assert comparison.recorded("contrastive") == "small tier, 3 seeds; the records are older than the code"
    assert plt.get_fignums()
    plt.close("all")
    monkeypatch.setattr(results, "read_all", lambda slug: ([], ["seed-0.json is no record"]))
    with pytest.raises(NearFarError, match="seed-0.json is no record"):
        comparison.recorded("contrastive")


def test_it_is_staged_beside_the_chapters(compared):
    site = compared / "_build/site"
    staging.stage("smoke", site)
    cells = json.loads((site / "notebooks/contrastive/contrastive.ipynb").read_text())["cells"]
    assert "This chapter has not been run" in "".join(map(str, cells))
    assert "have not been compared yet" in (site / "book/_generated/comparison-contrastive.md").read_text()


def test_its_drawing_is_made_anew_when_the_records_changed(compared, tmp_path):
    path = tmp_path / "book/_generated/comparison-contrastive.png"

    def drawn(**changes):
        assert staging._comparison(records(**changes), "contrastive", tmp_path, lambda *_: None) >= {path}
        return path.stat().st_mtime_ns

    path.parent.mkdir(parents=True)
    first = drawn()
    assert drawn() == first
    changed = drawn(seeds=(0, 1))
    assert changed > first
    path.unlink()
    assert drawn(seeds=(0, 1)) > changed
    assert staging._comparison([], "contrastive", tmp_path, lambda *_: None) == set()
