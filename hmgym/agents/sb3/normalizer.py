"""The running statistics of stable-baselines3's `VecNormalize`, in a file of plain arrays."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize

_FILE = "normalizer.npz"


def save_statistics(normalizer: VecNormalize, folder: Path) -> None:
    """Write mean, variance and count of observations and of returns, all float64."""
    seen, returns = cast(RunningMeanStd, normalizer.obs_rms), normalizer.ret_rms
    np.savez(
        folder / _FILE,
        observation_mean=seen.mean, observation_variance=seen.var, observation_count=np.float64(seen.count),
        return_mean=returns.mean, return_variance=returns.var, return_count=np.float64(returns.count),
    )  # fmt: skip


def load_statistics(normalizer: VecNormalize, folder: Path) -> None:
    """Restore what `save_statistics` wrote, bit for bit; the file holds no code and loading it runs none."""
    moments = {"observation": cast(RunningMeanStd, normalizer.obs_rms), "return": normalizer.ret_rms}
    with np.load(folder / _FILE, allow_pickle=False) as stored:
        for name, one in moments.items():
            one.mean, one.var = stored[f"{name}_mean"], stored[f"{name}_variance"]
            one.count = float(stored[f"{name}_count"])
