import math

import pytest
import torch
from scipy.stats import ks_2samp, kstest

from nearfar import augment
from nearfar.augment import (
    affine,
    colour_jitter,
    crop_and_resize,
    cutmix,
    cutout,
    gaussian_blur,
    greyscale,
    horizontal_flip,
    mixup,
    multi_crop,
    random_crop,
    random_resized_crop,
    recipe,
    solarise,
    to_float,
    views,
)
from nearfar.augment.geometry import resized_boxes


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=6, channels=3, size=32, width=None, dtype=torch.float64, seed=0):
    """Smooth at one end of the batch, noise at the other; the last has a grey and a black part."""
    width = width or size
    noise = torch.rand(n, channels, size, width, generator=generator(seed), dtype=torch.float64)
    ramp = torch.linspace(0, 1, width, dtype=torch.float64).expand(n, channels, size, width)
    share = torch.linspace(0, 1, n, dtype=torch.float64).view(n, 1, 1, 1)
    x = share * noise + (1 - share) * ramp
    x[-1, :, :4] = 0.5
    x[-1, :, 4:8] = 0
    return x.to(dtype)


def transforms():
    from torchvision.transforms.v2 import functional

    return functional


# ------------------------------------------------------------------------------------- pixels, against torchvision
@pytest.mark.parametrize(
    ("size", "width", "output"), [(32, 32, 32), (32, 40, 16), (24, 20, 48), (8, 8, 8), (50, 30, 7)]
)
def test_crops_are_torchvisions(size, width, output):
    functional = transforms()
    x = images(6, 3, size, width)
    boxes = resized_boxes(6, size, width, (0.05, 1.0), (0.5, 2.0), generator())
    flip = torch.tensor([True, False] * 3)
    ours = crop_and_resize(x, boxes, output, flip)
    for image, box, mirrored, result in zip(x, boxes.tolist(), flip, ours, strict=True):
        expected = functional.resized_crop(image, *box, [output, output], antialias=True)
        torch.testing.assert_close(result, expected.flip(-1) if mirrored else expected, atol=1e-6, rtol=0)


def test_the_whole_image_comes_back():
    x = images()
    boxes = torch.tensor([[0, 0, 32, 32]]).expand(6, 4)
    torch.testing.assert_close(crop_and_resize(x, boxes, 32), x, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
@pytest.mark.parametrize("share", [-0.4, -0.13, 0.0, 0.25, 0.5])
@pytest.mark.parametrize("channels", [1, 3])
def test_colours_are_torchvisions(name, share, channels):
    functional = transforms()
    x = images(channels=channels)
    factor = share if name == "hue" else 1 + share
    neutral = dict(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)
    ours = colour_jitter(x, **{**neutral, name: (factor, factor)}, p=1.0, generator=generator())
    expected = x
    if channels == 3 or name in ("brightness", "contrast"):
        # torchvision's blend reads a one-channel mean of the image itself
        expected = getattr(functional, f"adjust_{name}")(x, factor)
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=0)


def test_jitter_applies_the_order_given():
    functional = transforms()
    x = images()
    order = ("hue", "contrast", "brightness", "saturation")
    ours = colour_jitter(x, (1.3, 1.3), (0.7, 0.7), (1.6, 1.6), (0.1, 0.1), 1.0, order, generator=generator())
    expected = functional.adjust_contrast(functional.adjust_hue(x, 0.1), 0.7)
    expected = functional.adjust_saturation(functional.adjust_brightness(expected, 1.3), 1.6)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


def test_hue_of_pure_colours():
    primaries = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0.4, 0.4, 0.4]], dtype=torch.float64)
    primaries = primaries[:, :, None, None]
    turned = colour_jitter(primaries, 0.0, 0.0, 0.0, (1 / 3, 1 / 3), 1.0, generator=generator())
    torch.testing.assert_close(turned, primaries[[1, 2, 0, 3]])


def test_greyscale_and_solarise_are_torchvisions():
    functional = transforms()
    x = images()
    grey = greyscale(x, 1.0, generator=generator())
    torch.testing.assert_close(grey, functional.rgb_to_grayscale(x, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(solarise(x, 0.6, 1.0, generator=generator()), functional.solarize(x, 0.6))
    assert torch.equal(greyscale(x[:, :1], 1.0, generator=generator()), x[:, :1])


@pytest.mark.parametrize(("sigma", "taps", "size", "width"), [(0.5, 3, 32, 32), (1.7, 9, 32, 20), (2.0, 5, 8, 8)])
def test_blur_is_torchvisions(sigma, taps, size, width):
    functional = transforms()
    x = images(4, 3, size, width)
    ours = gaussian_blur(x, (sigma, sigma), taps, 1.0, generator=generator())
    torch.testing.assert_close(ours, functional.gaussian_blur(x, [taps, taps], [sigma, sigma]), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("angle", "factor", "tilt"), [(30, 1.0, 0), (-75, 0.7, 0), (0, 1.4, 25), (20, 1.2, -15)])
def test_affine_is_torchvisions(angle, factor, tilt):
    from torchvision.transforms import InterpolationMode

    x = images(4, 3, 32, 24)
    ours = affine(x, (angle, angle), (0, 0), (factor, factor), (tilt, tilt), generator=generator())
    expected = transforms().affine(x, angle, [0, 0], factor, [tilt, 0], interpolation=InterpolationMode.BILINEAR)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


def test_affine_shifts_by_whole_pixels():
    x = images(64, 1, 16)
    moved = affine(x, (0, 0), (0.25, 0.25), generator=generator(), fill=0.0)
    for before, after in zip(x, moved, strict=True):
        assert any(
            torch.allclose(after, _shifted(before, dx, dy), atol=1e-9) for dx in range(-4, 5) for dy in range(-4, 5)
        )


def _shifted(image, dx, dy):
    result = torch.zeros_like(image)
    _, h, w = image.shape
    result[:, max(dy, 0) : h + min(dy, 0), max(dx, 0) : w + min(dx, 0)] = image[
        :, max(-dy, 0) : h + min(-dy, 0), max(-dx, 0) : w + min(-dx, 0)
    ]
    return result


# ------------------------------------------------------------------------------------- distributions
@pytest.mark.parametrize(("height", "width", "scale", "ratio"), [
    (32, 32, (0.08, 1.0), (3 / 4, 4 / 3)), (20, 60, (0.5, 1.0), (3 / 4, 4 / 3)), (64, 48, (0.2, 0.6), (0.5, 2.0)),
])  # fmt: skip
def test_boxes_follow_torchvisions_law(height, width, scale, ratio):
    from torchvision.transforms import RandomResizedCrop

    n = 3000
    ours = resized_boxes(n, height, width, scale, ratio, generator())
    image = torch.empty(1, height, width)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = torch.tensor([RandomResizedCrop.get_params(image, scale, ratio) for _ in range(n)])
    for column in range(4):
        assert ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-3


def test_impossible_boxes_fall_back_to_the_centre():
    from torchvision.transforms import RandomResizedCrop

    for height, width in ((10, 100), (100, 10)):
        expected = RandomResizedCrop.get_params(torch.empty(1, height, width), (1.0, 1.0), (0.9, 1.1))
        assert resized_boxes(3, height, width, (1.0, 1.0), (0.9, 1.1), generator()).tolist() == [list(expected)] * 3


def test_factors_are_uniform_per_image():
    x = torch.full((4000, 1, 1, 1), 0.25, dtype=torch.float64)
    factors = colour_jitter(x, (0.5, 1.5), 0.0, 0.0, 0.0, 1.0, generator=generator()).flatten() / 0.25
    assert kstest(factors.numpy(), "uniform", args=(0.5, 1.0)).pvalue > 1e-3


@pytest.mark.parametrize("change", [
    lambda x, p, g: horizontal_flip(x, p, generator=g), lambda x, p, g: greyscale(x, p, generator=g),
    lambda x, p, g: colour_jitter(x, p=p, generator=g), lambda x, p, g: gaussian_blur(x, (1.0, 1.0), p=p, generator=g),
    lambda x, p, g: solarise(x, p=p, generator=g), lambda x, p, g: affine(x, p=p, generator=g),
    lambda x, p, g: cutout(x, 4, p=p, fill=0.3, generator=g),
])  # fmt: skip
def test_p_is_the_share_of_changed_images(change):
    x = torch.rand(1500, 3, 8, 8, generator=generator(), dtype=torch.float64)
    for p in (0.0, 0.3, 1.0):
        changed = (change(x, p, generator(1)) - x).abs().amax(dim=(1, 2, 3)) > 1e-9
        assert abs(float(changed.double().mean()) - p) < 4 * math.sqrt(p * (1 - p) / 1500) + 1e-3


def test_flip_of_a_crop():
    x = images(400, 1, 8)
    plain = random_resized_crop(x, 8, generator=generator())
    flipped = random_resized_crop(x, 8, flip=1.0, generator=generator())
    torch.testing.assert_close(flipped, plain.flip(-1))


def test_cutout_blanks_a_square():
    x = torch.ones(2000, 1, 9, 9)
    holes = (cutout(x, 3, generator=generator()) == 0)[:, 0]
    sizes = holes.sum(dim=(1, 2))
    assert sizes.max() == 9 and sizes.min() == 4  # a corner: two by two remain inside
    assert abs(float((sizes == 9).double().mean()) - (7 / 9) ** 2) < 0.05
    centre = holes.double().mean(dim=0)
    assert (centre[1:-1, 1:-1] - 9 / 81).abs().max() < 0.04  # every inner pixel equally often


def test_random_crop_shifts():
    x = images(200, 1, 16)
    out = random_crop(x, 16, 2, generator=generator())
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2), mode="reflect")
    counts = torch.zeros(5, 5)
    for image, result in zip(padded, out, strict=True):
        matches = [
            (i, j)
            for i in range(5)
            for j in range(5)
            if torch.allclose(image[:, i : i + 16, j : j + 16], result, atol=1e-9)
        ]
        assert matches
        counts[matches[0]] += 1
    assert (counts > 0).sum() >= 20
    assert torch.allclose(random_crop(x, 16, 0, generator=generator()), x)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_mixing_weights_are_beta(alpha):
    x = torch.rand(3000, 1, 2, 2, generator=generator(), dtype=torch.float64)
    _, _, weight = mixup(x, alpha, generator=generator())
    assert kstest(weight.numpy(), "beta", args=(alpha, alpha)).pvalue > 1e-3


def test_mixup_and_cutmix_are_their_formulas():
    x = images(40, 3, 16)
    mixed, partner, weight = mixup(x, 0.5, generator=generator())
    assert partner.sort().values.tolist() == list(range(40)) and 0 <= weight.min() and weight.max() <= 1
    for i in range(40):
        torch.testing.assert_close(mixed[i], weight[i] * x[i] + (1 - weight[i]) * x[partner[i]])
    x = torch.arange(40, dtype=torch.float64).view(40, 1, 1, 1).expand(40, 1, 16, 16) / 40
    mixed, partner, weight = cutmix(x, generator=generator())
    for i in range(40):
        pasted = (mixed[i, 0] - x[partner[i], 0]).abs() < 1e-12
        stayed = (mixed[i, 0] - x[i, 0]).abs() < 1e-12
        assert (pasted | stayed).all()
        if partner[i] != i:
            assert float(weight[i]) == pytest.approx(float(stayed.double().mean()))
            rows, columns = pasted.any(dim=1).sum(), pasted.any(dim=0).sum()
            assert pasted.sum() == rows * columns  # one box
    assert weight.std() > 0.15


# ------------------------------------------------------------------------------------- recipes
@pytest.mark.parametrize("name", ["simclr", "moco-v2", "byol", "byol-prime", "weak"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [16, 40])
def test_recipes(name, channels, size):
    x = (images(6, channels, 24) * 255).to(torch.uint8)
    view = recipe(name, size)
    a, b = views(x, view, 2, generator())
    assert a.shape == b.shape == (6, channels, size, size) and a.dtype == torch.float32
    assert 0 <= a.min() and a.max() <= 1 and not torch.equal(a, b)
    again = views(x, view, 2, generator())
    assert torch.equal(a, again[0]) and torch.equal(b, again[1])
    state = torch.get_rng_state()
    view(x, generator())
    assert torch.equal(torch.get_rng_state(), state)


def test_views_do_not_depend_on_precision_or_input_type():
    x = (images() * 255).to(torch.uint8)
    view = recipe("byol", 32)
    from_bytes, exact = view(x, generator()), view(x.double() / 255, generator())
    assert exact.dtype == torch.float64
    torch.testing.assert_close(from_bytes, exact.float(), atol=1e-4, rtol=0)
    before = x.clone()
    view(x, generator())
    assert torch.equal(x, before)


def test_nothing_is_changed_in_place():
    x = images()
    before = x.clone()
    for name in ("simclr", "byol-prime", "weak"):
        recipe(name, 32)(x, generator())
    mixup(x, generator=generator())
    cutmix(x, generator=generator())
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", ["simclr", "byol-prime", "weak"])
@pytest.mark.parametrize("channels", [1, 3])
def test_blocks_change_nothing(monkeypatch, name, channels):
    x = images(7, channels, 40)
    view = recipe(name, 24, cutout=5)
    whole = view(x, generator())
    monkeypatch.setattr(augment.checks, "_PIXELS_PER_BLOCK", 2 * 40 * 40)  # blocks of two, two, two and one
    torch.testing.assert_close(view(x, generator()), whole, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", ["simclr", "byol-prime"])
def test_all_some_or_one_chosen_are_the_same(monkeypatch, name):
    """An accelerator computes all images and selects; the CPU computes the chosen ones only."""
    view, batch = recipe(name, 40, blur=0.5, grey=0.5, solarise=0.5), images(n=13)
    alone = view(batch, generator(5))
    monkeypatch.setattr(augment.checks, "_PIXELS_PER_BLOCK", 1)  # one image at a time: all or none are chosen
    rounding = 40 * torch.finfo(torch.float64).eps  # of sums over 40 pixels in [0, 1], in another order
    torch.testing.assert_close(view(batch, generator(5)), alone, rtol=0, atol=rounding)
    monkeypatch.setattr(
        augment.colour,
        "change_chosen",
        lambda chosen, x, change: augment.checks.select(chosen, change(x, slice(None)), x),
    )
    torch.testing.assert_close(view(batch, generator(5)), alone, rtol=0, atol=rounding)


def test_autocast_changes_nothing():
    view, batch = recipe("moco-v2", 24), images(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = view(batch, generator(1))
        moved = affine(batch, generator=generator(1))
    assert torch.equal(inside, view(batch, generator(1)))
    assert torch.equal(moved, affine(batch, generator=generator(1)))


def test_gradients_pass_through_views():
    """Fixed draws make a view a piecewise smooth function of the pixels."""
    batch = (0.2 + 0.6 * images(n=3, size=8)).requires_grad_()
    view = recipe("simclr", 6, blur=0.5, jitter=1.0, brightness=0.1, contrast=0.1, saturation=0.1, hue=0.0)
    assert torch.autograd.gradcheck(lambda x: view(x, generator(2)), batch)


def test_overrides_turn_things_off():
    x = images()
    plain = recipe("simclr", 32, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0, jitter=0, grey=0, blur=0)
    torch.testing.assert_close(plain(x, generator()), x)
    assert (recipe("weak", 32, padding=0, flip=0, cutout=8)(x, generator()) == 0).flatten(1).any(dim=1).all()


def test_views_take_recipes_in_turn():
    x = images()
    still = recipe("weak", 32, padding=0, flip=0)
    grey = recipe("weak", 32, padding=0, flip=0, grey=1.0)
    a, b, c = views(x, [still, grey], 3, generator())
    torch.testing.assert_close(a, x)
    torch.testing.assert_close(c, x)
    assert torch.equal(b[:, 0], b[:, 1]) and not torch.equal(b, a)


def test_swav_multi_crop_by_name():
    crops = recipe("swav-multicrop", 56, grey=0.0)(images(3, 3, 64), generator())
    assert [tuple(c.shape[-2:]) for c in crops] == [(56, 56)] * 2 + [(24, 24)] * 6
    by_hand = multi_crop(images(3, 3, 64), generator(), large=(2, 56, (0.14, 1)), small=(6, 24, (0.05, 0.14)), grey=0.0)
    assert all(torch.equal(a, b) for a, b in zip(crops, by_hand, strict=True))
    with pytest.raises(ValueError, match="scale: swav-multicrop has two areas"):
        recipe("swav-multicrop", 56, scale=(0.1, 1))


def test_multi_crop():
    crops = multi_crop(images(5), generator(), grey=0.0)
    assert [tuple(c.shape) for c in crops] == [(5, 3, 32, 32)] * 2 + [(5, 3, 16, 16)] * 4
    crops = multi_crop(images(5, 1, 8), generator(), large=(1, 8, (0.5, 1)), small=(2, 4, (0.1, 0.4)), recipe="moco-v2")
    assert [c.shape[-1] for c in crops] == [8, 4, 4]


# ------------------------------------------------------------------------------------- bad input
def test_bad_images_are_named():
    g = generator()
    good = images()
    for bad, message in [
        (good[0], r"images must have shape \(N, 1 or 3, H, W\)"),
        (good[:, :2], "images must have shape"),
        (good[:0], "images must have shape"),
        (good * 255, r"images must lie in \[0, 1\].*divide by 255"),
        (good - 0.5, "images must lie"),
        (good * float("nan"), "images must lie"),
        (good.long(), "images must be uint8 or floating point, got torch.int64"),
    ]:
        for change in (
            lambda x: random_resized_crop(x, 8, generator=g),
            lambda x: horizontal_flip(x, generator=g),
            lambda x: colour_jitter(x, generator=g),
            lambda x: greyscale(x, generator=g),
            lambda x: gaussian_blur(x, generator=g),
            lambda x: solarise(x, generator=g),
            lambda x: affine(x, generator=g),
            lambda x: cutout(x, 3, generator=g),
            lambda x: mixup(x, generator=g),
            lambda x: cutmix(x, generator=g),
            lambda x: random_crop(x, 8, generator=g),
            lambda x: views(x, recipe("simclr", 8), 2, g),
            lambda x: multi_crop(x, g),
            lambda x: crop_and_resize(x, torch.zeros(1, 4), 3),
        ):
            with pytest.raises(ValueError, match=message):
                change(bad)


def test_bad_parameters_are_named():
    x, g = images(), generator()
    for call, message in [
        (lambda: recipe("simcrl", 32), "no recipe 'simcrl'.*Did you mean simclr"),
        (lambda: recipe("simclr", 32, blurr=3), "overrides: recipes have no 'blurr'.*Did you mean blur"),
        (lambda: recipe("simclr", 0), "size"),
        (lambda: random_resized_crop(x, 8, (0.5, 0.2), generator=g), "scale"),
        (lambda: random_resized_crop(x, 8, ratio=(0, 1), generator=g), "ratio"),
        (lambda: random_resized_crop(x, 0, generator=g), "size"),
        (lambda: random_resized_crop(x, 8, flip=2, generator=g), "p must"),
        (lambda: crop_and_resize(x, torch.tensor([[0, 0, 40, 8]]).expand(6, 4), 8), "boxes must lie inside"),
        (lambda: crop_and_resize(x, torch.zeros(2, 4), 8), "boxes must have shape"),
        (lambda: random_crop(x, 8, 32, generator=g), "padding"),
        (lambda: colour_jitter(x, hue=0.7, generator=g), "hue"),
        (lambda: colour_jitter(x, brightness=(-1.0, 1.0), generator=g), "brightness"),
        (lambda: colour_jitter(x, order=("hue",), generator=g), "order"),
        (lambda: gaussian_blur(x, kernel_size=4, generator=g), "kernel_size"),
        (lambda: gaussian_blur(x, sigma=(0.0, 1.0), generator=g), "sigma"),
        (lambda: solarise(x, 2.0, generator=g), "threshold"),
        (lambda: affine(x, scale=(0, 1), generator=g), "scale"),
        (lambda: affine(x, translate=(2, 0), generator=g), "translate"),
        (lambda: cutout(x, 0, generator=g), "length"),
        (lambda: mixup(x, 0, generator=g), "alpha"),
        (lambda: cutmix(x, -1, generator=g), "alpha"),
        (lambda: views(x, recipe("weak", 8), 0, g), "count"),
        (lambda: views(x, recipe("weak", 8)), "generator"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def test_to_float():
    assert to_float(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == pytest.approx([0, 0.2, 1])
    table = torch.randn(3, 2, dtype=torch.float64)
    assert to_float(table) is table
    with pytest.raises(ValueError, match="uint8"):
        to_float(torch.tensor([1]))


# ------------------------------------------------------------------------------------- on a fake CUDA device
def test_runs_on_cuda(fake_cuda):
    x = (images(4, 3, 32) * 255).to(torch.uint8)
    with fake_cuda as fake:
        x, g = fake(x), generator()
        boxes = fake(torch.tensor([[0, 0, 9, 9]])).expand(4, 4)
        results = [
            random_resized_crop(x, 16, generator=g),
            crop_and_resize(x, boxes, 8),
            random_crop(x, 16, generator=g),
            horizontal_flip(x, generator=g),
            affine(x, generator=g),
            cutout(x, 4, generator=g),
            colour_jitter(x, generator=g),
            greyscale(x, generator=g),
            gaussian_blur(x, generator=g),
            solarise(x, generator=g),
            *mixup(x, generator=g),
            *cutmix(x, generator=g),
            to_float(x),
            *multi_crop(x, g),
        ]
        for name in ("simclr", "moco-v2", "byol", "byol-prime", "weak"):
            results += views(x, recipe(name, 24), 2, g)
        assert all(result.device.type == "cuda" for result in results)
