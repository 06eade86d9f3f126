"""The comparison of two versions, with versions made up for the purpose, and the work that is timed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.against import worker
from benchmarks.against.__main__ import compare_times, compare_values
from benchmarks.against.versions import files_of
from hmgym.market import market


class MadeUp:
    """A version whose work takes ``seconds`` and that records ``arrays``."""

    def __init__(self, seconds: float = 1.0, arrays: dict[str, np.ndarray] | None = None) -> None:
        self.seconds, self.arrays, self.calls = seconds, arrays, []

    def ask(self, command: str, **arguments: Any) -> Any:
        if command == "record_into":
            np.savez(arguments["file"], **self.arrays)
            return len(self.arrays)
        if command == "prepare":
            return 3
        self.calls.append(arguments["calls"])
        return self.seconds


def test_the_ratio_is_old_over_new() -> None:
    old, new = MadeUp(3.0), MadeUp(1.5)
    result = compare_times(old, new, ["steps-256"], rounds=5)["steps-256"]
    assert result["ratio"] == 2.0
    assert result["quartiles"] == [2.0, 2.0]
    assert old.calls == new.calls == [3] * 5  # the same work


def compared(before: object, after: object, kind: str = "run") -> dict[str, Any]:
    versions = (MadeUp(arrays={f"a|{kind}|prices": np.array(values)}) for values in (before, after))
    return compare_values(*versions, 600, 4, 64)["prices"]


def test_equal_values_are_equal_bit_for_bit() -> None:
    assert compared([1.0, np.nan, np.inf], [1.0, np.nan, np.inf])["differing"] == 0
    assert compared([1.0, 2.0], [1.0, np.nextafter(2.0, 3.0)])["differing"] == 1


def test_differences_are_relative_and_told_apart_by_period() -> None:
    row = compared([100.0, 1e-12], [101.0, 2e-12])
    assert row["run"] == pytest.approx(1 / 101)  # that of 1e-12 is nothing beside values of 100
    assert row["first_month"] == 0.0
    assert compared([2.0], [np.nan], "first")["first_month"] > 1e300


def test_other_shapes_are_no_comparison() -> None:
    with pytest.raises(RuntimeError, match=r"prices: float64 \(1,\) became float64 \(2,\)"):
        compared([1.0], [1.0, 1.0])


def test_the_clock_runs_in_clearing_and_is_taken_off_again() -> None:
    work, before = worker.clearing(3, 20, 2), dict(vars(market))
    assert work.call() > 0.0
    assert vars(market) == before


def test_a_commit_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="`commit` must name a commit of this repository, got 'nowhere'"):
        files_of("nowhere")


def test_a_run_is_recorded_alike_twice() -> None:
    once, twice = (worker.record(months=2, n_markets=2, first_months=2) for _ in range(2))
    assert once.keys() == twice.keys()
    assert len({name.split("|")[0] for name in once}) == 54
    assert all(np.array_equal(once[name], twice[name]) for name in once)
