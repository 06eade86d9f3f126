"""``python -m benchmarks.against COMMIT``: this version of hmgym against that of a commit.

Times: each version runs in a process of its own, the two do small pieces of the same work in turns, and the ratio of
each pair is taken, so that a noisy machine is noisy for both. With one thread, the default, it is processor time that
is taken, with more the time that passes. ``--values`` compares what the two compute instead: runs
of every id, reward and kind of fundamentals, with one learner, with three, and in the single environment.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.against.versions import ROOT, Version, files_of
from benchmarks.timing import human, print_table


def compare_times(old: Version, new: Version, measures: list[str], rounds: int) -> dict[str, Any]:
    """Medians of both and quartiles of the ratio old / new, by measure."""
    results = {}
    for measure in measures:
        calls = max(version.ask("prepare", measure=measure) for version in (old, new))
        pairs = []
        for number in range(rounds):
            order = (old, new) if number % 2 == 0 else (new, old)  # neither always comes after the other
            taken = {version: version.ask("seconds", measure=measure, calls=calls) for version in order}
            pairs.append((taken[old], taken[new]))
        ratios = [before / after for before, after in pairs]
        lower, median, upper = statistics.quantiles(ratios, n=4, method="inclusive")
        results[measure] = {
            "old_seconds": statistics.median(before for before, _ in pairs),
            "new_seconds": statistics.median(after for _, after in pairs),
            "ratio": median,
            "quartiles": [lower, upper],
            "rounds": rounds,
        }
    return results


def compare_values(old: Version, new: Version, months: int, n_markets: int, first_months: int) -> dict[str, Any]:
    """By field: numbers compared, how many differ, and by how much over the first month after a reset and over all."""
    recorded: list[dict[str, np.ndarray]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, version in (("old", old), ("new", new)):
            file = str(Path(folder) / f"{name}.npz")
            version.ask("record_into", file=file, months=months, n_markets=n_markets, first_months=first_months)
            with np.load(file) as stored:
                recorded.append(dict(stored))
    before, after = recorded
    if before.keys() != after.keys():
        raise RuntimeError(f"the versions recorded different fields: {sorted(before.keys() ^ after.keys())}")
    fields: dict[str, Any] = {}
    for key, expected in before.items():
        _, kind, field = key.split("|")
        found = after[key]
        if found.shape != expected.shape or found.dtype != expected.dtype:
            raise RuntimeError(f"{key}: {expected.dtype} {expected.shape} became {found.dtype} {found.shape}")
        row = fields.setdefault(field, {"values": 0, "differing": 0, "first_month": 0.0, "run": 0.0})
        row["values"] += expected.size
        row["differing"] += int((~_equal(expected, found)).sum())
        period = "run" if kind == "run" else "first_month"
        row[period] = max(row[period], _largest_difference(expected, found))
    return fields


def _equal(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a == b) | ((a != a) & (b != b))


def _largest_difference(a: np.ndarray, b: np.ndarray) -> float:
    """Relative to the value, or to the root mean square of its kind where the value is smaller than that."""
    different, typical = ~_equal(a, b), np.sqrt(np.nanmean(a.astype(np.float64) ** 2))
    a, b = a[different].astype(np.float64), b[different].astype(np.float64)
    scale = np.maximum(np.maximum(np.abs(a), np.abs(b)), typical)
    return float(np.nan_to_num(np.abs(a - b) / scale, nan=np.inf).max(initial=0.0))


def print_times(results: dict[str, Any]) -> None:
    """A table, times of one market, step or portfolio."""
    rows = [("measure", "old", "new", "old / new", "quartiles")]
    for name, row in results.items():
        lower, upper = row["quartiles"]
        times = human(row["old_seconds"]), human(row["new_seconds"])
        rows.append((name, *times, f"{row['ratio']:.2f}", f"{lower:.2f} to {upper:.2f}"))
    print_table("time of one market, environment step or portfolio; medians", rows)


def print_values(fields: dict[str, Any], months: int) -> None:
    """A table and a verdict."""
    rows = [("field", "values", "differing", "first month", f"{months} months")]
    for name, row in fields.items():
        largest = f"{row['first_month']:.1e}", f"{row['run']:.1e}"
        rows.append((name, f"{row['values']:,}", f"{row['differing']:,}", *largest))
    print_table("values, and the largest relative difference over", rows)
    total, differing = (sum(row[name] for row in fields.values()) for name in ("values", "differing"))
    verdict = "equal bit for bit" if not differing else f"{differing:,} differ"
    print(f"\n{total:,} values: {verdict}")


def main() -> None:
    """Compare, print, and write JSON where asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.against", description=__doc__.splitlines()[0])
    parser.add_argument("commit", help="the old version")
    parser.add_argument("--new", metavar="COMMIT", help="the new version; the files as they lie here if left out")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="measures whose names begin so")
    parser.add_argument("--rounds", type=int, default=25, help="pairs of each measure")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--values", action="store_true", help="compare values instead of times")
    parser.add_argument("--months", type=int, default=600, help="of a recorded run")
    parser.add_argument("--markets", type=int, default=4, help="side by side in a recorded run")
    parser.add_argument("--first-months", type=int, default=64, help="of new episodes, by run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where figures go")
    arguments = parser.parse_args()
    if min(arguments.months, arguments.markets, arguments.first_months, arguments.threads) < 1 or arguments.rounds < 2:
        parser.error("`--rounds` must be >= 2, other numbers >= 1")
    try:
        folders = files_of(arguments.commit), ROOT if arguments.new is None else files_of(arguments.new)
    except ValueError as error:
        parser.error(str(error))
    versions = [Version(folder, arguments.threads) for folder in folders]
    try:
        if arguments.values:
            results = compare_values(*versions, arguments.months, arguments.markets, arguments.first_months)
            print_values(results, arguments.months)
        else:
            known = versions[1].ask("measures")
            chosen = [name for name in known if name.startswith(tuple(arguments.only or [""]))]
            if not chosen:
                parser.error(f"`--only` must begin one of {', '.join(known)}, got {' '.join(arguments.only)}")
            results = compare_times(*versions, chosen, arguments.rounds)
            print_times(results)
    finally:
        for version in versions:
            version.close()
    if arguments.json is not None:
        report = {"old": arguments.commit, "new": arguments.new, "threads": arguments.threads, "results": results}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
