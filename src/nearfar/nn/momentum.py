"""Momentum contrast [He et al., 2020]: a network, a copy that follows it slowly, and a queue of the copy's features.

One training step is

    q = pair.queries(views_a)                    # (B, D), with gradient
    pair.follow()                                # the copy moves before it is used, as in MoCo
    k = pair.keys(views_b)                       # (B, D), without gradient
    loss = info_nce(q, k, negatives=pair.queue.tensor, temperature=0.2, normalise=False)
    pair.push(k)                                 # the loss stays differentiable
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from nearfar.nn.backbones import seeded
from nearfar.nn.vectors import normalise
from nearfar.precision import wide


@torch.no_grad()
def ema_update(target: nn.Module, online: nn.Module, momentum: float, buffers: bool = False) -> None:
    """Move target's parameters towards online's, in place: θ' ← m θ' + (1 − m) θ [He et al., 2020, eq. 2].

    Buffers (running statistics of batch norm) are target's own, as in MoCo, unless `buffers` asks for a copy.
    Raises ValueError if momentum is outside [0, 1] or the modules differ in their parameters' shapes or dtypes.
    """
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum must lie in [0, 1], got {momentum}")
    moved, followed = dict(target.named_parameters()), dict(online.named_parameters())
    kinds = [{k: (v.shape, v.dtype) for k, v in parameters.items()} for parameters in (moved, followed)]
    if kinds[0] != kinds[1]:
        raise ValueError("target and online must have the same parameters; make target with copy.deepcopy(online)")
    for name, parameter in moved.items():
        parameter.lerp_(followed[name], 1 - momentum)
    if buffers:
        for ours, theirs in zip(target.buffers(), online.buffers(), strict=True):
            ours.copy_(theirs)


class Queue(nn.Module):
    """The last `size` features pushed, newest batch first: after push(z), tensor[:len(z)] is z [He et al., 2020].

    A module, so that it moves with .to(device) and is kept in checkpoints.  Features are stored without gradient;
    every push makes a new tensor, so that a loss that used the old one can still be differentiated.
    """

    def __init__(self, size: int, dimension: int):
        super().__init__()
        if size < 1 or dimension < 1:
            raise ValueError(f"size and dimension must be positive, got {size} and {dimension}")
        self.size, self.count = size, 0
        self.register_buffer("store", torch.zeros(size, dimension))

    @property
    def tensor(self) -> Tensor:  # (count, D)
        return self.store[: self.count]

    @property
    def full(self) -> bool:
        return self.count == self.size

    def push(self, z: Tensor) -> None:
        """Put z (N, D), in the queue's dtype, in front; the oldest fall off the end.  ValueError for another D."""
        if z.dim() != 2 or z.shape[1] != self.store.shape[1]:
            raise ValueError(f"z must have shape (N, {self.store.shape[1]}), got {tuple(z.shape)}")
        self.store = torch.cat([z.detach().to(self.store), self.store])[: self.size]
        self.count = min(self.size, self.count + len(z))

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.count)

    def set_extra_state(self, state: Tensor) -> None:
        self.count = int(state)


class MomentumPair(nn.Module):
    """An online network, its moving average and a queue of keys of unit length [He et al., 2020].

    online: (N, ...) -> (N, D), backbone and head together; it is trained in place, its copy never has a gradient.
    size: keys in the queue, 0 for no queue; dimension: their D.  momentum: share of itself that the copy keeps per
    `follow`.  The queue starts, as MoCo's, with random directions, drawn from `seed` or `generator`, so that its shape
    never changes; `filled` says when real keys have replaced them all.

    A module: moves with .to(device), is kept in checkpoints of `train.fit`.  Online network and copy are both in train
    mode inside `train.fit`, as in MoCo; each keeps its own batch-norm statistics.  MoCo shuffles the keys' batches
    between devices, lest batch norm tell a query which key shares its batch; on one device there is nothing to shuffle
    with, and queries and keys are normalised by batches of their own.
    With several processes (`train.fit`) each sees, and pushes, the keys of all, so that their queues stay the same.
    Raises ValueError for a momentum outside [0, 1], size < 0, or a queue without a dimension.
    """

    def __init__(
        self,
        online: nn.Module,
        size: int = 0,
        dimension: int | None = None,
        momentum: float = 0.999,
        *,
        seed: int = 0,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must lie in [0, 1], got {momentum}")
        if size < 0 or (size and (dimension is None or dimension < 1)):
            raise ValueError(f"size must be 0 or more, with a positive dimension, got size={size}, {dimension=}")
        self.momentum, self.online, self.average = momentum, online, copy.deepcopy(online).requires_grad_(False)
        self.queue, self.pushed = None, 0
        if size:
            self.queue = Queue(size, dimension)
            with seeded(seed, generator):
                self.queue.push(normalise(torch.randn(size, dimension)))
            self.register_buffer("tags", torch.full((size,), -1))

    @property
    def filled(self) -> bool:
        """Whether the queue holds keys only: `size` of them have been pushed.  Without a queue: True."""
        return self.queue is None or self.pushed >= self.queue.size

    def queries(self, images: Tensor) -> Tensor:
        """Features of the online network at unit length: (N, ...) -> (N, D); at least float32, also under autocast."""
        return _unit(self.online(images))

    @torch.no_grad()
    def keys(self, images: Tensor) -> Tensor:
        """Features of the copy at unit length, without gradient: (N, ...) -> (N, D)."""
        return _unit(self.average(images))

    def follow(self) -> None:
        """Move the copy's weights towards the online network's: θ_k ← m θ_k + (1 − m) θ_q [He et al., 2020, eq. 2]."""
        ema_update(self.average, self.online, self.momentum)

    def push(self, keys: Tensor, tags: Tensor | None = None) -> None:
        """Put keys (N, D) in front of the queue; the oldest fall off its end.

        tags: (N,) integers kept beside them in `self.tags` (size,), such as image numbers or labels; −1 for none.
        Raises ValueError without a queue, for another D or another number of tags.
        """
        if self.queue is None:
            raise ValueError("keys: this pair has no queue; give size and dimension when it is made")
        tags = torch.full((len(keys),), -1, device=keys.device) if tags is None else tags
        if tags.shape != keys.shape[:1]:
            raise ValueError(f"tags must have shape ({len(keys)},), got {tuple(tags.shape)}")
        self.queue.push(keys.detach())
        self.tags = torch.cat([tags.to(self.tags), self.tags])[: self.queue.size]
        self.pushed = min(self.queue.size, self.pushed + len(keys))

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.pushed)

    def set_extra_state(self, state: Tensor) -> None:
        self.pushed = int(state)


def _unit(z: Tensor) -> Tensor:
    return normalise(wide(z))
