"""Environment steps a second, for numbers of markets side by side, with random actions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from benchmarks.timing import print_table, seconds

COUNTS = (1, 16, 64, 256, 1024)
ENV_ID = "hmgym/Leverage-v0"


def run() -> dict[str, Any]:
    """Steps a second by environment."""
    calls: dict[str, Callable[[], object]] = {"gym.make": _single()}
    for count in COUNTS:
        calls[f"make_vec, {count}"] = _vector(count)
    taken = seconds(calls, repeats=5, least=0.3)
    markets = {"gym.make": 1} | {f"make_vec, {count}": count for count in COUNTS}
    results: dict[str, Any] = {name: markets[name] / duration for name, duration in taken.items()}
    rows = [("environment", "steps a second", "time of one step()")]
    rows += [(name, f"{results[name]:,.0f}", f"{taken[name] * 1e6:,.0f} us") for name in calls]
    print_table(f"{ENV_ID}, N=3, B=20, random actions", rows)
    return results


def _single() -> Callable[[], object]:
    env = gym.make(ENV_ID)
    env.reset(seed=0)
    env.action_space.seed(0)

    def step() -> None:
        *_, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset()

    return step


def _vector(count: int) -> Callable[[], object]:
    envs = gym.make_vec(ENV_ID, num_envs=count)
    envs.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-1, 1, (64, *envs.action_space.shape)).astype(np.float32)
    clock = iter(range(10**9))
    return lambda: envs.step(actions[next(clock) % 64])
