"""Train an algorithm of stable-baselines3 on a batch of markets, with checkpoints that a later run resumes from."""

from __future__ import annotations

import dataclasses
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

from hmgym.agents.run import TrainingResult, TrainingRun
from hmgym.agents.sb3.normalizer import load_statistics, save_statistics
from hmgym.agents.sb3.vec_env import MarketVecEnv
from hmgym.agents.training import TrainingPlan, spread_seed

_MODEL_FILE, _REPLAY_FILE = "model.zip", "replay_buffer.pkl"
# Hyperparameters that go to the networks, not to the algorithm.
_OF_POLICY = ("net_arch", "log_std_init", "n_quantiles", "n_critics", "lstm_hidden_size", "n_lstm_layers")


class NormalizedPolicy:
    """The policy of a trained model, with the observation statistics that it was trained with."""

    def __init__(self, model: BaseAlgorithm, normalizer: VecNormalize) -> None:
        self._model = model
        self._normalizer = normalizer

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[npt.NDArray[np.float32], Any]:
        """Actions (E, size of one action) for observations (E, size), as the model's own `predict` gives them.

        The state is that of the model: None, unless its networks have a memory.
        """
        normalized = np.asarray(self._normalizer.normalize_obs(observation))
        return self._model.predict(normalized, state, episode_start, deterministic)


def train(algorithm: type[BaseAlgorithm], policy: str, run: TrainingRun) -> TrainingResult:
    """Train as the run says; writes checkpoints and TensorBoard logs.

    Args:
        algorithm: of stable-baselines3, or with its interface.
        policy: name of its networks, such as ``"MlpPolicy"``.
        run: what to train.
    """
    plan, found = run.plan, run.found
    markets = MarketVecEnv(plan.env_id, plan.num_markets, **plan.env_kwargs)
    normalized = VecNormalize(VecMonitor(markets), gamma=run.hyperparameters.gamma)
    log = str(plan.out / "tensorboard")
    if found is None:
        model = algorithm(
            policy, normalized, seed=plan.seed, tensorboard_log=log, device="cpu",
            stats_window_size=max(100, markets.num_envs), **_constructor_arguments(run.hyperparameters, markets),
        )  # fmt: skip
        markets.seed(plan.market_seed)  # after the algorithm, which seeds its environment too
    else:
        load_statistics(normalized, found.folder)
        model = algorithm.load(found.folder / _MODEL_FILE, env=normalized, tensorboard_log=log, device="cpu")
        if isinstance(model, OffPolicyAlgorithm):
            _load_replay_buffer(model, found.folder)
        # The streams of a resumed run start from another seed: the old one would replay what was already learnt from.
        markets.seed(spread_seed(plan.seed, model.num_timesteps))
    run.start()
    remaining = plan.total_steps - model.num_timesteps
    trained = NormalizedPolicy(model, normalized)
    if remaining > 0:
        recorder = TrainingRecorder(run, trained)
        model.learn(remaining, callback=recorder, reset_num_timesteps=found is None, tb_log_name=plan.algo)
    else:
        run.curve.pause()
    normalized.training = False
    return run.result(trained, model.num_timesteps)


class TrainingRecorder(BaseCallback):
    """Keeps the learning curve, writes checkpoints and tells how far the run is.

    A checkpoint holds the model, the statistics of VecNormalize and the replay buffer where there is one.

    Args:
        run: to record.
        policy: what the curve measures.
    """

    def __init__(self, run: TrainingRun, policy: NormalizedPolicy) -> None:
        super().__init__()
        self._run, self._policy = run, policy
        self._next_checkpoint = 0

    def _on_training_start(self) -> None:
        self._next_checkpoint = self.num_timesteps + self._run.plan.checkpoint_steps
        self._run.curve.start()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        # Here and not at the end of a rollout: the gradient steps on the last rollout are then part of what is saved.
        self._run.curve.measure(self._policy, self.num_timesteps, _gradient_steps(self.model))
        recent = [episode["r"] for episode in self.model.ep_info_buffer or []]
        self._run.progress(self.num_timesteps, float(np.mean(recent)) if recent else math.nan)
        if self.num_timesteps >= self._next_checkpoint:
            self._next_checkpoint = self.num_timesteps + self._run.plan.checkpoint_steps
            self._save()

    def _on_training_end(self) -> None:
        self._run.curve.measure(self._policy, self.num_timesteps, _gradient_steps(self.model), last=True)
        self._run.curve.pause()
        self._save()

    def _save(self) -> None:
        normalizer = self.model.get_vec_normalize_env()
        assert normalizer is not None
        with self._run.checkpoint(self.num_timesteps, transient=[_REPLAY_FILE]) as folder:
            self.model.save(folder / _MODEL_FILE)
            save_statistics(normalizer, folder)
            if isinstance(self.model, OffPolicyAlgorithm):
                self.model.save_replay_buffer(folder / _REPLAY_FILE)


def load_policy(algorithm: type[BaseAlgorithm], folder: Path, plan: TrainingPlan) -> NormalizedPolicy:
    """The deterministic policy of a checkpoint folder."""
    normalizer = VecNormalize(MarketVecEnv(plan.env_id, 1, **plan.env_kwargs), training=False)
    load_statistics(normalizer, folder)
    return NormalizedPolicy(algorithm.load(folder / _MODEL_FILE, device="cpu"), normalizer)


def _constructor_arguments(hyperparameters: Any, markets: MarketVecEnv) -> dict[str, Any]:
    settings = {item.name: getattr(hyperparameters, item.name) for item in dataclasses.fields(hyperparameters)}
    networks = {name: settings.pop(name) for name in _OF_POLICY if name in settings}
    networks["net_arch"] = list(networks["net_arch"])
    if "batch_size" in settings and "n_epochs" in settings:
        settings["batch_size"] = _largest_divisor(settings["n_steps"] * markets.num_envs, settings["batch_size"])
    return {**settings, "policy_kwargs": networks}


def _load_replay_buffer(model: OffPolicyAlgorithm, folder: Path) -> None:
    if (folder / _REPLAY_FILE).exists():
        model.load_replay_buffer(folder / _REPLAY_FILE)
    else:
        warnings.warn(
            f"{folder} has no replay buffer, which only the newest checkpoint keeps: it is filled anew",
            RuntimeWarning,
            stacklevel=3,
        )


def _gradient_steps(model: BaseAlgorithm) -> int:
    """Optimiser steps so far: stable-baselines3 counts passes where there are some (PPO), else updates."""
    updates = int(getattr(model, "_n_updates", 0))
    if isinstance(model, OnPolicyAlgorithm) and hasattr(model, "n_epochs") and hasattr(model, "batch_size"):
        return updates * int(-(-model.n_steps * model.n_envs // model.batch_size))
    return updates


def _largest_divisor(number: int, at_most: int) -> int:
    """Largest divisor of `number` that is no larger than `at_most`: a minibatch that divides the rollout."""
    return next(size for size in range(min(number, at_most), 0, -1) if number % size == 0)
