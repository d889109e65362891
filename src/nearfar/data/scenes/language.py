"""What can be said about a scene: relations between its objects, and captions from templates."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.data.scenes.colour import COLOURS, colour_index
from nearfar.data.scenes.patterns import BACKGROUNDS, TEXTURES
from nearfar.data.scenes.shapes import SHAPES
from nearfar.data.scenes.table import scale_range

TEXTURE_WORDS = {"plain": "", "stripes": "striped", "checks": "checked", "dots": "dotted", "gradient": "shaded",
                 "noise": "speckled"}  # fmt: skip
BACKGROUND_WORDS = {"plain": "plain", "gradient": "graded", "stripes": "striped", "waves": "wavy", "noise": "cloudy",
                    "clutter": "cluttered"}  # fmt: skip
STYLE_WORDS = ("", "a sketch of ", "a painting of ")
SMALL, LARGE = 0.4, 0.6  # of the way from the smallest to the largest radius that chance gives


def relations(table: dict[str, Tensor]) -> dict[str, Tensor]:
    """Relations (n, K, K) between objects i and j, both present and different: "i is left of j", and so on.

    left_of, above: i's centre by more than 0.04 image widths.  overlaps: the boxes share area.  inside: i's box lies
    in j's.  larger: i's radius is at least 1.15 times j's.
    """
    x, y = table["position"].unbind(-1)
    x0, y0, x1, y1 = table["boxes"].unbind(-1)
    k = x.shape[1]
    both = table["present"][:, :, None] & table["present"][:, None, :]
    both = both & ~torch.eye(k, dtype=torch.bool, device=x.device)

    def pair(value: Tensor) -> tuple[Tensor, Tensor]:
        return value[:, :, None], value[:, None, :]

    (ax0, bx0), (ay0, by0), (ax1, bx1), (ay1, by1) = map(pair, (x0, y0, x1, y1))
    (ax, bx), (ay, by), (a_scale, b_scale) = map(pair, (x, y, table["scale"]))
    return {
        "left_of": both & (ax < bx - 0.04),
        "above": both & (ay < by - 0.04),
        "inside": both & (ax0 >= bx0) & (ay0 >= by0) & (ax1 <= bx1) & (ay1 <= by1),
        "overlaps": both & (ax0 < bx1) & (bx0 < ax1) & (ay0 < by1) & (by0 < ay1),
        "larger": both & (a_scale >= 1.15 * b_scale),
    }


def captions(table: dict[str, Tensor]) -> tuple[str, ...]:
    """One sentence per scene: "a small red star left of a large striped blue circle on a wavy green background".

    table: object factors (n, K), with colour and, for K > 1, the relations.  Sizes are named relative to the range
    that chance gives to so many objects; a colour with saturation below 0.15 is called grey.
    """
    n, objects = table["shape"].shape
    least, most = scale_range(objects)
    low, high = (least + share * (most - least) for share in (SMALL, LARGE))
    size = (table["scale"] > low).long() + (table["scale"] > high).long()
    colour = torch.where(table["saturation"] < 0.15, len(COLOURS), table["colour"])
    nouns = _nouns()
    words = ((size * (len(COLOURS) + 1) + colour) * len(TEXTURES) + table["texture"]) * len(SHAPES) + table["shape"]
    words, present = words.tolist(), table["present"].tolist()
    links = _links(table) if objects > 1 else None
    scenery = _scenery(table)
    sentences = []
    for i in range(n):
        said = [nouns[w] for w, there in zip(words[i], present[i], strict=True) if there]
        if links is not None and len(said) == 2 and present[i][0] and present[i][1]:
            subject = f"{said[0]} {links[i]} {said[1]}"
        elif not said:
            subject = "nothing"
        else:
            subject = ", ".join(said[:-1]) + " and " * (len(said) > 1) + said[-1]
        sentences.append(scenery[i].format(subject))
    return tuple(sentences)


def _nouns() -> list[str]:
    """Every "a small striped blue circle", in the order of the numbers of size, colour, texture and shape."""
    phrases = []
    for size in ("small", "", "large"):
        for colour in (*COLOURS, "grey"):
            for texture in TEXTURES:
                for shape in SHAPES:
                    phrase = " ".join(filter(None, (size, TEXTURE_WORDS[texture], colour, shape)))
                    phrases.append(f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}")
    return phrases


def _links(table: dict[str, Tensor]) -> list[str]:
    """How the first object stands to the second."""
    inside, around = table["inside"][:, 0, 1].tolist(), table["inside"][:, 1, 0].tolist()
    offset = (table["position"][:, 1] - table["position"][:, 0]).tolist()
    links = []
    for within, holds, (dx, dy) in zip(inside, around, offset, strict=True):
        if within or holds:
            links.append("inside" if within else "around")
        elif abs(dx) >= abs(dy):
            links.append("left of" if dx > 0 else "right of")
        else:
            links.append("above" if dy > 0 else "below")
    return links


def _scenery(table: dict[str, Tensor]) -> list[str]:
    """The frame of each sentence: style and background around a place for the subject."""
    grey = table["background_saturation"] < 0.1
    hue = torch.where(grey, len(COLOURS), colour_index(table["background_hue"]))
    frames = {}
    keys = torch.stack([table["style"], table["background"], hue], 1).tolist()
    colours = (*COLOURS, "grey")
    for style, ground, tint in keys:
        word = BACKGROUND_WORDS[BACKGROUNDS[ground]]
        frames[style, ground, tint] = f"{STYLE_WORDS[style]}{{}} on a {word} {colours[tint]} background"
    return [frames[tuple(key)] for key in keys]
