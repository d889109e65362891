"""Figures with one look in all chapters.  matplotlib is imported when something is drawn, not before."""

from nearfar.plots.curves import bars, histograms, mean_interval, over_knob, scaling_curve, training
from nearfar.plots.images import embedding, image_grid, views_grid
from nearfar.plots.slider import compact_png, frames
from nearfar.plots.theme import COLOURS, MARKERS, colour, theme

__all__ = [
    "COLOURS", "MARKERS", "bars", "colour", "compact_png", "embedding", "frames", "histograms", "image_grid",
    "mean_interval", "over_knob", "scaling_curve", "theme", "training", "views_grid",
]  # fmt: skip
