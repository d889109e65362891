"""One zip for a classroom without a network: the built site, and the checkout that its notebooks run in."""

import io
import os
import subprocess
import zipfile
from html.parser import HTMLParser
from pathlib import Path

from nearfar.chapters import papers
from nearfar.errors import NearFarError
from nearfar.runs.run import write_bytes_atomically

TARGET = Path("_build") / "near-and-far-offline.zip"
_FIRST = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Near &amp; Far</title>
<meta http-equiv="refresh" content="0; url=site/index.html"></head>
<body><a href="site/index.html">Near &amp; Far</a></body></html>
"""
_README = """Near & Far, for reading and running without a network.

Read: open index.html in a browser.
Run: the folder `checkout` is the book's repository. Where its packages are installed (`pip install -e checkout`,
once, with a network), `nearfar run swav` and every notebook in `checkout/notebooks` run at the smoke tier without
any download: their data are drawn, or come with scikit-learn.
"""


class _Fetched(HTMLParser):
    """Addresses on other hosts that a browser would fetch to show a page; links to follow are none of them."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        given = dict(attributes)
        address = given.get("src") or (given.get("href") if tag == "link" else None) or ""
        shown = tag != "link" or given.get("rel") not in ("canonical", "author", "license")
        if shown and (address.startswith("//") or "://" in address.split("?")[0]):
            self.found.append(address)


def fetched(text: str) -> list[str]:
    """What the HTML in `text` makes a browser fetch from other hosts."""
    return _Fetched(text).found


def pack(target: Path | None = None) -> Path:
    """Writes the zip, all of it or nothing, and returns its path.

    Raises `NearFarError` when the site is not built, a page needs another host, or the checkout is no git clone.
    """
    folder = papers.root()
    site, target = folder / "_build" / "html", target or folder / TARGET
    if not (folder / "_build" / ".site").is_file() or not (site / "index.html").is_file():
        raise NearFarError("there is no complete site yet; run `make book` first.")
    pages = sorted(path for path in site.rglob("*") if path.is_file())
    for page in pages:
        if page.suffix == ".html" and (needed := fetched(page.read_text(encoding="utf-8"))):
            raise NearFarError(f"{page.relative_to(folder)} needs {needed[0]}; keep a copy in book/_static instead.")
    command = ["git", "-C", str(folder), "ls-files", "-z"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as problem:
        raise NearFarError(
            f"{folder} is no git clone, so what belongs to the book is not known; clone it."
        ) from problem
    names = sorted(filter(None, os.fsdecode(listed).split("\0")))
    kept = [folder / name for name in names if (folder / name).is_file()]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("near-and-far/README.txt", _README)
        archive.writestr("near-and-far/index.html", _FIRST)
        for path in pages:
            archive.write(path, f"near-and-far/site/{path.relative_to(site).as_posix()}")
        for path in kept:
            archive.write(path, f"near-and-far/checkout/{path.relative_to(folder).as_posix()}")
    write_bytes_atomically(target, buffer.getvalue())
    return target
