"""Student notebooks: no solution is left, and what is left checks an answer as the solution checks itself."""

import json
import zipfile

import pytest

from nearfar.chapters import papers
from nearfar.errors import NearFarError
from nearfar.press import student

SOLUTION = """# why
a = 3
def f(x):
    return a * x
b = f(2)
print("on the way")
assert b == 6, (
    "no")
print(f"b = {b}")
"""


def test_a_stub_keeps_the_checks_and_names_what_they_need():
    answer, checks = student.split(SOLUTION)
    assert answer + checks == SOLUTION
    assert checks.startswith("assert b == 6") and checks.rstrip().endswith('print(f"b = {b}")')
    text = student.stub(SOLUTION)
    assert "it has to make b." in text and "def f" not in text
    with pytest.raises(NameError):
        exec(text, {})
    with pytest.raises(AssertionError):
        exec("b = 5\n" + text, {})
    exec("b = 6\n" + text, {})


@pytest.mark.parametrize("source", ["x = 1\n", "x = 1\nfor i in range(3):\n    assert i < 3\n", "print(3)\n", ""])
def test_without_checks_at_the_end_the_stub_is_empty(source):
    assert student.split(source) == (source, "")
    assert student.stub(source) == "# Your answer:\n"


def test_a_solution_that_does_not_parse():
    with pytest.raises(NearFarError, match="not valid Python.*line 1"):
        student.stub("assert (")


@pytest.mark.parametrize("paper", papers.all_papers(), ids=lambda paper: paper.slug)
def test_every_chapter_can_be_handed_out(paper):
    before = json.loads(paper.notebook.read_text(encoding="utf-8"))
    notebook, exercises = student.without_solutions(before)
    assert len(exercises) == 3 and all("Hint" in question for question, _ in exercises)
    text = json.dumps(notebook)
    assert '"solution"' not in text and len(notebook["cells"]) == len(before["cells"])
    left = "".join("".join(cell["source"]) for cell in notebook["cells"])
    for _, solution in exercises:
        answer, checks = student.split(solution)
        assert answer + checks == solution and answer.strip() not in left and checks in left


def test_everything_is_written(tmp_path):
    notebooks, solutions = student.write(tmp_path)
    assert [path.stem for path in notebooks] == [paper.slug for paper in papers.all_papers()]
    with zipfile.ZipFile(solutions) as archive:
        assert "```python" in archive.read("solutions/swav.md").decode()
