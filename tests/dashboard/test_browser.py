"""The page and the notebook in a browser without a window: a slider moves, the button is clicked, the picture changes.

Any Chromium that is installed will do; without one, or without playwright, these tests are skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
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
CELL = """from hmgym.dashboard import Dashboard

Dashboard()"""

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

    def wait_until_connected(self) -> None:
        """A notebook shows the page before it is connected to the kernel: click until a click is answered."""
        self.button.wait_for()
        answer = self.page.get_by_role("button", name="Running").or_(
            self.page.get_by_alt_text("Panels of the last run")
        )
        for _ in range(PATIENCE // 2000):
            try:
                self.button.click(timeout=2000)
                answer.first.wait_for(timeout=2000)
            except playwright.TimeoutError:
                if self.button.count():
                    continue
            return

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


def test_the_notebook(chromium: Any, tmp_path: Path) -> None:
    pytest.importorskip("jupyterlab", reason="JupyterLab is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    nbformat = pytest.importorskip("nbformat")
    (tmp_path / "work").mkdir()
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)], metadata={"kernelspec": kernel})
    nbformat.write(notebook, tmp_path / "work" / "page.ipynb")
    places = (
        "HOME", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR",
        "JUPYTERLAB_WORKSPACES_DIR",
    )  # fmt: skip
    serve = [
        "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0", "--IdentityProvider.token=",
        f"--ServerApp.root_dir={tmp_path / 'work'}",
    ]  # fmt: skip
    log = (tmp_path / "log").open("w")
    with log, running(
        serve, env={name: str(tmp_path / name) for name in places}, stdout=log, stderr=subprocess.STDOUT
    ) as process:  # fmt: skip
        visit = Visit(chromium, f"{notebook_server(process, tmp_path)}lab/tree/page.ipynb")
        visit.page.get_by_text("| Idle").wait_for()
        visit.page.locator(".jp-Notebook .jp-Cell").first.click()
        visit.page.keyboard.press("Shift+Enter")
        visit.wait_until_connected()
        playwright.expect(visit.button).to_be_enabled(timeout=PATIENCE)
        play(visit)


def notebook_server(process: subprocess.Popen[str], folder: Path) -> str:
    """The address of a notebook server, once it has one."""
    until = time.monotonic() + PATIENCE / 1000
    while time.monotonic() < until and process.poll() is None:
        for file in (folder / "JUPYTER_RUNTIME_DIR").glob("jpserver-*.json"):
            text = file.read_text()
            if text.endswith("}"):
                return str(json.loads(text)["url"])
        time.sleep(0.2)
    raise AssertionError((folder / "log").read_text())
