"""Speed of the active/passive fund market: 60 months at its default size, and a month of a large one."""

from __future__ import annotations

import statistics
import time
from typing import Any

from benchmarks.timing import human, print_table
from hmgym.simulation import simulate

SIZES: dict[str, dict[str, Any]] = {
    "20 assets, 100 retail, 10 + 5 funds": {"months": 60},
    "50 assets, 500 retail, 20 + 20 funds": {
        "months": 24, "n_assets": 50, "n_retail": 500, "n_active": 20, "n_passive": 20,
    },
}  # fmt: skip
MECHANISMS = ("clearing", "impact")
REPEATS = 5


def run() -> dict[str, dict[str, float]]:
    """Median seconds of a whole run, in the process that made one before, and of a month; also of processor time."""
    report, rows = {}, [("", "run", "a month", "processor, a month")]
    for size, settings in SIZES.items():
        for mechanism in MECHANISMS:
            taken = []
            for seed in range(REPEATS + 1):
                wall, processor = time.perf_counter(), time.process_time()
                simulate("active-passive", seed=seed, price_mechanism=mechanism, **settings)
                taken.append((time.perf_counter() - wall, time.process_time() - processor))
            whole, busy = (statistics.median(column) for column in zip(*taken[1:], strict=True))
            months = settings["months"]
            found = {"seconds": whole, "seconds_a_month": whole / months, "processor_seconds_a_month": busy / months}
            report[f"{size}, {mechanism}"] = found
            rows.append((f"{size}, {mechanism}", *(human(value) for value in found.values())))
    print_table("Fund market", rows)
    return report
