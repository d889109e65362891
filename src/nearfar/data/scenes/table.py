"""The factor table: a dictionary of tensors, one row per image, that says everything about the images to draw."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nearfar.data.scenes.colour import COLOURS
from nearfar.data.scenes.patterns import BACKGROUNDS, TEXTURES
from nearfar.data.scenes.shapes import SHAPES
from nearfar.errors import nearest

STYLES = ("photo", "sketch", "painting")
GROUPS = ("no tag", "tag top left", "tag top right", "tag bottom right")
SPLITS = ("train", "val", "test")
NAMES = {"shape": SHAPES, "texture": TEXTURES, "background": BACKGROUNDS, "style": STYLES, "group": GROUPS}
OBJECT_FACTORS = ("present", "shape", "hue", "saturation", "value", "texture", "scale", "angle", "position")
IMAGE_FACTORS = (
    "background", "background_hue", "background_saturation", "background_value", "style", "group", "blur", "noise",
    "contrast", "seed",
)  # fmt: skip
LIMITS = {  # of the numbers that a factor may have
    "saturation": (0, 1), "value": (0, 1), "background_saturation": (0, 1), "background_value": (0, 1),
    "scale": (0, 1), "blur": (0, 16), "noise": (0, 1), "contrast": (0, 4),
}  # fmt: skip
RANDOM = {  # range of a factor that is left to chance
    "hue": (0.0, 1.0), "saturation": (0.68, 0.95), "value": (0.72, 0.97), "angle": (-25.0, 25.0),
    "background_hue": (0.0, 1.0), "background_saturation": (0.16, 0.38), "background_value": (0.8, 0.97),
    "blur": (0.0, 2.0), "noise": (0.0, 0.25), "contrast": (0.3, 1.0),
}  # fmt: skip
TRIES = (6, 6)  # arrangements of a scene that are tried, and places for each object in one, before objects may overlap

Setting = None | float | int | str | Sequence | Tensor


def factors(
    n: int,
    *,
    seed: int = 0,
    split: str = "train",
    objects: int | tuple[int, int] = 1,
    shape: Setting = None,
    hue: Setting = None,
    saturation: Setting = None,
    value: Setting = None,
    texture: Setting = None,
    scale: Setting = None,
    angle: Setting = None,
    position: Setting = None,
    background: Setting = None,
    background_hue: Setting = None,
    background_saturation: Setting = None,
    background_value: Setting = None,
    style: Setting = "photo",
    group: Setting = 0,
    blur: Setting = 0.0,
    noise: Setting = 0.0,
    contrast: Setting = 1.0,
) -> dict[str, Tensor]:
    """The factor table of `n` scenes: name -> tensor, to be edited at will and handed to `render`.

    objects: how many per scene, or (fewest, most).  Object factors have shape (n,) for one object and (n, K) for up
        to K, position one more axis of 2; objects that are absent have `present` False.  Later ones lie in front.
    Object factors: shape, texture (names or numbers into SHAPES, TEXTURES); hue in turns, or a name of COLOURS;
        saturation and value in [0, 1]; scale, the radius in image widths; angle in degrees, counter-clockwise;
        position, the centre (x, y) in image widths from the top left.
    Image factors: background, style (BACKGROUNDS, STYLES); background_hue, _saturation, _value; group 0-3, drawn as a
        small tag in a corner (GROUPS); blur, the standard deviation of a Gaussian in 1/32 of the image's width;
        noise, that of Gaussian noise as a share of full range; contrast, a factor about mid-grey.

    Each factor is None (random), one value or name, a list of names (one of them at random), a tuple (low, high)
    (uniform between them; for position a point), or a tensor of n or n × K values.  Every factor has its own random
    numbers: setting one leaves all others as they were, and the first rows do not depend on n.
    `split` ("train", "val", "test") selects independent scenes for the same seed.

    Raises ValueError naming the factor for an unknown name, a value out of range or a tensor of the wrong shape.
    """
    settings = {k: v for k, v in locals().items() if k in OBJECT_FACTORS or k in IMAGE_FACTORS and k != "seed"}
    fewest, most = (objects, objects) if isinstance(objects, int) else objects
    if n < 1:
        raise ValueError(f"n: {n} is not a positive number of scenes")
    if not 0 <= fewest <= most or most < 1:
        raise ValueError(f"objects: {objects} is neither a positive number nor (fewest, most)")
    if split not in SPLITS:
        raise ValueError(f"split: {split!r} is none of {', '.join(SPLITS)}")
    generator = torch.Generator().manual_seed(seed * len(SPLITS) + SPLITS.index(split))
    columns = 10 + 2 * math.prod(TRIES)
    chance = torch.rand(n, most * columns + 16, generator=generator)  # row by row: the first rows do not depend on n
    own, scene = chance[:, : most * columns].view(n, most, columns), chance[:, most * columns :]

    table = {}
    limits = {**RANDOM, "scale": scale_range(most)}
    for number, name in enumerate(OBJECT_FACTORS[1:-1]):
        table[name] = _column(name, settings[name], own[..., number], limits.get(name))
    if position is None:
        table["position"] = _places(own[..., 10:].view(n, most, *TRIES, 2), table["scale"])
    else:
        table["position"] = _points(position, n, most)
    count = (fewest + scene[:, 15:] * (most - fewest + 1)).long()
    table["present"] = torch.arange(most) < count
    table = {name: table[name].squeeze(1) if most == 1 else table[name] for name in OBJECT_FACTORS}
    for number, name in enumerate(IMAGE_FACTORS[:-1]):
        table[name] = _column(name, settings[name], scene[:, number], limits.get(name))
    table["seed"] = (scene[:, 14] * (1 << 24)).long()
    return table


def scale_range(objects: int) -> tuple[float, float]:
    """The radii that chance gives to each of so many objects."""
    return 0.24 / objects**0.5, 0.36 / objects**0.5


def _column(name: str, setting: Setting, chance: Tensor, limits: tuple[float, float] | None) -> Tensor:
    """One factor's values, of the shape of `chance`, from what the caller set."""
    if name in NAMES:
        if setting is None:
            setting = list(NAMES[name])
        if isinstance(setting, (list, tuple)):
            choices = torch.tensor([_number(name, choice) for choice in setting])
            return choices[(chance * len(choices)).long()]
        values = _spread(name, _number(name, setting) if not isinstance(setting, Tensor) else setting, chance)
        return values.long()
    if isinstance(setting, str) or isinstance(setting, list):
        chosen = [setting] if isinstance(setting, str) else setting
        hues = torch.tensor([_hue(name, choice) for choice in chosen])
        return hues[(chance * len(hues)).long()]
    if setting is None or isinstance(setting, tuple):
        low, high = limits if setting is None else setting
        return low + chance * (high - low)
    return _spread(name, setting, chance).float()


def _number(name: str, choice: str | int) -> int:
    """The number of a name, such as 3 for the shape "star"."""
    names = NAMES[name]
    if isinstance(choice, str):
        if choice not in names:
            hint = nearest(choice, names) or f" There are {', '.join(names)}."
            raise ValueError(f"{name}: unknown {choice!r}.{hint}")
        return names.index(choice)
    if not 0 <= int(choice) < len(names):
        raise ValueError(f"{name}: {choice} is not between 0 and {len(names) - 1}")
    return int(choice)


def _hue(name: str, choice: str | float) -> float:
    if not isinstance(choice, str):
        return float(choice)
    if "hue" not in name or choice not in COLOURS:
        hint = f"; names are {', '.join(COLOURS)}" if "hue" in name else "; expected a number"
        raise ValueError(f"{name}: unknown {choice!r}{hint}")
    return COLOURS[choice]


def _spread(name: str, setting: float | Tensor, like: Tensor) -> Tensor:
    """A number, n values or n × K values as a tensor of the shape of `like`."""
    values = torch.as_tensor(setting)
    if values.ndim == 1 and like.ndim == 2 and len(values) == len(like):
        values = values[:, None]
    try:
        return values.broadcast_to(like.shape).clone()
    except RuntimeError:
        wanted = " or ".join(dict.fromkeys([f"({len(like)},)", str(tuple(like.shape))]))
        raise ValueError(f"{name}: a tensor of shape {tuple(values.shape)}; expected {wanted}") from None


def _points(position: Sequence | Tensor, n: int, most: int) -> Tensor:
    points = torch.as_tensor(position, dtype=torch.float32)
    if points.shape[-1:] != (2,) or points.ndim > 3:
        raise ValueError(f"position: expected (x, y) or a tensor (n, 2) or (n, K, 2), got {tuple(points.shape)}")
    if points.ndim == 2 and most > 1:
        points = points[:, None] if len(points) == n and len(points) != most else points[None]
    return _spread("position", points.view(n, most, 2) if points.numel() == n * most * 2 else points,
                   torch.empty(n, most, 2))  # fmt: skip


def _places(tries: Tensor, scale: Tensor) -> Tensor:
    """Centres (n, K, 2) inside the image, clear of each other where that can be had.

    tries: (n, K, A, P, 2) in [0, 1).  In each of A arrangements every object takes the first of its P places that is
    clear of the objects before it, else the one that overlaps least; the first clear arrangement is taken.
    """
    margin = (scale + 0.02).clamp(max=0.5)[..., None, None, None]
    tries = margin + tries * (1 - 2 * margin)
    arrangements, places = tries.shape[2:4]
    chosen = [tries[:, 0, :, 0]]  # each (n, A, 2)
    overlap = torch.zeros(len(tries), arrangements)
    for k in range(1, tries.shape[1]):
        apart = torch.stack([
            (tries[:, k] - place[:, :, None]).norm(dim=-1) - 0.92 * (scale[:, k] + scale[:, j])[:, None, None]
            for j, place in enumerate(chosen)
        ]).amin(0).clamp(max=0)  # fmt: skip
        best = (apart - torch.arange(places) * 1e-6).argmax(-1, keepdim=True)  # all clear ones are equal: the first
        chosen.append(tries[:, k].gather(2, best[..., None].expand(-1, -1, -1, 2))[:, :, 0])
        overlap += apart.gather(2, best)[:, :, 0]
    best = (overlap - torch.arange(arrangements) * 1e-6).argmax(-1)
    return torch.stack(chosen, 1)[torch.arange(len(best)), :, best]


def check(table: dict[str, Tensor], derived: Sequence[str]) -> dict[str, Tensor]:
    """The table with every object factor as (n, K), after checks.  Raises ValueError naming the factor."""
    for name in table:
        if name not in OBJECT_FACTORS and name not in IMAGE_FACTORS and name not in derived:
            raise ValueError(f"factors: unknown factor {name!r}.{nearest(name, OBJECT_FACTORS + IMAGE_FACTORS)}")
    for name in OBJECT_FACTORS + IMAGE_FACTORS:
        if name not in table:
            raise ValueError(f"factors: {name!r} is missing")
    n, single = len(table["shape"]), table["shape"].ndim == 1
    full = {}
    for name in OBJECT_FACTORS + IMAGE_FACTORS:
        column = table[name]
        if name in OBJECT_FACTORS:
            column = column[:, None] if single else column
        wanted = (n,) if name in IMAGE_FACTORS else (n, 1 if single else table["shape"].shape[1])
        wanted += (2,) if name == "position" else ()
        if column.shape != wanted:
            raise ValueError(f"{name}: a tensor of shape {tuple(table[name].shape)}; the table has {n} rows and "
                             f"shape {tuple(table['shape'].shape)}")  # fmt: skip
        low, high = LIMITS.get(name, (0, len(NAMES[name]) - 1) if name in NAMES else (None, None))
        if high is not None and n and not bool(((column >= low) & (column <= high)).all()):
            raise ValueError(f"{name}: values must lie between {low} and {high}")
        whole = name in NAMES or name == "seed"
        full[name] = column if name == "present" else column.long() if whole else column.float()
    return full
