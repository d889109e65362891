"""Forked kernels run notebooks as new ones do, and go when whoever asked for them goes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from jupyter_client import KernelManager
from jupyter_client.provisioning import KernelProvisionerFactory
from toybook import edit

from nearfar.chapters import papers
from nearfar.errors import NearFarError
from nearfar.runs import execute, forked, results

pytestmark = pytest.mark.skipif(not forked.possible(), reason="kernels are forked on Linux only")
SLEEPER = "import os, pathlib, time; pathlib.Path('kernel.pid').write_text(str(os.getpid())); time.sleep(100)"

LOOKS = (
    "import nearfar, os, sys",
    "assert os.environ['ONLY_NOW'] == 'given'",
    "assert 'torch._dynamo' in sys.modules",
    "assert os.path.exists('toy.ipynb') and os.getsid(0) == os.getpid()",
    "assert not sys.path[0].endswith('nearfar'), sys.path",
    "os.write(2, b'a word from below')",
)


def silent():
    """A connection whose other side has been closed, and a number."""
    import socket

    mine, other = socket.socketpair()
    other.close()
    return mine, 1


def parents(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def ended(pid: int, seconds: float = 10) -> bool:
    """Whether a process is gone, or is a zombie, within some seconds."""
    for _ in range(int(seconds * 20)):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


def test_a_forked_run_records_what_a_run_in_a_new_kernel_does(toybook, forking, monkeypatch, tmp_path):
    fork = results.read(execute.run("toy", progress=False, results=tmp_path / "fork"))
    monkeypatch.delenv(forked.ADDRESS)
    new = results.read(execute.run("toy", progress=False, results=tmp_path / "new"))
    differing = {name for name in new if new[name] != fork[name]}
    assert differing <= {"started", "seconds", "peak_memory"}


def test_a_kernel_is_a_fork_with_its_own_folder_variables_and_output(toybook, forking, monkeypatch, capfd):
    monkeypatch.setenv("ONLY_NOW", "given")
    looking = ", ".join(f'"{line}\\n"' for line in LOOKS)
    edit(toybook / "notebooks/contrastive/toy.ipynb", '"import nearfar\\n"', looking)
    execute.run("toy", progress=False)
    assert "a word from below" in capfd.readouterr().err


def test_a_forked_kernel_that_dies_is_one_line(toybook, forking):
    notebook = toybook / "notebooks/contrastive/toy.ipynb"
    edit(notebook, 'raise RuntimeError(\\"the cell was asked to crash\\")', "os._exit(9)")
    edit(notebook, '"import nearfar\\n"', '"import nearfar, os\\n"')
    with pytest.raises(NearFarError, match="its kernel died"):
        execute.run("toy", parameters={"crash": True}, progress=False)
    execute.run("toy", progress=False)


def test_kernels_end_tell_their_status_and_can_be_interrupted(forking):
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel()
    kernel = manager.provisioner.process
    assert isinstance(kernel, forked.Kernel) and kernel.poll() is None and os.getpgid(kernel.pid) == kernel.pid
    client = manager.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    asked = client.execute("import time; time.sleep(60)", stop_on_error=False)  # else what is sent next may be dropped
    time.sleep(0.5)
    manager.interrupt_kernel()
    reply = client.get_shell_msg(timeout=20)
    assert reply["parent_header"]["msg_id"] == asked and reply["content"]["ename"] == "KeyboardInterrupt"
    client.execute("import os; os._exit(7)")
    assert kernel.wait() == 7 and kernel.poll() == 7
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_a_kernel_that_ends_as_whoever_asked_leaves_harms_no_other(forking):
    first, second = KernelManager(kernel_name="python3"), KernelManager(kernel_name="python3")
    first.start_kernel()
    kernel = first.provisioner.process
    process = parents(kernel.pid)
    os.kill(process, signal.SIGSTOP)  # so that it learns of both at once
    kernel.kill()
    assert ended(kernel.pid)
    kernel.connection.close()
    os.kill(process, signal.SIGCONT)
    second.start_kernel()
    assert isinstance(second.provisioner.process, forked.Kernel) and parents(second.provisioner.pid) == process
    second.shutdown_kernel(now=True)


@pytest.mark.parametrize("victim", ["whoever asked", "the process that forks", "the pipeline"])
def test_no_kernel_outlives(victim, toybook, tmp_path):
    edit(toybook / "notebooks/contrastive/toy.ipynb", '"import nearfar\\n"', f'"import nearfar; {SLEEPER}\\n"')
    command = [sys.executable, "-m", "nearfar.runs.forked", sys.executable, "-m", "nearfar.cli", "run", "toy"]
    pipeline = subprocess.Popen(
        command, env={**os.environ, "NEARFAR_ROOT": str(papers.root())}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    written = toybook / "notebooks/contrastive/kernel.pid"
    for _ in range(1200):
        if pipeline.poll() is not None or (written.is_file() and written.read_text()):
            break
        time.sleep(0.05)
    kernel = int(written.read_text())
    process = parents(kernel)
    children = [int(pid) for pid in Path(f"/proc/{pipeline.pid}/task/{pipeline.pid}/children").read_text().split()]
    (asked,) = set(children) - {process}
    doomed = {"whoever asked": asked, "the process that forks": process, "the pipeline": pipeline.pid}[victim]
    os.kill(doomed, signal.SIGKILL)
    assert ended(kernel)
    if victim == "the process that forks":
        assert pipeline.wait(timeout=60) == 1, "its kernel died: the run fails"
    else:
        os.killpg(pipeline.pid, signal.SIGKILL)
        pipeline.wait()
    assert ended(process), "nor does the process that forks"


def test_without_the_process_kernels_start_as_ever(toybook, monkeypatch):
    KernelProvisionerFactory.clear_instance()
    monkeypatch.setenv("JUPYTER_DEFAULT_PROVISIONER_NAME", "nearfar-forked")
    for address in ("", "nearfar-nobody-listens-here"):
        monkeypatch.setenv(forked.ADDRESS, address)
        execute.run("toy", progress=False)


def test_strangers_and_nonsense_are_turned_away(variables):
    import socket

    assert forked.Kernel(*silent()).wait() == -signal.SIGKILL, "whoever forked it has gone"
    for sent in (b"", b"\n", b"nonsense", b"GET / HTTP/1.1\n\n"):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect("\0" + variables[forked.ADDRESS])
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(100) == b"", "closed without a kernel"
    other = dict(command=[sys.executable + "-other", "-m", "ipykernel_launcher", "-f", "x"], folder=None)
    assert forked._ask(other["command"], other["folder"], {}) is None


def test_a_gpu_or_another_system_forbids_it(monkeypatch):
    monkeypatch.setattr(forked.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert forked.possible("cpu") and not forked.possible("auto") and not forked.possible("cuda")
    with forked.parent("cuda") as given:
        assert given == {}
    with monkeypatch.context() as patch:
        patch.setattr(forked.sys, "platform", "darwin")
        assert not forked.possible("cpu")
    monkeypatch.setattr(forked, "entry_points", lambda **names: ())
    assert not forked.possible("cpu"), "Jupyter would not find it"
