"""A picture of the page in a browser, and the seconds from click to picture.

Runs `hmgym dashboard`, or JupyterLab with a notebook, and an installed Chromium (`make browser`) through playwright.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from benchmarks.served import PATIENCE, notebook_server, page_server, run_cells

SIZE = {"width": 1280, "height": 900}
NOTEBOOK_SIZE = {"width": 1280, "height": 1500}  # a notebook scrolls in the window; its cell and the panels fit
COLOURS = 256  # of the picture: enough for lines and text, and a third of the bytes


def measure(tab: str, runs: int, picture: Path | None, browser: str, *, notebook: bool = False) -> list[float]:
    """Seconds from click to picture of each run, the first of the page among them."""
    seconds = []
    with contextlib.ExitStack() as ending:
        if notebook:
            address = ending.enter_context(notebook_server(Path(ending.enter_context(tempfile.TemporaryDirectory()))))
        else:
            address, _ = ending.enter_context(page_server())
        driver = ending.enter_context(sync_playwright())
        chromium = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport=NOTEBOOK_SIZE if notebook else SIZE)
        page.set_default_timeout(PATIENCE * 1000)
        page.goto(address)
        if notebook:
            run_cells(page)
            page.evaluate("() => { window.jupyterapp.commands.execute('application:toggle-left-area') }")
        page.get_by_text(tab).click()
        button, image = (
            page.get_by_role("button", name="Run", exact=True),
            page.get_by_alt_text("Panels of the last run"),
        )
        button.wait_for()
        box = page.get_by_label("Seed", exact=True).locator("visible=true")
        seen = None
        for seed in range(runs):
            box.fill(str(seed))
            box.press("Enter")
            begin = time.perf_counter()
            button.click()
            image.wait_for()
            # Looked at without a pause: `expect` looks ever less often, up to a second apart.
            while image.get_attribute("src") == seen and time.perf_counter() - begin < PATIENCE:
                pass
            seconds.append(time.perf_counter() - begin)
            expect(button).to_be_enabled(timeout=PATIENCE * 1000)
            seen = image.get_attribute("src")
        if picture is not None:
            page.screenshot(path=picture, full_page=True)
            shrink(picture)
        chromium.close()
    return seconds


def shrink(picture: Path) -> None:
    """Write a picture anew in fewer colours."""
    from PIL import Image

    with Image.open(picture) as image:
        image.quantize(COLOURS).save(picture, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--tab", default="Active and passive funds", help="title of the tab")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--notebook", action="store_true", help="in a notebook that JupyterLab shows")
    parser.add_argument("--picture", type=Path, help="file of the picture, PNG")
    arguments = parser.parse_args()
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        parser.exit(2, "benchmarks.dashboard: error: no Chromium is installed\n")
    seconds = measure(arguments.tab, arguments.runs, arguments.picture, browser, notebook=arguments.notebook)
    print(json.dumps({"first": seconds[0], "median of the others": statistics.median(seconds[1:] or seconds)}))


if __name__ == "__main__":
    main()
