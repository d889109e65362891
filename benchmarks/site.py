"""`make book` beside `jupyter-book build` that executes the same notebooks itself, each in a copy of the checkout."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import measure, record

BUDGET = {"full": {"repeats": 2}, "quick": {"repeats": 1}}
GOAL = 1.7
JOBS = 2


def copy(folder: Path) -> None:
    """The files of this checkout that git keeps or would keep, without anything that was built."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=measure.ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        source = measure.ROOT / name
        if source.is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / name)


def environment(folder: Path) -> dict[str, str]:
    """Everything from the copy, records included; one thread per notebook, as the pipeline has it."""
    own = {
        "NEARFAR_ROOT": str(folder), "PYTHONPATH": str(folder / "src"), "NEARFAR_STATIC": "1",
        "NEARFAR_RESULTS": str(folder / "_build" / "results"), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    return {**{k: v for k, v in os.environ.items() if k != "NEARFAR_DATA"}, **own}


def timed(command: list[str], folder: Path) -> float:
    """Seconds of a command in a copy.  Raises RuntimeError with its last lines if it fails."""
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=environment(folder), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode:
        last = "\n".join(done.stdout.splitlines()[-15:])
        raise RuntimeError(f"{Path(command[0]).name} failed in {folder}:\n{last}")
    return time.perf_counter() - start


def ours(folder: Path) -> float:
    """What `make book` calls once its .venv is there."""
    return timed([sys.executable, "-m", "nearfar.cli", "book", "--jobs", str(JOBS), "--device", "cpu"], folder)


def theirs(folder: Path) -> float:
    """Jupyter Book's own execution, on pages staged (unmeasured) from the notebooks as they are committed."""
    import yaml

    staged = folder / "staged"
    stage = "import sys; from pathlib import Path; from nearfar import book; book.stage('smoke', Path(sys.argv[1]))"
    timed([sys.executable, "-c", stage, str(staged)], folder)
    settings = yaml.safe_load((staged / "_config.yml").read_text(encoding="utf-8"))
    settings["execute"] = {"execute_notebooks": "force", "timeout": 600, "allow_errors": False}
    (staged / "_config.yml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    program = Path(sys.executable).with_name("jupyter-book")
    return timed([str(program), "build", str(staged), "--path-output", str(folder), "-q"], folder)


def pages(folder: Path) -> dict[str, int]:
    """Every page of the built site by name, with the number of images that its notebook drew: figures, and frames
    behind a slider (cards on other pages show pictures of executed chapters, which the peer does not have yet)."""
    html = folder / "_build" / "html"
    found = {path.relative_to(html).as_posix(): path for path in sorted(html.rglob("*.html"))}
    return {
        name: len(re.findall(r"<img\b", path.read_text(encoding="utf-8"))) if name.startswith("notebooks/") else 0
        for name, path in found.items() if name.startswith(("book/", "notebooks/"))
    }  # fmt: skip


def compare(mine: dict[str, int], other: dict[str, int]) -> str:
    """Whether both sites have the same pages with as many images on each."""
    lacking = sorted(set(mine) ^ set(other))
    measure.require(not lacking, f"pages that only one site has: {', '.join(lacking)}")
    unlike = [f"{name}: {mine[name]} and {other[name]} images" for name in mine if mine[name] != other[name]]
    measure.require(not unlike, "; ".join(unlike))
    return f"{len(mine)} pages, {sum(mine.values())} images"


def measure_all(budget: str) -> Iterator[dict]:
    plan = BUDGET[budget]
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    sides, found = {"ours": ours, "theirs": theirs}, {}
    for number in range(plan["repeats"]):
        for who in list(sides)[:: -1 if number % 2 else 1]:
            with tempfile.TemporaryDirectory(prefix="nearfar-bench-") as name:
                folder = Path(name).resolve()
                copy(folder)
                seconds[who].append(sides[who](folder))
                found[who] = pages(folder)
                print(f"  {who}: {seconds[who][-1]:.0f} s", flush=True)
    chapters = sum(name.startswith("notebooks/") for name in found["ours"])
    work = f"the book from nothing, {chapters} chapters at the smoke tier"
    threads = f"{JOBS} notebooks at a time, peer 1"
    yield record.row(
        work, "jupyter-book build, execute: force", seconds["ours"], seconds["theirs"], "s", GOAL, threads,
        compare(found["ours"], found["theirs"]),
    )  # fmt: skip
