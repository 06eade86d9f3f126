"""Workers forked from a process whose thread pools have run: they must answer, not wait for threads that are gone."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AsyncVectorEnv
from stable_baselines3.common.vec_env import SubprocVecEnv

SMALL: dict[str, Any] = {"n_assets": 2, "n_investors": 8}
# Python warns of every fork of a process with threads; that such forks work is what is tested here.
pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"),
]


def make() -> gym.Env[Any, Any]:
    return gym.make("hmgym:hmgym/LeverageBeliefs-v0", **SMALL)  # a spawned worker has not imported hmgym


@pytest.fixture(autouse=True)
def _busy_parent() -> None:
    """A large torch operation and a parallel clearing in this process, before it forks."""
    matrix = torch.rand(1200, 1200, dtype=torch.float64)
    torch.linalg.cholesky(matrix @ matrix.T + 1200.0 * torch.eye(1200, dtype=torch.float64))
    batch = gym.make_vec("hmgym/Leverage-v0", 256)
    batch.reset(seed=0)
    batch.step(np.zeros(batch.action_space.shape, np.float32))


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_async_vector_env(context: str) -> None:
    env = AsyncVectorEnv([make] * 2, context=context)
    try:
        env.reset_async(seed=3)
        observation, _ = env.reset_wait(timeout=60)
        env.step_async(np.zeros(env.action_space.shape, np.float32))
        _, reward, *_ = env.step_wait(timeout=60)
    finally:
        env.close(terminate=True)
    single = make()
    np.testing.assert_array_equal(observation[1], single.reset(seed=4)[0])
    assert reward[1] == single.step(np.zeros(3, np.float32))[1]


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_subproc_vec_env(method: str) -> None:
    env = SubprocVecEnv([make] * 2, start_method=method)
    try:
        env.seed(3)
        observation = env.reset()
        env.step(np.zeros((2, 3), np.float32))
    finally:
        env.close()
    np.testing.assert_array_equal(observation[1], make().reset(seed=4)[0])
