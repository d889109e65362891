"""Pages that are made from the records: cards, ledger, what a chapter costs."""

import base64
import io
import json

import pytest
from PIL import Image
from toybook import edit

from nearfar import pages, papers


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
    records = [record(), record("small", 0, 300.0), record("small", 1, 420.0)]
    text = pages.card(papers.get("toy"), records, "../")
    assert "Doe and Roe, 2024" in text and "\nTwice is more.\n" in text
    assert "small tier, 2 seeds. A run: smoke 20 s, small 6 min." in text and "× [" in text
    assert ":class-item: nf-card nf-part-contrastive" in text and ":img-top:" not in text
    assert ":img-top: ../book/_generated/thumbnail-toy.png" in pages.gallery(records, "../", None, frozenset({"toy"}))


def test_a_card_without_records_says_so(toybook):
    text = pages.card(papers.get("toy"), [], "../")
    assert "No recorded run yet." in text and "data" not in text


def test_a_record_without_a_headline_has_no_multiplier(toybook):
    assert "**none recorded** data" in pages.card(papers.get("toy"), [record(headline=None)], "")


def test_the_ledger_can_be_filtered_and_downloaded(toybook):
    text = pages.results_page([record(), record("small", verdict="failed")], [])
    assert '<span class="nf-tier-small">small</span>' in text and "ours wins \\| often" in text
    assert 'data-class="nf-failed"' in text and 'data-class="nf-tier-small"' in text
    assert "measurements.csv" in text and "claims.csv" in text


@pytest.mark.parametrize(("size", "small"), [((1280, 960), (426, 320)), ((100, 50), (100, 50))])
def test_the_thumbnail_is_the_key_figure(tmp_path, size, small):
    path = tmp_path / "deep" / "thumbnail.png"
    assert pages.thumbnail(executed({"output_type": "stream", "text": "hi"}, png(*size)), path)
    assert abs(Image.open(path).width - small[0]) <= 1 and Image.open(path).height == small[1]


@pytest.mark.parametrize("notebook", [executed(), executed(png(9, 9), tags=("hide-input",)), {"cells": []}])
def test_without_a_key_figure_there_is_no_thumbnail(tmp_path, notebook):
    assert not pages.thumbnail(notebook, tmp_path / "thumbnail.png")
    assert not list(tmp_path.iterdir())


def test_reading_time_counts_words_and_lines():
    assert pages.reading_minutes(executed()) == 5
    assert pages.reading_minutes({"cells": executed()["cells"] * 2}) == 10
    assert pages.reading_minutes(json.loads('{"cells": []}')) == 0
