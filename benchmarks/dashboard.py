"""A picture of the page in a browser, and the seconds from click to picture.

Runs `hmgym dashboard` and an installed Chromium (Debian: apt-get install chromium) through playwright.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

SIZE = {"width": 1280, "height": 900}


def measure(tab: str, runs: int, picture: Path | None, browser: str) -> list[float]:
    """Seconds from click to picture of each run, the first of the page among them."""
    command = [sys.executable, "-m", "hmgym.cli", "dashboard", "--port", "0"]
    seconds = []
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server,
        contextlib.ExitStack() as ending,
        sync_playwright() as driver,
    ):
        ending.callback(server.terminate)
        assert server.stdout is not None
        address = server.stdout.readline().split()[1]
        chromium = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport=SIZE)
        page.set_default_timeout(120_000)
        page.goto(address)
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
            if seen is not None:
                expect(image).not_to_have_attribute("src", seen, timeout=120_000)
            image.wait_for()
            seconds.append(time.perf_counter() - begin)
            expect(button).to_be_enabled()
            seen = image.get_attribute("src")
        if picture is not None:
            page.screenshot(path=picture, full_page=True)
        chromium.close()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--tab", default="Active and passive funds", help="title of the tab")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--picture", type=Path, help="file of the picture, PNG")
    arguments = parser.parse_args()
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        parser.exit(2, "benchmarks.dashboard: error: no Chromium is installed\n")
    seconds = measure(arguments.tab, arguments.runs, arguments.picture, browser)
    print(json.dumps({"first": seconds[0], "median of the others": statistics.median(seconds[1:] or seconds)}))


if __name__ == "__main__":
    main()
