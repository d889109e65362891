"""Kernels forked from one process that has torch and its like imported: a notebook starts in a tenth of the time.

The pipeline starts that process (`parent`) and names `Provisioner` in the environment; Jupyter then asks it for every
kernel.  The process only imports: it never computes, holds none of this package's code, and serves nobody unless it has
a single thread, so a forked kernel is what a new one would be after the same imports.  Where a kernel cannot be forked
(no such process, another Python, a GPU, which does not survive a fork, or not Linux) it is started as ever.

    python -m nearfar.runs.forked COMMAND ...    # a command whose kernels are forked, in `kernels.surroundings`
"""

import contextlib
import gc
import importlib
import json
import os
import secrets
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
from importlib.metadata import entry_points

from jupyter_client.provisioning import LocalProvisioner

NAME, GROUP = "nearfar-forked", "jupyter_client.kernel_provisioners"  # as pyproject.toml declares it
ADDRESS = "NEARFAR_FORKED"  # variable of the environment: the process's socket, in Linux's abstract namespace
PRELOADED = (
    "torch", "torch._dynamo", "matplotlib.pyplot", "pandas", "sklearn.linear_model", "torchvision",
    "IPython", "ipywidgets", "ipykernel.kernelapp",
)  # fmt: skip
MESSAGE, STARTED, ENDED = 1 << 16, b"pid ", b"ended "


# ---------------------------------------------------------------------------------------- the side that asks
class Kernel:
    """A forked kernel: the part of `subprocess.Popen` that `LocalProvisioner` uses."""

    stdin = stdout = stderr = None

    def __init__(self, connection: socket.socket, pid: int):
        self.connection, self.pid, self.returncode = connection, pid, None

    def _ended(self, flags: int = 0) -> int:
        told = self.connection.recv(MESSAGE, flags)  # nothing: the parent was killed, and its kernels with it
        self.connection.close()
        return int(told.removeprefix(ENDED)) if told.startswith(ENDED) else -signal.SIGKILL

    def poll(self) -> int | None:
        if self.returncode is None:
            with contextlib.suppress(BlockingIOError):  # it is alive
                self.returncode = self._ended(socket.MSG_DONTWAIT)
        return self.returncode

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = self._ended()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


class Provisioner(LocalProvisioner):
    """Gives Jupyter a forked kernel, or one started as ever where no process can be forked for it."""

    async def launch_kernel(self, cmd: list[str], **kwargs):
        kernel = _ask(cmd, kwargs.get("cwd"), kwargs.get("env") or dict(os.environ))
        if kernel is None:
            return await super().launch_kernel(cmd, **kwargs)
        self.process, self.pid, self.pgid = kernel, kernel.pid, kernel.pid
        return self.connection_info


def _ask(command: list[str], folder, environment: dict[str, str]) -> Kernel | None:
    """A kernel with this process's output, or None if it must be started as ever."""
    address = os.environ.get(ADDRESS)
    if not address or command[0] != sys.executable or "ipykernel_launcher" not in command:
        return None
    arguments = command[command.index("ipykernel_launcher") + 1 :]
    wanted = {"arguments": arguments, "folder": str(folder or os.getcwd()), "environment": environment}
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect("\0" + address)
        outputs = [os.dup(1), os.dup(2)]
        try:
            socket.send_fds(connection, [b"\n"], outputs)
        finally:
            for output in outputs:
                os.close(output)
        connection.sendall(json.dumps(wanted).encode() + b"\n")
        told = b""
        while not told.endswith(b"\n") and (more := connection.recv(1)):  # this line only, not how it ended
            told += more
        if told.startswith(STARTED):
            return Kernel(connection, int(told.removeprefix(STARTED)))
    except OSError:  # the process has gone, or does not serve
        pass
    connection.close()
    return None


# ---------------------------------------------------------------------------------------- the process that forks
def _request(connection: socket.socket) -> tuple[dict, list[int]] | None:
    """What one of this user's processes wants, and where its kernel shall print; None from anybody else."""
    asking = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    text, outputs = b"", []
    with contextlib.suppress(OSError):  # it was killed while it asked
        outputs = socket.recv_fds(connection, 1, 2)[1]
        while not text.endswith(b"\n") and (more := connection.recv(MESSAGE)):
            text += more
    if asking[1] == os.getuid() and len(outputs) == 2 and text.endswith(b"\n"):
        return json.loads(text), outputs
    for output in outputs:
        os.close(output)
    return None


def _become(connection: socket.socket, wanted: dict, outputs: list[int]) -> None:
    """Turns a fresh fork into the kernel: what `python -m ipykernel_launcher` would be after its imports.

    Tells its number once it leads a group of its own, so that whoever asked can signal all that the kernel starts.
    """
    import numpy as np
    from ipykernel import kernelapp

    os.setsid()
    _tell(connection, STARTED, os.getpid())
    connection.close()
    null = os.open(os.devnull, os.O_RDONLY)
    for here, there in zip((null, *outputs), (0, 1, 2)):
        os.dup2(here, there)
        os.close(here)
    os.environ.clear()
    os.environ.update(wanted["environment"])
    os.chdir(wanted["folder"])
    np.random.seed()  # Python's own generator does so after a fork; torch's starts from a constant anyway
    sys.argv = ["ipykernel_launcher", *wanted["arguments"]]
    kernelapp.launch_new_instance()


def serve(listener: socket.socket) -> None:
    """Forks a kernel for each connection and tells its pid, then how it ended, until standard input is closed.

    A kernel whose connection is closed is killed, and so are all when this process's own parent is.
    """
    os.environ["JPY_PARENT_PID"] = str(os.getpid())  # ipykernel reads it at its import: kernels follow their parent
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")  # as in any kernel
    for name in PRELOADED:
        importlib.import_module(name)
    if len(os.listdir("/proc/self/task")) > 1:
        raise SystemExit("forked kernels: an import started threads, which a fork would lose; kernels start as ever.")
    gc.collect()
    gc.freeze()  # so that a collection in a kernel does not copy what all share
    connections: dict[int, socket.socket] = {}  # by the kernel's pid
    watched = selectors.DefaultSelector()
    watched.register(0, selectors.EVENT_READ)
    watched.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in watched.select():
            if key.fd == 0:
                for pid in connections:
                    _kill(pid)
                return
            if key.fileobj is listener:
                connection, _ = listener.accept()
                if (request := _request(connection)) is None:
                    connection.close()
                    continue
                if (pid := os.fork()) == 0:
                    _let_go(watched, list(connections.values()))
                    return _become(connection, *request)
                for output in request[1]:
                    os.close(output)
                connections[pid] = connection
                watched.register(connection, selectors.EVENT_READ, pid)
                watched.register(os.pidfd_open(pid), selectors.EVENT_READ, pid)
            elif isinstance(key.fileobj, socket.socket):
                if key.data in connections:  # whoever asked for it has gone, and the kernel is still there
                    watched.unregister(key.fileobj)
                    _kill(key.data)
            else:  # the kernel has ended
                watched.unregister(key.fd)
                os.close(key.fd)
                connection = connections.pop(key.data)
                with contextlib.suppress(KeyError):
                    watched.unregister(connection)
                _tell(connection, ENDED, os.waitstatus_to_exitcode(os.waitpid(key.data, 0)[1]))
                connection.close()


def _tell(connection: socket.socket, what: bytes, number: int) -> None:
    with contextlib.suppress(OSError):  # nobody there any more
        connection.sendall(b"%b%d\n" % (what, number))


def _kill(pid: int) -> None:
    """Ends a kernel and what it started; one that has just been forked leads no group yet."""
    for end in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError):
            return end(pid, signal.SIGKILL)


def _let_go(watched: selectors.BaseSelector, connections: list[socket.socket]) -> None:
    """Closes in a fork what belongs to the process that it comes from."""
    files = [key.fileobj for key in watched.get_map().values()]
    watched.close()
    for file in {*files, *connections} - {0}:
        os.close(file) if isinstance(file, int) else file.close()


# ---------------------------------------------------------------------------------------- the pipeline's side
def possible(device: str = "cpu") -> bool:
    """Whether kernels can be forked here: Linux, no GPU that a run might use, and Jupyter knows of `Provisioner`."""
    gpu = device != "cpu" and (shutil.which("nvidia-smi") or os.path.exists("/dev/kfd"))
    known = entry_points(group=GROUP, name=NAME)  # not after an update without `pip install`
    able = sys.platform == "linux" and hasattr(os, "fork") and hasattr(os, "pidfd_open")
    return able and bool(known) and not gpu


@contextlib.contextmanager
def parent(device: str = "cpu"):
    """Starts the process that kernels are forked from, for as long as the block lasts.

    Yields the variables of the environment that commands in the block are to be given (none where it is impossible).
    """
    if not possible(device):
        yield {}
        return
    from nearfar.runs import kernels

    address = f"nearfar-{secrets.token_hex(16)}"
    with kernels.surroundings() as environment:  # what it imports reads its settings then
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("\0" + address)
            listener.listen(64)
            process = subprocess.Popen(
                [sys.executable, __file__, str(listener.fileno())], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                pass_fds=[listener.fileno()], start_new_session=True, env=environment | {"OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        try:
            yield {ADDRESS: address, "JUPYTER_DEFAULT_PROVISIONER_NAME": NAME}
        finally:
            process.terminate()  # at any moment, also while it imports; kernels that are left end once they notice
            process.wait()
            process.stdin.close()


def _command(words: list[str]) -> int:
    from nearfar import processes
    from nearfar.runs import kernels

    with kernels.surroundings() as environment, parent() as variables:
        return processes.call(words, env=environment | variables)


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].isdecimal():
        sys.path.pop(0)  # this file's folder, whose modules carry names of others
        serve(socket.socket(fileno=int(sys.argv[1])))
    else:
        sys.exit(_command(sys.argv[1:]))
