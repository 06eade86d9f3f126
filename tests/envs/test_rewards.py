from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from hmgym.envs import REWARDS, DifferentialSharpe
from hmgym.market import MarketState
from hmgym.market.funds import FundsConfig

SMALL: dict[str, Any] = {"n_assets": 2, "n_investors": 8}


def rewards_of(reward: Any, steps: int = 10) -> np.ndarray[Any, Any]:
    env = gym.make_vec("hmgym/Leverage-v0", 3, reward=reward, **SMALL)
    env.reset(seed=0)
    actions = np.zeros(env.action_space.shape, np.float32)
    return np.array([env.step(actions)[1] for _ in range(steps)])


FUNDS: dict[str, Any] = {"config": FundsConfig(n_learners=1, n_assets=3, n_retail=12, n_active=4, n_passive=2)}


@pytest.mark.parametrize("name", sorted(set(REWARDS) - {"over_active_funds"}))
def test_named_rewards_are_finite_and_repeatable(name: str) -> None:
    first = rewards_of(name)
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, rewards_of(name))


def assert_difference(reward: str, settings: dict[str, Any], log_worth: Callable[[MarketState], torch.Tensor]) -> None:
    """The reward is the plain one less the change of a benchmark's log worth."""
    env = gym.make("hmgym/Leverage-v0", reward=reward, **settings).unwrapped
    plain = gym.make("hmgym/Leverage-v0", **settings).unwrapped
    env.reset(seed=0)
    plain.reset(seed=0)
    action = np.zeros(1, np.float32)
    for _ in range(5):
        before = log_worth(plain.state)
        own = plain.step(action)[1]
        expected = own - float(log_worth(plain.state) - before)
        assert env.step(action)[1] == pytest.approx(expected, abs=1e-12)


def test_excess_return_is_the_difference_to_the_market() -> None:
    assert_difference("excess_return", SMALL, lambda state: (state.supply * state.prices).sum().log())


def test_over_active_funds_is_the_difference_to_their_mean() -> None:
    assert_difference("over_active_funds", FUNDS, lambda state: state.scenario.unit_value[0, 1:5].log().mean())
    alone = {"config": FundsConfig(n_learners=1, n_assets=3, n_retail=12, n_active=0, n_passive=2)}
    action = np.zeros(1, np.float32)
    for without in (SMALL, alone):
        env = gym.make("hmgym/Leverage-v0", reward="over_active_funds", **without)
        env.reset(seed=0)
        with pytest.raises(ValueError, match="no other active funds"):
            env.step(action)


def test_differential_sharpe_is_the_derivative_of_the_moving_sharpe_ratio() -> None:
    """D is dS/dη at η = 0, S the Sharpe ratio of the moving moments (Moody and Saffell 2001, eq. 14)."""
    growth, mean = 0.03, DifferentialSharpe.MEAN
    second = DifferentialSharpe.DEVIATION**2 + mean**2

    def sharpe(rate: float) -> float:
        a, b = mean + rate * (growth - mean), second + rate * (growth**2 - second)
        return float(a / np.sqrt(b - a * a))

    reward = DifferentialSharpe()
    reward.restart(np.ones((1, 1), np.bool_))

    class Grown:
        reward = torch.tensor([[growth]], dtype=torch.float64)

    value = reward(None, Grown, None)  # type: ignore[arg-type]
    assert value[0, 0] == pytest.approx((sharpe(1e-6) - sharpe(-1e-6)) / 2e-6, rel=1e-6)
    with pytest.raises(ValueError, match="`adaptation_rate` must lie in"):
        DifferentialSharpe(adaptation_rate=1.0)


def test_a_reward_with_memory_belongs_to_one_environment() -> None:
    shared = DifferentialSharpe(adaptation_rate=0.1)
    np.testing.assert_array_equal(rewards_of(shared), rewards_of(shared))


def test_function_of_the_states() -> None:
    def wealth_change(previous: Any, outcome: Any, state: Any) -> Any:
        return state.wealth[:, 0] - previous.wealth[:, 0]

    env = gym.make("hmgym/Beliefs-v0", reward=wealth_change, **SMALL)
    _, before = env.reset(seed=0)
    _, reward, _, _, after = env.step(np.zeros(2, np.float32))
    assert reward == pytest.approx(after["wealth"] - before["wealth"])


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda previous, outcome, state: 1.0, r"`reward` must return numbers of shape \(3,\)"),
        (lambda previous, outcome, state: state.prices[:, 0] * np.nan, "`reward` must be finite"),
    ],
)
def test_function_that_returns_the_wrong_thing(function: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rewards_of(function)
