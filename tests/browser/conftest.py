"""A browser on the built site.  Without playwright, a Chromium or a site these tests are skipped, and say so."""

import functools
import http.server
import shutil
import threading

import pytest

from nearfar.chapters import papers

SITE = papers.root() / "_build" / "html"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        return


@pytest.fixture(scope="session")
def address():
    """Where the built site is served."""
    if not (SITE / "index.html").is_file():
        pytest.skip("no site: run `make book` first")
    handler = functools.partial(Quiet, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="session")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs `pip install -e '.[browser]'`")
    program = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
    if program is None:
        pytest.skip("needs a Chromium (Debian: apt install chromium)")
    with playwright.sync_playwright() as engine:
        opened = engine.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def visit(browser, address):
    """visit(path, **options of the context) -> page, with what it fetched, its bytes and its complaints noted."""
    contexts = []

    def go(path, **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.complaints, page.fetched = [], {}
        page.on("console", lambda m: page.complaints.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("requestfinished", lambda request: page.fetched.setdefault(request.url, request))
        page.on("requestfailed", lambda request: page.complaints.append(f"failed: {request.url}"))
        page.goto(f"{address}/{path}", wait_until="networkidle")
        return page

    yield go
    for context in contexts:
        context.close()
