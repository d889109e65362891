"""What the augmentations share: checks of images and ranges, random numbers per image, work in blocks.

An augmentation is made in two steps.  First it draws its parameters for the whole batch and becomes a `Stage`; then the
stages of a recipe are applied one after the other to blocks of the batch that stay in a CPU's cache, or to all of it at
once on an accelerator, always in the images' own precision, half precision in float32, also under autocast.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nearfar.precision import wide, wide_dtype

# (images (B, C, H, W), which rows of the batch they are) -> changed images; may overwrite what it is given
Stage = Callable[[Tensor, slice], Tensor]
_PIXELS_PER_BLOCK = 2**16


def to_float(images: Tensor) -> Tensor:
    """uint8 to float32 in [0, 1]; floating point tensors stay untouched, whatever they hold (also tables).

    Raises ValueError for other dtypes.
    """
    if images.dtype == torch.uint8:
        return images.float().div_(255)
    if not images.is_floating_point():
        raise ValueError(f"images must be uint8 or floating point, got {images.dtype}")
    return images


def check_images(images: Tensor) -> Tensor:
    """An empty tensor with the images' device and the dtype to compute in: at least float32.

    Raises ValueError unless they are (N, C, H, W), one or three channels, uint8 or float in [0, 1].
    """
    if images.dim() != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
        raise ValueError(f"images must have shape (N, 1 or 3, H, W), none of them zero, got {tuple(images.shape)}")
    if images.is_floating_point() and type(images) is Tensor and images.device.type == "cpu":
        low, high = torch.aminmax(images.detach())
        if not (low >= 0 and high <= 1):  # also catches NaN
            raise ValueError(
                f"images must lie in [0, 1] when floating point, got {float(low):.4g} to {float(high):.4g}"
                "; divide by 255, or pass uint8"
            )
    return wide(to_float(images[:0]))


def checked(images: Tensor) -> Tensor:
    """The images as floats; raises ValueError as `check_images` does."""
    check_images(images)
    return to_float(images)


def check_p(p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"p must lie in [0, 1], got {p}")


def check_range(name: str, bounds: tuple[float, float], low: float = -math.inf, high: float = math.inf) -> None:
    if len(bounds) != 2 or not low <= bounds[0] <= bounds[1] <= high:
        raise ValueError(f"{name} must be (from, to) with {low} <= from <= to <= {high}, got {tuple(bounds)}")


def uniform(
    shape: int | tuple[int, ...], low: float | Tensor, high: float | Tensor, like: Tensor, generator: torch.Generator
) -> Tensor:
    """Uniform draws in [low, high), made on the generator's device, moved to like's device; in like's precision."""
    shape = (shape,) if isinstance(shape, int) else shape
    draws = torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float64)
    # the share first, in double precision: the numbers then do not depend on the images' precision
    return (draws.to(like.device) * (high - low) + low).to(like.dtype)


def chosen(n: int, p: float, like: Tensor, generator: torch.Generator) -> Tensor:
    """Which of n images are changed: boolean (N, 1, 1, 1), each true with probability p."""
    check_p(p)
    draws = torch.rand(n, generator=generator, device=generator.device, dtype=torch.float64)
    return (draws < p).to(like.device).view(n, 1, 1, 1)


def select(mask: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """new where mask, else old: exactly torch.where for finite images, and several times faster on a CPU."""
    return torch.lerp(old, new.expand_as(old), mask.to(old.dtype))


def change_chosen(chosen: Tensor, images: Tensor, change: Callable[[Tensor, Tensor | slice], Tensor]) -> Tensor:
    """The images, overwritten by change(those, which) where chosen, (B, 1, 1, 1): `which` indexes the B images.

    `change` must leave its input as it is, and return memory of its own.

    On the CPU only the chosen images are computed; elsewhere all of them, since looking at the draws would make an
    accelerator wait.
    """
    if images.device.type != "cpu" or type(chosen) is not Tensor:
        return select(chosen, change(images, slice(None)), images)
    which = chosen.flatten().nonzero()[:, 0]
    if len(which) == 0:
        return images
    if len(which) == len(images):
        return change(images, slice(None))
    return images.index_copy_(0, which, change(images.index_select(0, which), which))


def in_blocks(images: Tensor, stages: Sequence[Stage]) -> Tensor:
    """Apply the stages to the images, uint8 or float, block by block; out come floats, half precision rounded back."""
    dtype = to_float(images[:0]).dtype
    n, _, height, width = images.shape
    size = max(1, _PIXELS_PER_BLOCK // (height * width)) if images.device.type == "cpu" else n
    result = None
    with torch.autocast(images.device.type, enabled=False):
        for start in range(0, n, size):
            rows = slice(start, min(start + size, n))
            block = images[rows]  # then a copy, which the stages may overwrite
            block = block.to(wide_dtype(dtype), copy=True) if images.is_floating_point() else to_float(block)
            for stage in stages:
                block = stage(block, rows)
            if len(block) == n:
                return block.to(dtype)
            if result is None:
                result = block.new_empty(n, *block.shape[1:], dtype=dtype)
            result[rows] = block
    return result
