"""One epoch of SimCLR with the tiny backbone: nearfar's loop, and a plain PyTorch loop in the manner of lightly's."""

import os
import statistics
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks import measure, record, views

BUDGET = {"full": {"images": 5000, "batch": 128, "repeats": 5}, "quick": {"images": 64, "batch": 16, "repeats": 1}}
RATE, MOMENTUM, TEMPERATURE = 0.06, 0.9, 0.5
GOAL = 2.5


def pictures(count: int) -> tuple[Tensor, str]:
    """CIFAR-10's first images from the folder `NEARFAR_DATA`, or drawn ones of the same shape; and which it was."""
    from nearfar import data
    from nearfar.errors import NearFarError

    if os.environ.get("NEARFAR_DATA"):
        try:
            return data.load("cifar10", "train", download=False).inputs[:count], "CIFAR-10"
        except NearFarError as problem:
            print(f"  {problem}")
    return data.scenes.draw(count, size=32, seed=0).inputs, "drawn images (no CIFAR-10 in NEARFAR_DATA)"


def network() -> torch.nn.Sequential:
    """Backbone and projection: the same weights on both sides."""
    from nearfar import nn

    backbone = nn.backbone("tiny", seed=0)
    return torch.nn.Sequential(backbone, nn.projector([backbone.dimension, 128, 128], seed=0))


def ours(images: Tensor, batch: int) -> Callable:
    from nearfar import augment, losses, train

    recipe = augment.recipe("simclr", 32)

    def epoch() -> list[float]:
        model, generator = network(), torch.Generator().manual_seed(0)

        def step(rows, number):
            view_a, view_b = augment.views(images[rows], recipe, 2, generator)
            return losses.nt_xent(model(view_a), model(view_b), TEMPERATURE)

        batches = train.index_batches(len(images), batch, len(images) // batch, generator)
        return train.fit(
            step, model, batches=batches, lr=RATE, optimiser="sgd", momentum=MOMENTUM, schedule="constant",
            generator=generator, progress=False,
        )["loss"]  # fmt: skip

    return epoch


def lightly(images: Tensor, batch: int) -> Callable:
    """As lightly's example of SimCLR in plain PyTorch; its workers live on from epoch to epoch."""
    from lightly.loss import NTXentLoss
    from torch.utils.data import DataLoader
    from torchvision.transforms.functional import to_pil_image

    dataset = views.Views([to_pil_image(image) for image in images], views.simclr_lightly(32))
    loader = DataLoader(
        dataset, batch, shuffle=True, drop_last=True, num_workers=views.WORKERS, persistent_workers=True
    )
    criterion = NTXentLoss(temperature=TEMPERATURE)

    def epoch() -> list[float]:
        model = network().train()
        optimiser = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)
        history = []
        for view_a, view_b in loader:
            loss = criterion(model(view_a), model(view_b))
            history.append(float(loss.detach()))
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
        return history

    return epoch


def measure_all(budget: str) -> Iterator[dict]:
    plan = BUDGET[budget]
    count, batch = plan["images"], plan["batch"]
    images, origin = pictures(count)
    runs = {"ours": ours(images, batch), "lightly": lightly(images, batch)}
    with measure.threads(1):
        mine, other = (runs[who]() for who in ("ours", "lightly"))
        measure.require(len(mine) == len(other), f"{len(mine)} and {len(other)} steps in an epoch")
        apart = abs(statistics.fmean(mine) / statistics.fmean(other) - 1)
        measure.require(apart < 0.05, f"mean losses of the epoch differ by {apart:.1%}")
        seconds = measure.interleaved(runs, plan["repeats"])
    with measure.threads(2):
        pair = measure.interleaved({"ours": runs["ours"]}, plan["repeats"])
    checked = f"{len(mine)} steps each, mean loss of the epoch within {apart:.1%}"
    work = f"one SimCLR epoch, tiny backbone, {count:,} images, batch {batch}"
    peer = "lightly, plain PyTorch loop"
    for own, times in (("1", seconds["ours"]), ("2", pair["ours"])):
        threads = f"ours {own}, peer 1 and {views.WORKERS} processes"
        yield record.row(work, peer, times, seconds["lightly"], "s", GOAL, threads, checked, f"on {origin}")
