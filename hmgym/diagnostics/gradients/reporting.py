"""What the diagnostics share besides rollouts: progress bars and tables."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

_T = TypeVar("_T")


def counted(items: Sequence[_T], label: str) -> Iterator[_T]:
    """The items, with a progress bar where tqdm is installed and somebody looks."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield from items
        return
    yield from tqdm(items, desc=label, file=sys.stderr, leave=False)


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as text, the first column to the left and the others to the right."""
    widths = [max(len(str(row[column])) for row in [header, *rows]) for column in range(len(header))]
    lines = []
    for row in [header, *rows]:
        cells = [str(cell).rjust(width) for cell, width in zip(row, widths, strict=True)]
        cells[0] = str(row[0]).ljust(widths[0])
        lines.append("  ".join(cells))
    return "\n".join(lines)


def quantiles(values: Any) -> dict[str, float]:
    """Median, 95 % quantile and largest of finite numbers; NaN where there are none."""
    array = np.asarray(values, np.float64)
    array = array if array.size else np.full(1, np.nan)
    return {
        "median": float(np.median(array)), "q95": float(np.quantile(array, 0.95)), "worst": float(array.max()),
    }  # fmt: skip


def share(flags: Any) -> float:
    """Share of entries that are true, 0 of none."""
    array = np.asarray(flags)
    return float(array.sum() / max(array.size, 1))


def write_json(results: Any, path: Path) -> None:
    """Write results; numbers that are not finite become null."""
    path.write_text(json.dumps(_finite(results), indent=1) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Results as they were written, null as NaN."""
    return _numbers(json.loads(path.read_text(encoding="utf-8")))


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return math.nan if value is None else value


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def title(env_id: str) -> str:
    """An environment's name without namespace and version."""
    return env_id.removeprefix("hmgym/").removesuffix("-v0")
