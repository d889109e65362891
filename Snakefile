# The one pipeline: notebook x tier x seed -> executed copy + record.  `nearfar book` and `nearfar sweep` call it.
# A run depends on its own notebook and on the definitions in src/nearfar that it uses, and on nothing else.
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

from nearfar.chapters import notebooks, papers
from nearfar.runs import tuning

TIER = config.get("tier", "smoke")
SEEDS = [int(seed) for seed in str(config.get("seeds", 0)).split(",")]
DEVICE = config.get("device", "auto")
SLUGS = [slug for slug in str(config.get("papers", "")).split(",") if slug] or list(papers.slugs())
GPUS = 1 if DEVICE != "cpu" and shutil.which("nvidia-smi") else 0


# What `nearfar sweep` wants: {(slug, tier, seed): what that run is given}
PLAN = {
    (job["slug"], job["tier"], str(job["seed"])): job
    for job in (json.loads(Path(config["plan"]).read_text()) if "plan" in config else [])
}
MEASURED = (papers.root() / "benchmarks/results.json").is_file()
PAGES = [path.stem for path in sorted((papers.root() / "book").glob("*.ipynb"))]


def relative(path):
    return os.path.relpath(path, papers.root())


def sources(wildcards):
    notebook = papers.notebook(wildcards.slug)
    recorded = papers.root() / "results"  # the page shows all recorded runs, and a run takes up searched settings
    shown = [path for name in ("seed-*", "tuning") for path in sorted(recorded.glob(f"*/{wildcards.slug}/{name}.json"))]
    return [relative(path) for path in (notebook, *shown)]


def page_sources(wildcards):
    measured = ["benchmarks/results.json"] if wildcards.name == "benchmarks" and MEASURED else []
    return [f"book/{wildcards.name}.ipynb", *measured]


def digest(paths):
    """Of what the files hold: their dates say nothing once a clock was set back."""
    return hashlib.sha256(b"".join((papers.root() / path).read_bytes() for path in paths)).hexdigest()


wildcard_constraints:
    tier="|".join(notebooks.TIERS),
    slug="[a-z0-9-]+",
    seed=r"\d+",


rule all:
    input:
        expand("_build/runs/{tier}/{slug}/seed-{seed}.ipynb", tier=TIER, slug=SLUGS, seed=SEEDS),
        expand("_build/runs/pages/{name}.ipynb", name=PAGES),


rule chapter:
    input:
        sources,
    output:
        executed="_build/runs/{tier}/{slug}/seed-{seed}.ipynb",
        record="_build/results/{tier}/{slug}/seed-{seed}.json",
    log:
        "_build/runs/{tier}/{slug}/seed-{seed}.log",
    threads: 1
    resources:
        gpu=GPUS,
    params:
        python=lambda wildcards: sys.executable,  # of a string Snakemake would fill in {}
        code=lambda wildcards: notebooks.page_hash(papers.notebook(wildcards.slug)),
        inputs=lambda wildcards: digest(sources(wildcards)),
    shell:  # the device is no parameter of the rule: `make book` takes what `make test` ran on the CPU
        "OMP_NUM_THREADS=1 {params.python:q} -m nearfar.cli run {wildcards.slug} --tier {wildcards.tier} "
        "--seed {wildcards.seed} --device {DEVICE:q} --output {output.executed:q} --results _build/results "
        "> {log:q} 2>&1"


rule page:
    input:
        page_sources,
    output:
        "_build/runs/pages/{name}.ipynb",
    log:
        "_build/runs/pages/{name}.log",
    threads: 1
    params:
        python=lambda wildcards: sys.executable,
        code=lambda wildcards: notebooks.page_hash(papers.root() / f"book/{wildcards.name}.ipynb"),
        inputs=lambda wildcards: digest(page_sources(wildcards)),
    shell:
        "OMP_NUM_THREADS=1 {params.python:q} -m nearfar.runs.execute {input[0]:q} {output:q} > {log:q} 2>&1"


# ---------------------------------------------------------------------------------------------- many runs
def given(wildcards):
    return PLAN[wildcards.slug, wildcards.tier, wildcards.seed]


rule sweep:
    input:
        [f"_build/sweep/{tier}/{slug}/seed-{seed}.done" for slug, tier, seed in PLAN],


def searched_first(wildcards):
    """Where settings are yet to be searched: the run that does it, so that the others take up what it found."""
    text = papers.notebook(wildcards.slug).read_text(encoding="utf-8")
    seeds = sorted(int(seed) for slug, tier, seed in PLAN if (slug, tier) == (wildcards.slug, wildcards.tier))
    table = tuning.path(Path(config.get("records", "results")), wildcards.tier, wildcards.slug)
    if ".tune(" not in text or table.is_file() or int(wildcards.seed) == seeds[0]:
        return []
    return f"_build/sweep/{wildcards.tier}/{wildcards.slug}/seed-{seeds[0]}.done"


rule recorded:  # the record itself is no output here: Snakemake deletes the outputs of a job that fails
    input:
        searched_first,
    output:
        touch("_build/sweep/{tier}/{slug}/seed-{seed}.done"),
    log:
        "_build/sweep/{tier}/{slug}/seed-{seed}.log",
    threads: 1
    resources:
        gpu=lambda wildcards: given(wildcards)["gpus"] and GPUS,
        mem_mb=lambda wildcards: given(wildcards)["memory"],
        runtime=lambda wildcards: given(wildcards)["minutes"],
    params:
        python=lambda wildcards: sys.executable,
        records=lambda wildcards: config.get("records", "results"),
    shell:
        "OMP_NUM_THREADS=1 {params.python:q} -m nearfar.cli run {wildcards.slug} --tier {wildcards.tier} "
        "--seed {wildcards.seed} --device {DEVICE:q} --results {params.records:q} "
        "--output _build/sweep/{wildcards.tier}/{wildcards.slug}/seed-{wildcards.seed}.ipynb > {log:q} 2>&1"
