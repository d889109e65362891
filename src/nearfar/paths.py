"""Folders that a user names, in the environment or on the command line: what is relative lies in the user's folder."""

import os
from pathlib import Path

FOLDERS = ("NEARFAR_ROOT", "NEARFAR_DATA", "NEARFAR_RESULTS", "NEARFAR_CACHE")  # variables of the environment


def given(path: str | os.PathLike) -> Path:
    """A path as its user means it: `~` is the home folder, and what is relative lies in the working folder."""
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError:  # no such user: a file's name may begin with ~
        return Path(path).absolute()


def named(variable: str) -> Path | None:
    """The folder that a variable of the environment names; None where it is not set, or empty."""
    return given(value) if (value := os.environ.get(variable)) else None


def settled() -> dict[str, str]:
    """The variables in `FOLDERS` that are set, absolute, as processes that work in another folder are to be given."""
    return {variable: str(path) for variable in FOLDERS if (path := named(variable))}
