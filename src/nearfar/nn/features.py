"""Features of whole data sets under a frozen network, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import json
import re
from functools import partial

import torch
from torch import Tensor

from nearfar import parallel
from nearfar.data import ArrayDataset
from nearfar.data.arrays import content_identity
from nearfar.data.cache import features_folder, kept

FORMAT = 1
CHUNK = 2048  # rows in one file: what an interruption can cost, about ten seconds


def frozen_features(network, dataset: ArrayDataset, *, batch_size: int = 32) -> Tensor:
    """Features (N, D), float32, of every row of `dataset` in its order, computed once and kept on disk.

    Compute the whole set once and index the features: a part of a set (dataset[rows]) is another set and is computed
    anew.

        features = nn.frozen_features(nn.pretrained("efficientnet-lite0"), train)
        few = features[rows], train.labels[rows]

    network: from `pretrained`, or any callable images -> (N, D) with an `identity`; its name and device are optional.
    batch_size: 16 to 32 is fastest on a CPU.

    Kept in half precision (38 MB for 60,000 rows of 320) in $NEARFAR_CACHE/features or the user's cache folder, under a
    hash of the network's identity, its kind of device and the content of the images.  After an interruption the next
    call goes on where it stopped, up to 2,048 rows; damaged files are made anew; all may be deleted.

    Raises ValueError for a set without rows.
    """
    if not len(dataset):
        raise ValueError("dataset has no rows")
    device = torch.device(getattr(network, "device", "cpu"))
    content = content_identity(dataset.inputs.cpu(), torch.empty(0), {}, ())
    key = hashlib.sha256(json.dumps([FORMAT, network.identity, device.type, content]).encode()).hexdigest()
    name = re.sub(r"[^\w.-]+", "-", f"{dataset.name or 'images'}-{getattr(network, 'name', 'network')}")
    folder = features_folder() / f"{name}-{key[:16]}"
    parts = []
    with parallel.first_one(), torch.no_grad(), _bar(name, len(dataset)) as bar:
        for rows in torch.arange(len(dataset)).split(CHUNK):
            make = partial(_compute, network, dataset.inputs, rows, batch_size, device, bar)
            part = kept(folder / f"{int(rows[0]):08d}.safetensors", make)
            parts.append(part.inputs.float())
            bar.update(int(rows[-1]) + 1 - bar.n)
    return torch.cat(parts)


def _bar(name: str, rows: int):
    from tqdm.auto import tqdm

    return tqdm(desc=f"features {name}", total=rows, unit="image", delay=1, mininterval=0.5, leave=False)


def _compute(network, inputs: Tensor, rows: Tensor, batch_size: int, device: torch.device, bar) -> ArrayDataset:
    """The features of some rows, in half precision unless a value is too large for it, labelled by row number."""
    batches = []
    for batch in rows.split(batch_size):
        batches.append(network(inputs[batch].to(device)).float().cpu())
        bar.update(len(batch))
    features = torch.cat(batches)
    half = features.half()
    return ArrayDataset(half if torch.isfinite(half).all() else features, rows, name="features")
