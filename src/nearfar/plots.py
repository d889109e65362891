"""Figures with one look in all chapters: colour-blind safe, the same colours for method and baseline everywhere.

matplotlib is imported when something is drawn, not before.
"""

import base64
import html
import io
import json
import math
import os
import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # figures of numbers do not need torch
    from torch import Tensor

COLOURS = {
    "method": "#0072B2",  # blue        Okabe & Ito's palette, told apart with every common colour blindness
    "baseline": "#D55E00",  # vermilion
    "ablation": "#009E73",  # green
    "variant": "#CC79A7",  # purple
    "extra": "#E69F00",  # orange
    "light": "#56B4E9",  # sky blue
    "neutral": "#6B7280",  # grey
}
MARKERS = {"method": "o", "baseline": "s", "ablation": "^", "variant": "D", "extra": "v", "light": "P", "neutral": "x"}


def theme() -> None:
    """Sets matplotlib's defaults for the whole notebook."""
    import matplotlib as mpl
    from cycler import cycler

    mpl.rcParams.update(
        {
            "figure.dpi": 110,
            "savefig.dpi": 110,
            "figure.constrained_layout.use": True,
            "figure.facecolor": "white",
            "font.size": 10.5,
            "axes.titlesize": 11.5,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": "#9CA3AF",
            "axes.grid": True,
            "grid.color": "#E5E7EB",
            "grid.linewidth": 0.8,
            "axes.axisbelow": True,
            "axes.prop_cycle": cycler(color=list(COLOURS.values())),
            "lines.linewidth": 2.0,
            "lines.markersize": 5.5,
            "legend.frameon": False,
            "image.cmap": "viridis",
        }
    )


def colour(role: str) -> str:
    """Hex colour of a role: method, baseline, ablation, variant, extra, light or neutral.  Raises `ValueError`."""
    if role not in COLOURS:
        raise ValueError(f"role must be one of {', '.join(COLOURS)}, got {role!r}.")
    return COLOURS[role]


def mean_interval(values, level: float = 0.95) -> tuple[float, float]:
    """Mean and half-width of Student's t interval of the mean; the half-width is nan for fewer than two values."""
    values = [float(v) for v in values]
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan
    from scipy.special import stdtrit  # the quantile of t, without the second that scipy.stats takes to load

    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))
    return mean, float(stdtrit(len(values) - 1, (1 + level) / 2)) * deviation / math.sqrt(len(values))


def scaling_curve(table, metric: str, methods: dict[str, str], ax=None, ylabel: str | None = None):
    """Metric against training-set size, one line per method: mean over seeds and its 95 % t interval.

    table: rows with columns metric, method, size, value (and seed), as `run.table()` and `results.table()` give.
    methods: {method name: role}, in drawing order.  Returns the axes.  Raises `ValueError` for a method without rows.
    """
    import matplotlib.pyplot as plt

    ax = ax or plt.subplots(figsize=(6.4, 4))[1]
    rows = table[table["metric"] == metric]
    ticks, most = set(), 1
    for name, role in methods.items():
        mine = rows[rows["method"] == name]
        if mine.empty:
            raise ValueError(f"table has no {metric!r} of {name!r}.")
        groups = [(size, group["value"].tolist()) for size, group in mine.groupby("size")]
        sizes, (means, halves) = [s for s, _ in groups], zip(*(mean_interval(v) for _, v in groups), strict=True)
        ticks |= set(sizes)
        most = max(most, *(len(v) for _, v in groups))
        ax.plot(sizes, means, marker=MARKERS[role], color=colour(role), label=name)
        if not any(map(math.isnan, halves)):
            lows, highs = zip(*((m - h, m + h) for m, h in zip(means, halves, strict=True)), strict=True)
            ax.fill_between(sizes, lows, highs, color=colour(role), alpha=0.15, linewidth=0)
    ax.set_xscale("log")
    ax.set_xticks(sorted(ticks), [f"{s:,}" for s in sorted(ticks)])
    ax.minorticks_off()
    seeds = f"mean and 95 % interval over {most} seeds" if most > 1 else "one seed"
    ax.set_xlabel(f"training-set size (samples; {seeds})")
    ax.set_ylabel(ylabel or metric)
    ax.legend()
    return ax


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


def compact_png(picture: bytes) -> bytes:
    """A PNG with at most 256 colours where that is smaller, which for figures it is by half; else as it was."""
    from PIL import Image

    buffer = io.BytesIO()
    colours = Image.open(io.BytesIO(picture)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    colours.save(buffer, "png", optimize=True)
    return min(picture, buffer.getvalue(), key=len)


def _png(draw, value) -> str:
    import matplotlib.pyplot as plt

    figure = draw(value)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return base64.b64encode(compact_png(buffer.getvalue())).decode()


def frames(draw, values, label: str, alt: str, start: int = 0):
    """A figure with a slider: pre-drawn frames in a static page, an ipywidgets slider in a live notebook.

    draw(value) returns a matplotlib figure; values: what the slider goes through; label: what the values are;
    alt: what is seen, for those who do not see it.  Returns an object that the notebook displays.
    """
    values = list(values)
    if not 0 <= start < len(values):
        raise ValueError(f"start must be the position of a frame, 0 to {len(values) - 1}, got {start}.")
    if os.environ.get("NEARFAR_STATIC") != "1":
        return _live(draw, values, label, start)
    from IPython.display import HTML

    key = "nf" + uuid.uuid5(uuid.NAMESPACE_URL, f"{label}/{alt}/{values}").hex[:8]
    images = "".join(
        f'<img class="{key}" alt="{html.escape(f"{alt} ({label}: {value})")}" '
        f'style="max-width:100%{"" if n == start else ";display:none"}" '
        f'src="data:image/png;base64,{_png(draw, value)}">'
        for n, value in enumerate(values)
    )
    names = html.escape(json.dumps([str(value) for value in values]))
    script = (
        f"const n=+this.value;document.querySelectorAll('img.{key}').forEach((e,i)=>e.style.display=i===n?'':'none');"
        f"document.getElementById('{key}').value=JSON.parse(this.dataset.names)[n]"
    )
    shown = html.escape(str(values[start]))
    return HTML(
        f'<div class="nf-frames"><label>{html.escape(label)}: <output id="{key}">{shown}</output><br>'
        f'<input type="range" min="0" max="{len(values) - 1}" value="{start}" step="1" data-names="{names}" '
        f'style="width:min(26rem,100%)" oninput="{script}"></label><div>{images}</div></div>'
    )


def _live(draw, values, label: str, start: int):
    import ipywidgets
    import matplotlib.pyplot as plt
    from IPython.display import display

    def show(value):
        figure = draw(value)
        display(figure)
        plt.close(figure)

    slider = ipywidgets.SelectionSlider(
        options=values, value=values[start], description=label, style={"description_width": "initial"}
    )
    return ipywidgets.interactive(show, value=slider)
