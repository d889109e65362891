"""A sweep through SLURM records what a local sweep records.  Opt-in: `make test-cluster`, on a machine where a SLURM
of one node may be started (root; Debian: apt install slurm-wlm munge), with `pip install -e .[cluster]`.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from nearfar.chapters import papers
from nearfar.runs import sweep

SCRIPT = Path(__file__).with_name("one_node_slurm.sh")
PROFILE = Path(__file__).resolve().parents[2] / "cluster" / "slurm" / "profile.yaml"
CHAPTERS, SEEDS = ["conr", "understanding-contrastive-loss"], range(3)
VARIES = {"started", "seconds", "peak_memory"}

pytest.importorskip("snakemake_executor_plugin_slurm", reason="needs `pip install -e '.[cluster]'`")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A running SLURM, and a folder with the project's profile as this small cluster wants it."""
    if os.geteuid() or not shutil.which("slurmctld") or not shutil.which("munged"):
        pytest.skip("needs root, slurmctld and munged (Debian: apt install slurm-wlm munge)")
    folder = tmp_path_factory.mktemp("slurm")
    subprocess.run([SCRIPT, "start", folder], check=True)
    profile = yaml.safe_load(PROFILE.read_text()) | {"slurm-status-command": "squeue", "latency-wait": 10}
    profile |= {"slurm-init-seconds-before-status-checks": 5, "seconds-between-status-checks": 5}
    (folder / "profile.yaml").write_text(yaml.safe_dump(profile))
    yield folder
    subprocess.run([SCRIPT, "stop", folder], check=True)


def numbers(folder):
    """What runs recorded, without what differs between two runs of the same code: when, how long, how much memory."""
    records = {p.relative_to(folder).as_posix(): json.loads(p.read_text()) for p in folder.rglob("seed-*.json")}
    return {name: {k: v for k, v in record.items() if k not in VARIES} for name, record in records.items()}


@pytest.mark.timeout(1800)
def test_the_cluster_records_what_one_machine_records(cluster, tmp_path):
    here, there = tmp_path / "local", tmp_path / "cluster"
    sweep.sweep(["smoke"], SEEDS, CHAPTERS, device="cpu", profile=str(cluster), records=there)
    answer = subprocess.run(["squeue", "-h", "-t", "all", "-o", "%T"], capture_output=True, text=True, check=True)
    assert answer.stdout.split().count("COMPLETED") == len(CHAPTERS) * len(SEEDS)  # it was SLURM that ran them
    sweep.sweep(["smoke"], SEEDS, CHAPTERS, device="cpu", jobs=2, records=here)
    assert len(numbers(there)) == len(CHAPTERS) * len(SEEDS)
    assert numbers(here) == numbers(there)


@pytest.mark.timeout(600)
def test_a_run_that_dies_with_its_node_is_done_again(cluster, tmp_path):
    """The job is killed as by a failing node; the same command finishes the sweep."""
    records = tmp_path / "records"
    command = [papers.root() / ".venv/bin/nearfar", "sweep", "--tiers", "smoke", "--seeds", "0", "--papers", "conr"]
    command += ["--profile", cluster, "--device", "cpu", "--results", records]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    running = ""
    for _ in range(120):
        running = subprocess.run(["squeue", "-h", "-t", "R", "-o", "%A"], capture_output=True, text=True).stdout.strip()
        if running:
            break
        try:
            process.wait(0.5)
        except subprocess.TimeoutExpired:
            continue
    subprocess.run(["scancel", "--signal=KILL", "--full", running], check=True)
    output, _ = process.communicate(timeout=120)
    assert running, output
    assert process.returncode == 1 and "1 runs have no record yet" in output, output
    assert not list(records.rglob("*.json"))
    sweep.sweep(["smoke"], [0], ["conr"], device="cpu", profile=str(cluster), records=records)
    assert len(numbers(records)) == 1
