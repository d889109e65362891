"""The picture of all chapters: it holds for the 78 papers of the plan, on a phone and on a laptop."""

import html
import math
import random
import re

import pytest

from nearfar.chapters import papers
from nearfar.press import landscape
from nearfar.press.landscape import NARROW, RADIUS, WIDE, Axis, Dot
from nearfar.runs.multiplier import Multiplier

COUNTS = (12, 11, 9, 9, 4, 8, 12, 7, 6)  # papers of each part, as planned
NAN = math.nan


def exact(value, low=NAN, high=NAN):
    return Multiplier(value, low, high, "exact", 1 / 64, 64)


def dot(name, multiplier, part="contrastive"):
    return Dot(name, part, f"../notebooks/{part}/{name}.html", f"{name}: a title\n2× data", multiplier)


def seventy_eight():
    """A made-up book: most multipliers near one, as such studies find them, some far off, some only bounds."""
    chance, found = random.Random(0), []
    for part, count in zip(papers.PARTS, COUNTS, strict=True):
        for n in range(count):
            power, half = chance.gauss(0.2, 1.1), chance.uniform(0.1, 1.2)
            multiplier = exact(2**power, 2 ** (power - half), 2 ** (power + half))
            if chance.random() < 0.05:
                multiplier = Multiplier(64, NAN, NAN, "above", 1 / 64, 64, "the shift leaves the range of sizes")
            name = chance.choice(("SwAV", "ConR", "MoCHi", "SMOTE", "WhitenedCSE", "Prompt-CAM", "FT", "Bias Loss"))
            found.append(dot(f"{name} {n}", multiplier, part))
    return found


def spans(width, placed, axis, shown):
    """Pixels (row, start, end) of all dots, and of the names that are shown at this width."""
    dots, names = [], []
    for each in placed:
        value = axis.place(landscape._ends(each.dot.multiplier, axis)[1] and each.dot.multiplier.value)
        if each.dot.multiplier.kind == "above":
            value = axis.place(math.inf)
        dots.append((each.row, value / 100 * width - RADIUS, value / 100 * width + RADIUS))
        if each.shown in shown:
            start = each.anchor / 100 * width + each.side * 5
            end = start + each.side * landscape.LETTER * len(each.dot.name)
            names.append((each.row, min(start, end), max(start, end)))
    return dots, names


def apart(these):
    ordered = sorted(these)
    return all(a[0] != b[0] or a[2] <= b[1] for a, b in zip(ordered, ordered[1:], strict=False))


def test_the_picture_of_78_papers_holds():
    dots = seventy_eight()
    axis = Axis.of([each.multiplier for each in dots])
    for part, count in zip(papers.PARTS, COUNTS, strict=True):
        mine = landscape.placed([each for each in dots if each.part == part], axis, 3)
        assert len(mine) == count
        for width, shown in ((NARROW, (NARROW,)), (360, (NARROW,)), (WIDE, (NARROW, WIDE)), (900, (NARROW, WIDE))):
            drawn, named = spans(width, mine, axis, shown)
            assert apart(drawn), (part, width)
            assert apart(drawn + named), (part, width)
            assert all(0 <= start and end <= width for _, start, end in drawn + named), (part, width)
        furthest = max(
            (e for e in mine if e.dot.multiplier.kind == "exact"), key=lambda e: abs(math.log(e.dot.multiplier.value))
        )
        assert furthest.shown, "the extremes have their names"
    picture = landscape.drawing(dots)
    assert int(re.search(r'height="(\d+)"', picture)[1]) < 900, "one screen"
    assert picture.count("<a href=") == picture.count("<title>") == 78 and "<script" not in picture
    assert len(picture) < 60_000


def test_a_dot_stands_at_its_multiplier_with_its_interval():
    axis = Axis.of([exact(2, 1, 4)])
    assert axis == Axis(-1, 2)
    assert [axis.place(value) for value in (0.5, 1, 4)] == pytest.approx([4, 4 + 92 / 3, 96])
    drawn = landscape.mark(exact(2, 1, 4), axis, 10)
    assert f'cx="{4 + 2 * 92 / 3:.2f}%"' in drawn and f'x1="{4 + 92 / 3:.2f}%" x2="96.00%"' in drawn
    assert "nf-arrow" not in drawn and "nf-hollow" not in drawn
    assert "nf-interval" not in landscape.mark(exact(2), axis, 10), "one seed has no interval"
    assert "nf-hollow" in landscape.mark(exact(2), axis, 10, sure=False)


def test_what_leaves_the_axis_ends_in_an_arrow():
    axis = Axis(-1, 2)
    arrow = re.compile(r'<svg x="([\d.]+)%" overflow="visible"><polygon class="nf-arrow" points="0,10 (-?9),')
    assert arrow.findall(landscape.mark(exact(2, 0.1, math.inf), axis, 10)) == [("4.00", "9"), ("96.00", "-9")]
    above = landscape.mark(Multiplier(64, NAN, NAN, "above", 1 / 64, 64), axis, 10)
    assert arrow.findall(above) == [("96.00", "-9")] and "nf-dot" not in above
    below = landscape.mark(Multiplier(1 / 64, NAN, NAN, "below", 1 / 64, 64), axis, 10)
    assert arrow.findall(below) == [("4.00", "9")]


def test_the_axis_holds_all_dots_and_is_not_stretched_by_bounds_or_ends():
    bound = Multiplier(64, NAN, NAN, "above", 1 / 64, 64)
    assert Axis.of([exact(0.4, 0, math.inf), exact(3.5, 1e-3, 1e3), bound]) == Axis(-3, 3)
    assert Axis.of([bound]) == Axis(-1, 1)
    assert Axis(-3, 3).ticks() == [-3, -2, -1, 0, 1, 2, 3]
    assert 0 in Axis(-7, 5).ticks() and len(Axis(-7, 5).ticks()) <= 8
    assert [landscape.times(power) for power in (-3, -1, 0, 2)] == ["1/8×", "1/2×", "1×", "4×"]


def test_few_papers_stand_in_order_each_with_its_name():
    dots = [dot("one", exact(0.5, 0.4, 0.6)), dot("two", exact(4, 3, 5)), dot("three", exact(1, 0.8, 1.3))]
    placed = landscape.placed(dots, Axis(-2, 3), 12)
    assert [each.dot.name for each in placed] == ["two", "three", "one"]
    assert all(each.shown == NARROW for each in placed)


def test_text_of_a_title_is_text():
    name = 'a <b> & "c"'
    picture = landscape.drawing([Dot(name, "shift", "x.html", f"{name}\ntwo", exact(2))])
    assert f"<title>{html.escape(name)}\ntwo</title>" in picture and "<b>" not in picture
    assert f'aria-label="{html.escape(name)}; two"' in picture
    assert "nf-part-shift" in picture and papers.PARTS["shift"] in picture and papers.PARTS["inside"] not in picture
