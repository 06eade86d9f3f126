"""Simulated paths against their exact law, and what every path keeps."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from hmgym.market_making import exact_law, simulate
from tests.market_making.problems import AS
from tests.market_making.test_law import DT, MOVED, inventory_strategy, small, symmetric_strategy


@pytest.mark.parametrize("strategy", [inventory_strategy, symmetric_strategy])
def test_the_table_of_avellaneda_and_stoikov(strategy) -> None:
    runs = 100_000
    law, paths = exact_law(AS, *strategy(), dt=DT), simulate(AS, *strategy(), dt=DT, runs=runs, seed=1)
    for found, mean, std in (
        (paths.profit, law.mean, law.std),
        (paths.inventory, law.mean_inventory, law.std_inventory),
    ):
        assert abs(found.mean() - mean) < 3.0 * std / math.sqrt(runs)
        squares = (found - mean) ** 2
        assert abs(squares.mean() - std**2) < 3.0 * squares.std() / math.sqrt(runs)
    assert abs(paths.trades.mean() - law.mean_trades) < 3.0 * paths.trades.std() / math.sqrt(runs)
    # A quantile's error is that of its probability; the mean beyond it is a mean.
    quantile = -law.value_at_risk()
    assert abs((paths.profit <= quantile).mean() - 0.05) < 3.0 * math.sqrt(0.05 * 0.95 / runs)
    beyond = quantile + np.minimum(paths.profit - quantile, 0.0) / 0.05
    assert abs(beyond.mean() + law.conditional_value_at_risk()) < 3.0 * beyond.std() / math.sqrt(runs)


def test_drift_and_impact() -> None:
    bid, ask = small(steps=60, largest=3, seed=5)
    law = exact_law(MOVED, bid, ask, dt=0.1, initial_inventory=2)
    paths = simulate(MOVED, bid, ask, dt=0.1, runs=40_000, seed=2, initial_inventory=2)
    assert abs(paths.profit.mean() - law.mean) < 3.0 * law.std / 200.0
    assert paths.profit.std() == pytest.approx(law.std, rel=0.02)
    assert np.abs(paths.inventory).max() <= 3


def test_without_moves_profit_is_what_fills_earn() -> None:
    depth = np.full((70, 9), 0.5)
    still = dataclasses.replace(AS, volatility=0.0)
    paths = simulate(still, depth, depth, dt=DT, runs=500)
    np.testing.assert_allclose(paths.profit, 0.5 * paths.trades, rtol=1e-12)
    assert ((paths.trades - paths.inventory) % 2 == 0).all()
    assert (np.abs(paths.inventory) <= paths.trades).all()


def test_a_seed_is_a_sample() -> None:
    one, same, other = (simulate(MOVED, *small(steps=80), dt=0.1, runs=50, seed=seed).profit for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_bad_input_is_named() -> None:
    bid, ask = small()
    for name, value in (("runs", 0), ("runs", 1.5), ("seed", -1), ("dt", 0.0), ("initial_inventory", 9)):
        with pytest.raises(ValueError, match=f"`{name}` must be"):
            simulate(AS, bid, ask, **({"dt": DT, "runs": 10} | {name: value}))
