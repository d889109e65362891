"""The drawn world: small scenes of shapes whose every factor is known and can be set.

`draw` makes a data set; `factors` makes the table behind it, `render` draws a table.  So before/after pairs and clips
are edits of a table: `render({**before, "hue": before["hue"] + 0.3})`.
"""

from __future__ import annotations

import torch

from nearfar.data.arrays import ArrayDataset
from nearfar.data.scenes.colour import COLOURS, colour_index, hsv_to_rgb
from nearfar.data.scenes.patterns import BACKGROUNDS, TEXTURES
from nearfar.data.scenes.rendering import render
from nearfar.data.scenes.shapes import AREAS, SHAPES
from nearfar.data.scenes.table import GROUPS, IMAGE_FACTORS, NAMES, OBJECT_FACTORS, STYLES, Setting, factors
from nearfar.errors import nearest

__all__ = [
    "AREAS", "BACKGROUNDS", "COLOURS", "GROUPS", "SHAPES", "STYLES", "TEXTURES",
    "colour_index", "draw", "factors", "hsv_to_rgb", "render",
]  # fmt: skip


def draw(
    n: int,
    size: int = 32,
    seed: int = 0,
    *,
    label: str = "shape",
    masks: bool = False,
    caption: bool = True,
    **settings: Setting,
) -> ArrayDataset:
    """`n` scenes of size × size pixels: uint8 images, labels, the factor table as attributes, captions.

    settings: whatever `factors` takes (split, objects, shape, hue, texture, ...); label, masks, caption as in `render`.
    Labels count within `classes`: where the label's factor was set to a list of names, those are the classes, in
    that order.  Raises ValueError naming the factor or argument that is wrong.

    >>> draw(1000, objects=2, shape=["star", "circle"], hue="red", background="waves")
    """
    known = ("split", "objects", *OBJECT_FACTORS[1:], *IMAGE_FACTORS[:-1])
    for name in settings:
        if name not in known:
            raise ValueError(f"draw: unknown factor {name!r}.{nearest(name, known)}")
    dataset = render(factors(n, seed=seed, **settings), size, label=label, masks=masks, caption=caption)
    chosen = settings.get(label)
    if label in NAMES and isinstance(chosen, (list, tuple)) and all(isinstance(name, str) for name in chosen):
        position = torch.tensor([chosen.index(name) if name in chosen else -1 for name in NAMES[label]])
        dataset.labels, dataset.classes = position[dataset.labels], tuple(chosen)
    dataset.name = f"scenes/{settings.get('split', 'train')}"
    return dataset
