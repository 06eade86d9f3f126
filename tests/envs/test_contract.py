"""What Gymnasium and stable-baselines3 demand of every registered id, single and vector."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env as check_gymnasium
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_checker import check_env as check_sb3

from hmgym.envs import ENVIRONMENTS, MarketEnv, MarketVectorEnv, make_markets
from hmgym.market import Action, Market

SMALL: dict[str, Any] = {"n_assets": 2, "n_investors": 8}


def actions_for(space: gym.Space[Any], count: int, seed: int = 0) -> list[Any]:
    space.seed(seed)
    return [space.sample() for _ in range(count)]


def test_gymnasium_checker_is_silent(env_id: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_gymnasium(gym.make(env_id, render_mode="rgb_array").unwrapped)


def test_stable_baselines_checker_is_silent(env_id: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_sb3(gym.make(env_id).unwrapped)


def test_id_with_module_prefix() -> None:
    assert isinstance(gym.make("hmgym:hmgym/Leverage-v0").unwrapped, MarketEnv)


def test_spec_entry_points_are_strings(env_id: str) -> None:
    spec = gym.spec(env_id)
    assert isinstance(spec.entry_point, str)
    assert isinstance(spec.vector_entry_point, str)
    assert spec.max_episode_steps == 120
    assert isinstance(gym.make(spec).unwrapped, MarketEnv)


def test_action_size(env_id: str) -> None:
    parts = ENVIRONMENTS[env_id].arguments
    expected = 2 * parts["leverage"] + 2 * parts["beliefs"]
    assert gym.make(env_id, **SMALL).action_space.shape == (expected,)
    if parts["beliefs"]:
        assert gym.make(env_id, confidence=True, **SMALL).action_space.shape == (expected + 1,)


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


def test_same_seed_same_episode(env_id: str) -> None:
    def run() -> list[Any]:
        env = gym.make(env_id, **SMALL)
        rows: list[Any] = [env.reset(seed=3)[0]]
        for action in actions_for(env.action_space, 12):
            observation, reward, terminated, *_ = env.step(action)
            rows += [observation, reward]
            if terminated:
                break
        return rows

    for first, second in zip(run(), run(), strict=True):
        np.testing.assert_array_equal(first, second)


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


def test_unwrapped_never_truncates_and_make_overrides_the_horizon(env_id: str) -> None:
    env = gym.make(env_id, max_episode_steps=5, **SMALL)
    env.reset(seed=0)
    action = np.zeros(env.action_space.shape, np.float32)
    assert [env.step(action)[3] for _ in range(5)] == [False] * 4 + [True]
    inner = env.unwrapped
    inner.reset(seed=0)
    for _ in range(125):
        _, _, terminated, truncated, _ = inner.step(action)
        assert not truncated
        if terminated:
            inner.reset()


def test_fresh_arrays(env_id: str) -> None:
    env = gym.make(env_id, **SMALL)
    observation, info = env.reset(seed=0)
    kept = copy.deepcopy((observation, info))
    action = np.zeros(env.action_space.shape, np.float32)
    later, *_ = env.step(action)
    assert not np.shares_memory(observation, later)
    np.testing.assert_array_equal(observation, kept[0])
    np.testing.assert_array_equal(info["prices"], kept[1]["prices"])
    twin = gym.make(env_id, **SMALL)
    _, spoiled = twin.reset(seed=0)
    for value in spoiled.values():  # what a caller does to its arrays does not reach the market
        if isinstance(value, np.ndarray):
            value[...] = -1.0
    np.testing.assert_array_equal(twin.step(action)[0], later)


def test_pickle_and_deepcopy_in_the_middle_of_an_episode(env_id: str) -> None:
    env = gym.make(env_id, render_mode="rgb_array", **SMALL)
    env.reset(seed=0)
    actions = actions_for(env.action_space, 8)
    for action in actions[:4]:
        env.step(action)
    env.render()
    clones = [pickle.loads(pickle.dumps(env.unwrapped)), copy.deepcopy(env.unwrapped)]
    for action in actions[4:]:
        expected = env.step(action)
        for clone in clones:
            observation, reward, *_ = clone.step(action)
            np.testing.assert_array_equal(observation, expected[0])
            assert reward == expected[1]
    np.testing.assert_array_equal(clones[0].reset()[0], env.reset()[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_action_that_is_not_finite(env_id: str, bad: float) -> None:
    env = gym.make(env_id, **SMALL).unwrapped
    env.reset(seed=0)
    action = np.zeros(env.action_space.shape, np.float32)
    action[-1] = bad
    with pytest.raises(ValueError, match=r"`action` must be finite, got (nan|inf) for `\w+` of market 0"):
        env.step(action)


def test_action_of_another_shape(env_id: str) -> None:
    env = gym.make(env_id, **SMALL).unwrapped
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"`action` must have shape"):
        env.step(np.zeros(17, np.float32))


def test_action_beyond_the_box_is_clipped(env_id: str) -> None:
    env = gym.make(env_id, **SMALL).unwrapped
    results = []
    for scale in (1.0, 3.0):
        env.reset(seed=0)
        results.append(env.step(np.full(env.action_space.shape, scale, np.float32))[0])
    np.testing.assert_array_equal(*results)


def test_step_before_reset(env_id: str) -> None:
    env = gym.make(env_id, **SMALL).unwrapped
    with pytest.raises(RuntimeError, match="reset"):
        env.step(np.zeros(env.action_space.shape, np.float32))


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


def test_unknown_keyword(env_id: str) -> None:
    with pytest.raises(TypeError, match="horizon"):
        gym.make(env_id, horizon=10)


def test_confidence_needs_beliefs() -> None:
    with pytest.raises(ValueError, match="`confidence` must be False"):
        MarketEnv(leverage=True, beliefs=False, confidence=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_envs": 0}, "`num_envs` must be >= 1"),
        ({"max_episode_steps": 0}, "`max_episode_steps` must be >= 1"),
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


def test_vector_metadata_is_per_instance(env_id: str) -> None:
    same = gym.make_vec(env_id, 2, autoreset_mode="SameStep", **SMALL)
    default = gym.make_vec(env_id, 2, **SMALL)
    assert same.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert default.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert isinstance(default.unwrapped, MarketVectorEnv)


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
