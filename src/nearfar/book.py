"""`nearfar book`: run what changed (Snakemake), stage executed notebooks and generated pages, build the site."""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from nearfar import course, course_pages, execute, pages, papers, results
from nearfar.errors import NearFarError

WIDGET = "application/vnd.jupyter.widget-view+json"  # progress bars: dead in a page, and their code is elsewhere
SNAKEFILE = Path(__file__).resolve().parents[2] / "Snakefile"


def _lock(folder: Path):
    """A lock that the system drops when its holder dies.  Raises `NearFarError` while another build holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    file = open(folder / ".lock", "w")  # noqa: SIM115 - held until the process ends
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise NearFarError(f"another build is at work in {folder}; wait for it to end.") from None
    return file


def _snakemake(tier: str, jobs: int, device: str) -> int:
    command = [
        sys.executable, "-m", "snakemake", "all", "--snakefile", str(SNAKEFILE),
        "--cores", str(jobs), "--resources", "gpu=1", "--keep-going",
        "--nolock", "--rerun-incomplete", "--quiet", "progress", "rules", "host", "reason",
        "--config", f"tier={tier}", f"device={device}",
    ]  # fmt: skip
    return subprocess.run(command, cwd=papers.root()).returncode


def duration(path: Path) -> float | None:
    """Seconds that papermill took for an executed notebook."""
    return json.loads(path.read_text(encoding="utf-8"))["metadata"].get("papermill", {}).get("duration")


def _executed(slug: str, tier: str) -> tuple[Path | None, Path | None]:
    """Newest executed copy of a chapter, and its failed copy; None where there is none."""
    path = execute.executed_path(slug, tier, 0)
    failed = path.with_name("seed-0.failed.ipynb")
    return (path if path.is_file() else None), (failed if failed.is_file() else None)


def _markdown(text: str, key: str) -> dict:
    return {"cell_type": "markdown", "id": key, "metadata": {}, "source": text}


def stage_chapter(paper: papers.Paper, tier: str, records: list[dict]) -> tuple[dict, str | None]:
    """The notebook that a chapter's page shows and, when its run failed, the error's last line.

    records: those of this chapter, which say what a run costs.
    """
    done, failed = _executed(paper.slug, tier)
    source = failed or done or paper.notebook
    notebook = json.loads(source.read_text(encoding="utf-8"))
    cells, error = [], None
    injected = next((c for c in notebook["cells"] if "injected-parameters" in c["metadata"].get("tags", [])), None)
    for cell in notebook["cells"]:
        tags = cell["metadata"].get("tags", [])
        if "injected-parameters" in tags or any(tag.startswith("papermill-error") for tag in tags):
            continue
        if "parameters" in tags and injected:
            cell = {**cell, "source": re.sub(r"^# Parameters\n", "", "".join(injected["source"]))}
        if "imports" in tags:
            cell["metadata"]["tags"] = [*tags, "hide-input"]
        if "outputs" in cell:
            cell["outputs"] = [output for output in cell["outputs"] if WIDGET not in output.get("data", {})]
        for output in cell.get("outputs", []):
            if output["output_type"] == "error":
                error = f"{output['ename']}: {output['evalue']}".splitlines()[0]
        cells.append(cell)
    way = "../" * 2
    badge = f"[![Open in Colab]({way}book/_static/colab.svg)]({pages.colab_link(paper)})"
    costs = f" One run takes: {spent}." if (spent := pages.cost(records)) else ""
    above = [badge, "", f"Reading time about {pages.reading_minutes(notebook)} minutes.{costs}"]
    if failed:
        above += ["", f":::{{error}}\nThe last run of this chapter failed: `{error or 'see its log'}`\n:::"]
    elif not done:
        above += ["", ":::{warning}\nThis chapter has not been run at this tier; its outputs are missing.\n:::"]
    notebook["metadata"].pop("widgets", None)
    notebook["cells"] = [cells[0], _markdown("\n".join(above), f"{paper.slug}-launch"), *cells[1:]]
    return notebook, error if failed else None


def _write_if_changed(path: Path, text: str) -> None:
    """Keeps the time of a file that stays the same, so that Sphinx reads only what changed."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _copy_if_changed(source: Path, target: Path) -> None:
    if not target.is_file() or target.read_bytes() != source.read_bytes():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def stage(tier: str, site: Path) -> list[str]:
    """Lays out `site` for Jupyter Book under the checkout's own relative paths.  Returns slugs whose run failed."""
    folder, failed, kept = papers.root(), [], set()

    def put(relative: str, text: str | None = None, source: Path | None = None) -> None:
        kept.add(site / relative)
        _write_if_changed(site / relative, text) if text is not None else _copy_if_changed(source, site / relative)

    for name in ("_config.yml", "_toc.yml"):
        put(name, source=folder / name)
    for path in sorted((folder / "book").rglob("*")):
        if path.is_file() and ".ipynb_checkpoints" not in path.parts:
            executed = folder / "_build" / "runs" / "pages" / path.name
            put(
                path.relative_to(folder).as_posix(),
                source=executed if path.suffix == ".ipynb" and executed.is_file() else path,
            )
    records, problems = results.read_all()
    known = papers.slugs()
    records = [r for r in records if r["slug"] in known]
    thumbnails = set()
    for paper in papers.all_papers():
        notebook, error = stage_chapter(paper, tier, [r for r in records if r["slug"] == paper.slug])
        picture = site / "book" / "_generated" / f"thumbnail-{paper.slug}.png"
        if pages.thumbnail(notebook, picture):
            thumbnails.add(paper.slug)
            kept.add(picture)
        put(f"notebooks/{paper.part}/{paper.slug}.ipynb", text=json.dumps(notebook, indent=1) + "\n")
        failed += [paper.slug] if error else []
    put("book/results.md", text=pages.results_page(records, problems))
    put("book/_generated/gallery.md", text=pages.gallery(records, "../", None, frozenset(thumbnails)))
    for part in dict.fromkeys(known.values()):
        cards = pages.gallery(records, "../../", part, frozenset(thumbnails))
        put(f"book/_generated/gallery-{part}.md", text=cards)
    for name, table in (("measurements", results.measurements_of(records)), ("claims", results.claims_of(records))):
        put(f"book/_generated/{name}.csv", text=table.to_csv(index=False))
    for draw, name in ((pages.curves_figure, "curves.png"), (pages.forest_figure, "forest.png")):
        draw(records, site / "book" / "_generated" / name)
        kept.add(site / "book" / "_generated" / name)
    if (folder / course.FILE).is_file():
        plan, figures = course.read(folder), {}
        for part in plan.parts():
            drawing = site / "book" / "_generated" / f"needs-{part}.svg"
            course_pages.graph_figure(plan, part, drawing)
            kept.add(drawing)
            figures[part] = f"../_generated/{drawing.name}"
        put("book/course/all-papers.md", text=course_pages.papers_page(plan))
        put("book/course/prerequisites.md", text=course_pages.prerequisites_page(plan, figures))
    for path in [p for p in site.rglob("*") if p.is_file() and p not in kept]:
        path.unlink()
    return failed


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(folder)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _sphinx(site: Path, log: Path) -> None:
    """Jupyter Book with warnings as errors; does nothing when the staged files are those of the last good build."""
    output, stamp = papers.root() / "_build" / "html", papers.root() / "_build" / ".site"
    digest = _digest(site)
    if stamp.is_file() and stamp.read_text() == digest and (output / "index.html").is_file():
        return
    program = Path(sys.executable).with_name("jupyter-book")
    options = ["--path-output", str(papers.root()), "-W", "-n", "--keep-going", "-q"]
    stamp.unlink(missing_ok=True)
    with open(log, "w", encoding="utf-8") as file:
        command = [str(program), "build", str(site), *options]
        status = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, cwd=papers.root()).returncode
    if status:
        lines = log.read_text(encoding="utf-8").splitlines()
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
    lock = _lock(folder / "_build")
    clock = time.perf_counter()
    jobs = jobs or os.cpu_count() or 1
    status = _snakemake(tier, jobs, device)
    executed = time.perf_counter() - clock
    times = {slug: duration(done) for slug in papers.slugs() for done in [_executed(slug, tier)[0]] if done}
    for slug, seconds in times.items():
        print(f"{slug:36} {seconds:6.1f} s")
    print(f"{'notebooks, wall time':36} {executed:6.1f} s, {jobs} at a time")
    failures = [slug for slug in papers.slugs() if _executed(slug, tier)[1] or not _executed(slug, tier)[0]]
    if not execute_only:
        site = folder / "_build" / "site"
        stage(tier, site)
        _sphinx(site, folder / "_build" / "sphinx.log")
        print(f"{'site':36} {time.perf_counter() - clock - executed:6.1f} s")
        print(f"open {folder / '_build' / 'html' / 'index.html'}")
    lock.close()
    if failures:
        logs = folder / "_build" / "runs" / tier
        raise NearFarError(f"notebooks failed: {', '.join(failures)}; see {logs}/<slug>/seed-0.log.")
    if status:
        raise NearFarError(f"the pipeline failed (exit code {status}); its messages are above.")
