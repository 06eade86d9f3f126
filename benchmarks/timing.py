"""Medians of interleaved runs: what is compared is measured in one go, so that a noisy machine is noisy for all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def seconds(calls: Mapping[str, Callable[[], object]], repeats: int = 7, least: float = 0.05) -> dict[str, float]:
    """Median seconds of one call of each, measured in turns; calls shorter than ``least`` are repeated to reach it."""
    loops = {}
    for name, call in calls.items():
        call()
        start = time.perf_counter()
        call()
        loops[name] = max(1, round(least / max(time.perf_counter() - start, 1e-9)))
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(loops[name]):
                call()
            taken[name].append((time.perf_counter() - start) / loops[name])
    return {name: statistics.median(values) for name, values in taken.items()}


def print_table(title: str, rows: list[tuple[str, ...]]) -> None:
    """A left-aligned first column, right-aligned others; the first row is the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    print(f"\n{title}")
    for row in rows:
        cells = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        print("  " + "  ".join(cells))


def human(duration: float) -> str:
    """Seconds in the unit that shows three digits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if duration >= size:
            return f"{duration / size:.3g} {unit}"
    return f"{duration / 1e-6:.3g} us"
