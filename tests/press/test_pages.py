"""Pages that are made from the records: cards, ledger, what a chapter costs."""

import base64
import html
import io
import json
import math

import pytest
from PIL import Image
from toybook import edit

from nearfar.chapters import papers
from nearfar.errors import NearFarError
from nearfar.press import ledger, overviews, pages
from nearfar.runs import verdicts
from nearfar.runs.multiplier import Multiplier


def record(tier="smoke", seed=0, seconds=20.0, verdict="held", **changes):
    rows = [
        {"metric": "accuracy", "method": method, "size": size, "value": value, "higher_is_better": True}
        for method, size, value in (("ours", 10, 0.5), ("ours", 20, 0.7), ("theirs", 10, 0.3), ("theirs", 20, 0.6))
    ]
    headline = {"metric": "accuracy", "method": "ours", "baseline": "theirs"}
    claims = [{"id": "C1", "text": "ours wins | often", "verdict": verdict, "evidence": "by a margin"}]
    return {
        "schema": 1, "slug": "toy", "tier": tier, "seed": seed, "device": "cpu", "dataset": {}, "budget": {},
        "started": "", "seconds": seconds, "peak_memory": {}, "versions": {}, "commit": "", "fingerprint": "",
        "headline": headline, "measurements": rows, "claims": claims, **changes,
    }  # fmt: skip


VOTES = ("held", "held", "failed")


def executed(*outputs, tags=("key-figure",)):
    cell = {"cell_type": "code", "metadata": {"tags": list(tags)}, "source": "x\ny", "outputs": list(outputs)}
    return {"cells": [{"cell_type": "markdown", "metadata": {}, "source": "word " * 800}, cell]}


def png(width, height):
    stream = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(stream, "png")
    return {"output_type": "display_data", "data": {"image/png": base64.b64encode(stream.getvalue()).decode()}}


def test_a_card_says_what_is_recorded(toybook):
    more = "# Toy\\n\\n**In one sentence.** Twice\\n is more.\\n\\nNo"  # as in a notebook's JSON
    edit(toybook / "notebooks/contrastive/toy.ipynb", "# Toy", more)
    records = [record(), *(record("small", seed, 360.0, verdict) for seed, verdict in enumerate(VOTES))]
    text = html.unescape(pages.card(papers.get("toy"), records, "../"))
    assert "Doe and Roe, 2024" in text and "\nTwice is more.\n" in text
    assert "small tier, 3 seeds. A run: smoke 20 s, small 6 min." in text and "× [" in text
    assert 'Claims: 1 <span class="nf-verdict nf-mixed">mixed</span>\n' in text
    assert ":class-item: nf-card nf-part-contrastive" in text and ":img-top:" not in text
    shown = pages.gallery(records, "../", None, {"toy": ""}, {"toy": ("clustering", "hard negatives")})
    assert ":img-top: ../book/_generated/thumbnail-toy.png" in shown and "No picture" not in shown
    assert "nf-topic-clustering nf-topic-hard-negatives" in shown and "clustering · hard negatives" in shown


def test_a_card_without_records_says_so(toybook):
    text = pages.card(papers.get("toy"), [], "../")
    assert "No recorded run yet." in text and "data" not in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"headline": None}, "the records name no comparison (`run.headline`)"),
        ({"measurements": []}, "no 'accuracy' of 'ours'"),
        ({"headline": {"metric": "accuracy", "method": "ours", "baseline": "gone"}}, "no 'accuracy' of 'gone'"),
    ],
)
def test_records_without_a_curve_say_why(toybook, changes, said):
    broken = record(**changes)
    lines = html.unescape(pages.card(papers.get("toy"), [broken], "")).splitlines()
    assert any(line.startswith("No data multiplier: ") and said in line for line in lines)
    page = html.unescape(ledger.results_page([broken], []))
    (line,) = (line for line in page.splitlines() if said in line)
    assert line.startswith("<tr") and "A Toy</a>" in line and ">smoke, seed 0" in line and "nf-whisker" not in line
    overview = html.unescape(overviews.overview([broken]))
    (line,) = (line for line in overview.splitlines() if said in line)
    assert line.startswith("**Not on the axis**, because ") and "[A Toy](" in line and "<svg" not in overview


def test_a_chapter_without_records_is_named_on_the_results_page(toybook):
    edit(toybook / "_toc.yml", "contrastive/toy\n", "contrastive/toy\n          - file: notebooks/contrastive/new\n")
    (toybook / "notebooks/contrastive/new.ipynb").write_text('{"cells": []}')
    edit(toybook / "book/references.bib", "@misc{toy", "@misc{new, title = {New}, year = {2024}}\n@misc{toy")
    page = ledger.results_page([record()], [])
    (line,) = (line for line in page.splitlines() if "No recorded run yet" in line)
    assert '<a href="../notebooks/contrastive/new.html">New</a>' in line
    overview = overviews.overview([record()])
    assert "because no run is recorded yet: [New](../notebooks/contrastive/new.ipynb)." in overview


def test_without_any_record_pages_say_so(toybook):
    assert "No runs are recorded yet." in ledger.results_page([], [])
    assert "No runs are recorded yet" in overviews.overview([])


def test_seeds_that_disagree_show_the_evidence_of_each_verdict(toybook):
    told = zip((1, 2, 0), VOTES, ("better by 2", "better by 3", "worse by 1"), strict=True)
    records = [
        record("small", seed, claims=[{"id": "C1", "text": "ours wins", "verdict": verdict, "evidence": evidence}])
        for seed, verdict, evidence in told
    ]
    page = ledger.results_page(records, [])
    assert 'nf-mixed">mixed</span>: held in 2 of 3 seeds |' in page and '"nf-verdict nf-held"' not in page
    assert "| *held, seed 1:* better by 2<br>*failed, seed 0:* worse by 1 |" in page


@pytest.mark.parametrize(
    ("differences", "verdict", "numbers"),
    [
        ((2.0, 2.3, 2.6), "held", ": mean difference +2.3 (margin 0.5), p 0.0046, 3 seeds"),
        ((3.0, -1.0, 2.0), "undecided", ": mean difference +1.3 (margin 0.5), p 0.28, 3 seeds"),
        ((2.0,), "not tested", ": 1 seed of 3"),
    ],
)
def test_pages_show_the_verdict_over_seeds_with_its_numbers(toybook, differences, verdict, numbers):
    claims = [
        {"id": "C1", "text": "ours wins", "evidence": "numbers", "kind": "superiority", "difference": difference,
         "margin": 0.5, "verdict": "held" if difference > 0.5 else "failed"}
        for difference in differences
    ]  # fmt: skip
    records = [record("small", seed, claims=[claim]) for seed, claim in enumerate(claims)]
    shown = f'<span class="nf-verdict nf-{verdict.replace(" ", "-")}">{verdict}</span>'
    assert f"| {shown}{numbers} |" in ledger.results_page(records, [])
    assert f"Claims: 1 {shown}\n" in pages.card(papers.get("toy"), records, "")


def test_every_verdict_has_a_badge_that_is_told_apart_without_colour():
    css = (papers.root() / "book/_static/nearfar.css").read_text()
    assert all(f".nf-{verdict.replace(' ', '-')}" in css for verdict in verdicts.VERDICTS)
    for verdict, line in (("mixed", "dashed"), ("undecided", "dotted")):
        (rule,) = (rule for rule in css.splitlines() if rule.startswith(f".nf-verdict.nf-{verdict} {{"))
        assert f"border: 1px {line}" in rule


def flat(seed):
    """A record whose baseline does not rise."""
    rows = [{**row, "value": 0.3 if row["method"] == "theirs" else row["value"]} for row in record()["measurements"]]
    return record(seed=seed, measurements=rows)


def test_an_undefined_multiplier_says_why(toybook):
    records = [flat(seed) for seed in range(3)]
    card = html.unescape(pages.card(papers.get("toy"), records, ""))
    assert "\nData multiplier undefined: the baseline's curve is flat" in card and "undefined** data" not in card
    assert ">undefined; the baseline's curve is flat" in html.unescape(ledger.results_page(records, []))
    overview = html.unescape(overviews.overview(records))
    assert "**Not on the axis**, because the baseline's curve is flat" in overview and "[A Toy](" in overview
    assert "<svg" not in overview


def test_a_claim_without_evidence_and_a_record_without_claims_say_so(toybook):
    silent = [{"id": "C1", "text": "ours wins", "verdict": "held", "evidence": " "}]
    assert "| no evidence recorded |" in ledger.results_page([record(claims=silent)], [])
    page = ledger.results_page([record(claims=[])], [])
    assert "### A Toy\n\nNo claims are recorded." in page
    assert "Claims: none recorded" in pages.card(papers.get("toy"), [record(claims=[])], "")


def test_the_ledger_can_be_filtered_and_downloaded(toybook):
    text = ledger.results_page([record(), record("small", verdict="failed")], [])
    assert '<span class="nf-tier-small">small</span>' in text and "ours wins &#124; often" in text
    assert 'data-class="nf-failed"' in text and 'data-class="nf-tier-small"' in text
    assert all(f"{name}.csv" in text for name in ("measurements", "claims", "reported"))


@pytest.mark.parametrize(("size", "small"), [((1280, 960), (426, 320)), ((100, 50), (100, 50))])
def test_the_thumbnail_is_the_key_figure(tmp_path, size, small):
    path = tmp_path / "thumbnail.png"
    pages.thumbnail(pages.key_figure(executed({"output_type": "stream", "text": "hi"}, png(*size))), path)
    assert abs(Image.open(path).width - small[0]) <= 1 and Image.open(path).height == small[1]


@pytest.mark.parametrize(
    ("notebook", "lacking"),
    [
        (executed(), "the cell tagged `key-figure` shows no picture"),
        (executed(png(9, 9), tags=("hide-input",)), "no cell is tagged `key-figure`"),
        ({"cells": []}, "no cell is tagged `key-figure`"),
    ],
)
def test_a_card_says_why_it_has_no_picture(toybook, notebook, lacking):
    with pytest.raises(NearFarError) as told:
        pages.key_figure(notebook)
    text = pages.card(papers.get("toy"), [], "../", {"toy": str(told.value)})
    assert f"\nNo picture: {lacking}.\n" in text and ":img-top:" not in text


def test_reading_time_counts_words_and_lines():
    assert pages.reading_minutes(executed()) == 5
    assert pages.reading_minutes({"cells": executed()["cells"] * 2}) == 10
    assert pages.reading_minutes(json.loads('{"cells": []}')) == 0


def test_recorded_verdicts_stand_by_tier():
    small = [record("small", seed) for seed in range(3)]
    smoke = [record("smoke", seed, verdict="not tested") for seed in range(3)]
    header, _, row = [line for line in pages.recorded_verdicts([*small, *smoke]).splitlines() if line.startswith("|")]
    assert header == "| claim | small |" and "nf-held" in row and row.startswith("| C1 |")
    assert pages.recorded_verdicts(smoke) == pages.recorded_verdicts([]) == ""


def test_a_chapter_stands_in_the_overview_with_what_was_measured(toybook):
    records = [record("small", seed, measurements=spread(seed)) for seed in range(3)] + [record()]
    ((dot,), without) = overviews.sorted_out(records)
    assert (dot.name, dot.part, dot.link, dot.sure) == (
        "A Toy",
        "contrastive",
        "../notebooks/contrastive/toy.html",
        True,
    )
    assert not without and dot.multiplier == pages.multiplier(records[:3])[0][1]
    title, number, claims, runs = dot.told.splitlines()
    assert title == "A Toy" and number == f"{dot.multiplier} data: {pages.reading(dot.multiplier)}"
    assert (claims, runs) == ("Claims: 1 held", "small tier, 3 seeds")
    text = overviews.overview(records)
    assert text.count("<a href=") == 1 and "Not on the axis" not in text and "nf-hollow" not in text
    assert "nf-hollow" in overviews.overview([record()]), "the smoke tier alone"


def spread(seed):
    """Measurements that differ a little from seed to seed."""
    return [{**row, "value": row["value"] + seed * row["size"] / 1e3} for row in record()["measurements"]]


NAN = math.nan


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ((2, 1.2, 3, "exact"), "the method needs less data than its baseline"),
        ((0.5, 0.3, 0.9, "exact"), "the method needs more data than its baseline"),
        ((2, 0.9, 3, "exact"), "no difference shown"),
        ((2, 0.0, math.inf, "exact"), "no difference shown"),
        ((2, NAN, NAN, "exact"), "one seed, so chance is not ruled out"),
        ((64, NAN, NAN, "above"), "the method needs far less data than its baseline"),
        ((1 / 64, NAN, NAN, "below"), "the method needs far more data than its baseline"),
        ((NAN, NAN, NAN, "undefined"), "it cannot be told"),
    ],
)
def test_a_multiplier_is_read_in_words(fields, said):
    assert pages.reading(Multiplier(*fields, 1 / 64, 64)) == said


def test_the_gallery_is_searched_and_filtered(toybook):
    edit(toybook / "_toc.yml", "contrastive/toy\n", "contrastive/toy\n          - file: notebooks/shift/new\n")
    (toybook / "notebooks/shift").mkdir()
    (toybook / "notebooks/shift/new.ipynb").write_text('{"cells": []}')
    edit(toybook / "book/references.bib", "@misc{toy", "@misc{new, title = {New}, year = {2024}}\n@misc{toy")
    records = [record("small", seed) for seed in range(3)] + [record(slug="new")]
    text = pages.gallery(records, "../", None, {}, {"toy": ("clustering",), "new": ("shortcuts",)})
    assert '<input type="search"' in text and text.count("<select>") == 3
    for value in ("nf-part-contrastive", "nf-part-shift", "nf-topic-clustering", "nf-held", "nf-not-tested"):
        assert f'<option value="{value}">' in text
    assert '<option value="nf-failed">' not in text, "no chapter has such a claim"
    assert "nf-filter" not in pages.gallery(records, "../", "shift")
