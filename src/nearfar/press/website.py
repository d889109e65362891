"""Our part of the Sphinx build: an extension in `_config.yml`; `python -m nearfar.press.website` runs it all."""

import functools
import hashlib
import html
import re
import sys
import textwrap
from pathlib import Path

import pybtex.plugin

from nearfar.chapters import papers

LONGEST = 200  # characters of a description; search engines show about 160
# Come with Jupyter Book and keep nothing per page that pages written in parallel could lose, but do not declare so:
UNDECLARED = ("sphinx_multitoc_numbering", "sphinx_jupyterbook_latex")


def version() -> str:
    """Changes when this file does; the whole site is then written anew."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


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
