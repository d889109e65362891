"""What only a browser can tell: formulas are typeset, buttons and sliders work, nothing is fetched from elsewhere."""

import gzip

import pytest

from nearfar.chapters import papers

CHAPTERS = [f"notebooks/{paper.part}/{paper.slug}.html" for paper in papers.all_papers()]
PAGES = [f"{page}.html" for page in papers.pages()]
LIMIT = 1.5e6  # bytes; 0.7 MB of them are MathJax and the theme's styles, scripts and fonts


@pytest.mark.parametrize("path", PAGES)
def test_a_page_loads_whole_and_from_here_only(visit, address, path):
    page = visit(path)
    assert not page.complaints
    assert not [url for url in page.fetched if not url.startswith((address, "data:"))]
    assert page.locator("article h1").count() == 1 and page.title()
    assert page.locator("html").get_attribute("lang") == "en"
    levels = page.eval_on_selector_all("article :is(h1, h2, h3, h4)", "all => all.map(e => +e.tagName[1])")
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False)), levels
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 1


@pytest.mark.parametrize("path", [*CHAPTERS, "book/how-to-run.html"])
def test_a_laptop_shows_code_without_scrolling(visit, path):
    page = visit(path, viewport={"width": 1280, "height": 800})
    blocks = page.eval_on_selector_all(
        "div.highlight pre",
        """all => all.filter(e => !e.closest("details")).map(e => [e.scrollWidth - e.clientWidth, e.innerText])""",
    )
    assert len(blocks) > 3
    wide = [text[:60] for beyond, text in blocks if beyond > 1]
    assert len(wide) <= 1, wide  # a long function


@pytest.mark.parametrize("path", CHAPTERS)
def test_a_figure_comes_first_and_its_code_behind_one_line(visit, path):
    page = visit(path)
    folds = page.eval_on_selector_all(
        ".cell.tag_hide-input > details",
        "all => all.map(e => [e.open, e.offsetHeight, getComputedStyle(e).backgroundColor, e.innerText])",
    )
    assert len(folds) > 5
    assert {(opened, height < 40, ground) for opened, height, ground, _ in folds} == {(False, True, "rgba(0, 0, 0, 0)")}
    assert "code cell" not in "".join(name for *_, name in folds)  # each has a name
    drawn = page.eval_on_selector_all(
        ".cell.tag_hide-input",
        """all => all.filter(e => e.innerText.trim() === "The code of this figure").map(
            e => e.previousElementSibling.querySelectorAll(".cell_output img").length)""",
    )
    assert len(drawn) > 2 and all(drawn)
    figure = page.locator(".cell.tag_hide-input", has_text="The code of this figure").first
    figure.locator("summary").click()
    assert figure.locator("div.highlight pre").is_visible()


@pytest.mark.parametrize("path", CHAPTERS)
def test_formulas_are_typeset(visit, path):
    page = visit(path)
    page.wait_for_selector("mjx-container")
    assert page.locator("mjx-container").count() > 10
    assert page.locator("mjx-merror").count() == 0
    assert page.locator(".math.notranslate").filter(has_text="\\(").count() == 0


@pytest.mark.parametrize("path", CHAPTERS)
def test_a_chapter_is_light_enough(visit, path):
    """As web servers send it: text compressed, pictures and fonts as they are."""
    page = visit(path)
    sizes = {}
    for url, request in list(page.fetched.items()):
        body = request.response().body()
        text = url.split("?")[0].endswith((".html", ".js", ".css", ".svg"))
        sizes[url] = len(gzip.compress(body)) if text else len(body)
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:4]
    assert sum(sizes.values()) <= LIMIT, f"{sum(sizes.values()) / 1e6:.2f} MB, most of it {largest}"


@pytest.mark.parametrize("path", CHAPTERS)
def test_the_slider_changes_the_figure(visit, path):
    page = visit(path)
    slider, shown = page.locator(".nf-frames input[type=range]").first, page.locator(".nf-frames img:visible").first
    before = shown.get_attribute("alt")
    slider.focus()
    slider.press("Home" if slider.input_value() != "0" else "End")
    assert shown.get_attribute("alt") != before
    assert page.locator(".nf-frames output").first.inner_text() in shown.get_attribute("alt")


@pytest.mark.parametrize(("word", "slug"), [("Sinkhorn", "swav"), ("minority", "smote"), ("regressor", "conr")])
def test_search_finds_a_chapter_by_a_word_of_its_text(visit, word, slug):
    page = visit(f"search.html?q={word}")
    page.wait_for_selector("#search-results li a")
    links = page.eval_on_selector_all("#search-results a", "all => all.map(e => e.href)")
    assert any(f"/{slug}.html" in link for link in links)


def test_the_filters_do_not_move_the_page_when_they_appear(visit):
    """Their room is kept before the script runs, or when it never does."""
    rooms = []
    for script in (False, True):
        page = visit("book/index.html", java_script_enabled=script)
        rooms.append(page.eval_on_selector_all(".nf-filter", "all => all.map((box) => box.offsetHeight)"))
    assert rooms[0] and all(abs(before - after) < 8 for before, after in zip(*rooms, strict=True)), rooms


def test_the_themes_icons_are_drawn(visit):
    """By the theme's font: the script that would draw them a second time is left out."""
    page = visit(CHAPTERS[0])
    icons = page.locator(":is(.fa-solid, .fas, .fab):visible")
    assert icons.count() >= 5
    for icon in icons.all():
        content, family, width = icon.evaluate(
            "e => { const s = getComputedStyle(e, '::before'); return [s.content, s.fontFamily, e.offsetWidth]; }"
        )
        assert content not in ("none", "normal") and "Font Awesome" in family and width > 4
    assert page.evaluate("[...document.fonts].some(f => f.family.includes('Awesome') && f.status === 'loaded')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_glossary_terms_are_underlined_with_dots(visit, scheme):
    page = visit(CHAPTERS[0], color_scheme=scheme)
    term = page.locator("article a:has(> .std-term)").first
    style = term.evaluate("e => { const s = getComputedStyle(e); return [s.textDecorationStyle, s.color]; }")
    assert style == ["dotted", page.locator("article p").first.evaluate("e => getComputedStyle(e).color")]


@pytest.mark.parametrize("path", ["book/index.html", "book/results.html", "book/problems.html", *CHAPTERS[:2]])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_barrier(visit, path, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs `pip install -e '.[browser]'`")
    found = axe.Axe().run(visit(path, color_scheme=scheme)).response["violations"]
    bad = [
        (v["id"], v["nodes"][0]["html"][:120], len(v["nodes"])) for v in found if v["impact"] in ("serious", "critical")
    ]
    assert not bad


@pytest.mark.parametrize(
    "path", ["book/index.html", "book/results.html", "book/problems.html", "book/how-to-read.html", *CHAPTERS]
)
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_screenshots_to_look_at(visit, path, width, scheme):
    page = visit(path, viewport={"width": width, "height": 900}, color_scheme=scheme)
    folder = papers.root() / "_build" / "screenshots"
    file = folder / f"{path.split('/')[-1].removesuffix('.html')}-{width}-{scheme}.png"
    page.screenshot(path=file, full_page=True)
    assert file.stat().st_size > 10_000
