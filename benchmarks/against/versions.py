"""A version of hmgym: the files of a commit, and a process that imports them."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("worker.py")
COPIES = ROOT / "build" / "against"


def files_of(commit: str) -> Path:
    """A folder with the files of a commit, kept for the next time with what was compiled in it.

    Raises:
        ValueError: there is no such commit.
    """
    found = subprocess.run(
        ["git", "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}"], cwd=ROOT, capture_output=True, text=True
    )
    if found.returncode:
        raise ValueError(f"`commit` must name a commit of this repository, got {commit!r}")
    sha = found.stdout.strip()
    folder = COPIES / sha[:12]
    if not folder.exists():
        COPIES.mkdir(parents=True, exist_ok=True)
        archive = subprocess.run(["git", "archive", sha], cwd=ROOT, capture_output=True, check=True).stdout
        with tempfile.TemporaryDirectory(dir=COPIES) as aside:
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                tar.extractall(Path(aside) / "tree", filter="data")
            (Path(aside) / "tree").rename(folder)
    return folder


class Version:
    """A process that imports hmgym from a folder and does what it is told.

    Args:
        folder: where the package lies.
        threads: for torch and for clearing.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(WORKER), str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment,
        )  # fmt: skip
        imported = Path(self.ask("about"))
        if not imported.is_relative_to(folder):
            raise RuntimeError(f"hmgym was imported from {imported}, not from {folder}")

    def ask(self, command: str, **arguments: Any) -> Any:
        """The result of a command of the worker.

        Raises:
            RuntimeError: the command failed, with the worker's traceback, or the process ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": command, **arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of this version ended in {command!r}, status {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["result"]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
