"""Which notebooks the tests run a second time."""

import os
import subprocess
import time

import pytest

from nearfar.chapters import papers
from nearfar.runs import again


@pytest.fixture
def checkout(tmp_path):
    """A repository with one commit of two days ago and one of an hour ago, and an uncommitted file."""

    def git(*command, age=0):
        when = f"{int(time.time() - age)} +0000"
        dates = {"GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when}
        name = ["-c", "user.name=Reader", "-c", "user.email=reader@example.org"]
        subprocess.run(["git", *name, *command], cwd=tmp_path, check=True, capture_output=True, env=os.environ | dates)

    git("init")
    for name, age in (("old.py", 48 * 3600), ("new of today.py", 3600)):
        (tmp_path / name).write_text("")
        git("add", ".")
        git("commit", "-m", name, age=age)
    (tmp_path / "not yet é.py").write_text("")
    return tmp_path


def test_what_changed_since_yesterday(checkout):
    assert again.changed(checkout) == {checkout / "new of today.py", checkout / "not yet é.py"}


def test_without_git_nothing_is_known(tmp_path):
    assert again.changed(tmp_path) is None


def test_each_notebook_comes_up_within_three_days(monkeypatch):
    monkeypatch.setattr(again, "_changed", lambda slug, touched: False)
    slugs = [paper.slug for paper in papers.all_papers()]
    days = [again.chosen(slugs, set(), day) for day in range(20_000, 20_003)]
    assert sorted(sum(days, [])) == sorted(slugs)
    assert max(map(len, days)) - min(map(len, days)) <= 1


@pytest.mark.parametrize("what", ["notebook", "record", "code", "no record"])
def test_what_changed_is_taken_on_any_day(what, toybook, monkeypatch):
    """Among three chapters of which one comes up each day; code that changed makes a record old."""
    record = toybook / "results/smoke/toy/seed-0.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}" if what != "no record" else "")
    monkeypatch.setattr(again.results, "read", lambda path: {"stale": what == "code"})
    touched = {"notebook": {papers.notebook("toy")}, "record": {record}}.get(what, set())
    if what == "no record":
        record.unlink()
    days = [again.chosen(["toy"], touched, day) for day in range(3)]
    assert days == [["toy"]] * 3


def test_what_did_not_change_waits_for_its_day(toybook, monkeypatch):
    record = toybook / "results/smoke/toy/seed-0.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    monkeypatch.setattr(again.results, "read", lambda path: {"stale": False})
    touched = {toybook / "src/nearfar/press/pages.py"}
    assert [again.chosen(["toy"], touched, day) for day in range(3)] == [["toy"], [], []]


def test_all_where_nothing_is_known():
    slugs = list(papers.slugs())
    assert again.chosen(slugs, None, 0) == sorted(slugs)
