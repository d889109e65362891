"""Lays out the site's sources: executed chapters, prose, and the pages and figures that are made from the records."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from nearfar import plots
from nearfar.chapters import papers
from nearfar.errors import NearFarError
from nearfar.press import (
    comparison,
    costs,
    course,
    course_pages,
    folding,
    freshness,
    glossary,
    ledger,
    overviews,
    pages,
    problems,
    reported,
)
from nearfar.runs import execute, multiplier, results

WIDGET = "application/vnd.jupyter.widget-view+json"  # progress bars: dead in a page, and their code is elsewhere


def executed(slug: str, tier: str) -> tuple[Path | None, Path | None]:
    """Newest executed copy of a chapter, and its failed copy; None where there is none."""
    path = execute.executed_path(slug, tier, 0)
    failed = path.with_name("seed-0.failed.ipynb")
    return (path if path.is_file() else None), (failed if failed.is_file() else None)


def _is_shown(output: dict) -> bool:
    """Not progress bars, and not what libraries write to stderr, with paths of the machine."""
    return WIDGET not in output.get("data", {}) and output.get("name") != "stderr"


def _markdown(text: str, key: str) -> dict:
    return {"cell_type": "markdown", "id": key, "metadata": {}, "source": text}


def stage_chapter(paper: papers.Paper, tier: str, records: list[dict]) -> tuple[dict, str | None]:
    """The notebook that a chapter's page shows and, when its run failed, the error's last line.

    records: those of this chapter, which say what a run costs and what became of the claims.
    """
    done, failed = executed(paper.slug, tier)
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
        if "outputs" in cell:
            cell["outputs"] = [output for output in cell["outputs"] if _is_shown(output)]
        for output in cell.get("outputs", []):
            if output["output_type"] == "error":
                error = f"{output['ename']}: {output['evalue']}".splitlines()[0]
            if "text/html" in output.get("data", {}):  # a table's empty places
                output["data"]["text/html"] = "".join(output["data"]["text/html"]).replace("<td>NaN</td>", "<td></td>")
        cells.append(cell)
        if "run.finish(" in "".join(cell["source"]) and (told := pages.recorded_verdicts(records)):
            cells.append(_markdown(told, f"{paper.slug}-verdicts"))
    way = "../" * 2
    badge = f"[![Open in Colab]({way}book/_static/colab.svg)]({pages.colab_link(paper)})"
    costs = f" One run takes: {spent}." if (spent := pages.cost(records)) else " No run is recorded yet."
    above = [badge, "", f"Reading time about {pages.reading_minutes(notebook)} minutes.{costs}"]
    if failed:
        above += ["", f":::{{error}}\nThe last run of this chapter failed: `{error or 'see its log'}`\n:::"]
    elif not done:
        above += ["", ":::{warning}\nThis chapter has not been run at this tier; its outputs are missing.\n:::"]
    notebook["metadata"].pop("widgets", None)
    if not any(re.search(r"^\s*[%!]", "".join(c["source"]), re.M) for c in cells if c["cell_type"] == "code"):
        notebook["metadata"]["language_info"] = {"name": "python", "pygments_lexer": "python"}  # faster than IPython's
    cells = glossary.link_cells(folding.folded(cells), glossary.chapter_terms(glossary.read(papers.root()), paper.slug))
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


def _code(*modules) -> str:
    """Digest of the modules that make a drawing; a package counts whole."""
    files = [Path(module.__file__) for module in modules]
    files = [
        each for file in files for each in (sorted(file.parent.glob("*.py")) if file.stem == "__init__" else [file])
    ]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _draw_if_changed(path: Path, inputs: str, draw: Callable[[Path], None]) -> set[Path]:
    """Calls draw(path) unless the file was drawn from the same inputs.  Returns the file and the one that says so."""
    drawn_from, digest = path.with_name(f".{path.name}.inputs"), hashlib.sha256(inputs.encode()).hexdigest()
    if not (path.is_file() and drawn_from.is_file() and drawn_from.read_text() == digest):
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(path)
        drawn_from.write_text(digest)
    return {path, drawn_from}


def _chapters(tier: str, records: list[dict], site: Path) -> tuple[dict[str, str], dict[str, str], set[Path]]:
    """Writes all chapters and their small pictures.

    Returns {slug: error} of failed runs, {slug: why there is no picture, or nothing} and the files.
    """
    errors, pictures, kept = {}, {}, set()
    for paper in (*papers.all_papers(), *papers.comparisons()):
        notebook, error = stage_chapter(paper, tier, [r for r in records if r["slug"] == paper.slug])
        path = site / "notebooks" / paper.part / f"{paper.slug}.ipynb"
        _write_if_changed(path, json.dumps(notebook, indent=1) + "\n")
        kept.add(path)
        errors |= {paper.slug: error} if error else {}
        if paper.slug == paper.part:  # it has no card
            continue
        try:
            figure = pages.key_figure(notebook)
        except NearFarError as problem:
            pictures[paper.slug] = str(problem)
            continue
        small = site / "book" / "_generated" / f"thumbnail-{paper.slug}.png"
        kept |= _draw_if_changed(
            small, figure + _code(pages), lambda path, figure=figure: pages.thumbnail(figure, path)
        )
        pictures[paper.slug] = ""
    return errors, pictures, kept


def _course_pages(site: Path, put: Callable[[str, str], None]) -> set[Path]:
    """Writes the pages of the course.  Returns the files of their drawings."""
    folder, figures, kept = papers.root(), {}, set()
    plan = course.read(folder)
    code = _code(course, course_pages, plots) + repr(plan.entries) + repr(plan.concepts) + repr(sorted(plan.written))
    for part in plan.parts():
        drawing = site / "book" / "_generated" / f"needs-{part}.svg"
        kept |= _draw_if_changed(drawing, code, lambda path, part=part: course_pages.graph_figure(plan, part, path))
        figures[part] = f"../_generated/{drawing.name}"
    put("book/course/all-papers.md", course_pages.papers_page(plan))
    put("book/course/prerequisites.md", course_pages.prerequisites_page(plan, figures))
    return kept


def _comparison(records: list[dict], part: str, site: Path, put: Callable[[str, str], None]) -> set[Path]:
    """Writes the table of a part's methods.  Returns the files of its drawing, where there are numbers to draw."""
    mine = comparison.of_part(records, part)
    put(f"book/_generated/comparison-{part}.md", comparison.page(mine, part, "../../"))
    if not mine:
        return set()
    path = site / "book" / "_generated" / f"comparison-{part}.png"
    inputs = json.dumps(mine, sort_keys=True) + _code(comparison, plots, results, multiplier)
    return _draw_if_changed(path, inputs, lambda path: comparison.figure(mine, path))


def stage(tier: str, site: Path) -> list[str]:
    """Lays out `site` for Jupyter Book under the checkout's own relative paths.  Returns slugs whose run failed."""
    folder, kept = papers.root(), set()

    def put(relative: str, text: str) -> None:
        kept.add(site / relative)
        _write_if_changed(site / relative, text)

    copied = [folder / "_config.yml", folder / "_toc.yml", *sorted((folder / "book").rglob("*"))]
    for path in copied:
        if path.is_file() and ".ipynb_checkpoints" not in path.parts:
            ran = folder / "_build" / "runs" / "pages" / path.name
            target = site / path.relative_to(folder)
            _copy_if_changed(ran if path.suffix == ".ipynb" and ran.is_file() else path, target)
            kept.add(target)
    records, broken = results.read_all()
    known = papers.slugs()
    records = freshness.marked([r for r in records if r["slug"] in known], folder / "_build" / "code-hashes.json")
    errors, pictures, files = _chapters(tier, records, site)
    kept |= files
    entries = course.read(folder).entries if (folder / course.FILE).is_file() else {}
    kept |= _course_pages(site, put) if entries else set()
    topics = {slug: entry.topics for slug, entry in entries.items()}
    if (folder / problems.FILE).is_file():
        put("book/problems.md", problems.page(records, entries, problems.read(folder)[0]))
    compared = reported.compare((entries[slug] for slug in known if slug in entries), records)
    put("book/results.md", ledger.results_page(records, broken, compared))
    put("book/_generated/gallery.md", pages.gallery(records, "../", None, pictures, topics))
    for part in dict.fromkeys(known.values()):
        put(f"book/_generated/gallery-{part}.md", pages.gallery(records, "../../", part, pictures, topics))
        kept |= _comparison(records, part, site, put)
    tables = {"measurements": results.measurements_of(records), "claims": results.claims_of(records),
              "reported": reported.table(compared)}  # fmt: skip
    for name, table in tables.items():
        put(f"book/_generated/{name}.csv", table.to_csv(index=False))
    put("book/_generated/overview.md", overviews.overview(records))
    put("book/_generated/costs-tiers.md", costs.tiers_table(records, len(entries) or len(known)))
    put("book/_generated/costs-disk.md", costs.disk(folder))
    put("book/_generated/costs-plan.md", costs.plan_table(folder / "benchmarks" / "planning.json"))
    for path in [p for p in site.rglob("*") if p.is_file() and p not in kept]:
        path.unlink()
    return list(errors)
