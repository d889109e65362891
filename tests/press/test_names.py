"""Short names of papers, as people call them."""

import pytest
from toybook import edit

from nearfar.chapters import papers
from nearfar.press import names


def test_every_chapter_has_a_short_name_of_its_own():
    found = [names.short(paper.slug) for paper in papers.all_papers()]
    assert len(set(found)) == len(found) and all(0 < len(name) <= names.LONGEST for name in found)
    assert {"SwAV", "ConR", "MoCHi", "SMOTE"} <= set(found) and not [name for name in found if name.endswith("…")]


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("{SMOTE}: Synthetic Minority Over-sampling Technique", "SMOTE"),
        ("Hydra", "Hydra"),
        ("Learning the Unlearned and More: Mitigation", "Learning the Unlearned …"),
    ],
)
def test_a_title_is_shortened(title, name):
    assert names.shortened(title) == name and len(name) <= names.LONGEST


def test_the_short_title_comes_first(toybook):
    assert names.short("toy") == "A Toy" and names.full(papers.get("toy")) == "A Toy"
    edit(toybook / "book/references.bib", "{A Toy},", "{A Toy},\n  shorttitle = {Plaything},")
    assert names.short("toy") == "Plaything" and names.full(papers.get("toy")) == "Plaything: A Toy"
    assert names.short("gone") == "gone" and names.short("contrastive") == "all methods compared"
