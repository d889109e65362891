"""The one container for data: whole sets as tensors, with labels, attributes and class names."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from nearfar.errors import NearFarError


class DataError(NearFarError, RuntimeError):
    """Data that is missing, damaged or not what was asked for; the message says which file and what to do."""


@dataclass
class ArrayDataset:
    """A whole data set in tensors.

    inputs: uint8 images (N, C, H, W), or a float table (N, d).
    labels: (N,) int64 classes, or float targets.
    attributes: name -> tensor (N, ...), anything else known about each sample.
    classes: class names; `classes[labels[i]]` is the name of sample i's class.
    captions: one sentence per sample, or empty.
    name, identity: what the data is called, and a hash that names exactly this data.

    Raises ValueError if labels, an attribute or the captions do not have N rows.
    """

    inputs: Tensor
    labels: Tensor
    attributes: dict[str, Tensor] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    name: str = ""
    identity: str = ""
    captions: tuple[str, ...] = ()

    def __post_init__(self):
        rows = {"labels": len(self.labels), **{f"attributes[{k!r}]": len(v) for k, v in self.attributes.items()}}
        if self.captions:
            rows["captions"] = len(self.captions)
        for what, count in rows.items():
            if count != len(self.inputs):
                raise ValueError(f"{what} has {count} rows, but inputs has {len(self.inputs)}")
        self.classes, self.captions = tuple(self.classes), tuple(self.captions)

    def __repr__(self) -> str:
        """One line: printing a set in a notebook shows what it is, not its pixels."""
        inputs = f"inputs {tuple(self.inputs.shape[1:])} {str(self.inputs.dtype).removeprefix('torch.')}"
        parts = [repr(self.name), f"{len(self):,} rows", inputs, f"{len(self.classes)} classes"]
        if self.attributes:
            parts.append(f"attributes: {', '.join(self.attributes)}")
        return f"ArrayDataset({', '.join(parts)})"

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: Tensor | slice | list[int]) -> ArrayDataset:
        """Rows by index tensor, list, slice or boolean mask; the result is again an ArrayDataset.

        Raises ValueError for a single integer (write `dataset[i:i + 1]`) or a mask of another length.
        """
        rows = _row_numbers(index, len(self))
        here = rows.to(self.inputs.device)
        identity = self.identity and hashlib.sha256(self.identity.encode() + rows.numpy().tobytes()).hexdigest()
        return replace(
            self,
            inputs=self.inputs[here],
            labels=self.labels[here],
            attributes={k: v[here] for k, v in self.attributes.items()},
            captions=tuple(self.captions[i] for i in rows.tolist()) if self.captions else (),
            identity=identity,
        )

    def to(self, device: torch.device | str) -> ArrayDataset:
        """The same data with every tensor on `device`."""
        return replace(
            self,
            inputs=self.inputs.to(device),
            labels=self.labels.to(device),
            attributes={k: v.to(device) for k, v in self.attributes.items()},
        )


def content_identity(inputs: Tensor, labels: Tensor, attributes: dict[str, Tensor], classes: tuple[str, ...]) -> str:
    """sha256 of what a data set holds: the same on every machine for the same decoded content."""
    digest = hashlib.sha256()
    for key, tensor in {"inputs": inputs, "labels": labels, **dict(sorted(attributes.items()))}.items():
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy())
    digest.update("\n".join(classes).encode())
    return digest.hexdigest()


def _row_numbers(index: Tensor | slice | list[int], n: int) -> Tensor:
    """Any index as an int64 tensor of row numbers on the CPU."""
    if isinstance(index, int):
        raise ValueError(f"index: {index} is a single number; write dataset[{index}:{index + 1}] for one row")
    if isinstance(index, slice):
        return torch.arange(n)[index]
    index = torch.as_tensor(index).cpu()
    if index.dtype == torch.bool:
        if index.shape != (n,):
            raise ValueError(f"index: a mask of shape {tuple(index.shape)} for {n} rows")
        return index.nonzero()[:, 0]
    if index.ndim != 1 or index.is_floating_point():
        raise ValueError(f"index: expected a 1-D tensor of row numbers, got {index.dtype} {tuple(index.shape)}")
    index = index.long()
    if len(index) and (int(index.min()) < -n or int(index.max()) >= n):
        raise ValueError(f"index: row {int(index.max())} is out of range for {n} rows")
    return torch.where(index < 0, index + n, index)
