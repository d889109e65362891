"""Figures: one look, honest intervals, a slider that works without a kernel."""

import io
import json
import math
import re

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas
import pytest
import torch
from PIL import Image

from nearfar import plots


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def rows(seeds=3):
    return pandas.DataFrame(
        [
            {"metric": "m", "method": method, "size": n, "seed": s, "value": base + n / 1000 + s / 100}
            for method, base in (("ours", 0.5), ("theirs", 0.4))
            for n in (100, 1000)
            for s in range(seeds)
        ]
    )


def test_mean_interval_is_students():
    mean, half = plots.mean_interval([1.0, 2.0, 3.0])
    assert mean == pytest.approx(2) and half == pytest.approx(4.302652729911275 / math.sqrt(3))
    assert math.isnan(plots.mean_interval([1.0])[1])


def test_scaling_curve_draws_means_and_names_the_interval():
    ax = plots.scaling_curve(rows(), "m", {"ours": "method", "theirs": "baseline"})
    lines = {line.get_label(): line for line in ax.get_lines()}
    assert lines["ours"].get_ydata().tolist() == pytest.approx([0.61, 1.51])
    assert lines["ours"].get_color() == plots.colour("method") != lines["theirs"].get_color()
    assert "95 % t interval over 3 seeds" in ax.get_xlabel() and ax.get_xscale() == "log"
    assert "one seed" in plots.scaling_curve(rows(1), "m", {"ours": "method"}).get_xlabel()


def test_scaling_curve_and_colour_name_what_is_missing():
    with pytest.raises(ValueError, match="no 'm' of 'others'"):
        plots.scaling_curve(rows(), "m", {"others": "method"})
    with pytest.raises(ValueError, match="role must be one of"):
        plots.colour("winner")


def test_views_grid_and_embedding():
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    figure = plots.views_grid([images, images[:2].float() / 255], labels=["one", "two"], columns=list("abcd"))
    assert len(figure.axes) == 8
    z, labels = torch.randn(30, 5), torch.arange(30) % 3
    ax = plots.embedding(z, labels, classes=["x", "y", "w"])
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["x", "y", "w"]


def test_static_frames_hold_one_image_per_value(monkeypatch):
    monkeypatch.setenv("NEARFAR_STATIC", "1")

    def draw(value):
        figure, ax = plt.subplots(figsize=(1, 1))
        ax.plot([0, value])
        return figure

    page = plots.frames(draw, [0.1, 1, "<b>"], label="ε & more", alt="a line", start=1).data
    assert page.count("<img") == 3 and page.count("display:none") == 2
    assert 'max="2" value="1"' in page and "&lt;b&gt;" in page and "<b>" not in page
    names = (
        re.search(r'data-names="([^"]*)"', page)
        .group(1)
        .replace("&quot;", '"')
        .replace("&lt;", "<")
        .replace("&gt;", ">")
    )
    assert json.loads(names) == ["0.1", "1", "<b>"]
    with pytest.raises(ValueError, match="position of a frame"):
        plots.frames(draw, [1], label="x", alt="y", start=3)


def test_live_frames_are_a_widget(monkeypatch):
    monkeypatch.delenv("NEARFAR_STATIC", raising=False)
    widget = plots.frames(lambda value: plt.figure(), [1, 2, 3], label="n", alt="nothing", start=2)
    assert widget.children[0].value == 3


def test_a_compact_png_is_smaller_and_looks_the_same():
    figure, ax = plt.subplots()
    ax.imshow(np.random.default_rng(0).random((40, 40)))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    small = plots.compact_png(buffer.getvalue())
    assert len(small) < 0.7 * len(buffer.getvalue())
    before, after = (
        np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), float) for png in (buffer.getvalue(), small)
    )
    assert before.shape == after.shape and np.abs(before - after).mean() < 3
    assert plots.compact_png(small) == small or len(plots.compact_png(small)) < len(small)


def test_training_curves_are_smoothed_and_named():
    histories = {"ours": {"loss": [4.0, 2.0, 0.0]}, "theirs": {"loss": [1.0, 1.0, 1.0]}}
    ax = plots.training(histories, "loss", {"ours": "method", "theirs": "baseline"}, window=2)
    ours, theirs = ax.get_lines()
    assert ours.get_ydata().tolist() == [3.0, 1.0] and ours.get_xdata().tolist() == [2, 3]
    assert ours.get_color() == plots.colour("method") and "running mean over 2" in ax.get_xlabel()
    with pytest.raises(ValueError, match="history of 'ours' has no 'accuracy'; it has loss"):
        plots.training(histories, "accuracy", {"ours": "method"})


def test_bars_show_the_mean_and_every_seed():
    ax = plots.bars(rows(), "m", {"ours": "method", "theirs": "baseline"}, size=100)
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([0.61, 0.51])
    assert ax.get_lines()[0].get_xdata().tolist() == pytest.approx([0.6, 0.61, 0.62])
    assert plots.bars(rows(1), "m", {"ours": "method"}).get_xlabel() == "m (n = 1,000)"
    with pytest.raises(ValueError, match="no 'm' of 'others'"):
        plots.bars(rows(), "m", {"others": "method"})
    with pytest.raises(ValueError, match="at size 7"):
        plots.bars(rows(), "m", {"ours": "method"}, size=7)


def test_histograms_share_their_bins():
    ax = plots.histograms({"a": [0.0, 1.0], "b": torch.tensor([0.5, 2.0])}, {"a": "method", "b": "baseline"}, bins=4)
    heights = [patch.get_height() for patch in ax.patches]
    assert heights == pytest.approx([0.5, 0, 0.5, 0, 0, 0.5, 0, 0.5])
    assert plots.histograms({"a": [1.0]}, {"a": "method"}).patches[0].get_height() == 1


def test_lines_over_a_knob_have_a_tick_for_each_value():
    ax = plots.over_knob([0.1, 1, 10], {"a": [1, 2, 3]}, {"a": "method"}, xlabel="ε", log=True)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0.1", "1", "10"] and ax.get_xscale() == "log"


def test_image_grid_writes_a_value_under_each_image():
    figure = plots.image_grid(torch.rand(3, 1, 4, 4), [0.123, "cat", 2.0], columns=2)
    assert len(figure.axes) == 4
    assert [ax.get_title() for ax in figure.axes] == ["0.12", "cat", "2.00", ""]
    with pytest.raises(ValueError, match="one entry per image"):
        plots.image_grid(torch.rand(3, 1, 4, 4), [1.0])
