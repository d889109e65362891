"""The zip for classrooms: site and checkout, nothing from another host, all or nothing."""

import subprocess
import zipfile

import pytest

from nearfar.chapters import papers
from nearfar.errors import NearFarError
from nearfar.press import offline

PAGE = '<html><head><link rel="stylesheet" href="_static/a.css"></head><body><a href="https://x.org/">x</a>{}</body></html>'


@pytest.fixture
def built(toybook):
    site = toybook / "_build" / "html"
    (site / "_static").mkdir(parents=True)
    (site / "index.html").write_text(PAGE.format('<img src="_static/p.png">'))
    (site / "_static" / "a.css").write_text("a {}")
    (toybook / "_build" / ".site").write_text("digest")
    subprocess.run(["git", "init", "-q", str(toybook)], check=True)
    subprocess.run(["git", "-C", str(toybook), "add", "notebooks", "_toc.yml"], check=True)
    return toybook


def test_the_zip_holds_site_and_checkout(built):
    with zipfile.ZipFile(offline.pack()) as archive:
        names = set(archive.namelist())
    assert "near-and-far/index.html" in names and "near-and-far/site/_static/a.css" in names
    assert "near-and-far/checkout/notebooks/contrastive/toy.ipynb" in names
    assert not [name for name in names if "_build" in name]


@pytest.mark.parametrize(
    "tag",
    [
        '<script src="https://cdn.example.org/a.js"></script>',
        '<img src="//example.org/a.png">',
        '<link rel="preconnect" href="https://fonts.example.org">',
    ],
)
def test_a_page_that_needs_another_host_is_named(built, tag):
    (built / "_build/html/index.html").write_text(PAGE.format(tag))
    with pytest.raises(NearFarError, match="index.html needs .*example.org"):
        offline.pack()
    assert not list((built / "_build").glob("*.zip"))


def test_without_a_site_or_a_clone_it_says_what_to_do(built):
    (built / "_build/.site").unlink()
    with pytest.raises(NearFarError, match="run `make book` first"):
        offline.pack()


def test_a_zip_that_cannot_be_written_leaves_nothing(built):
    (papers.root() / "file").write_text("")
    with pytest.raises(NearFarError, match="could not write"):
        offline.pack(papers.root() / "file" / "a.zip")


@pytest.mark.parametrize("address", ["data:image/png;base64,AAAA", "../a.html?u=https://x.org", "#top", ""])
def test_what_stays_on_the_page_is_fine(address):
    assert offline.fetched(f'<img src="{address}"><link rel="canonical" href="https://x.org/">') == []
