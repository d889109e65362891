"""The standard recipes by name, two or more views, and multi-crop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from nearfar.augment.checks import check_images, in_blocks
from nearfar.augment.colour import blur_stage, grey_stage, jitter_stage, solarise_stage
from nearfar.augment.geometry import crop_stage, cutout_stage, shift_stages
from nearfar.errors import nearest

Recipe = Callable[[Tensor, torch.Generator], Tensor]
Crops = tuple[int, int, tuple[float, float]]  # count, size in pixels, bounds of the share of the area

_DEFAULTS = {
    "scale": (0.08, 1.0), "ratio": (3 / 4, 4 / 3), "padding": None, "flip": 0.5,
    "jitter": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "grey": 0.2,
    "blur": 0.5, "sigma": (0.1, 2.0), "kernel_size": None, "solarise": 0.0, "cutout": 0,
}  # fmt: skip


def _simclr(size: int) -> dict:
    """Chen et al., 2020, appendix A; for CIFAR-sized images appendix B.9: half the colour strength, no blur."""
    strength, blur = (0.5, 0.0) if size <= 32 else (1.0, 0.5)
    return {
        "brightness": 0.8 * strength,
        "contrast": 0.8 * strength,
        "saturation": 0.8 * strength,
        "hue": 0.2 * strength,
        "blur": blur,
    }


_RECIPES: dict[str, Callable[[int], dict]] = {
    "simclr": _simclr,
    "moco-v2": lambda size: {"scale": (0.2, 1.0)},  # Chen et al., 2020 (MoCo v2)
    "byol": lambda size: {"saturation": 0.2, "blur": 1.0},  # Grill et al., 2020, table 6, view T
    "byol-prime": lambda size: {"saturation": 0.2, "blur": 0.1, "solarise": 0.2},  # … and view T'
    "weak": lambda size: {"scale": None, "jitter": 0.0, "grey": 0.0, "blur": 0.0},  # shift and flip
}


_MULTI_CROP = "swav-multicrop"


def recipe(name: str, size: int, **overrides) -> Recipe:
    """A function (images, generator) -> views (N, C, size, size) in [0, 1], one random draw per image.

    name: "simclr", "moco-v2", "byol" (first view; "byol-prime" is the second), "weak" (shift by up to an eighth,
    mirrored at the edges, and flip), or "swav-multicrop": `multi_crop` with the paper's counts and areas, two large
    crops and six small ones of 96/224 of their side, whose function gives the list of crops.
    Order: crop and flip, colour jitter, greyscale, blur, solarise, cutout.
    overrides: scale (None: no resized crop but a shift by `padding`), ratio, padding, flip (probability), jitter
    (probability), brightness, contrast, saturation, hue, grey (probability), blur (probability), sigma, kernel_size,
    solarise (probability), cutout (pixels).  Raises ValueError for an unknown name or override, nearest suggested.
    """
    names = (*_RECIPES, _MULTI_CROP)
    if name not in names:
        raise ValueError(f"name: no recipe {name!r}; there are {', '.join(names)}.{nearest(name, names)}")
    for key in overrides:
        if key not in _DEFAULTS:
            known = ", ".join(_DEFAULTS)
            raise ValueError(f"overrides: recipes have no {key!r}, but {known}.{nearest(key, _DEFAULTS)}")
    if size < 1:
        raise ValueError(f"size must be at least one pixel, got {size}")
    if name == _MULTI_CROP:
        if "scale" in overrides:
            raise ValueError(f"scale: {name} has two areas of its own; call multi_crop with large and small instead")
        large, small = (2, size, (0.14, 1.0)), (6, max(1, round(size * 96 / 224)), (0.05, 0.14))
        return partial(multi_crop, large=large, small=small, **overrides)
    o = {**_DEFAULTS, **_RECIPES[name](size), **overrides}

    def view(images: Tensor, generator: torch.Generator) -> Tensor:
        like, (n, channels, *shape), out = check_images(images), images.shape, (size, size)
        if o["scale"] is None:
            stages = shift_stages(n, shape, size, o["padding"], o["flip"], like, generator)
        else:
            stages = [crop_stage(n, shape, size, o["scale"], o["ratio"], o["flip"], like, generator)]
        if o["jitter"]:
            strengths = (o["brightness"], o["contrast"], o["saturation"], o["hue"])
            stages.append(jitter_stage(n, channels, like, *strengths, o["jitter"], None, generator))
        if o["grey"]:
            stages.append(grey_stage(n, like, o["grey"], generator))
        if o["blur"]:
            stages.append(blur_stage(n, out, like, o["sigma"], o["kernel_size"], o["blur"], generator))
        if o["solarise"]:
            stages.append(solarise_stage(n, like, 0.5, o["solarise"], generator))
        if o["cutout"]:
            stages.append(cutout_stage(n, out, like, o["cutout"], 1.0, 0.0, generator))
        return in_blocks(images, stages)

    return view


def views(
    images: Tensor,
    recipe: Recipe | Sequence[Recipe],
    count: int = 2,
    generator: torch.Generator | None = None,
) -> list[Tensor]:
    """`count` independent random views of a batch, each (N, C, size, size).

    recipe: a function from `recipe(…)`, or a sequence of them, taken in turn (for BYOL's two different views); one
    that makes several crops by itself ("swav-multicrop") is called directly.
    Raises ValueError without a generator, for count < 1, or bad images.
    """
    if generator is None:
        raise ValueError("generator must be a torch.Generator, got None")
    if count < 1:
        raise ValueError(f"count must be at least one, got {count}")
    recipes = [recipe] if callable(recipe) else list(recipe)
    return [recipes[i % len(recipes)](images, generator) for i in range(count)]


def multi_crop(
    images: Tensor,
    generator: torch.Generator,
    large: Crops = (2, 32, (0.14, 1)),
    small: Crops = (4, 16, (0.05, 0.14)),
    recipe: str = "simclr",
    **overrides,
) -> list[Tensor]:
    """Few large crops and many small ones [Caron et al., 2020 (SwAV), sec. 3.2]: a list, the large ones first.

    large, small: (count, size in pixels, bounds of the share of the area); recipe: a name, with overrides, for the
    rest of the view.  Raises ValueError as `recipe` does.
    """
    result = []
    for count, size, scale in (large, small):
        view = _recipe(recipe, size, **{**overrides, "scale": scale})
        result += [view(images, generator) for _ in range(count)]
    return result


_recipe = recipe  # multi_crop's argument has the function's name
