"""Damaged files and odd words never end in a traceback: they are read, or there is one line of `NearFarError`."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nearfar import data
from nearfar.chapters import notebooks, papers
from nearfar.errors import NearFarError
from nearfar.runs import results, run, sweep, verdicts

REAL = Path(__file__).resolve().parents[1]
RECORD = (REAL / "results/smoke/swav/seed-1.json").read_text(encoding="utf-8")
MANY = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True, "database": None}

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def damaged(content: bytes):
    """`content` with a few bytes changed, a piece cut out, or something put in."""

    def apply(edits):
        changed = bytearray(content)
        for place, kind, put in edits:
            at = int(place * len(changed))
            if kind == "change":
                changed[at : at + len(put)] = put
            elif kind == "cut":
                del changed[at : at + 40 * len(put)]
            else:
                changed[at:at] = put
        return bytes(changed)

    edit = st.tuples(
        st.floats(0, 1), st.sampled_from(["change", "cut", "insert"]), st.binary(max_size=3) | st.sampled_from(PIECES)
    )
    return st.lists(edit, min_size=1, max_size=3).map(apply)


PIECES = [b"\n", b"- file: x", b"{", b"}", b"[", b'"', b":", b"@misc{", b",", b"null", b"NaN", b"-1", b"\0", b"&a *a"]


def reads_or_says(function, *arguments):
    """Calls it; an error has to be one line that is meant for a reader."""
    try:
        return function(*arguments)
    except NearFarError as problem:
        assert str(problem) and "\n" not in str(problem), problem
        return None


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A small copy of the project's registry."""
    for name in ("_toc.yml", "book/references.bib"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REAL / name, tmp_path / name)
    for paper in papers.all_papers():
        target = tmp_path / paper.notebook.relative_to(REAL)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(paper.notebook, target)
    monkeypatch.setenv("NEARFAR_ROOT", str(tmp_path))
    return tmp_path


@settings(max_examples=250, **MANY)
@given(content=damaged(RECORD.encode()))
def test_damaged_records(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzz" / "smoke" / "swav" / "seed-1.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    reads_or_says(results.read, path)
    records, problems = results.read_all(places=[path.parents[2]])
    assert len(records) + len(problems) == 1
    reads_or_says(results.measurements_of, records)
    reads_or_says(results.claims_of, records)


@settings(max_examples=250, **MANY)
@given(field=st.sampled_from(sorted(json.loads(RECORD))), inside=st.booleans(), value=ANYTHING)
def test_records_with_other_content(tmp_path_factory, field, inside, value):
    record = json.loads(RECORD)
    if inside and isinstance(record[field], list):
        record[field][0] = {**record[field][0], **(value if isinstance(value, dict) else {"value": value})}
    elif inside and isinstance(record[field], dict):
        record[field] = {**record[field], "device_MiB": value}
    else:
        record[field] = value
    path = tmp_path_factory.getbasetemp() / "fuzz" / "smoke" / "swav" / "seed-1.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))
    records, problems = results.read_all(places=[path.parents[2]])
    assert len(records) + len(problems) == 1
    results.measurements_of(records)
    results.claims_of(records)
    results.groups(records)
    for mine in records:
        results.is_stale(mine)
        reads_or_says(results.headline, [mine])
        reads_or_says(verdicts.over_seeds, [mine])


@settings(max_examples=200, **MANY)
@given(content=damaged((REAL / "_toc.yml").read_bytes()))
def test_damaged_tables_of_contents(checkout, content):
    (checkout / "_toc.yml").write_bytes(content)
    reads_or_says(papers.slugs)
    reads_or_says(papers.all_papers)
    shutil.copyfile(REAL / "_toc.yml", checkout / "_toc.yml")


@settings(max_examples=200, **MANY)
@given(content=damaged((REAL / "book/references.bib").read_bytes()))
def test_damaged_references(checkout, content):
    (checkout / "book/references.bib").write_bytes(content)
    reads_or_says(papers.all_papers)


@settings(max_examples=150, **MANY)
@given(content=damaged((REAL / "notebooks/contrastive/swav.ipynb").read_bytes()))
def test_damaged_notebooks(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzz.ipynb"
    path.write_bytes(content)
    for function in (notebooks.code_cells, notebooks.parameters, notebooks.page_hash):
        reads_or_says(function, path)


@settings(max_examples=200, **MANY)
@given(tier=st.text(max_size=6), seed=ANYTHING, device=st.text(max_size=8), seeds=st.text("0123456789-, x", max_size=9))
def test_odd_parameters(tier, seed, device, seeds):
    reads_or_says(run.check, tier, seed, device)
    reads_or_says(run.check, "smoke", 0, device)
    reads_or_says(sweep.seeds, seeds)
    reads_or_says(papers.notebook, tier)
    reads_or_says(data.load, device)


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    from PIL import Image

    folder = tmp_path_factory.mktemp("zips")
    Image.new("RGB", (6, 6), (3, 4, 5)).save(folder / "0.png")
    with zipfile.ZipFile(folder / "mine.zip", "w") as file:
        for name in ("train/a/0.png", "train/b/0.png", "test/a/0.png", "test/b/0.png"):
            file.write(folder / "0.png", name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEARFAR_CACHE", str(tmp_path_factory.mktemp("decoded")))
        yield folder / "mine.zip"


@settings(max_examples=250, **MANY)
@given(draw=st.data())
def test_damaged_zips(archive, draw):
    folder = archive.parent / "damaged"
    folder.mkdir(exist_ok=True)
    (folder / "mine.zip").write_bytes(draw.draw(damaged(archive.read_bytes())))
    before = sorted(archive.parent.rglob("*"))
    reads_or_says(lambda: data.load("mine", root=folder))
    assert sorted(archive.parent.rglob("*")) == before  # nothing was unpacked anywhere near
