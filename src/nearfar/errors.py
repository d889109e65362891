"""Errors that a reader can act on: one line each, shown by the command line without a traceback."""

import contextlib
from difflib import get_close_matches


class NearFarError(Exception):
    """Something the reader asked for cannot be done; the message says what to do instead."""


@contextlib.contextmanager
def writing(path):
    """Raises `NearFarError`, which names `path`, where the block cannot write: a full disk, a folder of others."""
    try:
        yield
    except OSError as problem:
        raise NearFarError(
            f"could not write {path}: {problem.strerror or problem}; nothing was changed. "
            "Make room, or make it writable; NEARFAR_RESULTS says where else records go."
        ) from problem


def nearest(name: str, known) -> str:
    """' Did you mean a, b?' for the names in `known` closest to `name`, or '' when none is close."""
    known = sorted(known)
    close = get_close_matches(name, known, n=3, cutoff=0.4) or [k for k in known if name and name in k][:3]
    return f" Did you mean {', '.join(close)}?" if close else ""
