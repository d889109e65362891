"""How a reader finds a chapter: the picture of all chapters, search and filters, the table, the page of problems."""

import pytest

from nearfar.chapters import papers
from nearfar.press import course, names, overviews
from nearfar.runs import results

PART = papers.PARTS["imbalance"]


def cards(page):
    return page.locator(".nf-card:visible").count()


def said(page):
    return page.locator(".nf-filter output").inner_text()


@pytest.mark.parametrize("script", [True, False])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_dot_tells_its_title_and_leads_to_its_chapter(visit, script, width):
    page = visit("book/index.html", java_script_enabled=script, viewport={"width": width, "height": 900})
    dots, without = overviews.sorted_out(results.read_all()[0])
    links = page.locator(".nf-landscape a")
    assert links.count() == len(dots) == len(papers.all_papers()) - sum(map(len, without.values()))
    swav = page.locator(".nf-landscape a", has_text="SwAV").first
    assert "Contrasting Cluster Assignments" in swav.locator("title").text_content()
    assert swav.locator(".nf-name").is_visible()
    swav.locator(".nf-room").click()
    assert page.url.endswith("/notebooks/contrastive/swav.html")


def test_dots_stand_on_the_axis_where_their_numbers_are(visit):
    page = visit("book/index.html")
    dots = {dot.name: dot.multiplier.value for dot in overviews.sorted_out(results.read_all()[0])[0]
            if dot.multiplier.kind == "exact"}  # fmt: skip
    at = dict(page.eval_on_selector_all(
        ".nf-landscape a:has(.nf-dot)",
        """all => all.map((e) => [e.querySelector(".nf-name").textContent,
                                  e.querySelector(".nf-dot").getBoundingClientRect().x])""",
    ))  # fmt: skip
    assert at.keys() == dots.keys()
    assert sorted(at, key=at.get) == sorted(dots, key=dots.get)


def test_names_in_the_picture_do_not_lie_on_each_other(visit):
    for width in (390, 768, 1280):
        page = visit("book/index.html", viewport={"width": width, "height": 900})
        boxes = page.eval_on_selector_all(
            ".nf-landscape .nf-name, .nf-landscape .nf-dot",
            """all => all.filter((e) => e.checkVisibility()).map((e) => {
                const b = e.getBBox(); return [e.textContent, b.x, b.y + 3, b.x + b.width, b.y + b.height - 3]; })""",
        )
        crossing = [
            (a[0], b[0]) for n, a in enumerate(boxes) for b in boxes[:n]
            if a[1] < b[3] and b[1] < a[3] and a[2] < b[4] and b[2] < a[4]
        ]  # fmt: skip
        assert not crossing, (width, crossing)


def test_cards_can_be_filtered_by_part(visit):
    page = visit("book/index.html")
    everything = cards(page)
    assert said(page) == f"{everything} of {everything} chapters shown"
    page.get_by_label("Part").last.select_option(label=PART)
    wanted = [paper for paper in papers.all_papers() if paper.part == "imbalance"]
    assert cards(page) == len(wanted) < everything
    assert said(page) == f"{len(wanted)} of {everything} chapters shown"
    page.get_by_label("Part").last.select_option(label="all")
    assert cards(page) == everything


def test_cards_can_be_filtered_by_verdict(visit):
    page = visit("book/index.html")
    page.get_by_label("A claim").last.select_option(label="failed")
    assert 0 < cards(page) <= len(papers.all_papers())
    assert all("failed" in text for text in page.locator(".nf-card:visible").all_inner_texts())


@pytest.mark.parametrize("width", [1280, 390])
def test_cards_can_be_searched_and_filtered_with_the_keyboard(visit, width):
    topics = {slug: entry.topics for slug, entry in course.read().entries.items() if slug in papers.slugs()}
    topic = topics["swav"][1]
    wanted = [slug for slug, mine in topics.items() if topic in mine]
    page = visit("book/index.html", viewport={"width": width, "height": 844})
    field = page.locator(".nf-filter input")
    field.scroll_into_view_if_needed()
    before = field.bounding_box()
    field.focus()
    page.keyboard.type("mixing QUEUE")
    assert 0 < cards(page) < len(papers.all_papers())
    assert "MoCHi" in page.locator(".nf-card:visible").first.inner_text()
    field.fill("")
    for _ in range(2):  # past the parts to the topics
        page.keyboard.press("Tab")
    page.keyboard.type(topic)
    page.wait_for_function(f"document.querySelectorAll('.nf-card:not(.nf-hidden)').length === {len(wanted)}")
    field.focus()
    page.keyboard.type("no such word")
    assert cards(page) == 0 and said(page).startswith("0 of")
    assert field.bounding_box() == before, "the filter stays where it is"


def test_without_a_script_all_cards_and_rows_are_there(visit):
    page = visit("book/index.html", java_script_enabled=False)
    assert cards(page) == len(papers.all_papers())
    page = visit("book/results.html", java_script_enabled=False)
    assert page.locator(".nf-results tbody tr:visible").count() == len(papers.all_papers())
    assert page.locator(".nf-results th button").count() == 0


def test_the_table_is_sorted_by_a_column_both_ways(visit):
    page = visit("book/results.html")
    column = lambda: page.eval_on_selector_all(".nf-results tbody tr", "all => all.map((e) => e.cells[2].dataset.sort)")  # noqa: E731
    book = page.eval_on_selector_all(".nf-results tbody th a", "all => all.map((e) => e.textContent)")
    assert book == [names.short(paper.slug) for paper in papers.all_papers()]
    head = page.locator(".nf-results th", has_text="data multiplier")
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    rising = [float(value) for value in column() if value]
    assert rising == sorted(rising) and column()[: len(rising)] == [value for value in column() if value]
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    falling = [float(value) for value in column() if value]
    assert falling == rising[::-1] and column()[: len(falling)] == [value for value in column() if value]
    page.locator(".nf-results th", has_text="chapter").locator("button").click()
    assert head.get_attribute("aria-sort") is None
    shown = page.eval_on_selector_all(".nf-results tbody th a", "all => all.map((e) => e.textContent)")
    assert shown == sorted(shown, key=str.lower)


def test_a_lower_tier_unfolds_in_its_row(visit):
    page = visit("book/results.html")
    fold = page.locator(".nf-results details").first
    assert "Claims:" not in fold.inner_text()
    fold.locator("summary").click()
    assert "Claims:" in fold.inner_text()


def test_the_ledger_can_be_filtered_by_verdict_and_tier(visit):
    page = visit("book/results.html")
    page.locator(".nf-filter button", has_text="failed").click()
    page.locator(".nf-filter button", has_text="smoke").click()
    rows = page.locator("#claims-ledger tbody tr:visible")
    assert rows.count() > 0
    assert all("failed" in text and "smoke" in text for text in rows.all_inner_texts())


def test_a_problem_leads_to_its_chapters(visit):
    page = visit("book/index.html")
    page.get_by_role("link", name="Which paper for my problem?").last.click()
    page.locator(".bd-article nav.contents a", has_text="rare").first.click()
    section = page.locator("section", has=page.locator("h2", has_text="The class I care about is rare")).last
    assert "Measured here" in section.inner_text()
    section.get_by_role("link", name="SMOTE", exact=True).click()
    assert page.url.endswith("/notebooks/imbalance/smote.html")
