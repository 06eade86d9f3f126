"""stable-baselines3: the `VecEnv` of markets, and training with it. The only package that imports stable-baselines3."""

from __future__ import annotations

try:
    import stable_baselines3  # noqa: F401
except ImportError as error:
    raise ImportError('hmgym.agents.sb3 needs stable-baselines3: pip install "hmgym[train]"') from error

from hmgym.agents.sb3.vec_env import MarketVecEnv

__all__ = ["MarketVecEnv"]
