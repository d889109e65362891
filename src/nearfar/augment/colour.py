"""Augmentations that change pixel values: colour jitter, greyscale, blur, solarisation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nearfar.augment.checks import Stage, change_chosen, check_images, check_range, chosen, in_blocks, uniform
from nearfar.augment.geometry import mirrored, transform

_GREY = (0.2989, 0.587, 0.114)  # torchvision's weights of red, green and blue
Strength = float | tuple[float, float]


def colour_jitter(
    images: Tensor,
    brightness: Strength = 0.4,
    contrast: Strength = 0.4,
    saturation: Strength = 0.4,
    hue: Strength = 0.1,
    p: float = 0.8,
    order: tuple[str, ...] | None = None,
    *,
    generator: torch.Generator,
) -> Tensor:
    """Change brightness, contrast, saturation and hue of each image by factors of its own, with torchvision's formulas.

    A number x stands for factors in [max(0, 1 − x), 1 + x] (hue: shifts in [−x, x], in turns, at most 0.5); a pair
    gives the bounds themselves.  order: the names in the order to apply them; None draws one order per call, shared by
    the batch (torchvision draws one per image).  Images with one channel keep saturation and hue.
    Raises ValueError for bad images, bounds or order.
    """
    like = check_images(images)
    stage = jitter_stage(len(images), images.shape[1], like, brightness, contrast, saturation, hue, p, order, generator)
    return in_blocks(images, [stage])


def jitter_stage(
    n: int,
    channels: int,
    like: Tensor,
    brightness: Strength,
    contrast: Strength,
    saturation: Strength,
    hue: Strength,
    p: float,
    order: tuple[str, ...] | None,
    generator: torch.Generator,
) -> Stage:
    names = ("brightness", "contrast", "saturation", "hue")
    if order is not None and sorted(order) != sorted(names):
        raise ValueError(f"order must hold each of {', '.join(names)} once, got {order}")
    drawn = torch.randperm(4, generator=generator, device=generator.device)
    changed = chosen(n, p, like, generator)
    factors = {}
    for name, strength in zip(names, (brightness, contrast, saturation, hue), strict=True):
        centre = 0.0 if name == "hue" else 1.0
        low, high = (
            strength
            if isinstance(strength, tuple)
            else (centre - strength if name == "hue" else max(0.0, centre - strength), centre + strength)
        )
        check_range(name, (low, high), *((-0.5, 0.5) if name == "hue" else (0, math.inf)))
        # an image that is left alone gets the neutral factor
        factor = uniform(n, low, high, like, generator).view(n, 1, 1, 1)
        if (low, high) != (centre, centre) and (channels == 3 or name in ("brightness", "contrast")):
            factors[name] = torch.where(changed, factor, centre)
    if order is None:  # a fake tensor (a dry run for shapes) has no numbers
        order = [names[i] for i in drawn.tolist()] if type(drawn) is Tensor else names

    def stage(images: Tensor, rows: slice) -> Tensor:
        for name in order:
            if name in factors:
                images = _ADJUST[name](images, factors[name][rows])
        return images

    return stage


def _grey(images: Tensor) -> Tensor:
    """(N, 3, H, W) -> (N, 1, H, W); one channel stays as it is."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, dim=1)
    return (red * _GREY[0]).add_(green, alpha=_GREY[1]).add_(blue, alpha=_GREY[2])


# These overwrite the images.  One factor per image: products and sums of two run faster than one fused call.
def _brightness(images: Tensor, factor: Tensor) -> Tensor:
    return images.mul_(factor).clamp_(0, 1)


def _contrast(images: Tensor, factor: Tensor) -> Tensor:
    mean = _grey(images).mean(dim=(1, 2, 3), keepdim=True)
    return images.mul_(factor).add_(mean.mul_(1 - factor)).clamp_(0, 1)


def _saturation(images: Tensor, factor: Tensor) -> Tensor:
    grey = _grey(images).mul_(1 - factor)
    return images.mul_(factor).add_(grey).clamp_(0, 1)


def _hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue by `shift` turns, keeping value and saturation of HSV, without a branch.

    With V = max and C = V − min of the channels, and r, g, b shifted and scaled to [0, 1], the hue in sixths of a turn
    is ±(1 − r + g + b), signed as g − b.  Back: channel = V − C · tent(h − n), n = −1, 1, 3 for red, green, blue (three
    sixths away from the channel's own), where tent falls from one at distance one to zero at distance two, modulo six.
    With 0 ≤ C ≤ V ≤ 1 and 0 ≤ tent ≤ 1 the result lies in [0, 1], also when rounded.
    """
    red, green, blue = images.unbind(dim=1)  # (N, H, W) each
    value, low = images.amax(dim=1), images.amin(dim=1)
    chroma = value - low
    hue = (green + blue).sub_(red).sub_(low).div_(chroma.clamp(min=torch.finfo(images.dtype).tiny)).add_(1)
    hue = hue.copysign(green - blue).div(6).add_(shift.view(-1, 1, 1))  # in turns; of no effect where C = 0
    opposite = (hue.new_tensor([3.0, -1.0, 1.0]) / 6).view(1, 3, 1, 1)
    distance = hue[:, None] - opposite  # (N, 3, H, W)
    distance = distance.sub_(distance.round()).abs_()  # modulo one turn: in [0, ½]
    tent = distance.mul_(-6).add_(2).clamp_(0, 1)
    return torch.sub(value[:, None], tent.mul_(chroma[:, None]))


_ADJUST = {"brightness": _brightness, "contrast": _contrast, "saturation": _saturation, "hue": _hue}


def greyscale(images: Tensor, p: float = 0.2, *, generator: torch.Generator) -> Tensor:
    """Replace each image's channels by its luma, with probability p; one channel stays as it is."""
    like = check_images(images)
    return in_blocks(images, [grey_stage(len(images), like, p, generator)])


def grey_stage(n: int, like: Tensor, p: float, generator: torch.Generator) -> Stage:
    changed = chosen(n, p, like, generator)

    def stage(images: Tensor, rows: slice) -> Tensor:
        if images.shape[1] == 1:
            return images
        return change_chosen(changed[rows], images, lambda some, which: _grey(some).repeat(1, 3, 1, 1))

    return stage


def gaussian_blur(
    images: Tensor,
    sigma: tuple[float, float] = (0.1, 2.0),
    kernel_size: int | None = None,
    p: float = 0.5,
    *,
    generator: torch.Generator,
) -> Tensor:
    """Blur each image by a Gaussian of its own width, mirrored at the edges, with probability p.

    sigma: bounds of the standard deviation in pixels, uniform; kernel_size: odd number of taps, default the odd number
    nearest to a tenth of the height, at least 3, as SimCLR has it.
    Raises ValueError for bad images, bounds, or a kernel that is even or does not fit the image.
    """
    like = check_images(images)
    return in_blocks(images, [blur_stage(len(images), images.shape[-2:], like, sigma, kernel_size, p, generator)])


def blur_stage(
    n: int,
    shape: tuple[int, int],
    like: Tensor,
    sigma: tuple[float, float],
    kernel_size: int | None,
    p: float,
    generator: torch.Generator,
) -> Stage:
    height, width = shape
    check_range("sigma", sigma, 0)
    taps = max(3, 2 * int(height / 20) + 1) if kernel_size is None else kernel_size
    radius = taps // 2
    if sigma[0] <= 0 or taps % 2 == 0 or not 0 < taps or radius >= min(height, width):
        raise ValueError(
            f"kernel_size must be odd and below twice the image, sigma greater than zero, got {taps} "
            f"for {height}x{width} and {tuple(sigma)}"
        )
    changed = chosen(n, p, like, generator)
    deviation = uniform(n, *sigma, like, generator).view(n, 1)
    offset = torch.arange(-radius, radius + 1, dtype=like.dtype, device=like.device)
    kernel = (-0.5 * (offset / deviation).square()).softmax(dim=1)  # (N, taps), sums to one
    down = _shifts(height, offset)
    across = down if height == width else _shifts(width, offset)

    def blurred(images: Tensor, kernel: Tensor) -> Tensor:
        vertical = (kernel @ down).view(-1, height, height)  # (B, H to, H from)
        horizontal = (kernel @ across).view(-1, width, width).mT
        return transform(images, vertical, horizontal).clamp_(0, 1)

    return lambda images, rows: change_chosen(
        changed[rows], images, lambda some, which: blurred(some, kernel[rows][which])
    )


def _shifts(extent: int, offset: Tensor) -> Tensor:
    """For each offset the matrix (to, from) that shifts pixels by it, mirrored at the edges: (taps, extent²)."""
    pixel = torch.arange(extent, dtype=offset.dtype, device=offset.device)
    source = mirrored(pixel + offset[:, None], extent)  # (taps, to)
    return (source[:, :, None] == pixel).to(offset.dtype).flatten(1)


def solarise(images: Tensor, threshold: float = 0.5, p: float = 0.2, *, generator: torch.Generator) -> Tensor:
    """Invert the pixels at or above the threshold, with probability p."""
    like = check_images(images)
    return in_blocks(images, [solarise_stage(len(images), like, threshold, p, generator)])


def solarise_stage(n: int, like: Tensor, threshold: float, p: float, generator: torch.Generator) -> Stage:
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must lie in [0, 1], got {threshold}")
    changed = chosen(n, p, like, generator)
    return lambda images, rows: change_chosen(
        changed[rows], images, lambda some, which: torch.where(some >= threshold, 1 - some, some)
    )
