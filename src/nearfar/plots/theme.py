"""One look in all chapters: colour-blind safe, the same colours for method and baseline everywhere."""

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
