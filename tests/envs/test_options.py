"""`hidden_regime`, `leverage_axes` and `history` at every door: single, vector, SB3, parallel, differentiable."""

from __future__ import annotations

import datetime
import re
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from hmgym.agents.sb3 import MarketVecEnv
from hmgym.data import PriceHistory
from hmgym.envs import ENVIRONMENTS, make_markets, parallel_env
from hmgym.envs.differentiable import DifferentiableMarkets
from hmgym.market import MarketConfig
from tests.envs.faces import MARKET_IDS

SMALL: dict[str, Any] = {"n_assets": 2, "n_investors": 8}
CONTROLS = {"hmgym/Leverage-v0": "leverage", "hmgym/Beliefs-v0": "beliefs", "hmgym/LeverageBeliefs-v0": "both"}


def doors(env_id: str, **arguments: Any) -> dict[str, Any]:
    """The same market through every door, each with an observation map, an action map and a configuration."""
    return {
        "gym.make": gym.make(env_id, **arguments).unwrapped,
        "gym.make_vec": gym.make_vec(env_id, 2, **arguments).unwrapped,
        "make_markets": make_markets(env_id, 2, **arguments),
        "MarketVecEnv": MarketVecEnv(env_id, 2, **arguments).markets,
        "parallel_env": parallel_env(control=CONTROLS[env_id], n_learners=1, **arguments),
    }


def test_every_market_has_a_control() -> None:
    assert sorted(CONTROLS) == MARKET_IDS


def test_regimes_are_hidden_unless_asked_for(env_id: str) -> None:
    sizes = {}
    for hidden, arguments in ((True, {}), (True, {"hidden_regime": np.True_}), (False, {"hidden_regime": False})):
        for door, env in doors(env_id, **SMALL, **arguments).items():
            names = env.observation_map.names
            assert ("regime" not in names) == hidden, door
            assert any(name.startswith("news_volatility") for name in names), door
            sizes.setdefault(hidden, set()).add(len(names))
            if hidden:
                with pytest.raises(ValueError, match=r"`name` must be one of .* got 'regime'"):
                    env.observation_map.columns("regime")
        tensors = DifferentiableMarkets(env_id, 2, seed=0, **SMALL, **arguments)
        assert tensors.observe().shape[-1] == len(names)
    ((hidden_size,), (size,)) = sizes[True], sizes[False]
    assert size == hidden_size + 1


def test_hiding_the_regime_takes_its_entry_away_and_changes_nothing_else(env_id: str) -> None:
    shown, hidden = (
        gym.make(env_id, hidden_regime=flag, **SMALL, config=MarketConfig(regime_switch=0.4)).unwrapped
        for flag in (False, True)
    )
    column = shown.observation_map.columns("regime")
    assert column.stop == column.start + 1
    regimes = []
    for step in range(25):
        if step == 0:
            seen, other = shown.reset(seed=1)[0], hidden.reset(seed=1)[0]
        else:
            action = np.full(shown.action_space.shape, 0.1, np.float32)
            (seen, reward, *_), (other, same, *_) = shown.step(action), hidden.step(action)
            assert reward == same
        np.testing.assert_array_equal(np.delete(seen, column.start), other)
        regimes.append(float(shown.state.regime))
        assert seen[column] == pytest.approx(np.tanh(2.0 * (2.0 * regimes[-1] - 1.0)), abs=1e-6)
    assert set(regimes) == {0.0, 1.0}


def test_leverage_axes_at_every_door() -> None:
    for env_id, rest in (("hmgym/Leverage-v0", ()), ("hmgym/LeverageBeliefs-v0", ("belief_0", "belief_1"))):
        for axes, first in ((1, ("leverage",)), (2, ("short_leverage", "long_leverage"))):
            for door, env in doors(env_id, leverage_axes=axes, **SMALL).items():
                assert env.action_map.names == (*first, *rest), door
            tensors = DifferentiableMarkets(env_id, 2, seed=0, leverage_axes=axes, **SMALL)
            period = tensors.step(torch.zeros(2, 1, axes + len(rest), dtype=torch.float64))
            assert torch.isfinite(period.reward).all()


def test_one_axis_sets_both_limits() -> None:
    """The same months as with two axes where these say κ = θ."""
    one, two = (gym.make("hmgym/Leverage-v0", leverage_axes=axes, **SMALL).unwrapped for axes in (1, 2))
    np.testing.assert_array_equal(one.reset(seed=0)[0], two.reset(seed=0)[0])
    for level in (0.5, 1.0, 1.7, 2.0):
        rewards = [env.step(env.action_map.from_leverage(level, level))[1] for env in (one, two)]
        assert rewards[0] == pytest.approx(rewards[1], rel=1e-5, abs=1e-8)


def test_histories_at_every_door(env_id: str) -> None:
    dates = tuple(datetime.date(2000 + month // 12, month % 12 + 1, 1) for month in range(80))
    steps = np.random.default_rng(0).normal(0.0, 0.05, (80, 2))
    own = PriceHistory(dates=dates, assets=("left", "right"), prices=np.exp(steps.cumsum(0)))
    default = MarketConfig(**SMALL)
    for history, expected in (
        (None, default), ("training", default), ("held-out", default.replace(history="held-out")),
        ("all", default.replace(history="all")), (own, default.replace(history=own)),
    ):  # fmt: skip
        for door, env in doors(env_id, history=history, **SMALL).items():
            assert env.config == expected, door
    chosen = MarketConfig(n_assets=2, n_investors=8, history="all", signal_r2=0.3)
    env = gym.make(env_id, config=chosen, history="held-out").unwrapped
    assert env.config == chosen.replace(history="held-out")
    assert gym.make(env_id, config=chosen).unwrapped.config == chosen


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden_regime": "yes"}, "`hidden_regime` must be True or False, got 'yes'"),
        ({"hidden_regime": 1}, "`hidden_regime` must be True or False, got 1"),
        ({"leverage_axes": 3}, "`leverage_axes` must be 1 or 2, got 3"),
        ({"history": "tomorrow"}, '`history` must be a PriceHistory or one of "training", "held-out", "all", got '),
        ({"history": 7}, "`history` must be a PriceHistory .* got int"),
    ],
)
def test_wrong_options(arguments: dict[str, Any], message: str) -> None:
    for make in (
        lambda: gym.make("hmgym/Leverage-v0", **arguments),
        lambda: make_markets("hmgym/Leverage-v0", 2, **arguments),
        lambda: MarketVecEnv("hmgym/Leverage-v0", 2, **arguments),
        lambda: parallel_env(**arguments),
    ):
        with pytest.raises(ValueError, match=message):
            make()


def test_documented_defaults() -> None:
    for env_id in MARKET_IDS:
        assert not set(ENVIRONMENTS[env_id].arguments) & {"hidden_regime", "leverage_axes", "history"}
        text = gym.make(env_id, **SMALL).unwrapped.__class__.__doc__ or ""
        assert all(re.search(rf"\b{name}: ", text) for name in ("hidden_regime", "leverage_axes", "history"))
