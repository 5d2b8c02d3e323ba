"""Chromium, headless, and a plain file server for the tests of pages."""

from __future__ import annotations

import http.server
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --use-fake-device-for-media-stream --use-fake-ui-for-media-stream"
)


@contextmanager
def launched() -> Iterator[Browser]:
    """Runs the browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield browser
        browser.close()


@contextmanager
def open_page(
    browser: Browser, address: str, seconds: int = 20, refusals: bool = False, **options: Any
) -> Iterator[Page]:
    """Opens our page; at the end, asserts that it requested nothing external and logged no error.

    Args:
        browser: The browser.
        address: Address of the page.
        seconds: Time limit of each wait.
        refusals: Whether the server may refuse uploads, which Chromium logs as errors.
        **options: Options of the browser's context.
    """
    context = browser.new_context(**options)
    page = context.new_page()
    page.set_default_timeout(1000 * seconds)
    asked: list[str] = []
    complaints: list[str] = []
    context.on("request", lambda request: asked.append(request.url))  # of workers too
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    try:
        page.goto(address)
        page.wait_for_selector("#samples img")
        yield page
    finally:
        context.close()
    hosts = {urlsplit(url).netloc for url in asked if not url.startswith("blob:")}
    assert hosts == {urlsplit(address).netloc}
    refused = "the server responded with a status of 4"
    assert [text for text in complaints if not (refusals and refused in text)] == []


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Logs nothing."""


@contextmanager
def file_server(folder: Path) -> Iterator[str]:
    """Serves a folder as `python -m http.server` does, and yields its address, which ends in a slash."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))  # seconds until it sees the shutdown
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
