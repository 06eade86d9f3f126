"""Train PPO, A2C, SAC or TD3 on a batch of markets, with checkpoints that a later run resumes from."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from stable_baselines3 import A2C, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

from hmgym.agents.sb3.vec_env import MarketVecEnv
from hmgym.agents.training import (
    LearningCurve,
    Progress,
    TrainingPlan,
    TrainingResult,
    checkpoint_folder,
    newest_checkpoint,
    spread_seed,
)

ALGORITHMS: dict[str, type[BaseAlgorithm]] = {"ppo": PPO, "a2c": A2C, "sac": SAC, "td3": TD3}

_NETWORK = {"net_arch": [64, 64]}
HYPERPARAMETERS: dict[str, dict[str, Any]] = {
    "ppo": {
        "n_steps": 16, "batch_size": 2048, "n_epochs": 6, "learning_rate": 1e-3, "gamma": 0.95, "gae_lambda": 0.9,
        "ent_coef": 0.0, "policy_kwargs": {**_NETWORK, "log_std_init": 0.5},
    },
    "a2c": {"n_steps": 16, "learning_rate": 7e-4, "gamma": 0.95, "gae_lambda": 0.9, "ent_coef": 0.0,
            "policy_kwargs": {**_NETWORK, "log_std_init": 0.0}},
    "sac": {"buffer_size": 300_000, "batch_size": 1024, "learning_rate": 1e-3, "gamma": 0.9, "train_freq": 1,
            "gradient_steps": 4, "learning_starts": 10_000, "policy_kwargs": _NETWORK},
    "td3": {"buffer_size": 300_000, "batch_size": 1024, "learning_rate": 1e-3, "gamma": 0.9, "train_freq": 1,
            "gradient_steps": 4, "learning_starts": 10_000, "policy_kwargs": _NETWORK},
}  # fmt: skip
"""Large batches and a short horizon: an action earns its reward next month, and markets are cheap.

Wide exploration, because good actions lie at the edges of the box.
"""


class NormalizedPolicy:
    """The policy of a trained model, with the observation statistics that it was trained with."""

    def __init__(self, model: BaseAlgorithm, normalizer: VecNormalize) -> None:
        self._model = model
        self._normalizer = normalizer

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[npt.NDArray[np.float32], None]:
        """Actions (E, size of one action) for observations (E, size), as the model's own `predict` gives them."""
        normalized = np.asarray(self._normalizer.normalize_obs(observation))
        return self._model.predict(normalized, deterministic=deterministic)[0], None


def train(plan: TrainingPlan, progress: Progress | None = None) -> TrainingResult:
    """Train as planned; writes checkpoints and TensorBoard logs under ``plan.out``.

    Args:
        plan: what to train.
        progress: told how far the run is.
    """
    plan.out.mkdir(parents=True, exist_ok=True)
    markets = MarketVecEnv(plan.env_id, plan.num_markets, **plan.env_kwargs)
    monitored = VecMonitor(markets)
    found = newest_checkpoint(plan.out) if plan.resume else None
    algorithm = ALGORITHMS[plan.algo]
    log = str(plan.out / "tensorboard")
    curve = LearningCurve(plan)
    if found is None:
        # A copy: the algorithms write into the dictionaries that they are given.
        settings = copy.deepcopy({**HYPERPARAMETERS[plan.algo], **plan.hyperparameters})
        if plan.algo == "ppo":
            settings["batch_size"] = _largest_divisor(settings["n_steps"] * markets.num_envs, settings["batch_size"])
        normalized = VecNormalize(monitored, gamma=settings.get("gamma", 0.99))
        model = algorithm(
            "MlpPolicy", normalized, seed=plan.seed, tensorboard_log=log, device="cpu",
            stats_window_size=max(100, markets.num_envs), **settings,
        )  # fmt: skip
        markets.seed(plan.market_seed)  # after the algorithm, which seeds its environment too
    else:
        normalized = VecNormalize.load(str(found / "vecnormalize.pkl"), monitored)
        model = algorithm.load(found / "model.zip", env=normalized, tensorboard_log=log, device="cpu")
        if isinstance(model, OffPolicyAlgorithm) and (found / "replay_buffer.pkl").exists():
            model.load_replay_buffer(found / "replay_buffer.pkl")
        curve.read(found / "progress.json")
        # The streams of a resumed run start from another seed: the old one would replay what was already learnt from.
        markets.seed(spread_seed(plan.seed, model.num_timesteps))
    remaining = plan.total_steps - model.num_timesteps
    if remaining > 0:
        recorder = TrainingRecorder(plan, curve, NormalizedPolicy(model, normalized), progress)
        model.learn(remaining, callback=recorder, reset_num_timesteps=found is None, tb_log_name=plan.algo)
    normalized.training = False
    return TrainingResult(
        policy=NormalizedPolicy(model, normalized), curve=curve.points, env_steps=model.num_timesteps,
        seconds=curve.seconds,
    )  # fmt: skip


class TrainingRecorder(BaseCallback):
    """Keeps the learning curve, writes checkpoints and tells how far the run is.

    A checkpoint holds the model, the VecNormalize statistics and the replay buffer where there is one.

    Args:
        plan: of the run.
        curve: to add to.
        policy: what the curve measures.
        progress: told how far the run is.
    """

    def __init__(
        self, plan: TrainingPlan, curve: LearningCurve, policy: NormalizedPolicy, progress: Progress | None
    ) -> None:
        super().__init__()
        self._plan, self._curve, self._policy, self._progress = plan, curve, policy, progress
        self._next_checkpoint = 0

    def _on_training_start(self) -> None:
        self._next_checkpoint = self.num_timesteps + self._plan.checkpoint_steps
        self._curve.start()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        # Here and not at the end of a rollout: the gradient steps on the last rollout are then part of what is saved.
        self._curve.measure(self._policy, self.num_timesteps, _gradient_steps(self.model))
        if self._progress is not None:
            recent = [episode["r"] for episode in self.model.ep_info_buffer or []]
            self._progress(self.num_timesteps, float(np.mean(recent)) if recent else math.nan)
        if self.num_timesteps >= self._next_checkpoint:
            self._next_checkpoint = self.num_timesteps + self._plan.checkpoint_steps
            self._save()

    def _on_training_end(self) -> None:
        self._curve.measure(self._policy, self.num_timesteps, _gradient_steps(self.model), last=True)
        self._curve.pause()
        self._save()

    def _save(self) -> None:
        folder = checkpoint_folder(self._plan.out, self.num_timesteps)
        self.model.save(folder / "model.zip")
        normalizer = self.model.get_vec_normalize_env()
        assert normalizer is not None
        normalizer.save(str(folder / "vecnormalize.pkl"))
        if isinstance(self.model, OffPolicyAlgorithm):
            self.model.save_replay_buffer(folder / "replay_buffer.pkl")
        self._curve.write(folder / "progress.json")
        for older in folder.parent.glob("*/replay_buffer.pkl"):
            if older.parent != folder:
                older.unlink()  # only the newest is resumed from, and it is large


def _gradient_steps(model: BaseAlgorithm) -> int:
    """Optimiser steps so far: stable-baselines3 counts epochs for PPO, and updates for the others."""
    updates = int(getattr(model, "_n_updates", 0))
    if isinstance(model, PPO):
        return updates * (-(-model.n_steps * model.n_envs // model.batch_size))
    return updates


def _largest_divisor(number: int, at_most: int) -> int:
    """Largest divisor of `number` that is no larger than `at_most`: a minibatch that divides the rollout."""
    return next(size for size in range(min(number, at_most), 0, -1) if number % size == 0)


def load_policy(folder: Path, env_id: str, algo: str, env_kwargs: Mapping[str, Any] | None = None) -> NormalizedPolicy:
    """The deterministic policy of a checkpoint folder."""
    markets = MarketVecEnv(env_id, 1, **(env_kwargs or {}))
    normalizer = VecNormalize.load(str(folder / "vecnormalize.pkl"), markets)
    normalizer.training = False
    return NormalizedPolicy(ALGORITHMS[algo].load(folder / "model.zip", device="cpu"), normalizer)
