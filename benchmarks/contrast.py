"""NT-Xent, forward and backward: nearfar.losses.nt_xent and lightly's NTXentLoss."""

from collections.abc import Callable, Iterator

import torch

from benchmarks import measure, record

BUDGET = {  # numbers of pairs
    "full": {"pairs": 4096, "many": 32768, "repeats": 5, "sizes": (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)},
    "quick": {"pairs": 128, "many": 256, "repeats": 2, "sizes": (64, 128)},
}
DIMENSION, TEMPERATURE = 128, 0.5
LARGEST_PEER = 4096  # pairs: with twice as many lightly's loss takes several GB
LIMIT = 600.0  # MB


def prepare(who: str, pairs: int) -> Callable:
    """A call that computes the loss of `pairs` pairs and its gradient, and returns the loss; warmed up on 64 pairs."""
    if who == "ours":
        from nearfar.losses import nt_xent as loss
    else:
        from lightly.loss import NTXentLoss

        loss = NTXentLoss(temperature=TEMPERATURE)
    generator = torch.Generator().manual_seed(0)
    z_a, z_b = (torch.randn(pairs, DIMENSION, generator=generator).requires_grad_() for _ in range(2))

    def run(a=z_a, b=z_b):
        a.grad = b.grad = None
        value = loss(a, b, TEMPERATURE) if who == "ours" else loss(a, b)
        value.backward()
        return value.detach()

    run(*(torch.randn(64, DIMENSION, generator=generator).requires_grad_() for _ in range(2)))
    return run


def gradients(who: str, pairs: int) -> tuple[float, torch.Tensor]:
    run = prepare(who, pairs)
    value = float(run())
    z_a, z_b = run.__defaults__
    return value, torch.cat([z_a.grad, z_b.grad])


def compare(pairs: int) -> str:
    """Whether both losses and both gradients are the same."""
    (mine, own), (other, peer) = (gradients(who, pairs) for who in ("ours", "lightly"))
    apart = abs(mine - other)
    measure.require(apart <= 1e-4, f"NT-Xent of {pairs} pairs: {mine:.6f} and {other:.6f}")
    slope = float((own - peer).norm() / peer.norm())
    measure.require(slope <= 1e-3, f"gradients of NT-Xent differ by {slope:.2%}")
    return f"loss within {max(apart, 1e-7):.0e}, gradient within {max(slope, 1e-7):.0e} of its length"


def measure_all(budget: str) -> Iterator[dict]:
    plan = BUDGET[budget]
    pairs = plan["pairs"]
    work = f"NT-Xent and its gradient, {pairs:,} pairs × {DIMENSION}"
    with measure.threads(1):
        checked = compare(pairs)
        seconds = measure.interleaved({who: prepare(who, pairs) for who in ("ours", "lightly")}, plan["repeats"])
    yield record.row(work, "lightly, NTXentLoss", seconds["ours"], seconds["lightly"], "s", 3, "1", checked)
    memory = {who: [measure.fresh("contrast", who, pairs)["megabytes"] for _ in range(3)] for who in seconds}
    how = "highest resident memory during the call less that before it, in a fresh process"
    yield record.row(work, "lightly, NTXentLoss", memory["ours"], memory["lightly"], "MB", 10, "1", checked, how)

    for size in plan["sizes"]:
        for who in ("ours", "lightly"):
            if who == "lightly" and size > LARGEST_PEER:
                continue
            found = measure.fresh("contrast", who, size, repeats=3 if size <= 8192 else 1)
            name, x_name = "NT-Xent and its gradient", "batch (pairs)"
            yield record.point(name, who, x_name, size, found["seconds"], "s")
            yield record.point(name, who, x_name, size, [found["megabytes"]], "MB")
            if size == plan["many"]:
                yield many(size, found["megabytes"])


def many(pairs: int, megabytes: float) -> dict:
    """A batch for which the whole matrix of similarities would not fit: beside a limit, as there is no peer to run."""
    matrix = 4 * (2 * pairs) * (2 * pairs - 1) / 1e9
    note = f"lightly not run: its matrix of logits alone would take {matrix:.1f} GB (computed, not measured)"
    work = f"NT-Xent and its gradient, {pairs:,} pairs × {DIMENSION}"
    return record.row(work, "a limit", [megabytes], [LIMIT], "MB", 1, "1", "", note)
