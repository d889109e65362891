"""One training loop: the notebook's own `step` computes the loss, everything around it happens here."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from numbers import Real

import torch
from torch import Tensor, nn

from nearfar import parallel, paths
from nearfar.augment import to_float
from nearfar.train import checkpoints

OPTIMISERS: dict[str, Callable] = {  # fused: one pass over all weights; small networks train up to a fifth faster
    "adamw": lambda weights, lr, decay, momentum, fused: torch.optim.AdamW(
        weights, lr, weight_decay=decay, fused=fused
    ),
    "adam": lambda weights, lr, decay, momentum, fused: torch.optim.Adam(weights, lr, weight_decay=decay, fused=fused),
    "sgd": lambda weights, lr, decay, momentum, fused: torch.optim.SGD(
        weights, lr, momentum, weight_decay=decay, fused=fused
    ),
}
SCHEDULES: dict[str, Callable[[float], float]] = {  # of the share of steps done after the warm-up
    "constant": lambda share: 1.0,
    "cosine": lambda share: 0.5 * (1 + math.cos(math.pi * share)),
}
_FLUSH = 25  # steps between two looks at an accelerator's losses


def index_batches(n: int, batch_size: int, steps: int, generator: torch.Generator) -> Tensor:
    """Row numbers for `steps` batches out of n samples: LongTensor (steps, batch_size) on the CPU.

    Each epoch is a fresh shuffle, cut into whole batches; what is left over at its end is dropped.  Where n is smaller
    than batch_size, a batch is the whole set of n.  Raises ValueError unless n, batch_size and steps are positive.
    """
    if min(n, batch_size, steps) < 1:
        raise ValueError(f"n, batch_size and steps must be positive, got {n}, {batch_size} and {steps}")
    batch_size = min(batch_size, n)
    per_epoch = n // batch_size
    epochs = [
        torch.randperm(n, generator=generator, device=generator.device)[: per_epoch * batch_size]
        for _ in range(-(-steps // per_epoch))
    ]
    return torch.cat(epochs).view(-1, batch_size)[:steps].cpu()


def fit(
    step: Callable,
    modules: nn.Module | Mapping[str, nn.Module],
    *,
    batches: Tensor | Sequence[Tensor],
    lr: float = 1e-3,
    optimiser: str | Callable = "adamw",
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    schedule: str = "cosine",
    warmup: int = 0,
    precision: str = "no",
    device: torch.device | str = "cpu",
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    after: Callable | None = None,
    checkpoint: str | os.PathLike | None = None,
    checkpoint_seconds: float | None = None,
    keep: dict | list | None = None,
    progress: bool = True,
    label: str = "",
) -> dict[str, list[float]]:
    """Train `modules`, in place, by one optimiser step per batch; returns the history, one number per step.

    step(batch, number): batch is a LongTensor of row numbers on `device`; returns the loss (a scalar tensor), or
        (loss, dict of numbers to keep in the history).
    modules: a module or a dict of them; what they hold is moved, trained (where it requires a gradient) and saved.
    batches: (steps, batch_size) from index_batches, or a sequence of LongTensors.
    optimiser: "adamw", "adam", "sgd" (with momentum), or a function parameters -> torch.optim.Optimizer, which then
        sets its own rates.  weight_decay applies to every parameter.
    schedule: "cosine" to zero or "constant", after `warmup` steps of linear growth.
    precision: "no", "bf16" or "fp16" (accelerate's mixed precision; fp16 needs an accelerator).
    generator: the generator or generators that `step` draws from, so that a checkpoint can hold their states.
    after(number): called after each optimiser step, for instance for ema_update.
    checkpoint: file to save to every `checkpoint_seconds` (default: $NEARFAR_CHECKPOINT_SECONDS or 60) and at the end,
        and to go on from: interrupted and resumed equals uninterrupted, on the CPU bit for bit; a finished one is
        loaded and not trained again.  `~` is the home folder; a relative path starts where `fit` was called.
        It belongs to one configuration (settings, batches, start weights, generators' states, label: put whatever else
        matters there).  `run.checkpoint` names one for a run, which deletes it at its end.
    keep: a dict or list of whatever else step changes (tensors, numbers, dicts and lists of them), such as a memory
        bank or notes; a checkpoint holds it, and puts it back into the same dict or list.
    Under `torchrun` or `accelerate launch` each process computes its share of every call of a network, and the numbers
    are those of one process (nearfar.parallel): step sees whole batches, in every process the same.

    torch's global random state (dropout) is seeded inside from the first generator and put back afterwards.
    History lists hold "loss" and the keys that step returned.  Raises ValueError for unknown settings, nothing to
    train, a step that returns no loss to differentiate, or a checkpoint of another configuration, FloatingPointError
    for a loss that is not finite, with its step.
    """
    if checkpoint_seconds is None:
        checkpoint_seconds = float(os.environ.get("NEARFAR_CHECKPOINT_SECONDS", 60))
    named = {"module": modules} if isinstance(modules, nn.Module) else dict(modules)
    generators = [] if generator is None else [generator] if isinstance(generator, torch.Generator) else list(generator)
    _check_settings(named, batches, optimiser, schedule, precision, warmup)
    accelerator, device = _accelerator(precision, torch.device(device))
    for module in named.values():
        module.to(device)
    parameters = list({id(p): p for m in named.values() for p in m.parameters() if p.requires_grad}.values())
    if not parameters:
        raise ValueError("modules: nothing to train, no parameter requires a gradient")
    if isinstance(optimiser, str):
        fused = device.type in ("cpu", "cuda")
        torch_optimiser = OPTIMISERS[optimiser](parameters, lr, weight_decay, momentum, fused)
    else:
        torch_optimiser = optimiser(parameters)
    rates = [group["lr"] for group in torch_optimiser.param_groups]
    # accelerate's wrapper is for the loss scaling of fp16; it looks for optional packages at every step
    scaled = accelerator.prepare_optimizer(torch_optimiser) if accelerator.scaler else torch_optimiser
    steps, shape = len(batches), SCHEDULES[schedule]

    history: dict[str, list[float]] = {}
    waiting: list[tuple[int, dict]] = []  # values still on the device
    with _train_mode(named), _own_random_state(generators[0].initial_seed() if generators else 0, device):
        first, path = 0, None
        state = {"modules": named, "optimiser": torch_optimiser, "generators": generators, "scaler": accelerator.scaler,
                 "keep": keep}  # fmt: skip
        if checkpoint is not None:
            path = paths.given(checkpoint)
            rule = optimiser if isinstance(optimiser, str) else torch_optimiser.state_dict()["param_groups"]
            settings = [rule, lr, weight_decay, momentum, schedule, warmup, precision, label]
            fingerprint = checkpoints.fingerprint(named, batches, generators, settings)
            if path.exists() or checkpoints.previous(path).exists():
                first, history = checkpoints.load(path, fingerprint, state, device)
        saved = time.monotonic()
        bar = _bar(range(first, steps), first, steps, label, progress and accelerator.is_main_process)
        for number in bar:
            growth = (number + 1) / warmup if number < warmup else shape((number - warmup) / (steps - warmup))
            for group, rate in zip(torch_optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * growth
            batch = batches[number].to(device)
            with accelerator.autocast(), parallel.split(named.values()):
                result = step(batch, number)
            loss, values = _loss_and_values(result)
            kept = {"loss": loss, **values}
            waiting.append((number, {k: v.detach() if isinstance(v, Tensor) else v for k, v in kept.items()}))
            if device.type == "cpu":  # before the weights are touched; free of charge here
                _flush(waiting, history)
            torch_optimiser.zero_grad(set_to_none=True)
            accelerator.backward(loss)
            parallel.average_gradients(parameters)
            scaled.step()
            if after is not None:
                after(number)
            due = path is not None and time.monotonic() - saved >= checkpoint_seconds
            if len(waiting) >= _FLUSH or due or number == steps - 1:
                _flush(waiting, history)
            if path is not None and (due or number == steps - 1) and accelerator.is_main_process:
                checkpoints.save(path, fingerprint, state, number + 1, history, device)
                saved = time.monotonic()
    return history


@torch.no_grad()
def embed(
    module: nn.Module,
    images: Tensor,
    batch_size: int = 1024,
    device: torch.device | str | None = None,
    transform: Callable[[Tensor], Tensor] | None = to_float,
    progress: bool = True,
) -> Tensor:
    """Features of all images in order: (N, C, H, W) -> (N, d), in evaluation mode, without gradient.

    device: where to compute (default: where the module is); the features stay there.  transform: applied to each batch
    on that device; None for none.  Every submodule's train/eval mode is put back.  Raises ValueError for no images.
    """
    if len(images) == 0:
        raise ValueError("images is empty")
    if device is None:
        device = next((p.device for p in module.parameters()), images.device)
    else:
        module.to(device)
    training = {m: m.training for m in module.modules()}
    module.eval()
    change = transform or (lambda batch: batch)
    batches = images.split(batch_size)
    try:
        numbers = _bar(range(len(batches)), 0, len(batches), "embedding", progress)
        with parallel.split([module]):
            return torch.cat([module(change(batches[number].to(device))) for number in numbers])
    finally:
        _set_modes(training)


# ---------------------------------------------------------------------------------------------- inside the loop
def _check_settings(named, batches, optimiser, schedule, precision, warmup) -> None:
    for name, value, known in (("schedule", schedule, SCHEDULES), ("precision", precision, ("no", "bf16", "fp16"))):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    if not callable(optimiser) and optimiser not in OPTIMISERS:
        raise ValueError(f"optimiser must be one of {', '.join(OPTIMISERS)} or a function, got {optimiser!r}")
    if len(batches) == 0:
        raise ValueError("batches is empty: at least one step is needed")
    if not 0 <= warmup < len(batches):
        raise ValueError(f"warmup must be at least 0 and below the number of steps {len(batches)}, got {warmup}")
    for name, module in named.items():
        if not isinstance(module, nn.Module):
            raise ValueError(f"modules[{name!r}] must be a torch.nn.Module, got {type(module).__name__}")


def _loss_and_values(result) -> tuple[Tensor, Mapping]:
    """What `step` returned; raises ValueError unless it can be differentiated and kept."""
    proper = isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping)
    loss, values = result if proper else (result, {})
    if not isinstance(loss, Tensor):
        raise ValueError(
            "step must return its loss as a tensor, without float() or .item(), or (loss, dict of numbers), "
            f"got {type(loss).__name__}"
        )
    if loss.dim():
        raise ValueError(f"step must return a scalar loss, got shape {tuple(loss.shape)}")
    if not loss.requires_grad:
        raise ValueError("step must return a loss that depends on the modules' parameters; this one has no gradient")
    for name, value in values.items():
        if not (value.numel() == 1 if isinstance(value, Tensor) else isinstance(value, Real)):
            kind = f"tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"step must return numbers to keep beside its loss, got {name!r}, a {kind}")
    return loss, values


def _accelerator(precision: str, device: torch.device):
    """An Accelerator for this run, and the device.  accelerate's state is per process: forget an earlier run's."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: cuda was asked for, but torch finds no CUDA device; use device='cpu'")
    if precision == "fp16" and device.type == "cpu":
        raise ValueError("precision: fp16 needs an accelerator; use 'no' or 'bf16' on the CPU")
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(mixed_precision=precision, cpu=device.type == "cpu")
    return accelerator, accelerator.device if accelerator.num_processes > 1 else device


def _flush(waiting: list[tuple[int, dict]], history: dict[str, list[float]]) -> None:
    """Move waiting values into the history as plain numbers, and stop at a loss that is not finite."""
    for number, values in waiting:
        for key, value in values.items():
            history.setdefault(key, []).append(float(value))
        loss = history["loss"][-1]
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} at step {number}; try a smaller lr, a longer warmup or a larger temperature"
            )
    waiting.clear()


def _bar(numbers: range, first: int, steps: int, label: str, show: bool):
    from tqdm import tqdm

    return tqdm(
        numbers,
        initial=first,
        total=steps,
        desc=label or "training",
        unit="step",
        delay=2,
        mininterval=0.5,
        leave=False,
        disable=not show,
    )


@contextmanager
def _train_mode(named: Mapping[str, nn.Module]):
    """All modules in train mode for a block; each submodule's own mode afterwards."""
    modes = {module: module.training for top in named.values() for module in top.modules()}
    try:
        for module in named.values():
            module.train()
        yield
    finally:
        _set_modes(modes)


def _set_modes(modes: dict[nn.Module, bool]) -> None:
    for module, training in modes.items():
        module.training = training


@contextmanager
def _own_random_state(seed: int, device: torch.device):
    """Seed torch's global random state for a block, and put back what was there."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.random.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
