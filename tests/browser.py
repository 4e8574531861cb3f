"""A headless Chromium for tests, where there is one."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextlib.contextmanager
def open_page(file: Path, width: int = 1400, dark: bool = False) -> Iterator[tuple]:
    """Open a file without a network; yield the page, and what its console says."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = next(filter(None, map(shutil.which, NAMES)), None)
    with playwright.sync_playwright() as found:
        if chromium is None and not Path(found.chromium.executable_path).exists():
            pytest.skip("there is no Chromium (apt install chromium)")
        browser = found.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        try:
            context = browser.new_context(
                viewport=dict(width=width, height=900),
                color_scheme="dark" if dark else "light",
                offline=True,
            )
            page, said = context.new_page(), []
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.on("requestfailed", lambda request: said.append(request.url))
            page.goto(file.resolve().as_uri())
            page.wait_for_function(
                "Bokeh.documents.length > 0 && "
                "Bokeh.documents.every(document => document.is_idle)",
                timeout=60_000,
            )
            yield page, said
        finally:
            browser.close()
