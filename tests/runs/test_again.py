"""Which notebooks the tests run a second time."""

import os
import subprocess
import time

import pytest

from nearfar.chapters import notebooks, papers
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


def test_each_notebook_comes_up_within_three_days():
    slugs = [paper.slug for paper in papers.all_papers()]
    days = [again.chosen(slugs, set(), day) for day in range(20_000, 20_003)]
    assert sorted(sum(days, [])) == sorted(slugs)
    assert max(map(len, days)) - min(map(len, days)) <= 1


@pytest.mark.parametrize("touched", ["notebook", "code", "borrowed"])
def test_what_changed_is_taken_on_any_day(touched):
    slug = "groco"
    path = {
        "notebook": papers.notebook(slug),
        "code": papers.root() / "src/nearfar/losses/contrastive.py",
        "borrowed": papers.notebook("swav"),
    }[touched]
    assert path in notebooks.sources(papers.notebook(slug))
    assert all(slug in again.chosen([slug, "smote", "whitenedcse"], {path}, day) for day in range(3))


def test_a_file_that_no_chapter_needs_changes_nothing():
    touched = {papers.root() / "src/nearfar/press/pages.py"}
    slugs = list(papers.slugs())
    assert again.chosen(slugs, touched, 0) == again.chosen(slugs, set(), 0)


def test_all_where_nothing_is_known():
    slugs = list(papers.slugs())
    assert again.chosen(slugs, None, 0) == sorted(slugs)
