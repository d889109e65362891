"""Every chapter keeps the contract of a notebook, and the pages that surround it agree."""

import ast
import json

import pytest
import yaml

import nearfar
from nearfar.chapters import notebooks, papers
from nearfar.press import folding

SECTIONS = [
    "Parameters", "The problem in one picture", "The method", "Does it do what it says?", "Data", "Training", "Results",
    "Claims", "The paper's numbers", "Explore", "Exercises",
]  # fmt: skip
CHAPTERS = [pytest.param(paper, id=paper.slug) for paper in papers.all_papers()]
OLDER = {  # chapters from before the lean mould: none is added, and one that was cut to it is taken out
    "amcl", "cacr", "feature-suppression-mcl", "feature-transformation", "groco", "hydra", "interclr", "mochi",
    "sepclr", "smote", "understanding-contrastive-loss", "whitenedcse",
}  # fmt: skip
MANY_TRAINED_PARTS: set[str] = set()  # papers whose method is several trained parts, as in a GAN
COMPARISONS = [pytest.param(paper, id=f"part {paper.slug}") for paper in papers.comparisons()]


def cells(paper):
    return json.loads(paper.notebook.read_text(encoding="utf-8"))["cells"]


def text(cell):
    return "".join(cell["source"])


def tags(cell):
    return cell["metadata"].get("tags", [])


@pytest.mark.parametrize("paper", CHAPTERS)
def test_sections_stand_in_order(paper):
    headings = [
        line for cell in cells(paper) if cell["cell_type"] == "markdown" for line in text(cell).splitlines()
        if line.startswith("#")
    ]  # fmt: skip
    assert sum(line.startswith("# ") for line in headings) == 1 and headings[0].startswith("# ")
    assert [line[3:] for line in headings if line.startswith("## ")] == SECTIONS


@pytest.mark.parametrize("paper", CHAPTERS + COMPARISONS)
def test_parameters_and_budget(paper):
    assert notebooks.parameters(paper.notebook) == {"tier": "smoke", "seed": 0, "device": "auto"}
    assert any(f'nearfar.start("{paper.slug}", tier, seed, device)' in text(cell) for cell in cells(paper))
    budgets = [text(c) for c in cells(paper) if "budget = {" in text(c) and c["cell_type"] == "code"]
    assert len(budgets) == 1
    for tier in notebooks.TIERS:
        assert f'"{tier}":' in budgets[0], f"tier {tier} is not in the budget"


@pytest.mark.parametrize("paper", CHAPTERS)
def test_method_cells_hold_definitions_only_and_load(paper):
    found = [text(cell) for cell in cells(paper) if "method" in tags(cell)]
    for source in found:
        for node in ast.parse(source).body:
            assert isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef | ast.Assign), source
    module = nearfar.method(paper.slug)
    public = [v for k, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == module.__name__]
    assert public and all(function.__doc__ for function in public)


@pytest.mark.parametrize("paper", CHAPTERS + COMPARISONS)
def test_committed_without_outputs_and_comfortable_to_read(paper):
    for cell in cells(paper):
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            short = paper.slug in OLDER or folding.label(cell) or len(text(cell).splitlines()) <= 40
            assert short, text(cell)[:80]
    assert 25 <= len(cells(paper)) <= 90


@pytest.mark.parametrize("paper", CHAPTERS + COMPARISONS)
def test_code_fits_a_laptop_without_scrolling(paper):
    """But for what is folded away, and for a single function that would be too long otherwise."""
    for cell in cells(paper):
        if cell["cell_type"] == "code" and max(map(len, text(cell).splitlines())) > 96:
            assert {"hide-input", "hide-cell"} & set(tags(cell)) or len(ast.parse(text(cell)).body) == 1, text(cell)[
                :80
            ]


@pytest.mark.parametrize("paper", CHAPTERS + COMPARISONS)
def test_figures_have_alt_text_and_caption(paper):
    drawn = [cell for cell in cells(paper) if cell["cell_type"] == "code" and "plt.show()" in text(cell)]
    assert len(drawn) >= (3 if paper in papers.all_papers() else 2)
    for cell in drawn:
        look = cell["metadata"].get("mystnb", {})
        assert len(look.get("image", {}).get("alt", "")) > 20, text(cell)
        assert len(look.get("figure", {}).get("caption", "")) > 20, text(cell)
        assert look["figure"]["name"].startswith(f"{paper.slug}-")


@pytest.mark.parametrize("paper", CHAPTERS)
def test_claims_numbers_and_exercises(paper):
    code = [text(cell) for cell in cells(paper) if cell["cell_type"] == "code"]
    everything = "\n".join(code)
    assert everything.count("run.claim(") >= 3
    assert "run.headline(" in everything
    checked = [source for source in code if "run.finish(" in source]
    assert len(checked) == 1 and checked[0].startswith("# NBVAL_CHECK_OUTPUT")
    solutions = [cell for cell in cells(paper) if "solution" in tags(cell)]
    assert len(solutions) >= 3
    assert all("hide-cell" in tags(cell) and "assert" in text(cell) for cell in solutions)
    assert not any(word in everything for word in ("TODO", "FIXME", "NotImplementedError"))


def functions_of(paper):
    """The functions of the method cells: name and docstring in one line."""
    found = [ast.parse(text(cell)) for cell in cells(paper) if cell["cell_type"] == "code" and "method" in tags(cell)]
    defined = [node for tree in found for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return {node.name: " ".join((ast.get_docstring(node) or "").split()) for node in defined}


GIVEN = "length one (taken as given)"
OF_LENGTH_ONE = {  # functions whose formula holds on the unit sphere, and which normalise nothing
    "cacr": ("attraction", "repulsion", "cacr_loss", "moco_loss", "moco_v3_loss", "contrastive_loss"),
    "sepclr": ("common_loss", "sepclr_terms", "sepclr_loss"),
    "mochi": ("mochi_loss", "similarities"),
    "interclr": ("inter_loss",),
    "feature-transformation": ("ft_scores", "ft_logits", "ft_loss"),
    "amcl": ("pair_similarities",),
    "understanding-contrastive-loss": ("uniformity_loss", "tolerance"),
    "conr": ("anchor_losses",),
    "sbcl": ("sbcl_loss",),
}


@pytest.mark.parametrize("paper", CHAPTERS)
def test_functions_say_the_same_way_that_they_take_lengths_as_given(paper):
    documented = functions_of(paper)
    for name in OF_LENGTH_ONE.get(paper.slug, ()):
        assert GIVEN in documented[name], f"{paper.slug}: {name}"


@pytest.mark.parametrize("paper", CHAPTERS)
def test_the_paper_is_cited(paper):
    assert any(f"`{paper.slug}`" in text(cell) for cell in cells(paper) if cell["cell_type"] == "markdown")


@pytest.mark.parametrize("paper", COMPARISONS)
def test_a_comparison_has_every_method_of_its_part(paper):
    code = "\n".join(text(cell) for cell in cells(paper) if cell["cell_type"] == "code")
    checked = [text(cell) for cell in cells(paper) if "run.finish(" in text(cell)]
    assert len(checked) == 1 and checked[0].startswith("# NBVAL_CHECK_OUTPUT")
    assert all(f'nearfar.method("{other.slug}")' in code for other in papers.all_papers() if other.part == paper.part)


def test_methods_are_borrowed_by_name():
    """So that a record's age follows them."""
    for paper in (*papers.all_papers(), *papers.comparisons()):
        code = "\n".join(notebooks.python(text(cell)) for cell in cells(paper) if cell["cell_type"] == "code")
        calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
        named = [
            call.args[0] for call in calls if ast.unparse(call.func).endswith(("nearfar.method", "notebooks.method"))
        ]
        assert all(isinstance(argument, ast.Constant) for argument in named), paper.slug


def test_colab_bootstrap_is_the_same_everywhere():
    everyone = (*papers.all_papers(), *papers.comparisons())
    first_cells = [text(next(c for c in cells(paper) if "imports" in tags(c))) for paper in everyone]
    assert (
        len({source.partition("\n    import nearfar\n")[2].split("import nearfar\n")[0] for source in first_cells}) == 1
    )


def test_pages_of_the_toc_exist():
    generated = {"book/results", "book/problems", "book/course/all-papers", "book/course/prerequisites"}
    for page in papers.pages():
        found = [(papers.root() / f"{page}{suffix}").is_file() for suffix in (".md", ".ipynb")]
        assert any(found) or page in generated, page


def test_environment_has_the_pins_of_the_project():
    import tomllib

    project = tomllib.loads((papers.root() / "pyproject.toml").read_text())["project"]
    wanted = set(project["dependencies"]) | set(project["optional-dependencies"]["dev"])
    environment = yaml.safe_load((papers.root() / "environment.yml").read_text())
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert set(pip) - {"-e ."} == wanted
    assert f"python{project['requires-python']}" in environment["dependencies"]


@pytest.mark.parametrize("paper", CHAPTERS + COMPARISONS)
def test_drawing_cells_only_draw(paper):
    """They do not count for a record's age: so nothing of theirs is recorded, or read by a later cell."""

    def names(source, context):
        code = ast.parse(notebooks.python(source))
        found = {node.id for node in ast.walk(code) if isinstance(node, ast.Name) and isinstance(node.ctx, context)}
        made = {node.name for node in code.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        return found | made if context is ast.Store else found

    code = [cell for cell in cells(paper) if cell["cell_type"] == "code"]
    for place, cell in enumerate(code):
        if "drawing" in tags(cell):
            source = text(cell)
            for word in ("run.record", "run.claim", "run.headline", "run.uses", "train.fit", ".train()", ".eval()"):
                assert word not in source, f"{word} in a drawing cell:\n{source}"
            for later in map(text, code[place + 1 :]):
                assert not names(source, ast.Store) & (names(later, ast.Load) - names(later, ast.Store)), source[:80]


@pytest.mark.parametrize("paper", CHAPTERS + COMPARISONS)
def test_a_page_does_not_open_with_too_much_code(paper):
    assert folding.unfolded_lines(cells(paper)) <= 480  # the lean mould asks for 300


def lines_without_docstrings(source):
    documented = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    texts = [node.body[0] for node in documented if ast.get_docstring(node)]
    return len(source.splitlines()) - sum(node.end_lineno - node.lineno + 1 for node in texts)


def kinds_of_claims(sources):
    """For every call of `run.claim` whether it says which kind of claim it judges."""
    nodes = [node for source in sources for node in ast.walk(ast.parse(notebooks.python(source)))]
    claims = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) == "run.claim"]
    return [any(keyword.arg == "kind" for keyword in call.keywords) for call in claims]


def beyond_the_mould(slug, cells):
    """What a chapter has too much or too little of, one line each."""
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    sources = [text(cell) for cell in code]
    kinds = kinds_of_claims(sources)
    frames = sum(source.count("plots.frames(") for source in sources)
    figures = frames + sum(source.count("plt.show()") + source.count("results.show(") for source in sources)
    method = sum(lines_without_docstrings(text(cell)) for cell in code if "method" in tags(cell))
    counted = {
        "lines of code": (0, sum(len(source.splitlines()) for source in sources), 550),
        "lines of method": (1, method, 200 if slug in MANY_TRAINED_PARTS else 150),
        "lines unfolded": (0, folding.unfolded_lines(cells), 300),
        "cells": (30, len(cells), 60),
        "words of prose": (0, sum(len(text(c).split()) for c in cells if c["cell_type"] == "markdown"), 2200),
        "figures": (3, figures, 6),
        "interactive figures": (1, frames, 1),
        "claims": (3, len(kinds), 6),
        "claims without a kind": (0, kinds.count(False), 0),
    }
    return [f"{n} {what}, not {low} to {high}" for what, (low, n, high) in counted.items() if not low <= n <= high]


@pytest.mark.parametrize("paper", CHAPTERS)
def test_the_lean_mould(paper):
    found = beyond_the_mould(paper.slug, cells(paper))
    if paper.slug in OLDER:
        assert found, f"{paper.slug} fits the lean mould: take it out of OLDER"
    else:
        assert not found


def test_exceptions_from_the_mould_are_chapters():
    assert papers.slugs().keys() >= OLDER and not MANY_TRAINED_PARTS & OLDER


def cell_of(kind, source, *tags):
    return {"cell_type": kind, "source": source, "metadata": {"tags": list(tags)}}


def lean(prose=2000, code=60, method=60, folded=60, claims=3, kind=', kind="mechanism"', shows=2, frames=1, filler=25):
    """Cells of a chapter inside the mould; each argument moves one count."""
    documented = 'def loss(z):\n    """Eq. (1).\n\n    z: (N, D).\n    """\n' + "    z = z + 1\n" * (method - 1)
    return [
        cell_of("markdown", "word " * prose),
        cell_of("code", "x = 1\n" * code),
        cell_of("code", documented, "method"),
        cell_of("code", "x = 1\n" * folded, "drawing"),
        *(cell_of("code", f'run.claim("C{n}", "text", True, "evidence"{kind})') for n in range(claims)),
        *[cell_of("code", "plt.show()", "drawing")] * shows,
        *[cell_of("code", "plots.frames(draw, values)", "drawing")] * frames,
        *[cell_of("markdown", "")] * filler,
    ]


@pytest.mark.parametrize(
    ("beyond", "named"),
    [
        ({"prose": 2201}, "2201 words of prose"),
        ({"folded": 421}, "551 lines of code"),  # with 60 + 64 of the method + 6 of claims and figures
        ({"method": 151}, "151 lines of method"),
        ({"code": 238}, "301 lines unfolded"),  # with 63 of the method
        ({"filler": 51}, "61 cells"),
        ({"filler": 19}, "29 cells"),
        ({"shows": 6}, "7 figures"),
        ({"shows": 1}, "2 figures"),
        ({"frames": 0, "shows": 3}, "0 interactive figures"),
        ({"claims": 7}, "7 claims,"),
        ({"claims": 2}, "2 claims,"),
        ({"kind": ""}, "3 claims without a kind"),
    ],
)
def test_every_limit_of_the_mould_is_held(beyond, named):
    assert beyond_the_mould("some", lean()) == []
    found = beyond_the_mould("some", lean(**beyond))
    assert len(found) == 1 and found[0].startswith(named), found


def test_a_method_of_many_trained_parts_has_more_room(monkeypatch):
    monkeypatch.setitem(globals(), "MANY_TRAINED_PARTS", {"some"})
    assert beyond_the_mould("some", lean(method=200)) == [] != beyond_the_mould("some", lean(method=201))
