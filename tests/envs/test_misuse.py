"""What is called too early, too late or with the wrong thing: a message that says so."""

from __future__ import annotations

import re
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from hmgym.agents import ConstantPolicy, evaluate
from hmgym.checks import integer, integer_or_none
from hmgym.envs import MarketEnv, MarketVectorEnv, make_markets, parallel_env
from hmgym.market import MarketConfig

SMALL: dict[str, Any] = {"n_assets": 2, "n_investors": 8}
LEVERAGE = "hmgym/Leverage-v0"


@pytest.mark.parametrize("steps", [np.nan, 1.5, "a", True, 0, -3])
@pytest.mark.parametrize("where", ["make_vec", "parallel_env", "evaluate"])
def test_max_episode_steps(where: str, steps: Any) -> None:
    calls = {
        "make_vec": lambda: gym.make_vec(LEVERAGE, 2, max_episode_steps=steps),
        "parallel_env": lambda: parallel_env(max_episode_steps=steps),
        "evaluate": lambda: evaluate(
            ConstantPolicy([0.0]), LEVERAGE, episodes=2, env_kwargs={"max_episode_steps": steps}
        ),
    }
    with pytest.raises(ValueError, match=rf"`max_episode_steps` must be .*>= 1 or None, got {re.escape(repr(steps))}"):
        calls[where]()


def test_integers_of_numpy_count() -> None:
    sizes = {name: np.int64(value) for name, value in SMALL.items()}
    assert MarketConfig(**sizes) == MarketConfig(**SMALL)
    env = gym.make(LEVERAGE, **sizes)
    assert (env.unwrapped.config.n_assets, type(env.unwrapped.config.n_assets)) == (2, int)  # type: ignore[attr-defined]
    vector = gym.make_vec(LEVERAGE, np.int32(3), n_learners=np.uint8(2), max_episode_steps=np.int16(5), **sizes)
    assert vector.num_envs == 6
    assert len(parallel_env(n_learners=np.int64(2), max_episode_steps=np.int64(4), **sizes).possible_agents) == 2
    run = evaluate(
        ConstantPolicy([0.0]), LEVERAGE, episodes=np.int64(3), batch=np.int64(2), first_seed=np.uint32(4),
        env_kwargs={"max_episode_steps": np.int64(3), **sizes},
    )  # fmt: skip
    np.testing.assert_array_equal(run.lengths, np.full(3, 3))
    np.testing.assert_array_equal(vector.reset(seed=np.int64(2))[0], vector.reset(seed=2)[0])


@pytest.mark.parametrize("value", [True, np.True_, 2.0, np.float64(2.0), "2", None, [2], 2 + 0j, np.array([2, 3])])
def test_what_is_no_integer(value: Any) -> None:
    with pytest.raises(ValueError, match="`count` must be an integer >= 1, got "):
        integer("count", value, 1)
    if value is not None:
        with pytest.raises(ValueError, match="`count` must be an integer >= 1 or None, got "):
            integer_or_none("count", value, 1)


@pytest.mark.parametrize("name", ["n_assets", "n_investors", "n_learners", "num_envs"])
@pytest.mark.parametrize("value", [True, 2.5, "3"])
def test_sizes(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be an integer"):
        MarketVectorEnv(**{name: value})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"episodes": 0}, "`episodes` must be an integer >= 1, got 0"),
        ({"episodes": -3}, "`episodes` must be an integer >= 1, got -3"),
        ({"episodes": 2.5}, "`episodes` must be an integer"),
        ({"batch": 0}, "`batch` must be an integer >= 1, got 0"),
        ({"first_seed": -1}, "`first_seed` must be an integer >= 0, got -1"),
        ({"seat": 1}, "`seat` must be one of 1 learners, got 1"),
        ({"env_id": "hmgym/Nope-v0"}, "`env_id` must be a registered market, got 'hmgym/Nope-v0'"),
    ],
)
def test_wrong_evaluations(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(ConstantPolicy([0.0]), **{"env_id": LEVERAGE, "episodes": 2, **arguments})


def test_one_episode_has_no_interval() -> None:
    run = evaluate(ConstantPolicy([0.0]), LEVERAGE, episodes=1, env_kwargs={"max_episode_steps": 2, **SMALL})
    assert run.returns.shape == (1,)
    with pytest.raises(ValueError, match="`episodes` must be >= 2 for an interval, got 1"):
        run.result  # noqa: B018


def test_a_step_after_the_end_warns() -> None:
    env = MarketEnv(config=MarketConfig(ruin_fraction=0.95, **SMALL))
    env.reset(seed=0)
    action = np.ones(1, np.float32)
    while not env.step(action)[2]:
        pass
    with pytest.warns(UserWarning, match="`step` was called although the episode has ended: call `reset` first"):
        env.step(action)
    env.reset(seed=1)
    env.step(-action)


def test_the_first_reset_of_a_vector_environment_is_of_all_markets() -> None:
    env = gym.make_vec(LEVERAGE, 3, **SMALL)
    with pytest.raises(ValueError, match=r"for every market at the first reset, got False for markets \[1\]"):
        env.reset(seed=0, options={"reset_mask": np.array([True, False, True])})
    env.reset(seed=0, options={"reset_mask": np.ones(3, np.bool_)})


def test_render_before_reset() -> None:
    single = MarketEnv(render_mode="rgb_array", **SMALL)
    vector = make_markets(LEVERAGE, 2, render_mode="rgb_array", **SMALL)
    parallel = parallel_env(render_mode="rgb_array", **SMALL)
    for call in (single.render, single.episode, vector.render, lambda: vector.episode(1), parallel.render):
        with pytest.raises(RuntimeError, match="call `reset` before"):
            call()


@pytest.mark.parametrize("options", [5, "all", [True], np.ones(2, np.bool_)])
def test_options_of_a_reset(options: Any) -> None:
    for env in (MarketEnv(**SMALL), MarketVectorEnv(num_envs=2, **SMALL), parallel_env(**SMALL)):
        with pytest.raises(ValueError, match="`options` must be a dictionary or None, got"):
            env.reset(options=options)
        env.reset(options={})


@pytest.mark.parametrize("seed", [1.5, "a", True, -1, [0, 1.5]])
def test_seeds(seed: Any) -> None:
    with pytest.raises(ValueError, match="`seed` must be"):
        MarketVectorEnv(num_envs=2, **SMALL).reset(seed=seed)
