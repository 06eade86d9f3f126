"""Performance with clients' money left out, against closed forms and pandas."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hmgym.analysis import performance


def returns_of(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.006, 0.04, shape)


def test_flows_are_no_return() -> None:
    """A fund whose clients come and go has the returns of its units."""
    rng = np.random.default_rng(1)
    returns, flows = returns_of(30, 2, 4), rng.normal(0.0, 10.0, (30, 2, 4))
    values = [np.full((2, 4), 100.0)]
    for month in range(30):
        flows[month] = np.maximum(flows[month], -0.25 * values[-1])
        values.append(values[-1] * (1.0 + returns[month]) + flows[month])
    np.testing.assert_allclose(performance.flow_adjusted_returns(values, flows), returns, atol=1e-13)
    np.testing.assert_allclose(performance.flow_rates(values, flows), flows / np.stack(values[:-1]))
    np.testing.assert_allclose(
        performance.cumulative_flows(flows)[[0, 1, -1]], [0.0 * flows[0], flows[0], flows.sum(0)]
    )


def test_a_fund_without_value_has_no_return() -> None:
    found = performance.flow_adjusted_returns([[10.0, 5.0], [0.0, 6.0], [5.0, 6.0]], [[0.0, 0.0], [5.0, 0.0]])
    np.testing.assert_allclose(found, [[-1.0, 0.2], [np.nan, 0.0]])


def test_sharpe_is_beyond_interest() -> None:
    returns = returns_of(60, 3)
    excess = pd.DataFrame(returns - 0.0016)
    wanted = excess.mean() / excess.std() * 12**0.5
    np.testing.assert_allclose(performance.sharpe_ratio(returns, 0.0016), wanted)
    interest = np.linspace(0.0, 0.004, 60)[:, None]
    np.testing.assert_allclose(
        performance.sharpe_ratio(returns + interest, interest), performance.sharpe_ratio(returns), rtol=1e-12
    )
    assert np.isnan(performance.sharpe_ratio(np.full((12, 1), 0.01), 0.002)).all()


def test_annual_figures() -> None:
    monthly = np.full((36, 2), 1.01) - 1.0
    np.testing.assert_allclose(performance.annual_return(monthly), 1.01**12 - 1.0)
    np.testing.assert_allclose(performance.annual_deviation([[0.01], [0.03]]), [np.sqrt(2e-4 * 12)])
    np.testing.assert_allclose(performance.annual_return([[0.1], [-1.0], [0.2]]), [-1.0])
    np.testing.assert_allclose(performance.annual_return([0.1] * 4, periods_per_year=4), 1.1**4 - 1.0)


def test_drawdown_is_from_the_highest_value_before() -> None:
    np.testing.assert_allclose(performance.maximum_drawdown([0.5, -0.5, 0.2, -0.5, 3.0]), 1.0 - 0.5 * 1.2 * 0.5)
    np.testing.assert_allclose(performance.maximum_drawdown([-0.1, 0.2]), 0.1)
    returns = returns_of(50, 3)
    value = pd.DataFrame(np.concatenate([np.zeros((1, 3)), returns]) + 1.0).cumprod()
    np.testing.assert_allclose(performance.maximum_drawdown(returns), (1.0 - value / value.cummax()).max())


def test_groups_are_means_over_their_funds() -> None:
    returns = returns_of(40, 2, 5)
    found = performance.performance_by_group(returns, ["value", "growth", "value", "esg", "growth"], 0.001)
    assert list(found) == ["value", "growth", "esg"]
    assert [group.funds for group in found.values()] == [2, 2, 1]
    sharpe = performance.sharpe_ratio(returns, 0.001)
    np.testing.assert_allclose(found["value"].sharpe_ratio, sharpe[:, [0, 2]].mean(-1))
    np.testing.assert_allclose(found["esg"].annual_return, performance.annual_return(returns)[:, 3])
    np.testing.assert_allclose(
        found["growth"].maximum_drawdown, performance.maximum_drawdown(returns)[:, [1, 4]].mean(-1)
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: performance.flow_adjusted_returns(np.ones((4, 2)), np.ones((4, 2))),
            r"`flows` must have shape \(3, 2\)",
        ),
        (lambda: performance.sharpe_ratio([0.1]), "`returns` must have at least 2 rows"),
        (lambda: performance.annual_return([0.1], periods_per_year=0), "`periods_per_year` must be a number > 0"),
        (
            lambda: performance.performance_by_group(np.ones((3, 2)), ["value"]),
            "`groups` must have a name for each",
        ),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
