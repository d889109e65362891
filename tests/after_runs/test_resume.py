"""Every chapter's smoke run, killed twice and started again, records what the unbroken run did.  Minutes: nightly."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from nearfar.chapters import papers

WANTED = "NEARFAR_RESUME" in os.environ
pytestmark = pytest.mark.skipif(not WANTED, reason="set NEARFAR_RESUME=1: takes a minute a chapter")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("slug", papers.slugs())
def test_killed_twice_is_unbroken(slug, tmp_path):
    unbroken = json.loads((papers.root() / f"_build/results/smoke/{slug}/seed-0.json").read_text())
    saved = papers.root() / "_build/checkpoints/smoke" / slug / "seed-0"
    command = [sys.executable, "-m", "nearfar.cli", "run", slug, "--device", "cpu", "--results", str(tmp_path),
               "--output", str(tmp_path / "executed.ipynb")]  # fmt: skip
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    chance = random.Random(slug)
    for _ in range(2):
        process = subprocess.Popen(
            command, env={**os.environ, "NEARFAR_CHECKPOINT_SECONDS": "0.3"}, start_new_session=True, **quiet
        )
        while process.poll() is None and not list(saved.glob("*.pt")):
            time.sleep(0.2)
        time.sleep(chance.uniform(0.5, 8))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert subprocess.run(command, **quiet).returncode == 0
    record = json.loads((tmp_path / f"smoke/{slug}/seed-0.json").read_text())
    assert record["measurements"] == unbroken["measurements"] and record["claims"] == unbroken["claims"]
    assert not saved.exists(), "a finished run deletes its checkpoints"
