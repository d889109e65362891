"""Checkpoints of `train.fit`: written whole or not at all, read without running code, bound to one configuration."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch
from torch import Tensor


def fingerprint(named, batches, generators, settings: list) -> str:
    """A hash of all that decides the numbers, as far as it can be seen from here."""
    digest = hashlib.sha256(repr(settings).encode())
    for batch in [batches] if isinstance(batches, Tensor) else batches:
        digest.update(repr(tuple(batch.shape)).encode() + batch.cpu().contiguous().numpy().tobytes())
    for name, module in named.items():
        for key, value in module.state_dict().items():
            digest.update(f"{name}.{key}{tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    for generator in generators:
        digest.update(generator.get_state().numpy().tobytes())
    return digest.hexdigest()


def save(path: Path, fingerprint: str, state: dict, step: int, history: dict, device: torch.device) -> None:
    """Write a checkpoint beside its place and move it there in one go, so that a kill never leaves half a file."""
    content = {
        "fingerprint": fingerprint,
        "step": step,
        "history": history,
        "modules": {name: module.state_dict() for name, module in state["modules"].items()},
        "optimiser": state["optimiser"].state_dict(),
        "generators": [generator.get_state() for generator in state["generators"]],
        "scaler": state["scaler"].state_dict() if state["scaler"] else {},
        "global": torch.get_rng_state(),
        "global_device": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        torch.save(content, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path, fingerprint: str, state: dict, device: torch.device) -> tuple[int, dict[str, list[float]]]:
    """Put a checkpoint's contents into `state`; returns the number of steps done and the history."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        known = content["fingerprint"]
    except Exception as error:
        reason = type(error).__name__
        raise ValueError(f"checkpoint {path} cannot be read ({reason}); delete it to train anew") from None
    if known != fingerprint:
        raise ValueError(
            f"checkpoint {path} belongs to another configuration (settings, data, seed or start weights); "
            "delete it or choose another file"
        )
    for name, module in state["modules"].items():
        module.load_state_dict(content["modules"][name])
    state["optimiser"].load_state_dict(content["optimiser"])
    for generator, saved in zip(state["generators"], content["generators"], strict=True):
        generator.set_state(saved)
    if state["scaler"]:
        state["scaler"].load_state_dict(content["scaler"])
    torch.set_rng_state(content["global"])
    if content["global_device"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(content["global_device"], device)
    return content["step"], content["history"]
