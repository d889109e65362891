"""A figure with a slider, and PNGs that are not larger than they need be."""

import base64
import html
import io
import json
import os
import uuid


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
