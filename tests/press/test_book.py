"""The pipeline on a toy book: only what changed runs, a failure stays visible, two builds do not meet."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toybook import edit, forking, make, variables  # noqa: F401 - two of them are fixtures

from nearfar.chapters import notebooks, papers
from nearfar.errors import NearFarError
from nearfar.press import book, freshness, staging, website
from nearfar.runs import pipeline

pytest.importorskip("jupyter_book")
pytest.importorskip("snakemake")


@pytest.fixture
def site(toybook, forking):  # noqa: F811
    source = papers.root() / "book"
    shutil.copytree(Path(__file__).resolve().parents[2] / "book" / "_static", source / "_static")
    return toybook


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """A toy checkout whose notebook has been run."""
    folder = make(tmp_path_factory.mktemp("executed") / "book")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEARFAR_ROOT", str(folder))
        patch.delenv("NEARFAR_RESULTS", raising=False)
        build(execute_only=True)
    return folder


@pytest.fixture
def ran(site, executed):
    """A checkout as after `build(execute_only=True)`."""
    for name in ("_build", ".snakemake"):
        shutil.copytree(executed / name, site / name)
    return site


def build(**options):
    book.build(jobs=2, device="cpu", **options)


def times(folder):
    return {p: p.stat().st_mtime_ns for p in (folder / "_build/runs").rglob("*.ipynb")}


def test_build_rebuild_and_edit(site, capfd):
    build()
    page = (site / "_build/html/notebooks/contrastive/toy.html").read_text()
    assert "ours wins" in page and "colab.research.google.com" in page
    assert "index.html" in capfd.readouterr().out
    first = times(site)
    build()
    assert times(site) == first  # nothing changed, nothing runs
    (site / "notebooks/contrastive/toy.ipynb").touch()
    build(execute_only=True)
    assert times(site) == first  # touched, but the same
    edit(site / "notebooks/contrastive/toy.ipynb", "ours wins", "ours wins again")
    build()
    assert times(site) != first
    assert "ours wins again" in (site / "_build/html/notebooks/contrastive/toy.html").read_text()


def test_a_clock_that_was_set_back_hides_no_edit(ran):
    """Everything of the first build seems to come from the future."""
    site, notebook, ahead = ran, ran / "notebooks/contrastive/toy.ipynb", time.time() + 5_000
    build()
    for path in [p for p in site.rglob("*") if p.is_file()]:
        os.utime(path, (ahead, ahead))
    edit(notebook, "ours wins", "ours wins at another time")
    build()
    assert "another time" in (site / "_build/html/notebooks/contrastive/toy.html").read_text()


HOSTILE = "<img src=x onerror=alert(1)> <script>alert(2)</script> [here](javascript:alert(3)) {raw}`<b>`\n\n"
HOSTILE += "```{raw} html\n<i>"


def test_what_another_checkout_ran_is_not_run_again(ran):
    first = times(ran)
    build(execute_only=True)
    assert times(ran) == first


def test_records_of_others_are_text_and_never_html(ran):
    site = ran
    record = json.loads((site / "_build/results/smoke/toy/seed-0.json").read_text())
    for row in record["measurements"]:
        row["method"], row["metric"] = HOSTILE + row["method"], HOSTILE
    record["headline"] = {"metric": HOSTILE, "method": HOSTILE + "ours", "baseline": HOSTILE + "theirs"}
    record["device"] = record["claims"][0]["id"] = record["claims"][0]["text"] = record["claims"][0]["evidence"] = (
        HOSTILE
    )
    theirs = site / "results/small/toy/seed-0.json"
    theirs.parent.mkdir(parents=True)
    theirs.write_text(json.dumps({**record, "tier": "small"}))
    (site / "results/small/toy/seed-1.json").write_text('{"slug": "' + HOSTILE.split("\n")[0] + '"}')
    build()
    for page in ("index", "book/results", "book/parts/contrastive", "notebooks/contrastive/toy"):
        text = (site / f"_build/html/{page}.html").read_text()
        for harm in ("<img src=x", "<script>alert", 'href="javascript:', "<i>"):
            assert harm not in text, f"{harm} in {page}"
    assert "onerror=alert(1)" in (site / "_build/html/book/results.html").read_text(), "shown, as text"


def test_a_failing_chapter_stays_visible_and_the_rest_is_built(site):
    edit(site / "notebooks/contrastive/toy.ipynb", "crash = False", "crash = True")
    edit(site / "notebooks/contrastive/toy.ipynb", '"budget = ', '"crash = True\\n",\n    "budget = ')
    with pytest.raises(NearFarError, match="notebooks failed: toy"):
        build()
    page = (site / "_build/html/notebooks/contrastive/toy.html").read_text()
    assert "The last run of this chapter failed" in page and "asked to crash" in page
    assert not list(site.glob("_build/results/**/*.json"))
    assert (site / "_build/html/book/index.html").is_file()


def test_two_builds_at_once_are_refused(site):
    (site / "_build").mkdir()
    with open(site / "_build/.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(NearFarError, match="another build is at work"):
            build()


def wait_for_the_lock(folder, seconds=60):
    end = time.monotonic() + seconds
    while True:
        try:
            return pipeline.lock(folder).close()
        except NearFarError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def test_a_killed_build_starts_again(site):
    command = [sys.executable, "-m", "nearfar.cli", "book", "--execute-only"]
    process = subprocess.Popen(command, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               start_new_session=True)  # fmt: skip
    log = site / "_build/runs/smoke/toy/seed-0.log"
    while process.poll() is None and not log.is_file():
        time.sleep(0.05)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    wait_for_the_lock(site / "_build")  # on a busy machine what was killed needs a moment to go
    build(execute_only=True)
    assert (site / "_build/runs/smoke/toy/seed-0.ipynb").is_file()


def test_a_disagreeing_registry_stops_the_build(site):
    edit(site / "book/references.bib", "@misc{toy", "@misc{tow")
    with pytest.raises(NearFarError, match="no entry with this key"):
        build()
    assert not (site / "_build").exists()


def test_a_broken_record_is_shown_on_the_results_page(ran):
    site, broken = ran, ran / "results/small/toy/seed-0.json"
    broken.parent.mkdir(parents=True)
    broken.write_text('{"schema": 0}')
    staging.stage("smoke", site / "_build/site")
    page = (site / "_build/site/book/results.md").read_text()
    assert "Records that could not be read" in page and "record schema 0" in page and "| C1 ours wins |" in page


def test_a_staged_chapter_shows_what_ran(ran):
    notebook, error = staging.stage_chapter(papers.get("toy"), "smoke", [])
    assert error is None
    tags = [tag for cell in notebook["cells"] for tag in cell["metadata"].get("tags", [])]
    assert "injected-parameters" not in tags
    text = json.dumps(notebook)
    assert "Reading time about 5 minutes" in text
    assert "Open in Colab" in text and "/blob/main/notebooks/contrastive/toy.ipynb" in text
    assert "No run is recorded yet." in text


def test_a_staged_chapter_links_the_glossary(toybook):
    (toybook / "book/glossary.md").write_text("# Glossary\n\n```{glossary}\nView\n  V.\n\nEmbedding\n  E.\n```\n")
    edit(toybook / "notebooks/contrastive/toy.ipynb", "# Toy", "# Toy embedding\\n\\nEmbeddings of a view")
    notebook, _ = staging.stage_chapter(papers.get("toy"), "smoke", [])
    texts = ["".join(cell["source"]) for cell in notebook["cells"]]
    assert "# Toy embedding\n\n{term}`Embeddings <Embedding>` of a view" in texts


def record(**changes):
    fields = {
        "schema": 1, "slug": "toy", "tier": "smoke", "seed": 0, "device": "cpu", "dataset": {}, "budget": {},
        "started": "", "seconds": 1.0, "peak_memory": {}, "versions": {}, "commit": "", "fingerprint": "",
        "headline": {"metric": "m", "method": "ours", "baseline": "theirs"}, "claims": [],
        "measurements": [{"metric": "m", "method": method, "size": size, "value": size / 99, "higher_is_better": True}
                         for method in ("ours", "theirs") for size in (10, 20)],
    }  # fmt: skip
    return json.dumps({**fields, **changes})


def test_a_book_that_lacks_everything_is_built_and_says_what(site):
    gallery = "# Toy book\n\n```{include} _generated/overview.md\n```\n\n```{include} _generated/gallery.md\n```\n"
    (site / "book/index.md").write_text(gallery)

    def pages():
        staging.stage("smoke", site / "_build/site")
        book._sphinx(site / "_build/site", site / "_build/sphinx.log", jobs=2)
        return [(site / f"_build/html/{name}.html").read_text()
                for name in ("book/index", "book/results", "notebooks/contrastive/toy")]  # fmt: skip

    index, results, chapter = pages()
    assert "so there are no curves to show" in index and "No recorded run yet" in index
    assert "No picture: no cell is tagged" in index and "No runs are recorded yet" in results
    assert "has not been run at this tier" in chapter and "No run is recorded yet." in chapter
    path = site / "results/smoke/toy/seed-0.json"
    path.parent.mkdir(parents=True)
    claims = [{"id": "C1", "text": "wins", "verdict": "held", "evidence": ""}]
    path.write_text(record(measurements=[], claims=claims))
    index, results, _ = pages()
    assert "No data multiplier" in index and "give no data multiplier" in results and "no evidence recorded" in results
    assert "not tested</span>: 1 seed of 3" in results


def test_code_hashes_are_kept_between_builds(site, monkeypatch):
    store, records = site / "_build/hashes.json", [json.loads(record())]
    assert freshness.marked(records, store)[0]["stale"]
    code = notebooks.code_hash("toy", "smoke")
    monkeypatch.setattr(notebooks, "code_hash", lambda *_: pytest.fail("nothing changed"))
    fresh = {**records[0], "fingerprint": notebooks.fingerprint(code, [])}
    assert not freshness.marked([fresh], store)[0]["stale"]
    monkeypatch.setattr(notebooks, "code_hash", lambda *_: "other")
    edit(site / "notebooks/contrastive/toy.ipynb", "ours wins", "ours wins again")
    assert freshness.marked([fresh], store)[0]["stale"]
    store.write_text("broken")
    assert freshness.marked([{**fresh, "slug": "gone"}], store)[0]["stale"]


def test_a_page_describes_itself(site):
    told = "# Toy <&>\\n\\n**In one sentence.** Twice < thrice."
    edit(site / "notebooks/contrastive/toy.ipynb", "# Toy", told)
    staging.stage("smoke", site / "_build/site")
    book._sphinx(site / "_build/site", site / "_build/sphinx.log")
    page = (site / "_build/html/notebooks/contrastive/toy.html").read_text()
    assert '<meta name="description" content="Twice &lt; thrice."/>' in page
    assert '<meta property="og:title" content="Toy &lt;&amp;&gt;"/>' in page and 'content="article"' in page


@pytest.mark.parametrize(
    ("paragraphs", "told"),
    [
        (["Short.", "A paragraph that is long enough to say something."],
         "A paragraph that is long enough to say something."),
        (["A paragraph that is long enough to say something.", "In one sentence. This."], "This."),
        (["word " * 99], " ".join(["word"] * 39) + " …"),
        ([], ""),
    ],
)  # fmt: skip
def test_the_description_is_the_idea_or_the_first_paragraph(paragraphs, told):
    assert website.description(paragraphs) == told
