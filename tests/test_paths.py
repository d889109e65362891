"""Folders that a user names mean the user's, whatever folder a process works in."""

from pathlib import Path

import pytest

from nearfar import data, paths
from nearfar.chapters import papers
from nearfar.data import cache, loading
from nearfar.runs import run


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for variable in paths.FOLDERS:
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "meant"),
    [("~", "home"), ("~/sets", "home/sets"), ("sets", "sets"), ("./a/../b", "a/../b"), ("~nobody-is-called-so", None)],
)
def test_what_a_path_means(home, given, meant):
    assert paths.given(given) == home / (meant or given)
    assert paths.given("/tmp/~") == Path("/tmp/~")


def test_every_variable_is_read_so(home, monkeypatch):
    assert paths.settled() == {}
    (home / "home/book").mkdir(parents=True)
    (home / "home/book/_toc.yml").touch()
    for variable, value in zip(paths.FOLDERS, ("~/book", "sets", "./records", "")):
        monkeypatch.setenv(variable, value)
    assert papers.root() == home / "home/book"
    assert loading.data_root() == home / "sets" and run.results_folder() == home / "records"
    monkeypatch.setenv("NEARFAR_CACHE", "~/kept")
    assert cache.folder() == home / "home/kept" and cache.features_folder() == home / "home/kept/features"
    settled = paths.settled()
    monkeypatch.chdir("/")
    assert [settled[name] for name in paths.FOLDERS] == [
        str(home / name) for name in ("home/book", "sets", "records", "home/kept")
    ]


def test_a_folder_of_data_may_be_given_so(home):
    (home / "home").mkdir()
    assert loading.data_root("~") == home / "home" and loading.data_root("sets") == home / "sets"
    with pytest.raises(data.DataError, match=f"{home}/home/nothing.zip"):
        data.load("nothing", root="~")
