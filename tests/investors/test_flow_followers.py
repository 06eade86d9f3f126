"""Investors who follow the gradient flow of their objective at the prices that clear."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from hmgym.investors.flow_followers import FlowFollowerConfig
from hmgym.market import Market, MarketConfig

# No margin, no ownership limit, no anticipated cost: nothing but the flow decides.
FREE: dict[str, Any] = {
    "maintenance_margin": 0.0, "initial_margin": 0.0, "ownership_limit": None, "short_limit": None,
    "cost_anticipation": "none", "n_investors": 12,
}  # fmt: skip
WIDE = FlowFollowerConfig(short_leverage=5.0, long_leverage=8.0)


@pytest.mark.parametrize("arrays", ["torch", "numpy"])
@pytest.mark.parametrize("flow_time", [0.5, 20.0, 400.0])
def test_positions_are_those_of_the_flow_at_the_prices_that_clear(arrays: Any, flow_time: float) -> None:
    follower = FlowFollowerConfig(flow_time=flow_time, short_leverage=5.0, long_leverage=8.0)
    config = MarketConfig(cohorts=(follower,), **FREE)
    market = Market(config, arrays=arrays)
    generators = [np.random.default_rng(row) for row in range(3)]
    state = market.initial(market.draw_initial_shocks(generators))
    double = follower.risk_aversion * np.asarray(market.fundamentals.covariance)
    for _ in range(3):
        before = state
        state, outcome = market.transition(state, None, market.draw_shocks(generators))
        for e in range(3):
            prices, last = np.asarray(outcome.prices)[e], np.asarray(before.prices)[e]
            value = np.log(np.asarray(before.fundamentals)[e])
            expected = np.log(last) + config.growth + follower.correction * (value - np.log(last))
            for b in (10, 11):
                held = np.asarray(before.holdings)[e, b] * last / float(np.asarray(before.wealth)[e, b])
                gain = expected - np.log(prices)
                path = solve_ivp(
                    lambda _, w, gain=gain: gain - double @ w, (0.0, flow_time), held,
                    method="DOP853", rtol=1e-12, atol=1e-13,
                )  # fmt: skip
                found = np.asarray(outcome.weights)[e, b, 1:]
                assert np.abs(found - path.y[:, -1]).max() < 1e-9
        total = np.asarray(state.holdings).sum(1) / np.asarray(state.supply)
        np.testing.assert_allclose(total, 1.0, rtol=1e-9)


def test_a_long_time_leads_to_the_top() -> None:
    config = MarketConfig(cohorts=(FlowFollowerConfig(flow_time=1e6, short_leverage=5.0, long_leverage=8.0),), **FREE)
    market = Market(config)
    generators = [np.random.default_rng(0)]
    state = market.initial(market.draw_initial_shocks(generators))
    _, outcome = market.transition(state, None, market.draw_shocks(generators))
    gain = np.log(np.asarray(state.prices)) + config.growth
    gain = gain + 0.2 * (np.asarray(state.log_value) - np.log(np.asarray(state.prices)))
    best = np.linalg.solve(4.0 * np.asarray(market.fundamentals.covariance), (gain - np.log(outcome.prices.numpy()))[0])
    np.testing.assert_allclose(np.asarray(outcome.weights)[0, 10, 1:], best, atol=1e-9)


def test_it_joins_by_its_name() -> None:
    env = gym.make("hmgym/Leverage-v0", config=MarketConfig(cohorts=("flow-followers",)))
    env.reset(seed=0)
    for _ in range(5):
        _, reward, _, truncated, info = env.step(env.action_space.sample())
        assert not truncated
        assert np.isfinite(reward)
    assert info["residual"] < 1e-9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flow_time": 0.0}, "`flow_time` must be a number > 0, got 0.0"),
        ({"risk_aversion": -1.0}, "`risk_aversion` must be a number > 0"),
        ({"seats": 0}, "`seats` must be an integer >= 1, got 0"),
        ({"wealth_share": 1.0}, r"`wealth_share` must be in \(0, 1\), got 1.0"),
        ({"long_leverage": 0.5}, "`long_leverage` must be a number >= 1"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FlowFollowerConfig(**change)
