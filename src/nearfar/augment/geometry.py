"""Augmentations that move pixels: crops, flip, affine maps, cut-out.

Crops are made by two small matrix products per image, rows · image · columns, where the matrices hold the weights of
bilinear resampling with anti-aliasing: the same numbers as torchvision's resized_crop(antialias=True), any sizes, one
batched call, and a flip that costs nothing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nearfar.augment.checks import Stage, check_images, check_range, checked, chosen, in_blocks, select, uniform
from nearfar.precision import wide


# ---------------------------------------------------------------------------------------------- crops
def resized_boxes(
    n: int,
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    generator: torch.Generator,
    attempts: int = 10,
) -> Tensor:
    """n crop boxes (top, left, height, width), int64 (N, 4), by the law of torchvision's RandomResizedCrop.

    Area uniform in scale · H · W, log of the aspect ratio w/h uniform in log ratio, both rounded to whole pixels; the
    first of ten attempts that fits is placed uniformly; if none fits, the largest central box within ratio is taken.
    """
    device = generator.device
    draws = torch.rand(4, n, attempts, generator=generator, device=device, dtype=torch.float64)
    area = height * width * (scale[0] + (scale[1] - scale[0]) * draws[0])  # (N, attempts)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = (low + (high - low) * draws[1]).exp()
    w, h = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.int().argmax(dim=1, keepdim=True)  # (N, 1)
    w, h = w.gather(1, first)[:, 0], h.gather(1, first)[:, 0]
    top = (draws[2, :, 0] * (height - h + 1)).floor()
    left = (draws[3, :, 0] * (width - w + 1)).floor()
    drawn = torch.stack([top, left, h, w], dim=1)  # (N, 4)

    fallback_h, fallback_w = height, width
    if width / height < ratio[0]:
        fallback_h = round(width / ratio[0])
    elif width / height > ratio[1]:
        fallback_w = round(height * ratio[1])
    fallback = drawn.new_tensor([(height - fallback_h) // 2, (width - fallback_w) // 2, fallback_h, fallback_w])
    return torch.where(fits.any(dim=1, keepdim=True), drawn, fallback).long()


def _resampling(
    start: Tensor, length: Tensor, size: int, extent: int, output_axis: int, flip: Tensor | None = None
) -> Tensor:
    """Weights that resample pixels start … start + length of `extent` pixels to `size` pixels.

    (N, size, extent) for output_axis 1, (N, extent, size) for 2: the layout that the product wants.
    Triangle filter, as wide as an output pixel when shrinking (anti-aliasing), one pixel when growing.
    """
    n, dtype, device = len(start), start.dtype, start.device
    along_output, along_input = ((1, -1, 1), (1, 1, -1)) if output_axis == 1 else ((1, 1, -1), (1, -1, 1))
    step = (length / size).view(n, 1, 1)  # input pixels per output pixel
    start, stop = start.view(n, 1, 1), (start + length).view(n, 1, 1)
    output = (torch.arange(size, dtype=dtype, device=device) + 0.5).view(along_output)
    if flip is not None:
        output = torch.where(flip.view(n, 1, 1), size - output, output)  # the mirrored matrix
    centre = output * step + start  # (N, output)
    pixel = (torch.arange(extent, dtype=dtype, device=device) + 0.5).view(along_input)
    inside = ((pixel > start) & (pixel < stop)).to(dtype)  # nothing from outside the box
    reach = step.clamp(min=1)
    distance = (pixel / reach - centre / reach).abs_()
    weights = torch.sub(inside, distance, out=distance).clamp_(min=0)
    return weights.div_(weights.sum(dim=3 - output_axis, keepdim=True))


def transform(images: Tensor, vertical: Tensor, horizontal: Tensor) -> Tensor:
    """vertical · image · horizontal, a matrix per image: (N, C, H, W), (N, h, H) and (N, W, w) -> (N, C, h, w)."""
    (n, channels, height, width), (rows, columns) = images.shape, (vertical.shape[1], horizontal.shape[2])
    across = images.reshape(n, channels * height, width) @ horizontal  # (N, C·H, w)
    across = across.view(n * channels, height, columns)
    vertical = vertical[:, None].expand(n, channels, rows, height).reshape(n * channels, rows, height)
    return torch.bmm(vertical, across).view(n, channels, rows, columns)


def crop_and_resize(images: Tensor, boxes: Tensor, size: int, flip: Tensor | None = None) -> Tensor:
    """Cut box i out of image i and resize it to size × size, bilinear with anti-aliasing.

    images: (N, C, H, W); boxes: (N, 4) integers (top, left, height, width) inside the image; flip: (N,) booleans,
    mirror left-right.  Returns (N, C, size, size).  Raises ValueError for bad images, boxes or size.
    """
    like = check_images(images)
    n, _, height, width = images.shape
    if boxes.shape != (n, 4):
        raise ValueError(f"boxes must have shape ({n}, 4), got {tuple(boxes.shape)}")
    if type(boxes) is Tensor and boxes.device.type == "cpu":
        corner, sides = boxes[:, :2], boxes[:, 2:]
        if ((corner < 0) | (sides < 1) | (corner + sides > boxes.new_tensor([height, width]))).any():
            raise ValueError(f"boxes must lie inside the image of {height}x{width} pixels and hold at least one")
    return in_blocks(images, [resampling_stage(boxes, size, like, flip)])


def resampling_stage(boxes: Tensor, size: int, like: Tensor, flip: Tensor | None) -> Stage:
    if size < 1:
        raise ValueError(f"size must be at least one pixel, got {size}")
    boxes, flip = boxes.to(like), None if flip is None else flip.to(like.device)

    def stage(images: Tensor, rows: slice) -> Tensor:
        top, left, tall, wide = boxes[rows].unbind(dim=1)
        vertical = _resampling(top, tall, size, images.shape[2], 1)  # (N, size, H)
        mirror = None if flip is None else flip[rows]
        horizontal = _resampling(left, wide, size, images.shape[3], 2, mirror)  # (N, W, size)
        return transform(images, vertical, horizontal).clamp_(0, 1)

    return stage


def random_resized_crop(
    images: Tensor,
    size: int,
    scale: tuple[float, float] = (0.2, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    *,
    flip: float = 0.0,
    generator: torch.Generator,
) -> Tensor:
    """A random box of each image, resized to (N, C, size, size) [Szegedy et al., 2015; the law: resized_boxes].

    scale: bounds of the share of the area; ratio: bounds of width/height; flip: share of images that are also mirrored
    left-right, at no cost.  Raises ValueError for bad images, bounds or size.
    """
    like = check_images(images)
    stage = crop_stage(len(images), images.shape[-2:], size, scale, ratio, flip, like, generator)
    return in_blocks(images, [stage])


def crop_stage(
    n: int,
    shape: tuple[int, int],
    size: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    flip: float,
    like: Tensor,
    generator: torch.Generator,
) -> Stage:
    check_range("scale", scale, 0)
    check_range("ratio", ratio, 0)
    if scale[1] <= 0 or ratio[0] <= 0:
        raise ValueError(f"scale and ratio must be greater than zero, got {tuple(scale)} and {tuple(ratio)}")
    boxes = resized_boxes(n, *shape, scale, ratio, generator)
    return resampling_stage(boxes, size, like, chosen(n, flip, like, generator) if flip else None)


def random_crop(
    images: Tensor, size: int, padding: int | None = None, *, flip: float = 0.0, generator: torch.Generator
) -> Tensor:
    """Shift each image by up to `padding` pixels (default an eighth of its height), mirrored at its edges; then resize.

    The weak augmentation of FixMatch and of CIFAR training.  flip: share of images that are also mirrored left-right.
    Raises ValueError for bad images, or a padding that is not smaller than the image.
    """
    like = check_images(images)
    stages = shift_stages(len(images), images.shape[-2:], size, padding, flip, like, generator)
    return in_blocks(images, stages)


def shift_stages(
    n: int,
    shape: tuple[int, int],
    size: int,
    padding: int | None,
    flip: float,
    like: Tensor,
    generator: torch.Generator,
) -> list[Stage]:
    height, width = shape
    padding = height // 8 if padding is None else padding
    if not 0 <= padding < min(height, width):
        raise ValueError(f"padding must be at least 0 and below {min(height, width)}, got {padding}")
    corner = torch.randint(2 * padding + 1, (n, 2), generator=generator, device=generator.device).to(like.device)
    row = corner[:, :1] - padding + torch.arange(height, device=like.device)  # (N, H): where each row comes from
    column = torch.arange(width, device=like.device).expand(n, width)
    if flip:
        column = torch.where(chosen(n, flip, like, generator).view(n, 1), width - 1 - column, column)
    column = column + corner[:, 1:] - padding  # (N, W)
    row, column = mirrored(row, height) * width, mirrored(column, width)

    def shift(images: Tensor, rows: slice) -> Tensor:
        pixel = (row[rows, :, None] + column[rows, None, :]).flatten(1)[:, None]  # (N, 1, H·W)
        return images.flatten(2).gather(2, pixel.expand(-1, images.shape[1], -1)).view_as(images)

    if size == height == width:
        return [shift]
    whole = corner.new_tensor([0, 0, height, width]).expand(n, 4)
    return [shift, resampling_stage(whole, size, like, None)]


def mirrored(index: Tensor, extent: int) -> Tensor:
    """Indices less than `extent` outside 0 … extent − 1, reflected about the first and the last pixel."""
    return extent - 1 - (extent - 1 - index.abs()).abs()


# ---------------------------------------------------------------------------------------------- others
def horizontal_flip(images: Tensor, p: float = 0.5, *, generator: torch.Generator) -> Tensor:
    """Mirror each image left-right with probability p."""
    images = checked(images)
    return select(chosen(len(images), p, images, generator), images.flip(-1), images)


def affine(
    images: Tensor,
    degrees: tuple[float, float] = (-30, 30),
    translate: tuple[float, float] = (0, 0),
    scale: tuple[float, float] = (1, 1),
    shear: tuple[float, float] = (0, 0),
    p: float = 1.0,
    fill: float = 0.0,
    *,
    generator: torch.Generator,
) -> Tensor:
    """Rotate, shift, scale and shear each image about its centre, as torchvision's RandomAffine, bilinear.

    degrees: bounds of the rotation, clockwise; translate: largest shift as a share of width and height (shifts are
    whole pixels); scale: bounds of the factor; shear: bounds of the horizontal shear in degrees; fill: value from
    outside.  Same size out.  Raises ValueError for bad images or bounds.
    """
    images = checked(images)
    dtype, images = images.dtype, wide(images)
    n, _, height, width = images.shape
    check_range("degrees", degrees)
    check_range("scale", scale, 0)
    check_range("shear", shear, -89, 89)
    if scale[0] <= 0 or min(translate) < 0 or max(translate) > 1:
        raise ValueError(f"scale must be above 0 and translate in [0, 1], got {tuple(scale)} and {tuple(translate)}")
    angle, tilt = (uniform(n, *bounds, images, generator) * (math.pi / 180) for bounds in (degrees, shear))
    factor = uniform(n, *scale, images, generator)
    shift_x = (uniform(n, -1, 1, images, generator) * translate[0] * width).round()
    shift_y = (uniform(n, -1, 1, images, generator) * translate[1] * height).round()
    # Output pixel -> input pixel, about the centre: the inverse of shift · rotation · shear · scale.
    # With R = [[c, -s], [s, c]] and k = tan(tilt): M = factor · R · [[1, -k], [0, 1]],
    # M⁻¹ = [[1, k], [0, 1]] · Rᵀ / factor
    c, s, k = angle.cos(), angle.sin(), tilt.tan()
    a, b = (c - k * s) / factor, (s + k * c) / factor
    d, e = -s / factor, c / factor
    x = torch.arange(width, dtype=images.dtype, device=images.device) - (width - 1) / 2
    y = torch.arange(height, dtype=images.dtype, device=images.device) - (height - 1) / 2
    dx = x - shift_x[:, None]  # (N, W)
    dy = y - shift_y[:, None]  # (N, H)
    source_x = a.view(n, 1, 1) * dx[:, None, :] + b.view(n, 1, 1) * dy[:, :, None]  # (N, H, W)
    source_y = d.view(n, 1, 1) * dx[:, None, :] + e.view(n, 1, 1) * dy[:, :, None]
    grid = torch.stack([source_x * (2 / width), source_y * (2 / height)], dim=-1)
    moved = torch.nn.functional.grid_sample(images - fill, grid, "bilinear", "zeros", align_corners=False) + fill
    return select(chosen(n, p, images, generator), moved.clamp(0, 1), images).to(dtype)


def cutout(images: Tensor, length: int, p: float = 1.0, fill: float = 0.0, *, generator: torch.Generator) -> Tensor:
    """Blank a square of `length` pixels whose centre is uniform over the image; parts may fall outside
    [DeVries & Taylor, 2017].  Raises ValueError for bad images or a length below one."""
    like = check_images(images)
    return in_blocks(images, [cutout_stage(len(images), images.shape[-2:], like, length, p, fill, generator)])


def cutout_stage(
    n: int, shape: tuple[int, int], like: Tensor, length: int, p: float, fill: float, generator: torch.Generator
) -> Stage:
    if length < 1:
        raise ValueError(f"length must be at least one pixel, got {length}")
    keep = ~chosen(n, p, like, generator)
    inside = []
    for extent in shape:
        centre = torch.randint(extent, (n, 1), generator=generator, device=generator.device).to(like.device)
        offset = torch.arange(extent, device=like.device) - centre + length // 2  # (N, extent)
        inside.append((offset >= 0) & (offset < length))
    hole = inside[0][:, None, :, None] & inside[1][:, None, None, :] & ~keep  # (N, 1, H, W)
    return lambda images, rows: images.masked_fill(hole[rows], fill)
