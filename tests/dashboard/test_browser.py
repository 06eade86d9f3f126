"""The page and the notebook in a browser without a window: a slider moves, the button is clicked, the picture changes.

Any Chromium that is installed will do; without one, or without playwright, these tests are skipped. The notebook is
shown by JupyterLab; without it, its test is skipped.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from benchmarks.served import PATIENCE, notebook_server, page_server, run_cells

pytest.importorskip("panel", reason="Panel is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MILLISECONDS = PATIENCE * 1000
CLICK_AGAIN = 10.0  # seconds without an answer

pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed (make browser)"),
    pytest.mark.timeout(2400),
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    playwright.expect.set_options(timeout=MILLISECONDS)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """A visit of an address, with everything that was asked for."""

    def __init__(self, chromium: Any, address: str) -> None:
        self.page = chromium.new_page(viewport={"width": 1400, "height": 1200})
        self.page.set_default_timeout(MILLISECONDS)
        self.asked: list[str] = []
        self.broken: list[str] = []
        self.said: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("websocket", lambda socket: self.asked.append(socket.url))
        self.page.on("pageerror", lambda error: self.broken.append(str(error)))
        self.page.on("console", lambda line: self.said.append(line.text))
        self.page.goto(address)

    @property
    def button(self) -> Any:
        return self.page.get_by_role("button", name="Run", exact=True)

    @property
    def image(self) -> Any:
        return self.page.get_by_alt_text("Panels of the last run")

    def picture(self) -> str:
        source = self.image.get_attribute("src")
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
        if seen is not None:
            playwright.expect(self.image).not_to_have_attribute("src", seen)
        self.image.wait_for()
        playwright.expect(self.button).to_be_enabled()
        return self.picture()

    def run_first(self) -> str:
        """Click the button until there is a picture: a notebook's first click may come before its kernel listens."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if self.button.count():  # it has another name while a system runs
                self.button.click()
            again = time.monotonic() + CLICK_AGAIN
            while time.monotonic() < again:
                if self.image.count():
                    playwright.expect(self.button).to_be_enabled()
                    return self.picture()
                self.page.wait_for_timeout(100)
        running = self.page.get_by_role("button", name="Running").count()
        raise AssertionError(
            f"no picture came; {'a run has begun' if running else 'no click was answered'}; {self.said}"
        )

    def hosts(self) -> set[str | None]:
        return {urlsplit(address.removeprefix("blob:")).hostname for address in self.asked}


def play(visit: Visit, first: str) -> None:
    """What a visitor does after the first run; the page's first tab is the fund market."""
    page = visit.page
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
    page.get_by_role("alert").filter(has_text="`n_active` must be >= 1").wait_for()
    assert visit.image.count() == 0
    assert visit.broken == []
    assert visit.hosts() <= {"localhost", None}, visit.asked


def test_the_page(chromium: Any) -> None:
    with page_server() as (address, process):
        visit = Visit(chromium, address)
        play(visit, visit.run())
        visit.page.get_by_text("Default market").click()
        visit.run()
        assert visit.hosts() <= {"localhost", None}, visit.asked
        process.terminate()
        assert process.stdout is not None
        assert process.stdout.read() == ""  # no warning, no traceback
        assert process.wait(timeout=PATIENCE) == 0


@pytest.mark.skipif(
    find_spec("jupyterlab") is None or find_spec("ipykernel") is None,
    reason="JupyterLab is not installed (pip install jupyterlab ipykernel)",
)
def test_the_notebook(chromium: Any, tmp_path: Path) -> None:
    with notebook_server(tmp_path) as address:
        visit = Visit(chromium, address)
        run_cells(visit.page)
        visit.button.wait_for()
        play(visit, visit.run_first())
