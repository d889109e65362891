"""One run in several processes: the same record as in one; one line for what cannot be done."""

import json

import pytest
from toybook import edit

from nearfar.chapters import papers
from nearfar.errors import NearFarError
from nearfar.runs import execute, launch, results


def test_two_processes_record_once_what_one_does(toybook, tmp_path, capsys):
    alone = results.read(execute.run("toy", seed=1, device="cpu", progress=False, results=tmp_path / "one"))
    path = launch.run("toy", "smoke", 1, "cpu", devices=2, results=tmp_path / "two")
    together = results.read(path)
    assert path == tmp_path / "two/smoke/toy/seed-1.json" and together["device"] == "2 x cpu"
    differing = {name for name in alone if alone[name] != together[name]}
    assert differing <= {"started", "seconds", "peak_memory", "device"}
    said = (papers.root() / "_build/runs/smoke/toy/seed-1.0.log").read_text()
    assert said.count("C1 held: ours wins") == 1 and "2 processes, log: " in capsys.readouterr().out


def test_a_script_holds_the_code_and_the_parameters(toybook):
    notebook = toybook / "notebooks/contrastive/toy.ipynb"
    text = launch.script(notebook, {"tier": "full", "seed": 3, "device": "cuda"})
    assert "def double(x):" in text
    assert (
        text.index('tier = "smoke"') < text.index("tier = 'full'\nseed = 3\ndevice = 'cuda'\n") < text.index("start(")
    )
    content = json.loads(notebook.read_text())
    content["cells"][3]["metadata"]["tags"] = ["drawing"]
    notebook.write_text(json.dumps(content))
    assert "def double(x):" in text and "cell 3" not in launch.script(notebook, {})


def test_a_process_that_fails_is_one_line_and_leaves_no_record(toybook):
    with pytest.raises(NearFarError, match=r"toy failed .*: RuntimeError: the cell was asked to crash \(log: "):
        launch.run("toy", "smoke", 0, "cpu", devices=2, parameters={"crash": True})
    assert not (toybook / "results").exists()
    edit(toybook / "notebooks/contrastive/toy.ipynb", '"run.finish(budget=budget)"', '"pass"')
    with pytest.raises(NearFarError, match="wrote no record"):
        launch.run("toy", "smoke", 0, "cpu", devices=2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"devices": 0}, "must be at least 1"),
        ({"devices": 2, "nodes": 2, "node": 2, "meet": "host:29500"}, "--node from 0 to nodes - 1"),
        ({"devices": 2, "nodes": 2, "node": 0}, "--meet: several nodes need node 0's address as host:port, got ''"),
        ({"devices": 2, "device": "cuda:1"}, "every process takes a device of its own"),
        ({"devices": 2, "parameters": {"crush": 1}}, "Did you mean crash"),
    ],
)
def test_bad_arguments_start_nothing(toybook, given, message):
    given = {"device": "cpu", **given}
    with pytest.raises(NearFarError, match=message):
        launch.run("toy", "smoke", 0, **given)
    assert not (toybook / "_build").exists()


def test_no_more_processes_than_gpus(toybook, monkeypatch):
    import torch

    monkeypatch.setattr(launch.runs, "choose_device", lambda device: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(NearFarError, match="--devices 2, but PyTorch sees 1 CUDA devices here"):
        launch.run("toy", "smoke", 0, "cuda", devices=2)


def test_two_nodes_meet_and_the_first_records(toybook):
    """Two nodes are two commands; here both on one machine."""
    import socket
    import subprocess
    import sys

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meet = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "nearfar.cli", "run", "toy", "--device", "cpu", "--nodes", "2", "--meet", meet]
    both = [subprocess.Popen([*command, "--node", str(node)], stdout=subprocess.PIPE, text=True) for node in (0, 1)]
    said = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert "C1 held" in said[0] and "C1 held" not in said[1]
    assert results.read(toybook / "results/smoke/toy/seed-0.json")["device"] == "2 x cpu"
