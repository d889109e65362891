"""The built site: every page is there, its links and images hold, each chapter can be opened in Colab.

Needs `make book`; `.ci/run` calls it after the build.
"""

from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest

from nearfar.chapters import papers
from nearfar.press import offline, pages, website

SITE = papers.root() / "_build" / "html"


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.links, self.images, self.anchors, self.without_alt = [], [], set(), []
        self.facts, self.levels, self.lang, self.title, self.inside = {}, [], "", "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors |= {found[name] for name in ("id", "name") if found.get(name)}
        self.lang = found.get("lang", "") if tag == "html" else self.lang
        self.inside += [tag] if tag in ("title", "article", "svg") else []
        if tag == "meta" and (found.get("name") or found.get("property")):
            self.facts.setdefault(found.get("name") or found.get("property"), []).append(found.get("content", ""))
        if tag in ("h1", "h2", "h3", "h4", "h5", "h6") and "article" in self.inside:
            self.levels.append(int(tag[1]))
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag == "img":
            self.images.append(found.get("src", ""))
            if "alt" not in found:
                self.without_alt.append(found.get("src", "")[:80])

    def handle_endtag(self, tag):
        if self.inside and self.inside[-1] == tag:
            self.inside.pop()

    def handle_data(self, text):
        self.title += text if self.inside[-1:] == ["title"] else ""


@pytest.fixture(scope="module")
def site():
    assert (SITE / "index.html").is_file(), "no site: run `make book` first"
    found = (path for path in SITE.rglob("*.html") if "_static" not in path.parts)
    return {path: Page(path.read_text(encoding="utf-8")) for path in found}


def test_every_page_of_the_toc_is_built(site):
    for page in papers.pages():
        assert SITE / f"{page}.html" in site


def test_every_page_has_title_language_and_headings_in_order(site):
    for page in (site[SITE / f"{name}.html"] for name in papers.pages()):
        assert page.title.strip() and page.lang == "en"
        assert page.levels.count(1) == 1 and page.levels[0] == 1
        assert all(after <= before + 1 for before, after in zip(page.levels, page.levels[1:], strict=False)), page.title


def test_every_page_says_what_it_is_about_and_no_two_say_the_same(site):
    said = {}
    for name in papers.pages():
        (about,) = site[SITE / f"{name}.html"].facts["description"]
        assert 20 <= len(about) <= website.LONGEST, name
        said.setdefault(about, []).append(name)
    assert not [names for names in said.values() if len(names) > 1]


def test_every_page_can_be_previewed(site):
    for name in papers.pages():
        facts = site[SITE / f"{name}.html"].facts
        assert facts["og:title"][0].strip() and facts["og:description"] == facts["description"]
        assert facts["og:type"] == ["article" if name.startswith("notebooks/") else "website"]


def test_chapters_link_the_glossary(site):
    for paper in papers.all_papers():
        links = site[SITE / "notebooks" / paper.part / f"{paper.slug}.html"].links
        found = [link for link in links if "glossary.html#term-" in link]
        assert 0 < len(found) == len(set(found)), paper.slug


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
