"""What runs cost: adding up records and limits, and the plan of many runs."""

import json

import pytest

from benchmarks import planning
from nearfar.press import costs
from nearfar.runs import pipeline, sweep


def record(slug, tier, seconds, memory=2048.0, device="cpu"):
    return {"slug": slug, "tier": tier, "seconds": seconds, "peak_memory": {"host_MiB": memory}, "device": device}


def rows(text):
    return {line.split(" | ")[0].strip("| "): line.strip("|").split(" | ")[1:] for line in text.splitlines()[2:]}


def test_records_are_added_up_and_limits_are_called_limits():
    runs = [record(slug, "smoke", seconds) for slug, seconds in (("a", 10), ("a", 30), ("b", 40))]
    runs.append(record("c", "smoke", 90, memory=3072.0))
    table = rows(costs.tiers_table(runs, planned=100))
    known, a_run, memory, book = table["smoke"]
    assert (known, a_run, memory) == ("4 runs of 3 chapters", "40 s (20 s to 90 s)", "3.0 GB")
    assert book.strip() == "4.2 core hours", "300 runs of a mean of 50 seconds"
    stated = table["full"]
    assert stated[0] == "stated limit, nothing recorded" and stated[1] == "at most 72 h"
    assert stated[3].strip() == "at most 21,600 GPU hours"
    gpu = rows(costs.tiers_table([record("a", "medium", 3600, device="cuda")], planned=10))["medium"]
    assert gpu[3].strip() == "30 GPU hours"
    old = record("a", "smoke", 60) | {"peak_memory": {}}
    assert rows(costs.tiers_table([old], planned=10))["smoke"][2] == "not recorded"
    assert pipeline.asked([old], "smoke") == (2, pipeline.STATED["smoke"][1], 0)


def test_disk_is_counted(tmp_path):
    assert costs.disk(tmp_path) == "nothing has been run yet.\n"
    for seed, size in ((0, 1_000), (1, 5_000)):
        path = tmp_path / f"results/smoke/toy/seed-{seed}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b" " * size)
    assert costs.disk(tmp_path) == "record: 3 kB, the mean of 2.\n"


def test_a_plan_that_was_not_measured_says_so(tmp_path):
    assert "python -m benchmarks.planning" in costs.plan_table(tmp_path / "planning.json")


def test_a_measured_plan_is_shown(tmp_path):
    plan = {"runs": 10_000, "chapters": 6, "gpus": 64, "hours_a_run": 4.0, "plan_seconds": 0.12,
            "snakemake_seconds": 50.4, "snakemake_mib": 268, "gpu_hours": 40_000, "days": 26.2}  # fmt: skip
    file = tmp_path / "planning.json"
    file.write_text(json.dumps({"machine": {"cpu": "A Processor", "cores": 2}, "plans": [plan]}))
    text = costs.plan_table(file)
    assert "| 10,000 | 0.1 s | 50 s | 268 MiB | 40,000 | 26.2 |" in text
    assert "64 GPUs, 6 chapters" in text and "4 hours" in text and "2 cores (A Processor)" in text


@pytest.mark.parametrize(
    ("minutes", "machines", "total"),
    [
        ([5, 5, 5], 1, 15),
        ([5, 5, 5], 3, 5),
        ([5, 5, 5], 8, 5),
        ([4, 1, 1, 1], 2, 4),
        ([1, 1, 4], 2, 5),
        ([2] * 10_000, 64, 314),
    ],
)
def test_the_simulated_queue(minutes, machines, total):
    assert planning.makespan(minutes, machines) == total


def test_snakemake_orders_a_plan_without_running_it(toybook):
    pytest.importorskip("snakemake")
    jobs = sweep.plan(["medium"], range(3), ["toy"], toybook / "results")
    seconds, memory = planning.dry_run(jobs, 2)
    assert seconds > 0 and memory > 10 and not (toybook / "results").exists()
    with pytest.raises(RuntimeError, match="planned nothing"):
        planning.dry_run([sweep.Job("toy", "huge", 0, 1, 1, 0, "no such tier")], 2)
