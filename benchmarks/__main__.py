"""``python -m benchmarks``: every table of speed, and ``benchmarks/results/bench.json``."""

from __future__ import annotations

import argparse
import json
import platform
from importlib import import_module
from pathlib import Path

import numba
import numpy as np
import torch

PARTS = ("clearing", "price_beliefs", "environments", "frames", "funds")


def main() -> None:
    """Run the parts and write the figures; parts that are not run keep the figures of the last run."""
    parser = argparse.ArgumentParser(description="Measure hmgym.")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "bench.json")
    arguments = parser.parse_args()
    report = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    report["machine"] = {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {module.__name__: module.__version__ for module in (torch, np, numba)},
    }
    for part in arguments.only:
        report[part] = import_module(f"benchmarks.{part}").run()
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
