"""`nearfar book`: run what changed (Snakemake), lay out the site's sources, build the site (Sphinx)."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from nearfar import processes
from nearfar.chapters import papers
from nearfar.errors import NearFarError
from nearfar.press import course, website
from nearfar.press.staging import executed, stage
from nearfar.runs import pipeline


def duration(path: Path) -> float | None:
    """Seconds that papermill took for an executed notebook."""
    return json.loads(path.read_text(encoding="utf-8"))["metadata"].get("papermill", {}).get("duration")


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(folder)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _sphinx(site: Path, log: Path, jobs: int = 1) -> None:
    """Jupyter Book in `jobs` processes, warnings as errors; nothing when the last good build was of the same files."""
    output, stamp = papers.root() / "_build" / "html", papers.root() / "_build" / ".site"
    digest = hashlib.sha256(f"{_digest(site)} {website.version()}".encode()).hexdigest()
    if stamp.is_file() and stamp.read_text() == digest and (output / "index.html").is_file():
        return
    stamp.unlink(missing_ok=True)
    read = papers.root() / "_build" / ".doctrees" / "environment.pickle"  # Sphinx compares dates of files with its own
    if read.is_file() and read.stat().st_mtime > time.time() + 1:  # the clock was set back
        shutil.rmtree(read.parent)
    with open(log, "w", encoding="utf-8") as file:
        command = [sys.executable, "-m", "nearfar.press.website", str(site), str(output), str(jobs)]
        logged = {"stdout": file, "stderr": subprocess.STDOUT, "env": {**os.environ, "PYTHONIOENCODING": "utf-8"}}
        status = processes.call(command, cwd=papers.root(), **logged)
    if status:
        shutil.rmtree(papers.root() / "_build" / ".doctrees", ignore_errors=True)  # so that the next build warns again
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        bad = [line for line in lines if "WARNING" in line or "ERROR" in line][:20]
        print("\n".join(bad or lines[-20:]), file=sys.stderr)
        raise NearFarError(f"the site was not built cleanly ({len(bad)} warnings, log: {log}).")
    stamp.write_text(digest)


def build(tier: str = "smoke", jobs: int | None = None, device: str = "auto", execute_only: bool = False) -> None:
    """Everything from notebooks to site.  Prints times and where the site is.

    Raises `NearFarError` after the site is up when a notebook failed; when another build is at work; when Sphinx warns.
    """
    folder = papers.root()
    papers.all_papers()  # a registry that disagrees with itself stops here, and so does a bad course file
    if (papers.root() / course.FILE).is_file():
        course.read()
    held = pipeline.lock(folder / "_build")
    clock = time.perf_counter()
    jobs = jobs or os.cpu_count() or 1
    status = pipeline.snakemake("all", {"tier": tier, "device": device}, jobs, held)
    ran = time.perf_counter() - clock
    times = {slug: duration(done) for slug in papers.slugs() for done in [executed(slug, tier)[0]] if done}
    for slug, seconds in times.items():
        print(f"{slug:36} {seconds:6.1f} s")
    print(f"{'notebooks, wall time':36} {ran:6.1f} s, {jobs} at a time")
    failures = [slug for slug in papers.slugs() if executed(slug, tier)[1] or not executed(slug, tier)[0]]
    if not execute_only:
        site = folder / "_build" / "site"
        stage(tier, site)
        _sphinx(site, folder / "_build" / "sphinx.log", jobs)
        print(f"{'site':36} {time.perf_counter() - clock - ran:6.1f} s")
        print(f"open {folder / '_build' / 'html' / 'index.html'}")
    held.close()
    if failures:
        logs = folder / "_build" / "runs" / tier
        raise NearFarError(f"notebooks failed: {', '.join(failures)}; see {logs}/<slug>/seed-0.log.")
    if status:
        raise NearFarError(f"the pipeline failed (exit code {status}); its messages are above.")
