"""The built site: every page is there, its links and images hold, each chapter can be opened in Colab.

Needs `make book`; `.ci/run` calls it after the build.
"""

from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest

from nearfar import offline, pages, papers

SITE = papers.root() / "_build" / "html"


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.links, self.images, self.anchors, self.without_alt = [], [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors |= {found[name] for name in ("id", "name") if found.get(name)}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag == "img":
            self.images.append(found.get("src", ""))
            if "alt" not in found:
                self.without_alt.append(found.get("src", "")[:80])


@pytest.fixture(scope="module")
def site():
    assert (SITE / "index.html").is_file(), "no site: run `make book` first"
    found = (path for path in SITE.rglob("*.html") if "_static" not in path.parts)
    return {path: Page(path.read_text(encoding="utf-8")) for path in found}


def test_every_page_of_the_toc_is_built(site):
    for page in papers.pages():
        assert SITE / f"{page}.html" in site


def test_internal_links_anchors_and_images_hold(site):
    broken = []
    for path, page in site.items():
        for target in page.links + page.images:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            file = file / "index.html" if file.is_dir() else file
            if not file.exists():
                broken.append((path.name, target))
            elif parts.fragment and file in site and unquote(parts.fragment) not in site[file].anchors:
                broken.append((path.name, target))
    assert not broken


def test_no_page_needs_another_host(site):
    needed = {path.name: found for path in site if (found := offline.fetched(path.read_text(encoding="utf-8")))}
    assert not needed


def test_every_image_has_an_alt_text(site):
    assert not [(path.name, image) for path, page in site.items() for image in page.without_alt]


@pytest.mark.parametrize("paper", papers.all_papers(), ids=lambda paper: paper.slug)
def test_the_colab_link_points_at_the_notebook(site, paper):
    page = site[SITE / "notebooks" / paper.part / f"{paper.slug}.html"]
    assert pages.colab_link(paper) in page.links
    assert f"blob/main/notebooks/{paper.part}/{paper.slug}.ipynb" in pages.colab_link(paper)


def test_search_index_knows_the_chapters():
    index = (SITE / "searchindex.js").read_text(encoding="utf-8")
    assert all(f"notebooks/{paper.part}/{paper.slug}" in index for paper in papers.all_papers())
