"""Every augmentation in half precision, against float64, and its gradient."""

import pytest
import torch

from nearfar import augment
from nearfar.augment import checks

BOX = torch.tensor([[0, 0, 20, 33]]).expand(4, 4)
AUGMENTATIONS = {
    "affine": lambda x, g: augment.affine(x, shear=(-9, 9), scale=(0.7, 1.3), generator=g),
    "colour_jitter": lambda x, g: augment.colour_jitter(x, p=1.0, generator=g),
    "crop_and_resize": lambda x, g: augment.crop_and_resize(x, BOX[: len(x)].clamp(max=x.shape[-1]), 12),
    "cutmix": lambda x, g: augment.cutmix(x, generator=g)[0],
    "cutout": lambda x, g: augment.cutout(x, 5, generator=g),
    "gaussian_blur": lambda x, g: augment.gaussian_blur(x, p=0.7, generator=g),
    "greyscale": lambda x, g: augment.greyscale(x, 0.5, generator=g),
    "horizontal_flip": lambda x, g: augment.horizontal_flip(x, generator=g),
    "mixup": lambda x, g: augment.mixup(x, generator=g)[0],
    "multi_crop": lambda x, g: torch.cat([c.flatten(1) for c in augment.multi_crop(x, g, grey=0.5)], dim=1),
    "random_crop": lambda x, g: augment.random_crop(x, 10, flip=0.5, generator=g),
    "random_resized_crop": lambda x, g: augment.random_resized_crop(x, 10, flip=0.5, generator=g),
    "recipe": lambda x, g: augment.recipe("byol-prime", 10, solarise=0.0, cutout=3)(x, g),
    "solarise": lambda x, g: augment.solarise(x, 0.5, 0.7, generator=g),
    "to_float": lambda x, g: augment.to_float(x),
    "views": lambda x, g: torch.cat(augment.views(x, augment.recipe("simclr", 40), 2, g)),
}
HALF = (torch.float16, torch.bfloat16)


def generator():
    return torch.Generator().manual_seed(3)


def images(size=40, n=4):
    """Colours of which no channel equals another, far from 0, ½ and 1."""
    x = torch.rand(n, 3, size, size, generator=generator(), dtype=torch.float64)
    return 0.15 + 0.3 * x + 0.3 * (x > 0.5)  # in [0.15, 0.3] or [0.6, 0.75]


@pytest.mark.parametrize("name", augment.__all__)
@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_is_rounded_once(name, dtype):
    """What float64 gives for the same (rounded) images, to half a unit of half precision and the errors of float32."""
    x = images().to(dtype)
    exact, result = AUGMENTATIONS[name](x.double(), generator()), AUGMENTATIONS[name](x, generator())
    assert result.dtype == dtype and exact.dtype == torch.float64
    torch.testing.assert_close(result.double(), exact, rtol=0, atol=torch.finfo(dtype).eps / 2 + 1e-4)


@pytest.mark.parametrize("dtype", HALF)
def test_large_images_in_half_precision(dtype):
    x = torch.full((2, 3, 300, 300), 0.5, dtype=dtype)
    border = torch.tensor([[0, 0, 300, 300], [299, 299, 1, 1]])
    for result in (
        augment.gaussian_blur(x, p=1.0, generator=generator()),
        augment.crop_and_resize(x, border, 20),
        augment.random_resized_crop(x, 224, generator=generator()),
        augment.affine(x, (0, 0), translate=(0, 0), generator=generator())[..., 1:-1, 1:-1],
    ):
        assert result.dtype == dtype and (result == 0.5).all()


@pytest.mark.parametrize("dtype", HALF)
def test_places_do_not_depend_on_precision(dtype):
    x = (images(300) > 0.5).double()
    for name in ("cutmix", "cutout", "horizontal_flip"):
        exact = AUGMENTATIONS[name](x, generator())
        assert torch.equal(AUGMENTATIONS[name](x.to(dtype), generator()).double(), exact)
    for mix in (augment.mixup, augment.cutmix):
        exact, weight = mix(x, generator=generator())[2], mix(x.to(dtype), generator=generator())[2]
        assert weight.dtype == torch.float32
        torch.testing.assert_close(weight, exact.float())


@pytest.mark.parametrize("name", augment.__all__)
@pytest.mark.parametrize("chosen", ["alone", "by selecting"])
def test_gradients(monkeypatch, name, chosen):
    """Fixed draws make each a piecewise smooth function of the pixels; accelerators select, the CPU computes a part."""
    if chosen == "by selecting":
        monkeypatch.setattr(
            augment.colour, "change_chosen", lambda mask, x, f: checks.select(mask, f(x, slice(None)), x)
        )
    x = images(6, 3).requires_grad_()
    if name == "multi_crop":  # eight by eight and four by four, which are gradchecked in time
        small = {"large": (1, 6, (0.5, 1)), "small": (1, 4, (0.2, 0.5))}
        change = lambda x: torch.cat([c.flatten() for c in augment.multi_crop(x, generator(), **small)])  # noqa: E731
    elif name in ("views", "recipe"):
        change = lambda x: augment.recipe("simclr", 5, blur=0.5)(x, generator())  # noqa: E731
    else:
        change = lambda x: AUGMENTATIONS[name](x, generator())  # noqa: E731
    assert torch.autograd.gradcheck(change, (x,))


@pytest.mark.parametrize("name", augment.__all__)
def test_gradients_pass_through_blocks(monkeypatch, name):
    x = images().requires_grad_()
    (whole,) = torch.autograd.grad(AUGMENTATIONS[name](x, generator()).square().sum(), x)
    monkeypatch.setattr(checks, "_PIXELS_PER_BLOCK", 40 * 40)
    (parts,) = torch.autograd.grad(AUGMENTATIONS[name](x, generator()).square().sum(), x)
    torch.testing.assert_close(parts, whole, rtol=1e-9, atol=1e-9)
    half = x.detach().bfloat16().requires_grad_()
    AUGMENTATIONS[name](half, generator()).float().square().sum().backward()
    assert half.grad.dtype == torch.bfloat16 and torch.isfinite(half.grad).all()


def test_gradient_of_grey_and_pure_colours_is_finite():
    x = torch.tensor([[0.5, 0.5, 0.5], [1, 0, 0], [0, 0, 0], [1, 1, 1], [0.2, 0.2, 0.7]]).view(5, 3, 1, 1)
    x = x.requires_grad_()
    augment.colour_jitter(x, 0.0, 0.0, 0.0, (0.1, 0.1), 1.0, generator=generator()).sum().backward()
    assert torch.isfinite(x.grad).all()
