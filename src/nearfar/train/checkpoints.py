"""Checkpoints of `train.fit`: written whole or not at all, read without running code, bound to one configuration.

The last two are kept: should the newest not be readable, training goes on from the one before.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

FORMAT = 1  # of the files; another one is refused


def previous(path: Path) -> Path:
    """Where the checkpoint before the newest lies."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


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
    """Write a checkpoint beside its place and move it there in one go, so that a kill never leaves half a file.

    Raises OSError, with what to do, when there is no room or no right to write; the checkpoints before are kept.
    """
    content = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "step": step,
        "history": history,
        "modules": {name: module.state_dict() for name, module in state["modules"].items()},
        "optimiser": state["optimiser"].state_dict(),
        "generators": [generator.get_state() for generator in state["generators"]],
        "keep": state["keep"],
        "scaler": state["scaler"].state_dict() if state["scaler"] else {},
        "global": torch.get_rng_state(),
        "global_device": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, temporary)
        if path.exists():
            os.replace(path, previous(path))
        os.replace(temporary, path)
    except (OSError, RuntimeError) as problem:  # torch's writer reports a full disk as a RuntimeError
        reason = problem.strerror if isinstance(problem, OSError) else str(problem).splitlines()[0]
        raise OSError(
            f"could not write checkpoint {path}: {reason}; make room and start again, it goes on from the last one"
        ) from problem
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path, fingerprint: str, state: dict, device: torch.device) -> tuple[int, dict[str, list[float]]]:
    """Put a checkpoint's contents into `state`; returns the number of steps done and the history.

    Where the newest cannot be read, the one before is taken, with a warning.  Raises ValueError, one line, when neither
    can be read, and for a checkpoint of another configuration or of another version's format.
    """
    content = _read(path)
    if content["format"] != FORMAT:
        raise ValueError(
            f"checkpoint {path} was written by another version of nearfar (format {content['format']}, here {FORMAT}); "
            "delete it to train anew"
        )
    if content["fingerprint"] != fingerprint:
        raise ValueError(
            f"checkpoint {path} belongs to another configuration (settings, data, seed or start weights); "
            "delete it or choose another file"
        )
    for name, module in state["modules"].items():
        module.load_state_dict(content["modules"][name])
    state["optimiser"].load_state_dict(content["optimiser"])
    for generator, saved in zip(state["generators"], content["generators"], strict=True):
        generator.set_state(saved)
    if state["keep"] is not None:
        _put_back(state["keep"], content["keep"], device)
    if state["scaler"]:
        state["scaler"].load_state_dict(content["scaler"])
    torch.set_rng_state(content["global"])
    if content["global_device"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(content["global_device"], device)
    return content["step"], content["history"]


def _put_back(place: dict | list, saved: dict | list, device: torch.device) -> None:
    """Fills a container with what was saved, keeping the containers in it that others may hold on to."""
    tensors = partial(pytree.tree_map_only, Tensor, lambda tensor: tensor.to(device))
    if isinstance(place, list):
        place[:] = tensors(saved)
        return
    for name in place.keys() - saved.keys():
        del place[name]
    for name, value in saved.items():
        if isinstance(value, dict | list) and isinstance(place.get(name), type(value)):
            _put_back(place[name], value, device)
        else:
            place[name] = tensors(value)


def _read(path: Path) -> dict:
    """The newest file's content, or that of the one before."""
    problem = ""
    for file in (path, previous(path)):
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
            if isinstance(content, dict) and {"format", "fingerprint"} <= content.keys():
                if problem:
                    warnings.warn(f"checkpoint {path} {problem}; going on from the one before", stacklevel=2)
                return content
            problem = problem or "holds no training state"
        except FileNotFoundError:
            problem = problem or "is missing"
        except Exception as error:
            problem = problem or f"cannot be read ({type(error).__name__})"
    raise ValueError(f"checkpoint {path} {problem}; delete it to train anew")
