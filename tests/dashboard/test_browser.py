"""The page in a browser without a window: a slider moves, the button is clicked, the picture changes.

Any Chromium that is installed will do; without one, or without playwright, these tests are skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("panel", reason="Panel is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

ROOT = Path(__file__).parents[2]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 100_000  # milliseconds, for kernels that are compiled and for machines with other work

pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed (apt-get install chromium)"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """A visit of an address, with everything that was asked for."""

    def __init__(self, chromium: Any, address: str) -> None:
        self.page = chromium.new_page(viewport={"width": 1400, "height": 1200})
        self.page.set_default_timeout(PATIENCE)
        self.asked: list[str] = []
        self.broken: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("websocket", lambda socket: self.asked.append(socket.url))
        self.page.on("pageerror", lambda error: self.broken.append(str(error)))
        self.page.goto(address)

    @property
    def button(self) -> Any:
        return self.page.get_by_role("button", name="Run", exact=True)

    def picture(self) -> str:
        source = self.page.get_by_alt_text("Panels of the last run").get_attribute("src")
        assert isinstance(source, str)
        return source

    def move(self, label: str, key: str, value: str) -> None:
        """Press a key on a slider, and see what it shows then."""
        slider = self.page.locator(".bk-input-group", has=self.page.get_by_text(label, exact=False)).first
        slider.locator(".noUi-handle").press(key)
        playwright.expect(slider).to_contain_text(value)

    def run(self, seen: str | None = None) -> str:
        """Click the button and wait for another picture than the one seen."""
        self.button.click()
        image = self.page.get_by_alt_text("Panels of the last run")
        if seen is not None:
            playwright.expect(image).not_to_have_attribute("src", seen, timeout=PATIENCE)
        image.wait_for()
        playwright.expect(self.button).to_be_enabled(timeout=PATIENCE)
        return self.picture()

    def hosts(self) -> set[str | None]:
        return {urlsplit(address.removeprefix("blob:")).hostname for address in self.asked}


def play(visit: Visit) -> None:
    """What a visitor does; the page's first tab is the fund market."""
    page = visit.page
    visit.button.wait_for()
    first = visit.run()
    assert first.startswith("data:image/png;base64,")
    rows = page.get_by_role("row")
    playwright.expect(rows.filter(has_text="months").first).to_contain_text("60")
    visit.move("Months: ", "ArrowLeft", "48")
    visit.move("Active fee: ", "ArrowRight", "1.55%")
    second = visit.run(seen=first)
    assert second != first
    playwright.expect(rows.filter(has_text="months").first).to_contain_text("48")
    playwright.expect(page.get_by_text("months=48, n_assets=20")).to_contain_text("active_fee=0.0155")
    for label in ("Active managers: ", "Index funds: "):
        visit.move(label, "Home", "0")
    visit.button.dblclick()
    playwright.expect(page.get_by_role("alert")).to_contain_text("`n_active` must be >= 1", timeout=PATIENCE)
    assert page.get_by_alt_text("Panels of the last run").count() == 0
    assert visit.broken == []
    assert visit.hosts() <= {"localhost", None}, visit.asked


@contextmanager
def running(command: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, **options.pop("env", {})}
    with subprocess.Popen([sys.executable, *command], text=True, env=environment, **options) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=30.0)
            except subprocess.TimeoutExpired:
                process.kill()


def test_the_page(chromium: Any) -> None:
    serve = ["-m", "hmgym.cli", "dashboard", "--port", "0"]
    with running(serve, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("Serving http://localhost:"), line
        visit = Visit(chromium, line.split()[1])
        play(visit)
        visit.page.get_by_text("Default market").click()
        visit.run()
        assert visit.hosts() <= {"localhost", None}, visit.asked
        process.terminate()
        assert process.stdout.read().count("\n") == 1  # that it ends; no warning, no traceback
