"""One training run in several processes: what one process would compute, each of them computing a share of it.

Every process runs the same notebook with the same seed and sees whole batches.  Inside `split` a call of a network
takes this process's share of the rows, and its outputs are put together again, with gradient.  So losses, queues,
codes and batch norm see what they see in one process, and a notebook needs no line of its own for this.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable
from torch.utils import _pytree as pytree

from nearfar import precision

_state = {"whole batches": False, "share": False}  # inside `split`; inside a call that computes this process's share


def processes() -> int:
    """How many processes compute together; 1 where torch.distributed was not started."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0."""
    return distributed.get_rank() if processes() > 1 else 0


def wait() -> None:
    """Returns when all processes have come here."""
    if processes() > 1:
        distributed.barrier()


@contextlib.contextmanager
def first_one():
    """On each machine one process goes through the block before the others, such as to download what they then find."""
    ahead = int(os.environ.get("LOCAL_RANK", 0)) == 0
    if not ahead:
        wait()
    yield
    if ahead:
        wait()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z: Tensor) -> Tensor:
        counts = [torch.zeros(1, dtype=torch.long, device=z.device) for _ in range(processes())]
        distributed.all_gather(counts, torch.tensor([len(z)], device=z.device))
        counts = torch.cat(counts).tolist()
        padded = z.new_zeros(max(counts), *z.shape[1:])  # processes have to exchange equal shapes
        padded[: len(z)] = z
        parts = [torch.empty_like(padded) for _ in counts]
        distributed.all_gather(parts, padded)
        ctx.rows = slice(sum(counts[: rank()]), sum(counts[: rank() + 1]))
        return torch.cat([part[:count] for part, count in zip(parts, counts)])

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total[ctx.rows]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradient)


def gather(z: Tensor) -> Tensor:
    """The rows of all processes, in the order of their ranks; z itself where there is one process.

    z: (N, ...), features (or labels); N may differ between processes, the rest may not.  Every process has to call it.
    The gradient of a row is the sum of the gradients that all processes have for it.  So with

        loss = nt_xent(gather(z_a), gather(z_b))

    in a training loop of your own, every process has the loss of the whole batch and, once the weights' gradients are
    averaged, takes the step that a single process would take: P processes sum P equal gradients of every row, and the
    average divides by P.  In the step of `train.fit`, which sees whole batches anyway, this is z itself.
    """
    return z if processes() == 1 or _state["whole batches"] else _Gather.apply(z)


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replaces the gradients by their means over all processes, in one exchange per type and device.

    A parameter without a gradient must have none in any process; it stays without.
    """
    if processes() == 1:
        return
    groups: dict[tuple, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            groups.setdefault((parameter.grad.dtype, parameter.grad.device), []).append(parameter.grad)
    for gradients in groups.values():
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= processes()
        for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients])):
            gradient.copy_(mean.view_as(gradient))


@contextlib.contextmanager
def split(modules: Iterable[nn.Module]):
    """Inside, each call of one of these modules, or of a part of one, computes this process's share of the rows.

    A call takes tensors whose first dimension is the batch, in any nesting, and must return such tensors.  The
    outermost call divides: parts called within it see the share.  Batch norm in training mode takes the statistics of
    all shares.  A batch with fewer rows than processes is computed whole by each.  With one process nothing changes.
    Raises RuntimeError, at the call, for a module that returns something else than one row per sample.
    """
    if processes() == 1 or _state["whole batches"]:  # alone, or split already
        yield
        return
    every = {id(part): part for module in modules for part in module.modules()}.values()
    for part in every:
        part.forward = partial(_call, part, part.forward)
    _state["whole batches"] = True
    try:
        yield
    finally:
        _state["whole batches"] = False
        for part in every:
            del part.forward


def _call(module: nn.Module, forward, *args, **kwargs):
    if _state["share"]:
        shared = isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training
        return _batch_norm(module, *args) if shared else forward(*args, **kwargs)
    leaves, form = pytree.tree_flatten((args, kwargs))
    rows = next((len(leaf) for leaf in leaves if isinstance(leaf, Tensor) and leaf.dim()), 0)
    if rows < processes():
        return forward(*args, **kwargs)
    mine = torch.arange(rows).tensor_split(processes())[rank()]
    first, last = int(mine[0]), int(mine[-1]) + 1

    def share(leaf):
        return leaf[first:last] if isinstance(leaf, Tensor) and leaf.dim() and len(leaf) == rows else leaf

    args, kwargs = pytree.tree_unflatten([share(leaf) for leaf in leaves], form)
    _state["share"] = True
    try:
        result = forward(*args, **kwargs)
    finally:
        _state["share"] = False
    return pytree.tree_map(partial(_whole, type(module).__name__, last - first), result)


def _whole(name: str, count: int, leaf):
    if not isinstance(leaf, Tensor):
        return leaf
    if not leaf.dim() or len(leaf) != count:
        raise RuntimeError(
            f"{name} was given {count} rows, this process's share of a batch, and returned a tensor of shape "
            f"{tuple(leaf.shape)}; with several processes a module must return one row per sample: no losses in it"
        )
    return _Gather.apply(leaf)


def _batch_norm(module: nn.modules.batchnorm._BatchNorm, x: Tensor) -> Tensor:
    """Batch norm with the mean and variance of all processes' rows; keeps the running statistics as torch does."""
    module._check_input_dim(x)
    wide = precision.wide(x)  # statistics in float32 under autocast, as torch has them
    others = [dimension for dimension in range(x.dim()) if dimension != 1]
    shape = [1, -1] + [1] * (x.dim() - 2)
    count = _Sum.apply(wide.new_tensor(float(x.numel() // x.shape[1])))
    mean = _Sum.apply(wide.sum(others)) / count
    centred = wide - mean.view(shape)
    variance = _Sum.apply(centred.square().sum(others)) / count  # of the batch, without Bessel's correction
    if module.track_running_stats and module.running_mean is not None:
        with torch.no_grad():
            module.num_batches_tracked += 1
            share = 1 / float(module.num_batches_tracked) if module.momentum is None else module.momentum
            module.running_mean.lerp_(mean.to(module.running_mean.dtype), share)
            unbiased = variance * count / (count - 1).clamp(min=1)
            module.running_var.lerp_(unbiased.to(module.running_var.dtype), share)
    out = centred * (variance + module.eps).rsqrt().view(shape)
    if module.affine:
        out = out * module.weight.view(shape) + module.bias.view(shape)
    return out.to(x.dtype)
