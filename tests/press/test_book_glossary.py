"""Links from prose to the glossary: the first occurrence in running text, and nothing else."""

from pathlib import Path

import pytest

from nearfar.chapters import papers
from nearfar.press import glossary

TERMS = ["Prototype", "Query", "Hard negative", "Negative", "Batch", "k-means", "F1"]


def linked(text, terms=TERMS):
    return glossary.link(text, terms)[0]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("A prototype here.", "A {term}`prototype <Prototype>` here."),
        (
            "**Paper.** A. Doe, *On\nBatches*\n\nA batch.",
            "**Paper.** A. Doe, *On\nBatches*\n\nA {term}`batch <Batch>`.",
        ),
        ("Prototype first.", "{term}`Prototype` first."),
        ("Two prototypes, one prototype.", "Two {term}`prototypes <Prototype>`, one prototype."),
        ("All queries and batches.", "All {term}`queries <Query>` and {term}`batches <Batch>`."),
        ("A HARD\nnegative bites.", "A {term}`HARD negative <Hard negative>` bites."),
        ("a **negative**, *batch*", "a **{term}`negative <Negative>`**, *{term}`batch <Batch>`*"),
        ("- a batch\n- k-means", "- a {term}`batch <Batch>`\n- {term}`k-means`"),
        ("(F1)", "({term}`F1`)"),
        ("> a batch", "> a {term}`batch <Batch>`"),
        ("`code` and batch", "`code` and {term}`batch <Batch>`"),
        ("from $n$ to $m$ a batch", "from $n$ to $m$ a {term}`batch <Batch>`"),
        ("a batch's size", "a {term}`batch <Batch>`'s size"),
    ],
)
def test_the_first_occurrence_in_prose_is_linked(before, after):
    assert linked(before) == after


@pytest.mark.parametrize(
    "text",
    [
        "# A batch\n",
        "   ## Batch and prototype",
        "A batch\n=======\n",
        "Batch\n---\n",
        "`batch` and ``a ` batch``",
        "```python\nbatch = 1\n```\n",
        "~~~\nbatch\n~~~\n",
        "````\n```\nbatch\n```\nbatch\n````\n",
        "```{figure} batch.png\n:alt: a batch\n:name: batch\n\nA batch.\n```\n",
        ":::{note} A batch\na batch\n:::\n",
        "    batch = indented\n",
        "$batch$ and $$\nbatch\n$$\n",
        "\\begin{align}\nbatch\n\\end{align}\n",
        "[a batch](there) and [batch][ref] and [batch]",
        "[ref]: https://batch.org 'batch'",
        "![a batch](batch.png)",
        "[![batch](a.png)](https://x.org/batch)",
        "[text](https://x.org/a_(batch)_b)",
        "<https://x.org/batch> https://x.org/batch www.batch.org",
        "{glue:text}`batch:.2f` {cite}`batch` {ref}`a batch <batch>`",
        "| a | batch |\n|---|---|\n| negative | prototype |\n",
        "<table><tr><td>batch</td></tr></table>",
        '<a href="x">batch</a>',
        'see <a href="x">a batch</a> and <img alt="batch">',
        "(batch)=\n",
        "% a batch\n",
        "mini-batch, batch-wise, batched, rebatch, batch/s",
    ],
)
def test_what_is_no_prose_stays_as_it_is(text):
    assert linked(text) == text


def test_prose_after_what_is_no_prose_is_linked():
    text = "# Batch\n\n```\nbatch\n```\n\nA batch.\n\n$$\nbatch\n$$\n\nA prototype.\n"
    assert linked(text) == text.replace("A batch", "A {term}`batch <Batch>`").replace(
        "A prototype", "A {term}`prototype <Prototype>`"
    )


def test_a_dollar_alone_or_a_loose_bracket_hides_nothing_else():
    assert "{term}`batch <Batch>`" in linked("It costs \\$5 a batch, or \\$6.")
    assert "{term}`batch <Batch>`" in linked("An open [ bracket and a batch.")


def test_a_chapter_links_each_term_once_over_all_its_cells():
    cells = [
        {"cell_type": "markdown", "source": ["# Batch\n", "A batch."]},
        {"cell_type": "code", "source": "prototype = 1"},
        {"cell_type": "markdown", "source": "A batch of prototypes."},
    ]
    found = glossary.link_cells(cells, TERMS)
    assert found[0]["source"] == "# Batch\nA {term}`batch <Batch>`."
    assert found[1] == cells[1]
    assert found[2]["source"] == "A batch of {term}`prototypes <Prototype>`."


def test_without_terms_nothing_changes():
    assert glossary.link("A batch.", []) == ("A batch.", [])


def test_everyday_words_are_linked_where_their_entry_says():
    entries = {"Recall": "→ [SMOTE](../notebooks/imbalance/smote.ipynb)", "Batch size": "", "Code": "swav.ipynb)"}
    assert glossary.chapter_terms(entries, "swav") == ["Batch size"]
    assert glossary.chapter_terms(entries, "smote") == ["Recall", "Batch size"]
    assert glossary.chapter_terms({"SMOTE": ""}, "smote") == []


def test_the_books_glossary_is_read_whole(tmp_path):
    entries = glossary.read(papers.root())
    text = (papers.root() / glossary.FILE).read_text(encoding="utf-8")
    assert len(entries) > 50 and all(entries.values()) and all(f"\n{term}\n  " in text for term in entries)
    assert {word.title() for word in glossary.EVERYDAY | glossary.UNLINKED} <= {term.title() for term in entries}
    assert glossary.read(Path(tmp_path)) == {}
