"""What a notebook runs in: this Python, whatever kernels Jupyter knows, and nothing of how its caller likes Python."""

import contextlib
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from ipykernel.kernelspec import RESOURCES, get_kernel_dict
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from traitlets import default

from nearfar import paths, processes

# How somebody likes to draw, to be warned, to debug; PYTHONOPTIMIZE would leave out what notebooks assert.
PERSONAL = (
    "MPLBACKEND", "MATPLOTLIBRC", "IPYTHONDIR", "PYTHONSTARTUP", "PYTHONOPTIMIZE", "PYTHONWARNINGS", "PYTHONINSPECT",
    "PYTHONBREAKPOINT", "PYTHONDEVMODE", "PYTHONIOENCODING",
)  # fmt: skip


class _Here(KernelSpecManager):
    """Knows one kernel: ipykernel in this Python."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        return KernelSpec(resource_dir=RESOURCES, **get_kernel_dict())


class Manager(AsyncKernelManager):
    """Starts kernels in this Python, where Jupyter's search path may have a `python3` of another.

    Inside `ended_by_interrupt` Ctrl-C ends the kernel at once: one that is asked to end prints what it was doing.
    """

    _last: "Manager | None" = None  # the one that was started last
    _starting = _interrupted = False

    @default("kernel_spec_manager")
    def _only_here(self) -> KernelSpecManager:
        return _Here(parent=self)

    async def start_kernel(self, **options) -> None:
        Manager._last, self._starting = self, True
        await super().start_kernel(**options)
        self._starting = False
        if self._interrupted:
            self._end()

    @classmethod
    def interrupt(cls, number: int, frame) -> None:
        """What Ctrl-C calls; a kernel that is just being started is let get so far that it can be ended."""
        if cls._last and cls._last._starting:
            cls._last._interrupted = True
        elif cls._last:
            cls._last._end()
        else:
            raise KeyboardInterrupt

    def _end(self) -> None:
        if process := getattr(self.provisioner, "process", None):
            process.kill()
        raise KeyboardInterrupt


@contextlib.contextmanager
def ended_by_interrupt() -> Iterator[None]:
    """Lets Ctrl-C end the kernel that is started in the block; only a process's main thread hears of it."""
    deaf = signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # as a shell starts what goes on in the background
    if deaf or threading.current_thread() is not threading.main_thread():
        yield
        return
    Manager._last, before = None, signal.signal(signal.SIGINT, Manager.interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def surroundings() -> Iterator[dict[str, str]]:
    """The environment that notebooks and scripts made of them run in, as long as the block lasts.

    It is this process's, without `PERSONAL` and with an IPython folder and matplotlib settings that nobody has changed;
    folders that it names are absolute, since a notebook runs in its own folder.
    """
    kept = {name: value for name, value in os.environ.items() if name not in PERSONAL}
    own = {"PYTHONIOENCODING": "utf-8"}  # of logs, whatever the terminal shows
    drawing = find_spec("matplotlib")
    if drawing and (settings := Path(drawing.origin).parent / "mpl-data" / "matplotlibrc").is_file():
        own["MATPLOTLIBRC"] = str(settings)
    for leftover in Path(tempfile.gettempdir()).glob("nearfar-ipython-*-*"):  # of processes that were killed
        if not processes.alive(int(leftover.name.split("-")[2])):
            shutil.rmtree(leftover, ignore_errors=True)
    prefix = f"nearfar-ipython-{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as folder:  # a kernel may outlive it
        yield {**kept, **own, "IPYTHONDIR": folder, **paths.settled()}
