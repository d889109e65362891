"""The command line: `nearfar list | run | sweep | results | data | new | book | slides | student | offline`."""

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import cyclopts

from nearfar import paths
from nearfar.errors import NearFarError

app = cyclopts.App(
    name="nearfar",
    help="Near & Far: representation learning, one notebook per paper.",
    suppress_keyboard_interrupt=False,  # `main` says so
)
Tier = Literal["smoke", "small", "medium", "full"]


@app.command(name="list")
def list_papers():
    """Show every paper of the book: slug, part, year, title; then the notebooks that compare a part's methods."""
    from nearfar import methods
    from nearfar.chapters import papers

    compared = map(methods.entry, papers.comparisons() if papers.in_checkout() else ())
    for paper in (*methods.papers().values(), *compared):
        print(f"{paper['slug']:34} {paper['part']:12} {paper['year'] or '    '}  {paper['title']}")


def _value(text: str):
    """A parameter's value as Python reads it (`3`, `0.1`, `True`), else the text itself."""
    import ast

    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


@app.command
def run(
    slug: str,
    *,
    tier: str = "smoke",
    seed: int = 0,
    device: str = "auto",
    parameter: Annotated[list[str] | None, cyclopts.Parameter(name=["--parameter", "-p"])] = None,
    output: Path | None = None,
    results: Path | None = None,
    devices: int = 1,
    nodes: int = 1,
    node: int = 0,
    meet: str = "",
):
    """Execute a chapter's notebook and record what it measured.

    With --devices or --nodes it runs as a script under torchrun, and leaves a record but no executed notebook.

    Parameters
    ----------
    slug: Key of the paper, as `nearfar list` shows it.
    tier: smoke (seconds, offline), small (minutes on a CPU), medium (one GPU) or full (as the paper).
    seed: Seed of everything random.
    device: auto, cpu, cuda or cuda:<number>.
    parameter: Another notebook parameter, name=value; may be given several times.
    output: Where the executed copy goes (default: _build/runs).
    results: Folder of records (default: results).
    devices: GPUs of this machine that share every batch (on a CPU: processes).
    nodes: Machines that share every batch; start the same command on each.
    node: This machine's number, from 0.
    meet: Address of machine 0, host:port, where they meet.
    """
    from nearfar.runs import execute, launch

    more = dict(_assignment(text) for text in parameter or [])
    if devices == nodes == 1:
        record = execute.run(slug, tier, seed, device, parameters=more, output=output, results=results)
    else:
        where = {"devices": devices, "nodes": nodes, "node": node, "meet": meet}
        record = launch.run(slug, tier, seed, device, **where, parameters=more, results=results)
    if node:
        return
    show_record(record)


def _assignment(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise NearFarError(f"--parameter needs name=value, got {text!r}.")
    return name, _value(value)


def show_record(path: Path) -> None:
    """Prints one record's verdicts and where it lies."""
    import json

    record = json.loads(path.read_text(encoding="utf-8"))
    for claim in record["claims"]:
        print(f"{claim['id']} {claim['verdict']}: {claim['text']}\n   {claim['evidence']}")
    print(f"These are the verdicts of one seed; those of all seeds: nearfar results {record['slug']}")
    memory = f", {record['peak_memory']['host_MiB']:.0f} MiB" if "host_MiB" in record["peak_memory"] else ""
    print(f"{record['seconds']:.0f} s{memory} -> {path}")


@app.command(name="results")
def show_results(slug: str | None = None, *, tier: Tier | None = None):
    """Show recorded verdicts and data multipliers, of one paper or of all.

    Parameters
    ----------
    slug: Key of a paper; all papers when left out.
    tier: Only this tier.
    """
    from nearfar.chapters import papers
    from nearfar.runs import results as recorded
    from nearfar.runs import verdicts

    if slug:
        papers.notebook(slug)
    records, problems = recorded.read_all(slug, tier)
    for (name, level), mine in recorded.groups(records).items():
        headline = recorded.headline(mine)
        print(f"{name}, {level}, seeds {', '.join(str(r['seed']) for r in mine)}"
              + (", older than the code" if any(map(recorded.is_stale, mine)) else ""))  # fmt: skip
        if headline:
            chosen, multiplier = headline
            said = ": ".join(filter(None, [multiplier.label, multiplier.note]))
            print(f"  {chosen['metric']}, {chosen['method']} over {chosen['baseline']}: {said}")
        for claim in verdicts.over_seeds(mine):
            print(f"  {claim['id']} {claim['text']}\n     {claim['summary']}")
    if not records:
        print(f"no recorded runs{f' of {slug}' if slug else ''} yet: nearfar run {slug or '<slug>'}")
    if problems:
        raise NearFarError("; ".join(problems))


@app.command
def data(name: str, *, split: str = "train", root: Path | None = None, size: int | None = None):
    """Fetch a dataset (or check that it is there) and say what it holds.

    Parameters
    ----------
    name: mnist, cifar10, ... or the name of your own <name>.zip of split/class/image files.
    split: train or test (or what the dataset calls its parts).
    root: Folder to look in and download to (default: $NEARFAR_DATA or the user's cache).
    size: Side in pixels that images are resized to.
    """
    from nearfar import data as datasets

    found = datasets.load(name, split, root=root, **({"size": size} if size else {}))
    shape = "x".join(map(str, found.inputs.shape[1:]))
    print(f"{name} {split}: {len(found):,} samples of {shape}, {len(found.classes)} classes")
    print(f"identity {found.identity[:16]}")


@app.command
def new(
    slug: str,
    *,
    part: str | None = None,
    title: str | None = None,
    authors: str | None = None,
    year: int | None = None,
    arxiv: str | None = None,
    venue: str = "",
):
    """Begin a chapter: a notebook skeleton with all sections, its bib entry and its toc line.

    For a paper of the course's plan (book/course/papers.yml) the slug is enough.

    Parameters
    ----------
    slug: Key of the paper, lower-case letters, digits and hyphens.
    part: contrastive, supervised, imbalance, shift, continual, inside, language, generative or beyond.
    title: The paper's title.
    authors: As BibTeX writes them: "Surname, First and Surname, First".
    year: Year of the paper.
    arxiv: arXiv number.
    venue: Where it was published.
    """
    from nearfar.press import skeleton

    for path in skeleton.create(slug, part, title, authors, year, arxiv, venue):
        print(path)


@app.command
def book(*, tier: Tier = "smoke", jobs: int | None = None, device: str = "auto", execute_only: bool = False):
    """Execute every notebook that changed, then build the site.

    Parameters
    ----------
    tier: Which tier's runs the pages show.
    jobs: Notebooks at a time (default: number of cores).
    device: auto, cpu, cuda or cuda:<number>.
    execute_only: Stop after the notebooks.
    """
    from nearfar.press import book as builder

    builder.build(tier, jobs, device, execute_only)


@app.command
def sweep(
    *,
    tiers: str = "small",
    seeds: str = "0-2",
    papers: str = "",
    part: str | None = None,
    jobs: int | None = None,
    device: str = "auto",
    profile: str | None = None,
    results: Path | None = None,
    dry_run: bool = False,
):
    """Run all that has no record yet, or one older than the code: chapters x tiers x seeds, several at a time.

    Parameters
    ----------
    tiers: Tiers, as in smoke,small.
    seeds: Seeds, as in 0-4 or 0,2,5-7.
    papers: Slugs, as in swav,conr (default: all chapters).
    part: Only chapters of this part of the book.
    jobs: Runs at a time on this machine (default: number of cores).
    device: auto, cpu, cuda or cuda:<number>.
    profile: Snakemake profile that sends the runs to a cluster, such as cluster/slurm.
    results: Folder of records (default: results).
    dry_run: Only say what would run.
    """
    from nearfar.runs import sweep as sweeper

    slugs = sweeper.chosen([name.strip() for name in papers.split(",") if name.strip()], part)
    wanted = [tier.strip() for tier in tiers.split(",") if tier.strip()]
    options = {"jobs": jobs, "device": device, "profile": profile, "records": results, "dry_run": dry_run}
    sweeper.sweep(wanted, sweeper.seeds(seeds), slugs, **options)


@app.command
def slides(slug: str, *, tier: Tier = "smoke"):
    """Make slides (reveal.js, no network needed) of a chapter that has been run.

    Parameters
    ----------
    slug: The paper's key, as in `nearfar list`.
    tier: Which tier's run to show.
    """
    from nearfar.press import slides as maker

    print(f"open {maker.write(slug, tier)}")


@app.command
def student():
    """Write every notebook without its solutions, and the solutions as one archive."""
    from nearfar.press import student as writer

    notebooks, solutions = writer.write()
    print(f"{len(notebooks)} notebooks in {notebooks[0].parents[1]}, solutions in {solutions}")


@app.command
def offline():
    """Pack the built site and the checkout into one zip for a classroom without a network."""
    from nearfar.press import offline as packer

    path = packer.pack()
    print(f"{path} ({path.stat().st_size / 1e6:.0f} MB): unpack it and open index.html")


def main() -> None:
    """Entry point: errors that a reader can act on are one line and exit code 1; Ctrl-C is one line and 130."""
    for stream in filter(None, (sys.stdout, sys.stderr)):  # no stream under pythonw
        stream.reconfigure(errors="replace")  # a terminal that has no × shows ?
    os.environ.update(paths.settled())
    try:
        try:
            app()
        finally:
            if sys.stdout:
                sys.stdout.flush()
    except NearFarError as problem:
        sys.exit(f"nearfar: {problem}")
    except KeyboardInterrupt:
        print("nearfar: stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # whoever read has read enough, as in `nearfar list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as problem:
        where = f"{problem.filename}: " if problem.filename else ""
        sys.exit(f"nearfar: {where}{problem.strerror or problem}; see who may read and write there, and what it is.")


if __name__ == "__main__":
    main()
