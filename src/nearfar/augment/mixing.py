"""Augmentations that mix two images of a batch.  They return what the loss needs to mix the targets in the same way."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.augment.checks import checked, select, uniform
from nearfar.precision import wide, wide_dtype


def _partners_and_weights(n: int, alpha: float, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A random partner for each image (N,) and a weight λ ~ Beta(α, α), at least float32, for the image itself (N,)."""
    if not alpha > 0:
        raise ValueError(f"alpha must be greater than zero, got {alpha}")
    partner = torch.randperm(n, generator=generator, device=generator.device).to(images.device)
    concentration = torch.full((2, n), alpha, dtype=torch.float64, device=generator.device)
    gamma = torch._standard_gamma(concentration, generator=generator)  # Beta as a ratio of two Gammas
    weight = gamma[0] / gamma.sum(dim=0).clamp(min=torch.finfo(torch.float64).tiny)
    return partner, weight.to(images.device, wide_dtype(images.dtype))


def mixup(images: Tensor, alpha: float = 1.0, *, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """x̃_i = λ_i x_i + (1 − λ_i) x_j with j = partner of i, λ_i ~ Beta(α, α), one per image [Zhang et al., 2018, eq. 1].

    images: (N, C, H, W).  Returns (mixed images, partner (N,), weight λ (N,), at least float32); the loss to go with
    it is λ_i · loss(output_i, y_i) + (1 − λ_i) · loss(output_i, y[partner_i]).
    Raises ValueError for bad images, alpha ≤ 0.
    """
    images = checked(images)
    partner, weight = _partners_and_weights(len(images), alpha, images, generator)
    exact = wide(images)
    return torch.lerp(exact[partner], exact, weight.view(-1, 1, 1, 1)).to(images.dtype), partner, weight


def cutmix(images: Tensor, alpha: float = 1.0, *, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Paste a box of the partner's pixels, of the share 1 − λ of the area, λ ~ Beta(α, α) [Yun et al., 2019, eq. 1-2].

    The box has the image's aspect ratio and a uniform centre, cut off at the edges; the weight that is returned is the
    share of pixels that stayed.  Returns (mixed images, partner (N,), weight (N,)), to be used as with mixup.
    Raises ValueError for bad images, alpha ≤ 0.
    """
    images = checked(images)
    n, _, height, width = images.shape
    partner, weight = _partners_and_weights(n, alpha, images, generator)
    side = (1 - weight).clamp(min=0).sqrt()  # share of each side that is cut
    inside = []
    for extent in (height, width):
        centre = uniform(n, 0, extent, weight, generator).floor()
        half = (side * extent).floor().div(2, rounding_mode="floor")
        pixel = torch.arange(extent, dtype=weight.dtype, device=images.device)
        inside.append((pixel >= (centre - half)[:, None]) & (pixel < (centre + half)[:, None]))
    box = inside[0][:, None, :, None] & inside[1][:, None, None, :]  # (N, 1, H, W)
    stayed = 1 - box.to(weight.dtype).mean(dim=(1, 2, 3))
    return select(box, images[partner], images), partner, stayed
