"""The running statistics of stable-baselines3's `VecNormalize`, in a file of plain arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize

_FILE = "normalizer.npz"


def save_statistics(normalizer: VecNormalize, folder: Path) -> None:
    """Write mean, variance and count of observations and of returns."""
    arrays = {
        f"{name}_{part}": np.asarray(getattr(moments, attribute), np.float64)
        for name, moments in _moments(normalizer).items()
        for part, attribute in (("mean", "mean"), ("variance", "var"), ("count", "count"))
    }
    np.savez(folder / _FILE, **arrays)


def load_statistics(normalizer: VecNormalize, folder: Path) -> None:
    """Restore what `save_statistics` wrote, bit for bit; the file holds no code and loading it runs none."""
    with np.load(folder / _FILE, allow_pickle=False) as stored:
        for name, moments in _moments(normalizer).items():
            moments.mean = stored[f"{name}_mean"]
            moments.var = stored[f"{name}_variance"]
            moments.count = float(stored[f"{name}_count"])


def _moments(normalizer: VecNormalize) -> dict[str, RunningMeanStd]:
    assert isinstance(normalizer.obs_rms, RunningMeanStd)
    return {"observation": normalizer.obs_rms, "return": normalizer.ret_rms}
