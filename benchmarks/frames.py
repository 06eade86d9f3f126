"""How much of PPO's time is the environment's.

Its frames a second with the market and with an environment that does nothing, in turns. PPO has the default
hyperparameters of stable-baselines3, 64 markets. torch runs on one thread for both: PPO's networks are so small that a
second one makes it slower, and waiting for work it would keep busy the core on which half of the markets clear.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from benchmarks.timing import print_table
from hmgym.agents.sb3 import MarketVecEnv

ENV_ID = "hmgym/Leverage-v0"
N_MARKETS = 64
PAIRS = 5


class NothingVecEnv(VecEnv):
    """The same spaces; ``step`` returns fresh arrays and does nothing else. Episodes end every 120 steps."""

    def __init__(self, like: VecEnv) -> None:
        super().__init__(like.num_envs, like.observation_space, like.action_space)
        self._time = 0

    def reset(self) -> np.ndarray:
        """Zeros."""
        return np.zeros((self.num_envs, *self.observation_space.shape), np.float32)

    def step_async(self, actions: np.ndarray) -> None:
        """Ignore the actions."""

    def step_wait(self) -> VecEnvStepReturn:
        """Zeros, in new arrays."""
        self._time += 1
        over = self._time % 120 == 0
        done = np.full(self.num_envs, over)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if over:
            infos = [{"terminal_observation": row, "TimeLimit.truncated": True} for row in self.reset()]
        return self.reset(), np.zeros(self.num_envs, np.float32), done, infos

    def close(self) -> None:
        """Nothing is open."""

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """``render_mode`` alone exists."""
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Nothing to set."""

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        """Nothing to call."""
        return [None] * self.num_envs

    def env_is_wrapped(self, wrapper_class: type, indices: VecEnvIndices = None) -> list[bool]:
        """Nothing is wrapped."""
        return [False] * self.num_envs


def run() -> dict[str, Any]:
    """Median ratio over interleaved pairs of one rollout with its update each."""
    torch.set_num_threads(1)
    market = MarketVecEnv(ENV_ID, N_MARKETS)
    models = {
        "market": PPO("MlpPolicy", market, device="cpu"),
        "nothing": PPO("MlpPolicy", NothingVecEnv(market), device="cpu"),
    }
    frames = 2048 * N_MARKETS
    speeds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(PAIRS):
        for name, model in models.items():
            start = time.perf_counter()
            model.learn(frames, reset_num_timesteps=False)
            speeds[name].append(frames / (time.perf_counter() - start))
    ratios = [a / b for a, b in zip(speeds["market"], speeds["nothing"], strict=True)]
    results = {
        "market": statistics.median(speeds["market"]),
        "nothing": statistics.median(speeds["nothing"]),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
    }
    rows = [
        ("environment", "frames a second"),
        (ENV_ID, f"{results['market']:,.0f}"),
        ("nothing", f"{results['nothing']:,.0f}"),
    ]
    rows.append(("ratio, median of pairs", f"{results['ratio']:.3f}"))
    print_table(f"PPO, SB3's defaults, {N_MARKETS} markets", rows)
    return results
