"""What the market's own ids promise beyond what every face does."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from hmgym.envs import ENVIRONMENTS, MarketEnv, MarketVectorEnv, make_markets
from hmgym.market import Action, Market

SMALL: dict[str, Any] = {"n_assets": 2, "n_investors": 8}


def actions_for(space: gym.Space[Any], count: int, seed: int = 0) -> list[Any]:
    space.seed(seed)
    return [space.sample() for _ in range(count)]


def test_id_with_module_prefix() -> None:
    assert isinstance(gym.make("hmgym:hmgym/Leverage-v0").unwrapped, MarketEnv)


def test_action_size(env_id: str) -> None:
    parts = ENVIRONMENTS[env_id].arguments
    for arguments, axes in (({}, 1), ({"leverage_axes": 1}, 1), ({"leverage_axes": 2}, 2)):
        expected = axes * parts["leverage"] + 2 * parts["beliefs"]
        assert gym.make(env_id, **SMALL, **arguments).action_space.shape == (expected,)
        if parts["beliefs"]:
            env = gym.make(env_id, confidence=True, **SMALL, **arguments)
            assert env.action_space.shape == (expected + 1,)


@pytest.mark.parametrize("n_assets", [1, 3, 5])
def test_sizes(env_id: str, n_assets: int) -> None:
    env = gym.make(env_id, n_assets=n_assets, n_investors=7)
    observation, info = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert info["prices"].shape == (n_assets,)
    observation, *_, info = env.step(env.action_space.sample())
    assert env.observation_space.contains(observation)
    assert info["active_limits"].shape == (n_assets + 1,)
    assert info["active_limits"].dtype == np.int8


def test_different_seeds_differ(env_id: str) -> None:
    env = gym.make(env_id, **SMALL)
    assert not np.array_equal(env.reset(seed=0)[0], env.reset(seed=1)[0])


def test_stream_goes_on_without_a_seed(env_id: str) -> None:
    env = gym.make(env_id, **SMALL)
    first = env.reset(seed=0)[0]
    second = env.reset()[0]
    assert not np.array_equal(first, second)
    env.reset(seed=0)
    np.testing.assert_array_equal(env.reset()[0], second)


def test_rewards_sum_to_log_unit_value(env_id: str) -> None:
    env = gym.make(env_id, **SMALL)
    for seed in range(3):
        env.reset(seed=seed)
        total, ended = 0.0, False
        env.action_space.seed(seed)
        while not ended:
            _, reward, terminated, truncated, info = env.step(env.action_space.sample())
            total += float(reward)
            ended = terminated or truncated
        assert total == pytest.approx(np.log(info["unit_value"]), abs=1e-10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reward": "sharpe"}, "`reward` must be one of"),
        ({"reward": 3}, "`reward` must be one of"),
        ({"render_mode": "ansi"}, "`render_mode` must be"),
        ({"config": {"n_assets": 3}}, "`config` must be a MarketConfig"),
        ({"n_assets": 0}, "`n_assets` must be"),
        ({"n_assets": 21}, "`n_assets` must be"),
        ({"n_investors": 1}, "`n_investors` must be"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    for make in (lambda: MarketEnv(**arguments), lambda: MarketVectorEnv(num_envs=2, **arguments)):
        with pytest.raises(ValueError, match=message):
            make()


def test_confidence_needs_beliefs() -> None:
    with pytest.raises(ValueError, match="`confidence` must be False"):
        MarketEnv(leverage=True, beliefs=False, confidence=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_envs": 0}, "`num_envs` must be an integer >= 1"),
        ({"max_episode_steps": 0}, "`max_episode_steps` must be an integer >= 1"),
        ({"autoreset_mode": "sometimes"}, "`autoreset_mode` must be"),
    ],
)
def test_wrong_vector_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MarketVectorEnv(**arguments)


def test_make_markets_names_an_unknown_id() -> None:
    with pytest.raises(ValueError, match="`env_id` must be a registered market, got 'hmgym/Nothing-v0'"):
        make_markets("hmgym/Nothing-v0", 2)
    with pytest.raises(ValueError, match="`env_id` must name a market of hmgym"):
        make_markets("CartPole-v1", 2)


def test_a_state_is_a_place_to_plan_from() -> None:
    env = gym.make("hmgym/Leverage-v0").unwrapped
    env.reset(seed=0)
    env.step(env.action_space.sample())
    state, before = env.state, env.state.prices.clone()
    market = Market(env.config)
    short = torch.full((1, 1), 0.3, dtype=torch.float64, requires_grad=True)
    shocks = market.draw_shocks([np.random.default_rng(0)])
    _, outcome = market.transition(state, Action(short_leverage=short), shocks)
    (gradient,) = torch.autograd.grad(outcome.prices.sum(), short)
    assert bool(gradient.isfinite().all())
    state.prices.zero_()
    assert torch.equal(env.state.prices, before)
