"""The course file, the pages made of it, and the hand-written pages beside them."""

import re
import shutil
from pathlib import Path

import pytest
import yaml
from toybook import edit

from nearfar.chapters import papers
from nearfar.errors import NearFarError
from nearfar.press import course, course_pages

BOOK = papers.root() / "book"
HAND_WRITTEN = [BOOK / "glossary.md", *sorted((BOOK / "course").glob("*.md"))]
GENERATED = {BOOK / "course" / "all-papers.md", BOOK / "course" / "prerequisites.md"}


def linked(text: str) -> list[str]:
    """Targets of the Markdown links in `text` that stay within the book, without their anchors."""
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    return [target.split("#")[0] for target in targets if "://" not in target and not target.startswith("#")]


def terms() -> set[str]:
    """Terms of the glossary: lines without indent inside the directive."""
    block = re.search(r"```\{glossary\}\n(.*?)\n```", (BOOK / "glossary.md").read_text(encoding="utf-8"), re.DOTALL)
    return {line for line in block.group(1).splitlines() if line and not line.startswith(" ")}


@pytest.fixture(scope="module")
def plan():
    return course.read()


@pytest.fixture
def small(toybook):
    """The toy book with a course of two papers, one of them written."""
    path = toybook / course.FILE
    path.parent.mkdir(parents=True)
    path.write_text(
        "topics: [toys]\nconcepts:\n  - {id: play, title: Playing, term: Anchor}\npapers:\n"
        "  - {slug: toy, title: A Toy, authors: [Doe, Roe], year: 2024, arxiv: '', part: contrastive, topics: [toys],\n"
        "     idea: Play., needs: [play]}\n"
        "  - {slug: robot, title: 'R* | $x$', authors: [], year: 2025, arxiv: '2501.00001', part: beyond, "
        "topics: [toys],\n     idea: Walk., needs: [toy]}\n",
        encoding="utf-8",
    )
    return toybook


def test_the_committed_plan_has_all_papers_and_chapters(plan):
    assert (
        len(plan.entries) >= 78
        and plan.written == {p.slug for p in papers.all_papers()}
        and plan.written <= plan.entries.keys()
    )
    assert {entry.part for entry in plan.entries.values()} == set(papers.PARTS)
    assert list(dict.fromkeys(entry.part for entry in plan.entries.values())) == list(papers.PARTS)


def test_written_entries_agree_with_the_references(plan):
    for paper in papers.all_papers():
        entry = plan.entries[paper.slug]
        assert (entry.title, entry.year, entry.arxiv) == (paper.title, paper.year, paper.arxiv)
        assert [name.split(" ")[-1] for name in paper.authors] == [name.split(" ")[-1] for name in entry.authors]


def test_arxiv_ids_have_their_form_and_occur_once(plan):
    known = [entry.arxiv for entry in plan.entries.values() if entry.arxiv]
    assert all(re.fullmatch(r"\d{4}\.\d{4,5}", number) for number in known) and len(known) == len(set(known))


def test_every_topic_and_concept_is_used(plan):
    topics = yaml.safe_load((papers.root() / course.FILE).read_text(encoding="utf-8"))["topics"]
    assert set(topics) == {topic for entry in plan.entries.values() for topic in entry.topics}
    assert plan.concepts.keys() <= {need for entry in plan.entries.values() for need in entry.needs}


def test_terms_of_concepts_are_in_the_glossary(plan):
    assert len(terms()) >= 45
    assert {concept.term for concept in plan.concepts.values() if concept.term} <= terms()


def test_order_puts_every_paper_after_what_it_needs(plan):
    sequence = course.order(plan)
    place = {slug: n for n, slug in enumerate(sequence)}
    assert sorted(sequence) == sorted(plan.entries)
    for entry in plan.entries.values():
        assert all(place[need] < place[entry.slug] for need in entry.needs if need in place)


def test_no_need_follows_from_another(plan):
    for entry in plan.entries.values():
        for need in entry.needs:
            assert not any(need in course.ancestors(plan, other) for other in entry.needs if other != need)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("needs: [toy]", "needs: [tyo]", "robot: needs the unknown 'tyo'. Did you mean toy"),
        ("needs: [play]", "needs: [robot]", "toy: needs itself, by way of toy → robot → toy"),
        ("part: beyond", "part: beyonds", "robot: unknown part 'beyonds'. Did you mean beyond"),
        ("part: contrastive", "part: shift", "toy: stands in the part 'contrastive' of _toc.yml"),
        ("slug: robot", "slug: toy", "toy: stands there twice"),
        ("slug: robot, ", "", "entry 2 has no slug"),
        ("id: play", "id: toy", "toy: is a concept and a paper"),
        ("year: 2025", "year: soon", "robot: year must be a int"),
        ("idea: Walk.", "idea: ''", "robot: the idea must be one line"),
        ("idea: Walk.", "idea: " + "long " * 30, "at most 110 characters"),
        ("idea: Walk.", "idea: Walk., colour: red", "robot: unknown field colour"),
        ("topics: [toys],\n     idea: Walk.", "topics: [tots], idea: Walk.", "robot: unknown topic 'tots'. Did you"),
        ("topics: [toys],\n     idea: Walk.", "topics: [], idea: Walk.", "robot: one to three topics"),
        ("term: Anchor", "term: Anchor, link: 'https://example.org'", "play: a concept has either"),
        ("title: Playing, ", "", "play: title must be a str"),
        ("concepts:", "conceps:", "must hold the lists topics, concepts, papers"),
        ("topics: [toys]\n", "topics: [toys\n", "cannot be read as YAML"),
    ],
)
def test_bad_entries_are_one_line_that_names_entry_and_file(small, old, new, message):
    edit(small / course.FILE, old, new)
    with pytest.raises(NearFarError, match=re.escape(message)) as caught:
        course.read()
    assert "\n" not in str(caught.value) and course.FILE in str(caught.value)


def test_a_missing_file_is_one_line(toybook):
    with pytest.raises(NearFarError, match="papers.yml cannot be read"):
        course.read()


def test_pages_of_a_small_course(small):
    plan = course.read()
    listing = course_pages.papers_page(plan)
    assert "**[A Toy](../../notebooks/contrastive/toy.ipynb)**<br>Doe and Roe, 2024; `toy` |" in listing
    assert (
        r"[R\* \| \$x\$](https://arxiv.org/abs/2501.00001)<br>authors not known to us, 2025; `robot`, plan" in listing
    )
    graphs = course_pages.prerequisites_page(plan, {part: f"{part}.svg" for part in papers.PARTS})
    assert ":alt: Learning without labels: A Toy needs play." in graphs and "{term}`Playing <Anchor>`" in graphs
    assert "shift.svg" not in graphs  # a part without papers has no drawing


@pytest.mark.parametrize("page", ["papers", "prerequisites"])
def test_pages_link_to_written_chapters_only(plan, page):
    figures = {part: f"../_generated/needs-{part}.svg" for part in papers.PARTS}
    text = course_pages.papers_page(plan) if page == "papers" else course_pages.prerequisites_page(plan, figures)
    targets = {(BOOK / "course" / target).resolve() for target in linked(text)}
    assert targets == {paper.notebook for paper in papers.all_papers()}
    for entry in plan.entries.values():
        assert (entry.slug if page == "papers" else course_pages._called(plan, entry.slug)) in text
    assert set(re.findall(r"\{term\}`[^<]*<([^>]+)>`", text)) <= terms()


def test_arrows_leave_out_what_follows_from_others(plan):
    pairs = course.arrows(plan, "contrastive")
    assert ("mochi", "feature-transformation") in pairs
    assert ("understanding-contrastive-loss", "feature-transformation") not in pairs


@pytest.mark.parametrize("part", papers.PARTS)
def test_layers_run_one_way_and_hold_everything(plan, part):
    columns, segments = course_pages.layers(plan, part)
    column = {name: n for n, names in enumerate(columns) for name in names}
    assert len(column) == sum(map(len, columns))  # nothing stands twice
    assert {entry.slug for entry in plan.of(part)} <= column.keys()
    assert all(column[end] == column[start] + 1 for start, end in segments)
    for need, paper in course.arrows(plan, part):  # each arrow is a path along the segments
        reached, grown = {need}, True
        while grown:
            more = {b for a, b in segments if a in reached and (b == paper or b.startswith(f"{need} "))}
            grown = not more <= reached
            reached |= more
        assert paper in reached


def test_a_drawing_is_the_same_each_time(plan, tmp_path):
    drawn = [tmp_path / f"{n}.svg" for n in range(2)]
    for path in drawn:
        course_pages.graph_figure(plan, "continual", path)
    assert drawn[0].read_bytes() == drawn[1].read_bytes() and b"<svg" in drawn[0].read_bytes()
    course_pages.graph_figure(plan, "continual", tmp_path / "new" / "graph.png")
    assert (tmp_path / "new" / "graph.png").stat().st_size > 1000


@pytest.mark.parametrize("path", HAND_WRITTEN, ids=lambda path: path.stem)
def test_hand_written_pages_link_to_what_exists(path: Path):
    for target in linked(path.read_text(encoding="utf-8")):
        place = (path.parent / target).resolve()
        assert place.is_file() or place in GENERATED or place == BOOK / "results.md", target


@pytest.mark.parametrize("path", HAND_WRITTEN, ids=lambda path: path.stem)
def test_headings_do_not_jump_and_lines_are_short(path: Path):
    text = path.read_text(encoding="utf-8")
    levels = [
        len(marks) for marks in re.findall(r"^(#+) ", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    ]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b <= a + 1 for a, b in zip(levels, levels[1:]))
    assert max(map(len, text.splitlines())) <= 140


def test_commands_of_the_pages_name_known_chapters(plan):
    text = "\n".join(path.read_text(encoding="utf-8") for path in HAND_WRITTEN)
    assert set(re.findall(r"nearfar (?:run|results) ([a-z][a-z-]*)", text)) <= set(papers.slugs())
    assert all((papers.root() / name).is_file() for name in re.findall(r"(?:notebooks|tests)/[\w/-]+\.\w+", text))
    assert set(re.findall(r"nearfar new ([a-z-]+)", text)) <= plan.entries.keys() - plan.written


def test_homework_names_exercises_that_exist():
    chapters = {paper.slug: paper.notebook.read_text(encoding="utf-8") for paper in papers.all_papers()}
    for name in ("six-weeks", "twelve-weeks"):
        text = (BOOK / "course" / f"{name}.md").read_text(encoding="utf-8").replace("\n  ", " ")
        named = re.findall(r"(?:exercises? |, and )(\d), \*([^*]+)\*", text)
        assert len(named) >= 6
        for number, title in named:
            wanted = f"**{number}. {title.rstrip('.')}"
            assert any(wanted in chapter for chapter in chapters.values()), wanted


def test_the_course_file_travels_with_the_checkout(tmp_path, monkeypatch):
    (tmp_path / "book" / "course").mkdir(parents=True)
    shutil.copy(papers.root() / "_toc.yml", tmp_path)
    shutil.copy(papers.root() / course.FILE, tmp_path / course.FILE)
    assert course.read(tmp_path).written == {paper.slug for paper in papers.all_papers()}
