"""Every page at 390 pixels: one column, and what is wider scrolls in a box of its own that one can see and reach."""

import pytest

from nearfar.chapters import papers
from nearfar.press import website

PAGES = [f"{page}.html" for page in papers.pages()]
PHONE = {"viewport": {"width": 390, "height": 844}}

BEYOND = """() => [...document.querySelectorAll(".bd-article *")].filter((e) => {
    const right = e.getBoundingClientRect().right;
    if (right <= innerWidth + 1 || !e.checkVisibility() || e.closest("mjx-assistive-mml, title")) return false;
    for (let box = e.parentElement; box; box = box.parentElement) {
        const fits = box.getBoundingClientRect().right <= innerWidth + 1;
        if (fits && ["auto", "scroll"].includes(getComputedStyle(box).overflowX)) return !box.closest(".bd-article");
    }
    return true;
}).map((e) => e.outerHTML.slice(0, 120))"""

BOXES = """() => [...document.querySelectorAll(".bd-article :is(pre, table, div.math, .nf-long, .nf-box)")]
    .filter((e) => e.checkVisibility() && e.scrollWidth > e.clientWidth + 1).map((e) => {
        const left = e.scrollLeft, style = getComputedStyle(e), edge = e.getBoundingClientRect().left;
        const first = Math.min(...[...e.children].map((child) => child.getBoundingClientRect().left - edge));
        e.scrollLeft = 1e6;
        const reached = e.scrollLeft + e.clientWidth >= e.scrollWidth - 1 && e.scrollLeft > left;
        e.scrollLeft = left;
        return [e.outerHTML.slice(0, 120), left === 0 && first >= -1, reached, e.tabIndex === 0,
                style.backgroundImage.includes("gradient")];
    })"""

FIGURES = """() => [...document.querySelectorAll(".bd-article img")].filter((e) => e.checkVisibility() && e.complete)
    .map((e) => [e.alt.slice(0, 60), e.naturalWidth, e.getBoundingClientRect().width])"""


@pytest.mark.parametrize("path", PAGES)
def test_a_phone_shows_a_page_in_one_column(visit, path):
    page = visit(path, **PHONE)
    page.wait_for_function("!window.MathJax || !MathJax.startup || MathJax.startup.promise.then(() => true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= page.evaluate("innerWidth")
    assert page.evaluate(BEYOND) == []
    for what, from_its_start, to_its_end, by_keyboard, visibly in page.evaluate(BOXES):
        assert from_its_start and to_its_end and by_keyboard and visibly, what


@pytest.mark.parametrize("path", PAGES)
def test_a_phone_shows_panels_of_a_legible_size(visit, path):
    """A panel drawn four inches wide, 440 pixels, is at least 264 pixels wide, and its letters nearly ten high."""
    figures = visit(path, **PHONE).evaluate(FIGURES)
    small = [
        (alt, shown) for alt, drawn, shown in figures if drawn > website.LARGE and shown < website.LEAST * drawn - 1
    ]
    assert not small


def test_a_wide_figure_says_that_it_goes_on(visit):
    page = visit("notebooks/contrastive/mochi.html", **PHONE)
    box = page.locator(".nf-box:has(> img:visible)").first
    assert "scroll" in box.evaluate("e => getComputedStyle(e, '::after').content")
    laptop = visit("notebooks/contrastive/mochi.html").locator(".nf-box:has(> img:visible)").first
    assert laptop.evaluate("e => getComputedStyle(e, '::after').content") == "none"
    assert laptop.evaluate("e => e.scrollWidth <= e.clientWidth")


@pytest.mark.parametrize("path", ["book/index.html", "book/results.html", "book/problems.html"])
def test_pages_hold_on_a_phone_in_the_dark_without_a_script(visit, path):
    page = visit(path, **PHONE, color_scheme="dark", java_script_enabled=False)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390 and page.evaluate(BEYOND) == []
