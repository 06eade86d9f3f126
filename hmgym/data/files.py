"""Text files, plain or gzipped, whose failures name the file."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TextIO

FilePath = str | os.PathLike[str]


def open_text(path: Path, mode: Literal["rt", "wt"]) -> TextIO:
    """A text file in UTF-8 with its line ends as they are; gzipped where the name ends in ``.gz``."""
    if path.suffix == ".gz":
        return gzip.open(path, mode, encoding="utf-8", newline="")
    return open(path, mode, encoding="utf-8", newline="")


def read_lines(path: Path, kind: str) -> Iterator[str]:
    """The lines of a file, each with its end.

    Raises:
        ValueError: it cannot be read; names the file and the kind that was expected.
    """
    try:
        with open_text(path, "rt") as file:
            yield from file
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise ValueError(f"{path}: cannot be read as {kind}: {error}") from error
