"""The papers' numbers beside ours: read from the course file, compared with the records."""

import json
import math

import pytest

from nearfar.chapters import papers
from nearfar.errors import NearFarError
from nearfar.press import course, ledger, reported

TOLD = {"what": "X, in per cent", "claim": "C1", "paper": ["75.3 found", "69.3 recalled"],
        "ours": ["accuracy", "ours", "theirs"], "scale": 100}  # fmt: skip
PLAN = {"topics": ["clustering"], "concepts": [], "papers": [
    {"slug": "toy", "title": "A Toy", "authors": [], "year": 2024, "arxiv": "", "part": "contrastive",
     "topics": ["clustering"], "idea": "Play.", "needs": [], "reported": [TOLD]}]}  # fmt: skip


def record(seed=0, tier="smoke", ours=(0.3, 0.5), theirs=(0.2, 0.45)):
    rows = [
        {"metric": "accuracy", "method": name, "size": size, "value": value + seed / 100, "higher_is_better": True}
        for name, values in (("ours", ours), ("theirs", theirs))
        for size, value in zip((10, 20), values)
    ]
    claims = [{"id": "C1", "text": "wins", "verdict": "held", "evidence": "by a margin"}]
    return {"slug": "toy", "tier": tier, "seed": seed, "measurements": rows, "claims": claims, "stale": False,
            "headline": None}  # fmt: skip


@pytest.fixture
def plan(toybook):
    def write(**changes):
        content = json.loads(json.dumps(PLAN))
        content["papers"][0]["reported"][0].update(changes)
        (toybook / course.FILE).parent.mkdir(exist_ok=True)
        (toybook / course.FILE).write_text(json.dumps(content))
        return course.read().entries.values()

    return write


def test_ours_stand_beside_the_papers(plan):
    (row,) = reported.compare(plan(), [record(seed, "small") for seed in range(3)] + [record()])
    assert row.paper == "75.3 (found) against 69.3 (recalled)" and row.change_paper == "+6.0"
    assert (row.tier, row.size, row.seeds, row.verdict) == ("small", 20, 3, "held")
    half = 4.303 / math.sqrt(3)  # Student's t with two degrees of freedom; seeds one point apart
    assert row.ours_method == pytest.approx(51) and row.ours_method_half == pytest.approx(half, rel=1e-3)
    assert row.difference == pytest.approx(5) and row.difference_half == pytest.approx(0, abs=1e-9)
    assert row.ours == "51.0 ± 2.5 against 46.0 ± 2.5"
    page = ledger.results_page([record(), record(tier="small")], [], [row])
    assert "| 75.3 (found) against 69.3 (recalled)<br>X, in per cent |" in page and "small tier, 20 samples" in page


def test_one_seed_has_no_interval(plan):
    (row,) = reported.compare(plan(), [record()])
    assert row.ours == "50.0 against 45.0" and row.change_ours == "+5.00" and "one seed" in row.where
    assert row.verdict == "not tested", "one seed decides nothing"
    assert math.isnan(row.difference_half)


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([], "not run yet"),
        ([{**record(), "measurements": []}], "smoke tier: no 'accuracy' of 'ours' and 'theirs' recorded"),
        ([{**record(), "measurements": record()["measurements"][1:3]}], "no 'accuracy' of"),
    ],
)
def test_what_is_missing_is_said(plan, records, said):
    (row,) = reported.compare(plan(), records)
    assert said in row.where and row.ours == "" and row.change_paper == "+6.0"
    assert said in ledger.results_page([record()], [], [row]).replace("\\", "")


def test_the_table_has_the_numbers(plan):
    table = reported.table(reported.compare(plan(), [record()]))
    assert list(table.columns) == reported.COLUMNS and table.loc[0, "paper_method"] == 75.3
    assert list(reported.table([]).columns) == reported.COLUMNS


@pytest.mark.parametrize(
    "changes",
    [{"paper": ["75.3 guessed", "1 found"]}, {"paper": ["75.3 found"]}, {"paper": [75.3, 69.3]}, {"more": 1},
     {"ours": ["accuracy", "ours"]}, {"scale": "much"}, {"paper": ["nan found", "1 found"]}],
)  # fmt: skip
def test_a_bad_line_is_named(plan, changes):
    with pytest.raises(NearFarError, match="toy: reported 1 must hold"):
        plan(**changes)


@pytest.mark.parametrize("slug", papers.slugs())
def test_the_chapters_section_has_the_same_numbers(slug):
    cells = json.loads(papers.notebook(slug).read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells)
    section = text.partition("## The paper's numbers")[2].partition("\n## ")[0]
    entry = course.read().entries.get(slug)
    for told in entry.reported if entry else ():
        assert all(number.text in section for number in told.paper), told.what
        assert any(number.source in section for number in told.paper) or "HTML edition" in section
