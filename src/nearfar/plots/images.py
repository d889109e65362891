"""Images and embeddings as figures."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # figures of numbers do not need torch
    from torch import Tensor


def _displayable(image: "Tensor"):
    """One image (C, H, W), uint8 or float in [0, 1], as an array that `imshow` takes."""
    image = image.detach().cpu()
    image = image.float() if image.is_floating_point() else image.float() / 255
    image = image.clamp(0, 1).permute(1, 2, 0).numpy()
    return image[..., 0] if image.shape[-1] == 1 else image


def views_grid(rows, labels=None, columns=None, cell: float = 0.9):
    """A grid of images: `rows` is a list of image batches (n, C, H, W), one row each.

    labels: one text per row; columns: one title per column; cell: inches per image.  Returns the figure.
    """
    import matplotlib.pyplot as plt

    count = max(len(row) for row in rows)
    margin = 1.3 if labels else 0
    size = (count * cell + margin, len(rows) * cell + (0.35 if columns else 0.05))
    figure, axes = plt.subplots(len(rows), count, figsize=size, squeeze=False)
    for r, row in enumerate(rows):
        for c, ax in enumerate(axes[r]):
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
            for spine in ax.spines.values():
                spine.set_visible(False)
            if c < len(row):
                ax.imshow(_displayable(row[c]), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            if c == 0 and labels:
                ax.set_ylabel(labels[r], rotation=0, ha="right", va="center")
            if r == 0 and columns:
                ax.set_title(columns[c], loc="center", fontsize=9.5, fontweight="normal")
    return figure


def image_grid(images, values: Sequence, columns: int = 8, cell: float = 1.0):
    """Images (n, C, H, W), in rows of `columns`, each with its value or word beneath.  Returns the figure."""
    import matplotlib.pyplot as plt

    if len(values) != len(images):
        raise ValueError(f"values must have one entry per image, got {len(values)} for {len(images)}.")
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(columns * cell, rows * (cell + 0.25)), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, image, value in zip(axes.flat, images, values, strict=False):
        ax.imshow(_displayable(image), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        ax.set_title(value if isinstance(value, str) else f"{value:.2f}", y=-0.28, loc="center", fontsize=9,
                     fontweight="normal")  # fmt: skip
    return figure


def embedding(z: "Tensor", labels: "Tensor", classes=None, ax=None, legend: bool = True):
    """Scatter of a 2-D embedding z (N, 2), or of the first two principal components of z (N, D), coloured by class."""
    import matplotlib.pyplot as plt
    import torch

    ax = ax or plt.subplots(figsize=(5, 4.6))[1]
    z = z.detach().cpu().double()
    if z.shape[1] > 2:
        centred = z - z.mean(dim=0)
        _, _, directions = torch.linalg.svd(centred, full_matrices=False)
        signs = torch.sign(directions[:2].sum(dim=1, keepdim=True))  # an SVD leaves the signs open
        z = centred @ (directions[:2] * signs).T
    palette = plt.get_cmap("tab10" if len(labels.unique()) <= 10 else "tab20")
    for number, label in enumerate(labels.unique().tolist()):
        points = z[labels.cpu() == label]
        name = classes[int(label)] if classes else str(label)
        ax.scatter(points[:, 0], points[:, 1], s=9, alpha=0.75, linewidth=0, color=palette(number % 20), label=name)
    ax.set(xticks=[], yticks=[])
    if legend:
        ax.legend(markerscale=2, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    return ax
