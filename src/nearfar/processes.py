"""Which processes of this machine are still there: what a dead one left half-done may be cleared away."""

import os


def alive(number: int) -> bool:
    """Whether a process with this number runs, anybody's."""
    try:
        os.kill(number, 0)  # sends nothing
    except OSError as problem:
        return isinstance(problem, PermissionError)  # somebody else's
    return True
