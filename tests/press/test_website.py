"""Our part of the Sphinx build: figures in boxes of their own, and styles that arrive."""

import base64
import io
import re

import pytest
from PIL import Image
from toybook import edit

from nearfar.press import website


def png(width):
    stream = io.BytesIO()
    Image.new("L", (width, 40)).save(stream, "png")
    return stream.getvalue()


def test_widths_are_read_from_the_head_of_a_picture():
    assert website.width(png(1234)) == website.width(png(1234)[:30]) == 1234
    assert website.width(b'<?xml?><svg xmlns="x" width="300pt" height="9">') == 400
    assert website.width(b'<svg width="300">') == 300
    assert website.width(b"GIF89a") == website.width(b"") == 0


@pytest.mark.parametrize("pixels", [website.LARGE, website.LARGE + 1, 1540])
@pytest.mark.parametrize("embedded", [False, True])
def test_a_wide_figure_gets_a_box_that_says_how_wide_it_must_be(pixels, embedded):
    data = "data:image/png;base64," + base64.b64encode(png(pixels)).decode()
    tag = f'<img alt="a &gt; b" class="x" src="{data if embedded else "../_images/a.png"}" style="width:1px">'
    page = website.boxed(f"<p>{tag}</p>", lambda address: png(pixels) if address == "../_images/a.png" else b"")
    if pixels <= website.LARGE:
        assert page == f"<p>{tag}</p>"
    else:
        least = round(website.LEAST * pixels)
        assert page == f'<p><span class="nf-box" style="--nf-least: {least}px">{tag}</span></p>'


def test_several_pictures_of_a_page_are_told_apart():
    sizes = {"a": 2000, "b": 10, "c": 3000}
    body = "".join(f'<img src="{name}"><img alt="none">' for name in sizes)
    page = website.boxed(body, lambda address: png(sizes[address]))
    assert re.findall(r'least: (\d+)px"><img src="(.)">', page) == [("1200", "a"), ("1800", "c")]


def test_a_changed_style_or_script_makes_all_pages_anew(toybook):
    static = toybook / "book/_static"
    static.mkdir()
    (static / "x.css").write_text("a {}")
    (static / "x.js").write_text("1")
    first = website.version()
    assert website.version() == first
    edit(static / "x.css", "a", "b")
    second = website.version()
    edit(static / "x.js", "1", "2")
    assert len({first, second, website.version()}) == 3


def test_pictures_of_cards_are_fetched_when_they_come_near():
    card, other = '<img alt="x" class="sd-card-img-top" src="a">', '<img alt="x" src="b">'
    assert website.boxed(card + other, lambda _: b"") == card.replace("<img", '<img loading="lazy"') + other
