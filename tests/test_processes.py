"""Commands that are waited for: Ctrl-C gives them time, then ends them."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from nearfar import processes

WRITES = "import pathlib, signal, sys, time; {}; print('up', flush=True); time.sleep(60)"
SLOW = "signal.signal(signal.SIGINT, lambda *_: (time.sleep(0.6), sys.exit(3)))"  # longer than `subprocess.run` waits
DEAF = "signal.signal(signal.SIGINT, signal.SIG_IGN)"


def test_the_exit_code_comes_back():
    assert processes.call([sys.executable, "-c", "raise SystemExit(7)"]) == 7


def test_a_dead_process_is_not_alive():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert processes.alive(os.getpid()) and not processes.alive(process.pid)


@pytest.mark.parametrize(("how", "ended"), [(SLOW, 3), (DEAF, -signal.SIGTERM)])
def test_ctrl_c_lets_a_command_end_what_it_started(how, ended, monkeypatch):
    monkeypatch.setattr(processes, "PATIENCE", 2.0)
    seen = []

    class Watched(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            seen.append(self)
            threading.Thread(target=self.press).start()

        def press(self):  # as a terminal does: both are told
            self.stdout.readline()
            for number in (self.pid, os.getpid()):
                os.kill(number, signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Watched)
    before = time.time()
    with pytest.raises(KeyboardInterrupt):
        processes.call([sys.executable, "-c", WRITES.format(how)], stdout=subprocess.PIPE)
    assert seen[0].returncode == ended and time.time() - before < 10
