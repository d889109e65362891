"""Two SimCLR views of every image: nearfar.augment, lightly's transform in a DataLoader, kornia's batched modules."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks import measure, record

BUDGET = {  # images per pass and per batch; sides of the growth curve
    "full": {"passes": {32: (4096, 256), 96: (512, 64)}, "sides": (32, 48, 64, 96, 128, 160, 224), "repeats": 5},
    "quick": {"passes": {32: (64, 16), 96: (32, 8)}, "sides": (32, 48), "repeats": 2},
}
GOALS = {32: {"lightly": 10, "kornia": 3}, 96: {"lightly": 4, "kornia": 1.5}}
PEERS = {"lightly": "lightly, DataLoader", "kornia": "kornia, batched"}
WORKERS = 2


def settings(side: int) -> tuple[float, float]:
    """SimCLR's colour strength and probability of blur: the paper's for CIFAR (appendix B.9) up to 32 pixels."""
    return (0.5, 0.0) if side <= 32 else (1.0, 0.5)


def simclr_lightly(side: int):
    """lightly's two views with the settings of `nearfar.augment.recipe("simclr", side)`, and no normalisation."""
    from lightly.transforms import SimCLRTransform

    strength, blur = settings(side)
    return SimCLRTransform(input_size=side, cj_strength=strength, gaussian_blur=blur, normalize=None)


def ours(images: Tensor, batch: int) -> Callable:
    from nearfar import augment

    recipe = augment.recipe("simclr", images.shape[-1])
    generator = torch.Generator().manual_seed(0)

    def run(look: Callable | None = None) -> None:
        for start in range(0, len(images), batch):
            views = augment.views(images[start : start + batch], recipe, 2, generator)
            if look:
                look(views)

    return run


def lightly(images: Tensor, batch: int) -> Callable:
    """The workers live on from pass to pass, and the images are PIL images in memory: no start, no decoding."""
    from torch.utils.data import DataLoader
    from torchvision.transforms.functional import to_pil_image

    transform = simclr_lightly(images.shape[-1])
    pictures = [to_pil_image(image) for image in images]
    loader = DataLoader(
        Views(pictures, transform), batch, num_workers=WORKERS, persistent_workers=True, prefetch_factor=4
    )

    def run(look: Callable | None = None) -> None:
        for views in loader:
            if look:
                look(views)

    return run


class Views(torch.utils.data.Dataset):
    """Pictures, each through a transform when asked for."""

    def __init__(self, pictures: list, transform: Callable):
        self.pictures, self.transform = pictures, transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int):
        return self.transform(self.pictures[index])


def kornia(images: Tensor, batch: int) -> Callable:
    """Of kornia's two ways of cropping the faster one at either size."""
    import kornia.augmentation as K

    side = images.shape[-1]
    strength, blur = settings(side)
    taps = max(3, 2 * int(side / 20) + 1)  # as in nearfar.augment
    parts = [
        K.RandomResizedCrop(
            (side, side),
            scale=(0.08, 1.0),
            ratio=(3 / 4, 4 / 3),
            align_corners=False,
            cropping_mode="resample" if side <= 32 else "slice",
        ),
        K.RandomHorizontalFlip(p=0.5),
        K.ColorJitter(0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength, p=0.8),
        K.RandomGrayscale(p=0.2),
    ]
    view = torch.nn.Sequential(*parts, *([K.RandomGaussianBlur((taps, taps), (0.1, 2.0), p=blur)] if blur else []))

    @torch.no_grad()
    def run(look: Callable | None = None) -> None:
        for start in range(0, len(images), batch):
            pixels = images[start : start + batch].float() / 255
            views = [view(pixels), view(pixels)]
            if look:
                look(views)

    return run


SIDES = {"ours": ours, "lightly": lightly, "kornia": kornia}


def statistics_of(run: Callable, count: int, side: int) -> dict[str, float]:
    """Shapes and range are checked; returns mean, deviation and roughness (mean step from pixel to pixel) of views."""
    seen: list[Tensor] = []
    run(lambda views: seen.extend(view.clone() for view in views))
    pixels = torch.cat(seen)
    shape = (2 * count, 3, side, side)
    measure.require(pixels.shape == shape, f"views of shape {tuple(pixels.shape)}, not {shape}")
    measure.require(0 <= float(pixels.min()) and float(pixels.max()) <= 1 + 1e-5, "views outside [0, 1]")
    return {"mean": float(pixels.mean()), "deviation": float(pixels.std()),
            "roughness": float(pixels.diff(dim=-1).abs().mean())}  # fmt: skip


def compare(runs: dict[str, Callable], count: int, side: int, tolerance: float) -> str:
    """Whether all sides draw views of the same law; returns how far apart their statistics are, in words."""
    found = {name: statistics_of(run, count, side) for name, run in runs.items()}
    worst = 0.0
    for name, values in found.items():
        for what, value in values.items():
            apart = abs(value / found["ours"][what] - 1)
            worst = max(worst, apart)
            measure.require(apart <= tolerance, f"{what} of {name}'s {side}-pixel views is off by {apart:.1%}: {found}")
    return f"shapes, range; mean, deviation and roughness of the views within {worst:.1%}"


def measure_all(budget: str) -> Iterator[dict]:
    from nearfar.data import scenes

    plan = BUDGET[budget]
    for side, (count, batch) in plan["passes"].items():
        images = scenes.draw(count, size=side, seed=0).inputs
        runs = {name: make(images, batch) for name, make in SIDES.items()}
        work = f"two SimCLR views of {side} × {side}"
        with measure.threads(1):
            checked = compare(runs, count, side, 0.12 if budget == "full" else 0.5)
            seconds = measure.interleaved(runs, plan["repeats"])
        speed = {name: measure.rates(count, s) for name, s in seconds.items()}
        with measure.threads(2):
            pair = measure.interleaved({name: runs[name] for name in ("ours", "kornia")}, plan["repeats"])
        fast = {name: measure.rates(count, s) for name, s in pair.items()}
        for peer, name in PEERS.items():
            goal, note = GOALS[side][peer], "" if peer == "lightly" else "kornia crops without anti-aliasing"
            own = f"ours 1, peer {WORKERS} processes" if peer == "lightly" else "1"
            yield record.row(work, name, speed["ours"], speed[peer], "images/s", goal, own, checked, note)
            both = f"ours 2, peer {WORKERS} processes" if peer == "lightly" else "2"
            theirs = speed["lightly"] if peer == "lightly" else fast["kornia"]
            yield record.row(work, name, fast["ours"], theirs, "images/s", goal, both, checked, note)
    yield from growth(plan)


def growth(plan: dict) -> Iterator[dict]:
    """Speed against the side of the image, in batches of about as many pixels as 256 images of 32 × 32 have."""
    from nearfar.data import scenes

    for side in plan["sides"]:
        batch = max(2, round(256 * 32 * 32 / side**2)) if plan is BUDGET["full"] else 4
        images = scenes.draw(8 * batch, size=side, seed=0).inputs
        with measure.threads(1):
            runs = {name: make(images, batch) for name, make in SIDES.items()}
            for name, seconds in measure.interleaved(runs, min(3, plan["repeats"])).items():
                speed = measure.rates(len(images), seconds)
                yield record.point("two SimCLR views", name, "side of the image (pixels)", side, speed, "images/s")
