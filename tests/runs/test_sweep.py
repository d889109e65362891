"""A sweep runs what has no record of the code as it is, each run once, and loses nothing when it is killed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from toybook import edit

from nearfar.chapters import papers
from nearfar.errors import NearFarError
from nearfar.runs import pipeline, results, sweep

pytest.importorskip("snakemake")
pytestmark = pytest.mark.usefixtures("forking")


def go(tiers=("smoke",), seeds=(0, 1), **options):
    return sweep.sweep(tiers, seeds, ["toy"], jobs=2, device="cpu", records=papers.root() / "records", **options)


def records():
    return {path.name: path.read_bytes() for path in sorted((papers.root() / "records/smoke/toy").glob("*.json"))}


@pytest.mark.parametrize(
    ("text", "numbers"), [("3", [3]), ("0-2", [0, 1, 2]), ("5,0-1, 7-8", [0, 1, 5, 7, 8]), ("2-2,2", [2])]
)
def test_seeds_as_one_writes_them(text, numbers):
    assert sweep.seeds(text) == numbers


@pytest.mark.parametrize("text", ["", "x", "3-1", "1-", "-1", "0-x", "1,,2"])
def test_bad_seeds_are_named(text):
    with pytest.raises(NearFarError, match="--seeds: .* write 0-4"):
        sweep.seeds(text)


def test_bad_names_and_tiers(toybook):
    with pytest.raises(NearFarError, match="no chapter 'tog'. Did you mean toy"):
        sweep.chosen(["tog"])
    with pytest.raises(NearFarError, match="no part 'contrastiv'. Did you mean contrastive"):
        sweep.chosen(part="contrastiv")
    with pytest.raises(NearFarError, match="no tier is called 'tiny'"):
        go(["tiny"])
    assert sweep.chosen() == sweep.chosen(["toy"], "contrastive") == ["toy"]


def test_cost_comes_from_records_or_is_stated():
    assert pipeline.asked([], "medium") == pipeline.STATED["medium"]
    seen = [{"seconds": s, "peak_memory": {"host_MiB": 100 * s}} for s in (90.0, 60.0)]
    assert pipeline.asked(seen, "small") == (3, 1_024 + 13_500, 0)


def test_what_is_due_runs_once(toybook, capfd):
    assert [(job.seed, job.reason) for job in go(dry_run=True)] == [(0, "no record"), (1, "no record")]
    assert not records()
    go()
    first = records()
    assert len(first) == 2 and "2 runs recorded" in capfd.readouterr().out
    assert go() == [] and records() == first
    assert "nothing to do" in capfd.readouterr().out
    assert [job.seed for job in go(seeds=range(4), dry_run=True)] == [2, 3]
    edit(toybook / "notebooks/contrastive/toy.ipynb", "return 2 * x", "return x + x")
    assert {job.reason for job in go(dry_run=True)} == {"older than the code"}
    go()
    assert not any(map(results.is_stale, results.read_all(places=[papers.root() / "records"])[0]))


def test_a_failing_run_keeps_its_old_record_and_the_others_go_on(toybook):
    go(seeds=[1])
    before = records()
    notebook = toybook / "notebooks/contrastive/toy.ipynb"
    edit(notebook, "return 2 * x", "return x + x")
    edit(notebook, "run.headline(", "assert seed != 1, 'not this one'\\nrun.headline(")
    with pytest.raises(NearFarError, match=r"1 runs have no record yet; see _build/sweep/smoke/toy/seed-1.log"):
        go()
    assert records()["seed-1.json"] == before["seed-1.json"] and "seed-0.json" in records()
    assert "not this one" in (toybook / "_build/sweep/smoke/toy/seed-1.log").read_text()


def test_the_run_that_searches_settings_comes_first(toybook):
    search = "from nearfar.runs import tuning  # as study.tune( does\\ntuning.found(tier, 'toy') or tuning.keep("
    search += "tier, 'toy', 'a', {'tried': [{'settings': {'lr': seed}, 'score': 1}]})\\n"
    search += "run.tuning['a'] = tuning.best(tuning.found(tier, 'toy')['a'])['settings']\\nrun.headline("
    edit(toybook / "notebooks/contrastive/toy.ipynb", "run.headline(", search)
    go(seeds=range(3))
    made = [json.loads(text) for name, text in records().items() if name != "tuning.json"]
    assert [record["tuning"] for record in made] == [{"a": {"lr": 0}}] * 3
    assert go(seeds=range(3)) == [], "records beside their searches are of the code as it is"


def test_two_sweeps_do_not_meet(toybook):
    place = toybook / "_build/sweep"
    lock = pipeline.lock(place)
    with pytest.raises(NearFarError, match="another .* is at work"):
        go()
    lock.close()


@pytest.mark.parametrize("kill", [os.killpg, os.kill], ids=["all of it", "its first process"])
def test_a_killed_sweep_goes_on(toybook, kill):
    edit(toybook / "notebooks/contrastive/toy.ipynb", "run.headline(", "import time; time.sleep(1)\\nrun.headline(")
    code = (
        "from nearfar.chapters import papers; from nearfar.runs import sweep; "
        "sweep.sweep(['smoke'], range(3), ['toy'], jobs=1, device='cpu', records=papers.root() / 'records')"
    )
    environment = {**os.environ, "NEARFAR_ROOT": str(toybook)}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, start_new_session=True)
    deadline = time.time() + 60
    while not records() and time.time() < deadline:
        time.sleep(0.1)
    kill(process.pid, signal.SIGKILL)
    process.wait()
    for _ in range(300):  # what it had started ends by itself, and holds the lock until then
        with contextlib.suppress(NearFarError):
            pipeline.lock(toybook / "_build/sweep").close()
            break
        time.sleep(0.1)
    done = records()
    assert 1 <= len(done) < 3
    assert all(json.loads(text)["claims"] for text in done.values())  # whole ones only
    assert len(go(seeds=range(3))) == 3 - len(done)
    assert records().items() >= done.items() and len(records()) == 3
