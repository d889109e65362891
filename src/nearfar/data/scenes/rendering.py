"""From the factor table to pixels: chunks small enough for the processor's cache, one style at a time."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor

from nearfar.data.arrays import ArrayDataset
from nearfar.data.scenes.chance import numbers
from nearfar.data.scenes.colour import COLOURS, colour_index, hsv_to_rgb
from nearfar.data.scenes.language import captions, relations
from nearfar.data.scenes.patterns import BACKGROUNDS, GROUND_TONES, SECOND_TONE, TEXTURE_TONES, add_clutter
from nearfar.data.scenes.shapes import DISTANCES
from nearfar.data.scenes.styles import STYLE_STEPS, warp
from nearfar.data.scenes.table import IMAGE_FACTORS, NAMES, OBJECT_FACTORS, STYLES, check

CHUNK = 1 << 16  # pixels drawn at a time
DERIVED = ("colour", "count", "boxes", "masks", "left_of", "above", "inside", "overlaps", "larger")
LABELS = ("shape", "colour", "texture", "background", "style", "group", "count", "hue", "scale", "angle")


def render(
    table: dict[str, Tensor], size: int = 32, *, label: str = "shape", masks: bool = False, caption: bool = True
) -> ArrayDataset:
    """Draw the scenes of a factor table (from `factors`, or the attributes of a drawn set, edited or not).

    Returns uint8 images (n, 3, size, size).  Attributes are the table and what follows from it: colour (number of the
    hue's name), count, boxes (n, 4) or (n, K, 4) with x0, y0, x1, y1 in pixels, and for K > 1 the relations left_of,
    above, inside, overlaps, larger (n, K, K).  With `masks` also masks (n, S, S) or (n, K, S, S), bool.  Boxes and
    masks show the whole object, also where another lies in front of it; an absent object has an empty box and mask.
    label: the factor that becomes the labels; with several objects, that of the first.
    Every row depends on its own factors only.  Raises ValueError naming the factor or argument that is wrong.
    """
    if not 8 <= size <= 256:
        raise ValueError(f"size: {size} pixels; scenes are drawn at 8 to 256")
    if label not in LABELS:
        raise ValueError(f"label: {label!r} is none of {', '.join(LABELS)}")
    full = check(table, DERIVED)
    n, objects = full["shape"].shape
    device = full["hue"].device
    images = torch.empty(n, 3, size, size, dtype=torch.uint8, device=device)
    covers = torch.zeros(n, objects, size, size, dtype=torch.bool, device=device) if masks else None
    boxes = torch.zeros(n, objects, 4, device=device)
    step = max(1, CHUNK // size**2)
    kinds = (full["shape"][:, 0] * len(TEXTURE_TONES) + full["texture"][:, 0]) * len(BACKGROUNDS) + full["background"]
    alike = kinds.argsort(stable=True)  # neighbours share a shape and a texture, so a chunk needs few of them
    for number in full["style"].unique().tolist():
        rows = alike[full["style"][alike] == number]
        for chunk in rows.split(step):
            part = {name: column[chunk] for name, column in full.items()}
            images[chunk], cover = _draw(part, size, STYLES[number])
            boxes[chunk] = _boxes(cover)
            if masks:
                covers[chunk] = cover

    full["colour"], full["count"], full["boxes"] = colour_index(full["hue"]), full["present"].sum(1), boxes
    if objects > 1:
        full |= relations(full)
    text = captions(full) if caption else ()
    if masks:
        full["masks"] = covers
    names = {**NAMES, "colour": tuple(COLOURS), "count": tuple(map(str, range(objects + 1)))}.get(label, ())
    labels = full[label][:, 0] if full[label].ndim == 2 else full[label]
    if objects == 1:
        own = (*OBJECT_FACTORS, "colour", "boxes", "masks")
        full = {name: column[:, 0] if name in own else column for name, column in full.items()}
    return ArrayDataset(images, labels.clone(), full, names, "scenes", _identity(full, size, label), text)


def _draw(part: dict[str, Tensor], size: int, style: str) -> tuple[Tensor, Tensor]:
    """Images (b, 3, S, S), uint8, and what each object covers (b, K, S, S), bool."""
    device, seed = part["hue"].device, part["seed"]
    ground, lay, waver = STYLE_STEPS[style]
    centres = (torch.arange(size, device=device, dtype=torch.float32) + 0.5) / size
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    canvas, tone = _background(part, x, y)
    canvas = ground(canvas, tone, x, y, seed)
    wx, wy = warp(x, y, seed, waver) if waver else (x, y)
    first = hsv_to_rgb(part["hue"], part["saturation"], part["value"])
    pale = hsv_to_rgb(part["hue"], 0.16 * part["saturation"], 0.4 + 0.6 * part["value"])
    light = SECOND_TONE.to(device)[part["texture"]][..., None]
    second = light * pale + (1 - light) * hsv_to_rgb(part["hue"], part["saturation"], 0.5 * part["value"])
    cover = []
    for k in range(part["shape"].shape[1]):
        scale = part["scale"][:, k, None, None].clamp(min=1e-3)
        dx = (wx - part["position"][:, k, 0, None, None]) / scale
        dy = (part["position"][:, k, 1, None, None] - wy) / scale
        angle = torch.deg2rad(part["angle"][:, k, None, None])
        cos, sin = angle.cos(), angle.sin()
        u, v = dx * cos + dy * sin, dy * cos - dx * sin
        pixel = 1 / (scale * size)
        d = _by_kind(part["shape"][:, k], list(DISTANCES.values()), u, v) / pixel
        d = torch.where(part["present"][:, k, None, None], d, 1e4)
        textures = list(TEXTURE_TONES.values())
        texture = _by_kind(part["texture"][:, k], textures, u, v, pixel, seed + 31 * k)
        canvas = lay(canvas, SimpleNamespace(d=d, tone=texture, first=first[:, k], second=second[:, k], dx=dx, dy=dy,
                                             seed=seed))  # fmt: skip
        cover.append(d <= 0)
    canvas = _tag(canvas, part["group"], x, y)
    canvas = _distort(canvas, part)
    return canvas.mul_(255).round_().clamp_(0, 255).to(torch.uint8), torch.stack(cover, 1)


def _by_kind(kind: Tensor, functions: Sequence, *arguments: Tensor) -> Tensor:
    """Row i of the result is functions[kind[i]] of the arguments' rows i."""
    numbers_in_use = kind.unique().tolist()
    if len(numbers_in_use) == 1:
        return functions[numbers_in_use[0]](*arguments)
    out = torch.empty_like(arguments[0])
    for number in numbers_in_use:
        rows = (kind == number).nonzero()[:, 0]
        out[rows] = functions[number](*(argument[rows] for argument in arguments))
    return out


def _background(part: dict[str, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    hue, saturation, value = (part[f"background_{k}"] for k in ("hue", "saturation", "value"))
    seed, kinds = part["seed"], part["background"]
    tone = torch.empty(len(seed), *x.shape, device=hue.device)
    for number in kinds.unique().tolist():
        rows = (kinds == number).nonzero()[:, 0]
        tone[rows] = list(GROUND_TONES.values())[number](x, y, 1 / len(x), seed[rows])
    first = hsv_to_rgb(hue, saturation, value)[..., None, None]
    second = hsv_to_rgb(hue + 0.03, (1.25 * saturation).clamp(max=1), 0.84 * value)[..., None, None]
    canvas = torch.lerp(first, second, tone[:, None])
    rows = (kinds == BACKGROUNDS.index("clutter")).nonzero()[:, 0]
    if len(rows):
        canvas[rows] = add_clutter(canvas[rows], x, y, seed[rows], value[rows])
    return canvas, tone


def _tag(canvas: Tensor, group: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """A round sticker, white with a dark rim, in the corner that the group names."""
    corners = {1: (0.1, 0.1), 2: (0.9, 0.1), 3: (0.9, 0.9)}
    for number in set(group.unique().tolist()) & set(corners):
        rows = (group == number).nonzero()[:, 0]
        d = (torch.hypot(x - corners[number][0], y - corners[number][1]) - 0.085) * len(x)
        rim, middle = (0.5 - d).clamp(0, 1), (0.5 - d - 0.03 * len(x)).clamp(0, 1)
        canvas[rows] = (canvas[rows] * (1 - rim) + 0.13 * rim) * (1 - middle) + 0.97 * middle
    return canvas


def _distort(canvas: Tensor, part: dict[str, Tensor]) -> Tensor:
    """Blur, then loss of contrast, then noise: in the order of a lens, haze and a sensor."""
    rows = (part["blur"] > 0).nonzero()[:, 0]
    if len(rows):
        size = canvas.shape[-1]
        place = torch.arange(size, device=canvas.device, dtype=canvas.dtype)
        sigma = part["blur"][rows, None, None] * size / 32
        weights = (-((place - place[:, None]) ** 2) / (2 * sigma.clamp(min=0.05) ** 2)).exp()
        weights = F.threshold(weights, 1e-7, 0.0)  # no denormal numbers: they take a hundred times as long
        weights = (weights / weights.sum(-1, keepdim=True)).mT
        for _ in range(2):  # along x, then along y
            canvas[rows] = torch.bmm(canvas[rows].flatten(1, 2), weights).view(-1, 3, size, size).mT
    if bool((part["contrast"] != 1).any()):
        canvas = 0.5 + (canvas - 0.5) * part["contrast"][:, None, None, None]
    rows = (part["noise"] > 0).nonzero()[:, 0]
    if len(rows):
        grain = numbers(part["seed"][rows], math.prod(canvas.shape[1:]), "normal").view_as(canvas[rows])
        canvas[rows] = canvas[rows].clamp(0, 1) + part["noise"][rows, None, None, None] * grain
    return canvas


def _boxes(cover: Tensor) -> Tensor:
    """The tightest boxes (b, K, 4) around masks (b, K, S, S): x0, y0, x1, y1; zeros around nothing."""
    size = cover.shape[-1]
    sides = []
    for hit in (cover.any(-2), cover.any(-1)):  # columns, then rows
        hit = hit.to(torch.uint8)
        sides += [hit.argmax(-1), (size - hit.flip(-1).argmax(-1)) * hit.amax(-1)]
    return torch.stack([sides[0], sides[2], sides[1], sides[3]], -1).float()


def _identity(table: dict[str, Tensor], size: int, label: str) -> str:
    """A hash of what was drawn rather than of pixels, whose last bit may differ between processors."""
    digest = hashlib.sha256(f"scenes {size} {label}".encode())
    for name in (*OBJECT_FACTORS, *IMAGE_FACTORS):
        column = table[name].cpu()
        digest.update((column * 1e4).round().long().numpy() if column.is_floating_point() else column.long().numpy())
    return digest.hexdigest()
