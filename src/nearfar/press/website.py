"""Our part of the Sphinx build: an extension in `_config.yml`; `python -m nearfar.press.website` runs it all."""

import base64
import functools
import hashlib
import html
import re
import struct
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pybtex.plugin

from nearfar.chapters import papers

LONGEST = 200  # characters of a description; search engines show about 160
# Come with Jupyter Book and keep nothing per page that pages written in parallel could lose, but do not declare so:
UNDECLARED = ("sphinx_multitoc_numbering", "sphinx_jupyterbook_latex")


LARGE = 760  # pixels: wider figures have several panels, and a phone shows them in a box that scrolls
LEAST = 0.6  # of the size at which they were drawn: letters of 16 pixels stay at nearly ten


def version() -> str:
    """Changes when this file does, or a style or script; all pages are then written anew.

    Sphinx alone would leave a changed style lying when no page changed, and pages name its checksum.
    """
    own = sorted(path for kind in ("css", "js") for path in (papers.root() / "book" / "_static").glob(f"*.{kind}"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in (Path(__file__), *own))).hexdigest()


def width(picture: bytes) -> int:
    """Pixels of a PNG or an SVG; 0 where it cannot be told."""
    if picture.startswith(b"\x89PNG\r\n\x1a\n"):
        return struct.unpack(">I", picture[16:20])[0]
    found = re.search(rb'<svg[^>]*?\swidth="([\d.]+)(pt|px)?"', picture)
    return round(float(found[1]) * (4 / 3 if found[2] == b"pt" else 1)) if found else 0


def boxed(body: str, read: Callable[[str], bytes]) -> str:
    """HTML of a page with each wide figure in a box of its own, which says how wide it must be to be read.

    Pictures of cards, of which a page may have one for each chapter, are fetched when they come near.
    read: the bytes of the picture at an address, nothing for one that is not of this book.
    """

    def box(tag: re.Match) -> str:
        address = html.unescape(re.search(r'\ssrc="([^"]*)"', tag[0])[1])
        embedded = re.match(r"data:image/\w+;base64,", address)
        # the head of a picture says how wide it is
        picture = base64.b64decode(address[embedded.end() :][:400]) if embedded else read(address)
        if (pixels := width(picture)) <= LARGE:
            return tag[0]
        return f'<span class="nf-box" style="--nf-least: {LEAST * pixels:.0f}px">{tag[0]}</span>'

    body = re.sub(r"<img (?=[^>]*\bsd-card-img-top\b)", '<img loading="lazy" ', body)
    return re.sub(r'<img\s(?:[^>]*\s)?src="[^"]*"[^>]*>', box, body)


def _box_figures(app, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Wide figures of a page; pictures are read where they come from, since copies are made only at the end."""
    sources = {name: path for path, name in app.builder.images.items()}

    def read(address: str) -> bytes:
        path = Path(app.srcdir) / sources.get(address.rpartition("/")[2], "")
        if "/_images/" not in f"/{address}" or not path.is_file():
            return b""
        with path.open("rb") as picture:
            return picture.read(2048)  # its head says how wide it is

    if "body" in context:
        context["body"] = boxed(context["body"], read)


def description(paragraphs: list[str]) -> str:
    """What a page is about, for its head: what follows **In one sentence.**, else its first real paragraph."""
    told = (text.removeprefix("In one sentence.") for text in paragraphs if text.startswith("In one sentence."))
    first = (text for text in paragraphs if len(text) > 40)
    return textwrap.shorten(next(told, None) or next(first, ""), LONGEST, placeholder=" …")


def head(title: str, about: str, kind: str) -> str:
    """Tags for search engines and for previews of links (Open Graph)."""
    facts = {"og:title": title, "og:type": kind, "og:site_name": "Near & Far", "og:description": about}
    tags = [f'<meta property="{name}" content="{html.escape(text)}"/>' for name, text in facts.items() if text]
    return "\n".join([f'<meta name="description" content="{html.escape(about)}"/>', *tags, ""])


def _add_head(app, pagename: str, templatename: str, context: dict, doctree) -> None:
    from docutils import nodes

    title = html.unescape(re.sub(r"<[^>]+>", "", context.get("title", "")))
    given = re.search(r'content="([^"]*)" name="description"', context.get("metatags", ""))
    if given:
        about = html.unescape(given[1])
        context["metatags"] = re.sub(r'<meta [^>]*name="description"[^>]*>', "", context["metatags"])
    else:
        texts = [" ".join(node.astext().split()) for node in doctree.findall(nodes.paragraph)] if doctree else []
        about = description(texts) or f"{title}: a page of Near & Far."
    kind = "article" if pagename.startswith("notebooks/") else "website"
    context["metatags"] = context.get("metatags", "") + head(title or "Near & Far", about, kind)


def _allow_parallel(app) -> None:
    for name in UNDECLARED:
        if name in app.extensions:
            app.extensions[name].parallel_read_safe = True


def setup(app) -> dict:
    """What Sphinx calls."""
    # At each citation pybtex looks through all installed packages for the same plug-in: 6 % of a cold build.
    pybtex.plugin.find_plugin = functools.cache(pybtex.plugin.find_plugin)
    app.add_config_value("nearfar_website", version(), "html")
    app.connect("builder-inited", _allow_parallel)
    app.connect("html-page-context", _add_head)
    app.connect("html-page-context", _box_figures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def build(site: Path, output: Path, jobs: int) -> int:
    """Jupyter Book on the sources in `site`; a warning is an error.  Returns Sphinx's status, 0 for a clean build."""
    from jupyter_book.sphinx import build_sphinx  # its command line has no option for the number of processes

    return build_sphinx(
        site, output, noconfig=True, path_config=site / "_config.yml",
        confoverrides={"external_toc_path": str(site / "_toc.yml"), "latex_individualpages": False, "nitpicky": True},
        doctreedir=papers.root() / "_build" / ".doctrees", warningiserror=True, keep_going=True, quiet=True, jobs=jobs,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(bool(build(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))))
