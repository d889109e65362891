"""The page that leads from a reader's problem to chapters."""

import html

import pytest
from toybook import edit

from nearfar.chapters import papers
from nearfar.errors import NearFarError
from nearfar.press import course, problems
from nearfar.press.course import Entry
from nearfar.press.problems import Problem


def entry(slug="toy", topics=("clustering",)):
    return Entry(slug, "A Toy", (), 2024, "", "contrastive", topics, "Play * well.", ())


def record(seed):
    rows = [
        {
            "metric": "accuracy",
            "method": name,
            "size": size,
            "value": value + seed * size / 1e4,
            "higher_is_better": True,
        }
        for name, size, value in (("ours", 10, 0.5), ("ours", 20, 0.7), ("theirs", 10, 0.3), ("theirs", 20, 0.6))
    ]
    claims = [{"id": "C1", "text": "wins", "verdict": "held", "evidence": ""}]
    return {"slug": "toy", "tier": "small", "seed": seed, "measurements": rows, "claims": claims, "stale": False,
            "headline": {"metric": "accuracy", "method": "ours", "baseline": "theirs"}}  # fmt: skip


LIST = [Problem("Few labels", "Really few.", ("clustering",)), Problem("Rare", "Seldom.", ("imbalance",))]


def test_every_topic_leads_to_a_problem_or_is_declared_none():
    listed, none = problems.read()
    mapped = {topic for problem in listed for topic in problem.topics}
    used = {topic for each in course.read().entries.values() for topic in each.topics}
    assert used <= mapped | set(none), used - mapped - set(none)
    assert not mapped & set(none)
    named = mapped | set(none) | {topic for problem in listed for topic in problem.without}
    assert named <= used, "a topic that no paper has"


def test_every_written_chapter_stands_under_some_problem():
    listed, _ = problems.read()
    entries = course.read().entries
    assert not [slug for slug in papers.slugs() if slug in entries and not any(p.fits(entries[slug]) for p in listed)]


def test_a_problem_lists_its_chapters_with_what_was_measured(toybook):
    text = html.unescape(problems.page([record(seed) for seed in range(3)], {"toy": entry()}, LIST))
    assert "## Few labels\n\nReally few.\n" in text and "## Rare" not in text and "1 more problems" in text
    assert "- **[A Toy](../notebooks/contrastive/toy.ipynb)**: Play * well.<br>" in text
    (line,) = (line for line in text.splitlines() if "Measured here" in line)
    assert "data** (ours over theirs, accuracy): the method needs less data than its baseline." in line
    assert 'Claims: 1 <span class="nf-verdict nf-held">held</span> (small tier, 3 seeds).' in line


def test_a_chapter_without_runs_says_so(toybook):
    assert "*Measured here:* not run yet" in problems.page([], {"toy": entry()}, LIST)
    silent = {**record(0), "headline": None}
    assert "the records name no comparison" in problems.page([silent], {"toy": entry()}, LIST)


def test_a_topic_can_exclude():
    problem = Problem("x", "y", ("clustering",), ("imbalance",))
    assert problem.fits(entry()) and not problem.fits(entry(topics=("clustering", "imbalance")))
    assert not problem.fits(entry(topics=("regression",)))


@pytest.mark.parametrize("text", ["problems: [{text: a}]\nno problems: []\n", "problems: 3\n", "[]\n"])
def test_a_file_of_another_form_is_one_line(toybook, text):
    (toybook / problems.FILE).write_text(text)
    with pytest.raises(NearFarError, match="problems.yml must hold"):
        problems.read()


def test_it_is_linked_from_the_landing_page_and_stands_first_in_the_toc():
    assert papers.pages()[1] == "book/problems"
    assert "](problems.md)" in (papers.root() / "book/index.md").read_text(encoding="utf-8")


def test_names_in_a_problem_are_no_markup(toybook):
    edit(toybook / "book/references.bib", "{A Toy}", "{A Toy | x}")
    assert "A Toy &#124; x" in problems.page([], {"toy": entry()}, LIST)
