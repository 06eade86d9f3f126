"""The stable-baselines3 face: same-step resets, terminal observations, attributes, wrappers and training."""

from __future__ import annotations

import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import A2C, PPO, SAC, TD3
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecCheckNan, VecMonitor, VecNormalize

from hmgym.agents.sb3 import MarketVecEnv
from hmgym.envs import ENVIRONMENTS
from hmgym.market import MarketConfig

# Ruin at a tenth below the start ends many episodes early, each in its own month.
FRAGILE = MarketConfig(n_assets=2, n_investors=8, ruin_fraction=0.9)
ROWS = 4


@pytest.mark.parametrize("env_id", sorted(ENVIRONMENTS))
def test_equals_a_dummy_vec_env_of_single_environments(env_id: str) -> None:
    ours = MarketVecEnv(env_id, ROWS, config=FRAGILE, max_episode_steps=20, full_info=True)
    theirs = DummyVecEnv([lambda: gym.make(env_id, config=FRAGILE, max_episode_steps=20)] * ROWS)
    ours.seed(5)
    theirs.seed(5)
    np.testing.assert_array_equal(ours.reset(), theirs.reset())
    ours.action_space.seed(0)
    kinds = set()
    for _ in range(60):
        actions = np.array([ours.action_space.sample() for _ in range(ROWS)])
        mine, other = ours.step(actions), theirs.step(actions)
        np.testing.assert_allclose(mine[0], other[0], atol=1.2e-7)
        np.testing.assert_allclose(mine[1], other[1], rtol=1e-6)
        assert mine[1].dtype == np.float32
        np.testing.assert_array_equal(mine[2], other[2])
        for done, a, b in zip(mine[2], mine[3], other[3], strict=True):
            assert set(a) == set(b)
            assert a["TimeLimit.truncated"] == b["TimeLimit.truncated"]
            np.testing.assert_allclose(a["wealth"], b["wealth"], rtol=1e-12)
            if done:
                np.testing.assert_allclose(a["terminal_observation"], b["terminal_observation"], atol=1.2e-7)
                kinds.add(a["TimeLimit.truncated"])
    assert kinds == {True, False}, "the comparison must span ruin and truncation"
    for mine_info, other_info in zip(ours.reset_infos, theirs.reset_infos, strict=True):
        np.testing.assert_allclose(mine_info["prices"], other_info["prices"], rtol=1e-12)


def test_infos_are_lean_by_default() -> None:
    sturdy = FRAGILE.replace(ruin_fraction=0.01)
    env = MarketVecEnv("hmgym/Leverage-v0", ROWS, config=sturdy, max_episode_steps=3)
    env.reset()
    steps = [env.step(np.zeros((ROWS, 2), np.float32))[3] for _ in range(3)]
    assert steps[0][0] == {"TimeLimit.truncated": False}
    assert {"terminal_observation", "unit_value", "wealth", "prices"} <= set(steps[2][0])


def test_attributes() -> None:
    env = MarketVecEnv("hmgym/Leverage-v0", ROWS, config=FRAGILE)
    assert env.get_attr("config") == [FRAGILE] * ROWS
    assert env.get_attr("render_mode") == [None] * ROWS
    assert env.get_attr("spec")[0].id == "hmgym/Leverage-v0"
    assert env.get_attr("action_space", [1]) == [env.action_space]
    assert not env.has_attr("wealth")
    env.seed(3)
    env.reset()
    assert env.get_attr("np_random_seed") == [3, 4, 5, 6]
    assert env.get_attr("wealth", 2) == [env.markets.infos()["wealth"][2]]
    env.set_attr("label", "a")
    env.set_attr("label", "b", indices=[1, 3])
    assert env.get_attr("label") == ["a", "b", "a", "b"]
    assert not env.has_attr("nothing")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        env.get_attr("nothing")
    with pytest.raises(AttributeError, match="`render_mode` belongs to the environment that all markets share"):
        env.set_attr("render_mode", "human")
    assert env.env_is_wrapped(Monitor) == [False] * ROWS


def test_methods() -> None:
    env = MarketVecEnv("hmgym/Leverage-v0", 2, config=FRAGILE, render_mode="rgb_array")
    env.reset()
    env.step(np.zeros((2, 2), np.float32))
    frames = env.env_method("render")
    assert [frame.shape for frame in frames] == [(640, 960, 3)] * 2
    assert len(env.env_method("episode", indices=1)[0].unit_value) == 2
    env.env_method("set_wrapper_attr", "label", 7, indices=0)
    assert env.env_method("get_wrapper_attr", "label", indices=0) == [7]
    assert env.env_method("has_wrapper_attr", "label", indices=0) == [True]
    assert [image.shape for image in env.get_images()] == [(640, 960, 3)] * 2
    assert env.render().shape[2] == 3
    env.close()


def test_pickles() -> None:
    env = MarketVecEnv("hmgym/Beliefs-v0", 2, config=FRAGILE)
    env.reset()
    clone = pickle.loads(pickle.dumps(env))
    actions = np.full((2, 2), 0.1, np.float32)
    np.testing.assert_array_equal(clone.step(actions)[0], env.step(actions)[0])


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="`env_id` must name a market"):
        MarketVecEnv("CartPole-v1", 2)
    with pytest.raises(ValueError, match="`autoreset_mode` is fixed"):
        MarketVecEnv("hmgym/Leverage-v0", 2, autoreset_mode="NextStep")


@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [
        (PPO, {"n_steps": 8, "batch_size": 16, "n_epochs": 2}),
        (A2C, {"n_steps": 4}),
        (SAC, {"learning_starts": 16, "batch_size": 16, "buffer_size": 1000}),
        (TD3, {"learning_starts": 16, "batch_size": 16, "buffer_size": 1000}),
    ],
)
def test_algorithms_learn_through_the_usual_wrappers(algorithm: Any, settings: dict[str, Any]) -> None:
    env = MarketVecEnv("hmgym/LeverageBeliefs-v0", ROWS, config=FRAGILE, max_episode_steps=5)
    wrapped = VecNormalize(VecMonitor(VecCheckNan(env, raise_exception=True)))
    model = algorithm("MlpPolicy", wrapped, seed=0, device="cpu", **settings)
    model.learn(128)
    assert len(model.ep_info_buffer) > 0
    mean, _ = evaluate_policy(model, VecMonitor(env), n_eval_episodes=4)
    assert np.isfinite(mean)


def test_env_method_resets_one_market() -> None:
    markets = MarketVecEnv("hmgym/Leverage-v0", 4)
    markets.seed(0)
    markets.reset()
    for _ in range(3):
        markets.step(np.zeros((4, 2), np.float32))
    markets.env_method("reset", indices=1)
    assert markets.markets.state.month.tolist() == [3, 0, 3, 3]
    with pytest.raises(AttributeError, match="acts on all markets"):
        markets.env_method("step", np.zeros(2))
