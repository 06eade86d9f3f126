"""What Gymnasium, stable-baselines3 and this package demand of every registered id, single and vector."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as check_gymnasium
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.env_checker import check_env as check_sb3

from hmgym.agents import Baseline, RandomPolicy, baselines_of, choose_best_constant, evaluate
from hmgym.agents.report import record_episode
from hmgym.agents.sb3 import MarketVecEnv
from hmgym.envs import ENVIRONMENTS, BatchEnv, BatchVectorEnv
from tests.envs.faces import Face

ROWS = 3


def actions_for(space: gym.Space[Any], count: int, seed: int = 0) -> list[Any]:
    space.seed(seed)
    return [space.sample() for _ in range(count)]


def test_gymnasium_checker_is_silent(face: Face) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_gymnasium(face.make(render_mode="rgb_array").unwrapped)


def test_stable_baselines_checker_is_silent(face: Face) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_sb3(face.make().unwrapped)


def test_spec_entry_points_are_strings(face: Face) -> None:
    spec = gym.spec(face.env_id)
    assert isinstance(spec.entry_point, str)
    assert isinstance(spec.vector_entry_point, str)
    assert spec.max_episode_steps == ENVIRONMENTS[face.env_id].max_episode_steps
    assert isinstance(gym.make(spec).unwrapped, BatchEnv)


def test_same_seed_same_episode(face: Face) -> None:
    def run() -> list[Any]:
        env = face.make()
        rows: list[Any] = [env.reset(seed=3)[0]]
        for action in actions_for(env.action_space, 12):
            observation, reward, terminated, *_ = env.step(action)
            rows += [observation, reward]
            if terminated:
                break
        return rows

    for first, second in zip(run(), run(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_unwrapped_never_truncates_and_make_overrides_the_horizon(face: Face) -> None:
    env = face.make(max_episode_steps=5)
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


def test_fresh_arrays(face: Face) -> None:
    env = face.make()
    observation, info = env.reset(seed=0)
    kept = copy.deepcopy((observation, info))
    action = np.zeros(env.action_space.shape, np.float32)
    later, *_ = env.step(action)
    assert not np.shares_memory(observation, later)
    np.testing.assert_array_equal(observation, kept[0])
    for name, value in info.items():
        np.testing.assert_array_equal(value, kept[1][name])
    twin = face.make()
    _, spoiled = twin.reset(seed=0)
    for value in spoiled.values():  # what a caller does to its arrays does not reach the market
        if isinstance(value, np.ndarray):
            value[...] = -1.0
    np.testing.assert_array_equal(twin.step(action)[0], later)


def test_pickle_and_deepcopy_in_the_middle_of_an_episode(face: Face) -> None:
    env = face.make(render_mode="rgb_array")
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
def test_action_that_is_not_finite(face: Face, bad: float) -> None:
    env = face.make().unwrapped
    env.reset(seed=0)
    action = np.zeros(env.action_space.shape, np.float32)
    action[-1] = bad
    with pytest.raises(ValueError, match=r"`action` must be finite, got (nan|inf) for `\w+` of market 0"):
        env.step(action)


def test_action_of_another_shape(face: Face) -> None:
    env = face.make().unwrapped
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"`action` must have shape"):
        env.step(np.zeros(17, np.float32))


def test_action_beyond_the_box_is_clipped(face: Face) -> None:
    env = face.make().unwrapped
    results = []
    for scale in (1.0, 3.0):
        env.reset(seed=0)
        results.append(env.step(np.full(env.action_space.shape, scale, np.float32))[0])
    np.testing.assert_array_equal(*results)


def test_step_before_reset(face: Face) -> None:
    env = face.make().unwrapped
    with pytest.raises(RuntimeError, match="reset"):
        env.step(np.zeros(env.action_space.shape, np.float32))


def test_unknown_keyword(face: Face) -> None:
    with pytest.raises(TypeError, match="horizon"):
        face.make(horizon=10)


def test_vector_metadata_is_per_instance(face: Face) -> None:
    same = face.make_vec(2, autoreset_mode="SameStep")
    default = face.make_vec(2)
    assert same.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert default.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert isinstance(default.unwrapped, BatchVectorEnv)


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_rows_equal_single_environments_across_resets(face: Face, mode: str) -> None:
    ours = face.make_vec(ROWS, autoreset_mode=mode, max_episode_steps=7)
    theirs = SyncVectorEnv([lambda: face.make(max_episode_steps=7)] * ROWS, autoreset_mode=mode)
    np.testing.assert_array_equal(ours.reset(seed=11)[0], theirs.reset(seed=11)[0])
    for actions in actions_for(ours.action_space, 30):
        mine, other = ours.step(actions), theirs.step(actions)
        np.testing.assert_allclose(mine[0], other[0], atol=1.2e-7)
        np.testing.assert_allclose(mine[1], other[1], rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(mine[2], other[2])
        np.testing.assert_array_equal(mine[3], other[3])
        assert set(mine[4]) == set(other[4])


def test_the_vector_environment_pickles(face: Face) -> None:
    env = face.make_vec(ROWS, autoreset_mode="SameStep", max_episode_steps=5)
    env.reset(seed=0)
    clones = [pickle.loads(pickle.dumps(env)), copy.deepcopy(env)]
    for actions in actions_for(env.action_space, 12):
        expected = env.step(actions)
        for clone in clones:
            np.testing.assert_array_equal(clone.step(actions)[0], expected[0])


def test_the_adapter_of_stable_baselines(face: Face) -> None:
    adapter = MarketVecEnv(face.env_id, ROWS, max_episode_steps=4, **face.small)
    batch = face.make_vec(ROWS, autoreset_mode="SameStep", max_episode_steps=4)
    adapter.seed(2)
    np.testing.assert_array_equal(adapter.reset(), batch.reset(seed=2)[0])
    for actions in actions_for(batch.action_space, 9):
        observation, reward, done, infos = adapter.step(actions)
        expected = batch.step(actions)
        np.testing.assert_array_equal(observation, expected[0])
        np.testing.assert_array_equal(reward, expected[1].astype(np.float32))
        np.testing.assert_array_equal(done, expected[2] | expected[3])
        for row in np.flatnonzero(done):
            np.testing.assert_array_equal(infos[row]["terminal_observation"], expected[4]["final_obs"][row])


def test_evaluation_baselines_and_a_recorded_episode(face: Face) -> None:
    arguments = {**face.small, "max_episode_steps": 4}
    choice = choose_best_constant(face.env_id, screening_episodes=1, episodes=0, env_kwargs=arguments)
    baselines = baselines_of(face.env_id, arguments)
    assert "random" in baselines
    best = Baseline(policy=choice.policy, env_id=face.env_id, env_kwargs=arguments)
    for other in (best, *baselines.values()):
        run = evaluate(other.policy, other.env_id, episodes=3, batch=2, env_kwargs=other.env_kwargs)
        assert run.returns.shape == run.terminated.shape == (3,)
        assert np.isfinite(run.returns).all()
    policy = RandomPolicy(face.make_vec(1).unwrapped.action_map.size)
    series = record_episode(policy, face.env_id, seed=0, env_kwargs=arguments)
    assert len(series) == 5
    for panel in series.panels():
        assert all(line.values.shape == (5,) for line in panel.lines)
        assert not panel.log or all((line.values > 0.0).all() for line in panel.lines)
