"""A run: parameters checked, numbers recorded, records written whole or not at all."""

import errno
import json
import os

import pytest
import torch

import nearfar
from nearfar.errors import NearFarError
from nearfar.runs import results, run


@pytest.fixture
def toy(toybook):
    return nearfar.start("toy", "smoke", 3, "cpu")


def fill(toy):
    toy.record("accuracy", 0.5, method="ours", size=10)
    toy.claim("C1", "ours wins", True, "0.5 against 0.4")
    toy.claim("C2", "at scale too", None, "needs the full tier")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("toi", "smoke", 0, "cpu"), "Did you mean toy"),
        (("toy", "smoky", 0, "cpu"), "Did you mean smoke"),
        (("toy", "smoke", -1, "cpu"), "seed must be"),
        (("toy", "smoke", True, "cpu"), "seed must be"),
        (("toy", "smoke", 0, "gpu"), "unknown device 'gpu'"),
        (("toy", "smoke", 0, "meta"), "unknown device 'meta'"),
    ],
)
def test_bad_parameters(toybook, arguments, message):
    with pytest.raises(NearFarError, match=message):
        nearfar.start(*arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_cuda_without_cuda(toybook):
    with pytest.raises(NearFarError, match="PyTorch sees 0 CUDA devices; use --device cpu"):
        nearfar.start("toy", "smoke", 0, "cuda")


def test_record_has_the_designs_fields(toy, toybook, capsys):
    fill(toy)
    toy.finish(budget={"sizes": [10]})
    path = toybook / "results/smoke/toy/seed-3.json"
    record = json.loads(path.read_text())
    fields = "slug tier seed device dataset budget started seconds peak_memory versions commit fingerprint"
    assert set(fields.split()) <= set(record)
    assert record["measurements"] == [
        {"metric": "accuracy", "method": "ours", "size": 10, "value": 0.5, "higher_is_better": True}
    ]
    assert [c["verdict"] for c in record["claims"]] == ["held", "not tested"]
    assert capsys.readouterr().out == "C1 held: ours wins\nC2 not tested: at scale too\n"
    assert results.read(path)["seed"] == 3 and not results.is_stale(record)


def test_generators_are_streams_of_the_seed(toy, toybook):
    draw = lambda run, stream: torch.rand(5, generator=run.generator(stream)).tolist()  # noqa: E731
    other = nearfar.start("toy", "smoke", 4, "cpu")
    assert draw(toy, 0) == draw(toy, 0) != draw(toy, 1)
    assert draw(toy, 0) != draw(other, 0) and draw(toy, 1) != draw(other, 0)


def test_start_seeds_everything(toybook):
    nearfar.start("toy", "smoke", 5, "cpu")
    first = torch.rand(3)
    nearfar.start("toy", "smoke", 5, "cpu")
    assert torch.equal(first, torch.rand(3))


def test_only_finite_numbers_once(toy):
    with pytest.raises(ValueError, match="finite"):
        toy.record("accuracy", float("nan"), method="ours", size=10)
    fill(toy)
    with pytest.raises(ValueError, match="recorded twice"):
        toy.record("accuracy", 0.6, method="ours", size=10)
    with pytest.raises(ValueError, match="judged twice"):
        toy.claim("C1", "again", True, "again")
    with pytest.raises(ValueError, match="evidence"):
        toy.claim("C3", "no evidence", True, " ")


def test_claims_of_every_kind_are_recorded(toy, toybook, capsys):
    toy.record("accuracy", 0.5, method="ours", size=10)
    toy.claim("C1", "one model does what it says", holds=False, evidence="0.1 of 1")
    toy.claim("C2", "wins", kind="superiority", difference=1.5, margin=1, evidence="51.5 against 50")
    toy.claim("C3", "as good", kind="equivalence", difference=-1.5, margin=1, evidence="50 against 51.5")
    toy.claim("C4", "wins at scale", kind="superiority", difference=None, margin=1, evidence="needs the full tier")
    toy.finish(budget={})
    claims = results.read(toybook / "results/smoke/toy/seed-3.json")["claims"]
    assert claims[0] == {
        "id": "C1", "text": "one model does what it says", "evidence": "0.1 of 1", "kind": "mechanism",
        "verdict": "failed",
    }  # fmt: skip
    assert [(c["kind"], c["verdict"], c.get("difference"), c["margin"]) for c in claims[1:]] == [
        ("superiority", "held", 1.5, 1), ("equivalence", "failed", -1.5, 1), ("superiority", "not tested", None, 1),
    ]  # fmt: skip
    assert "C3 failed: as good\n" in capsys.readouterr().out


def test_a_claim_that_says_nothing_is_refused(toy):
    with pytest.raises(ValueError, match="claim C1: superiority needs a difference .* and a margin"):
        toy.claim("C1", "wins", kind="superiority", difference=1.0, evidence="numbers")
    with pytest.raises(ValueError, match="claim C1: a mechanism claim needs holds"):
        toy.claim("C1", "wins", evidence="numbers")
    assert toy.claims == []


def test_an_empty_run_cannot_finish(toy):
    with pytest.raises(ValueError, match="at least one measurement"):
        toy.finish(budget={})


def test_a_headline_must_name_measured_methods(toy):
    fill(toy)
    toy.headline(metric="accuracy", method="ours", baseline="theirs")
    with pytest.raises(ValueError, match="baseline 'theirs'"):
        toy.finish(budget={})


def test_full_disk_leaves_the_old_record(toy, toybook, monkeypatch):
    fill(toy)
    toy.finish(budget={})
    path = toybook / "results/smoke/toy/seed-3.json"
    old = path.read_bytes()

    def no_space(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(NearFarError, match="could not write.*No space left on device"):
        toy.finish(budget={"other": 1})
    assert path.read_bytes() == old
    assert [p.name for p in path.parent.iterdir()] == ["seed-3.json"]


def test_results_folder_follows_the_environment(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("NEARFAR_RESULTS", str(tmp_path / "elsewhere"))
    fill(toy)
    toy.finish(budget={})
    assert run.record_path("toy", "smoke", 3) == tmp_path / "elsewhere/smoke/toy/seed-3.json"
    assert run.record_path("toy", "smoke", 3).is_file()


def test_checkpoints_have_a_file_each_and_go_at_the_end(toybook):
    run = nearfar.start("toy", "smoke", 0)
    first, second = run.checkpoint("ours", 10, {"tau": 0.2}), run.checkpoint("ours", 20, {"tau": 0.2})
    assert first != second and first.parent == toybook / "_build/checkpoints/smoke/toy/seed-0"
    assert nearfar.start("toy", "smoke", 0).checkpoint("ours", 10, {"tau": 0.2}) == first, "a run again: the same file"
    with pytest.raises(ValueError, match="two trainings of this run are called"):
        run.checkpoint("ours", 10, {"tau": 0.2})
    first.parent.mkdir(parents=True)
    first.write_bytes(b"state")
    run.record("accuracy", 0.5, method="ours", size=10)
    run.claim("C1", "a claim", True, "evidence")
    run.finish(budget={})
    assert not first.parent.exists()
