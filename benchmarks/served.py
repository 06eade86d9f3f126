"""The page and a notebook that shows it, each from a server of its own that ends with the block."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PATIENCE = 600.0  # seconds, for kernels that are compiled and for machines with other work
CELL = """from hmgym.dashboard import Dashboard

Dashboard()"""


@contextlib.contextmanager
def running(command: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A Python process that imports hmgym from here, ended with the block; options as of `subprocess.Popen`."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, **options.pop("env", {})}
    with subprocess.Popen([sys.executable, *command], text=True, env=environment, **options) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=60.0)
            except subprocess.TimeoutExpired:
                process.kill()


@contextlib.contextmanager
def page_server() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`hmgym dashboard` on a free port: its address, and its process, whose output can be read on.

    Raises:
        RuntimeError: it did not say its address.
    """
    serve = ["-m", "hmgym.cli", "dashboard", "--port", "0"]
    with running(serve, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("Serving http://localhost:"):
            raise RuntimeError(line + process.stdout.read())
        yield line.split()[1], process


@contextlib.contextmanager
def notebook_server(folder: Path) -> Iterator[str]:
    """JupyterLab on a free port, with a notebook that shows the page: the notebook's address.

    Args:
        folder: an empty one, for the notebook, the server's files and its log.

    Raises:
        RuntimeError: the server ended, or did not answer in time; has its log.
    """
    work, settings = folder / "work", folder / "JUPYTER_CONFIG_DIR" / "labconfig"
    work.mkdir()
    settings.mkdir(parents=True)
    cell = {"cell_type": "code", "id": "page", "execution_count": None, "metadata": {}, "outputs": [], "source": CELL}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = {"cells": [cell], "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    (work / "page.ipynb").write_text(json.dumps(notebook))
    # Nobody's settings, no password, and no plugin that asks another host for news and updates.
    places = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
    environment = {name: str(folder / name) for name in places}
    unwanted = {"@jupyterlab/apputils-extension:announcements": True}
    (settings / "page_config.json").write_text(json.dumps({"disabledExtensions": unwanted}))
    serve = [
        "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0", "--IdentityProvider.token=",
        f"--ServerApp.root_dir={work}", "--LabApp.expose_app_in_browser=True",
    ]  # fmt: skip
    log = folder / "log"
    with log.open("w") as file, running(serve, env=environment, stdout=file, stderr=subprocess.STDOUT) as process:
        until = time.monotonic() + PATIENCE
        while not (address := _written_address(folder / "JUPYTER_RUNTIME_DIR")):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(log.read_text())
            time.sleep(0.2)
        yield f"{address}lab/tree/page.ipynb"


def _written_address(folder: Path) -> str:
    """What a notebook server writes down once it answers, "" before."""
    for file in folder.glob("jpserver-*.json"):
        if (text := file.read_text()).endswith("}"):
            return str(json.loads(text)["url"])
    return ""


def run_cells(page: Any) -> None:
    """Run the cells of the notebook that a browser's page shows, once it is connected to its kernel."""
    session = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session"
    page.wait_for_function(f"{session}?.kernel?.connectionStatus === 'connected'")
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")
