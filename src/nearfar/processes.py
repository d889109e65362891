"""Processes of this machine: whether one is still there, and commands that are waited for."""

import contextlib
import os
import signal
import subprocess

PATIENCE = 10.0  # seconds that an interrupted command has to end what it started


def alive(number: int) -> bool:
    """Whether a process with this number runs, anybody's."""
    if os.name == "nt":  # where os.kill would end it
        import psutil

        return psutil.pid_exists(number)
    try:
        os.kill(number, 0)  # sends nothing
    except OSError as problem:
        return isinstance(problem, PermissionError)  # somebody else's
    return True


def call(command: list[str], **options) -> int:
    """Runs a command and returns its exit code; `options` are those of `subprocess.Popen`.

    Ctrl-C reaches the command too: it is left time to end what it started, then told to, before KeyboardInterrupt goes
    on.
    """
    with subprocess.Popen(command, **options) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            for end in (None, signal.SIGTERM):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    if end:
                        process.send_signal(end)
                    process.wait(PATIENCE)
                    break
            else:
                process.kill()
            raise
