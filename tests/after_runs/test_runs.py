"""After all smoke runs: verdicts are those recorded, and a second run gave the same numbers bit for bit.

`make test` runs this after papermill (records in _build/results) and nbval (records in _build/second).
"""

import pytest

from nearfar.chapters import papers
from nearfar.runs import results

CHAPTERS = list(papers.slugs())


def smoke(folder, slug):
    return results.read(papers.root() / folder / "smoke" / slug / "seed-0.json")


@pytest.mark.parametrize("slug", CHAPTERS)
def test_verdicts_are_the_recorded_ones(slug):
    now, recorded = (
        {c["id"]: c["verdict"] for c in smoke(folder, slug)["claims"]} for folder in ("_build/results", "results")
    )
    assert now == recorded


@pytest.mark.parametrize("slug", CHAPTERS)
def test_three_recorded_seeds_agree_on_every_verdict(slug):
    records, _ = results.read_all(slug, "smoke", [papers.root() / "results"])
    assert sorted(r["seed"] for r in records) == [0, 1, 2]
    for name in {claim["id"] for claim in records[0]["claims"]}:
        assert len({claim["verdict"] for record in records for claim in record["claims"] if claim["id"] == name}) == 1


@pytest.mark.parametrize("slug", CHAPTERS)
def test_the_second_run_gave_the_same_bits(slug):
    first, second = smoke("_build/results", slug), smoke("_build/second", slug)
    assert first["measurements"] == second["measurements"]
    assert first["claims"] == second["claims"]


@pytest.mark.parametrize("slug", CHAPTERS)
def test_the_budget_of_time_and_memory_is_kept(slug):
    record = smoke("_build/results", slug)
    assert record["seconds"] < 90  # the goal is 30 s on an idle core; a shared machine may be slower
    assert record["peak_memory"]["host_MiB"] < 1536
