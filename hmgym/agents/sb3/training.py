"""Train PPO, A2C, SAC or TD3 on a batch of markets, with checkpoints that a later run resumes from."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
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


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """What to train.

    Attributes:
        algo: one of :data:`ALGORITHMS`.
        env_id: a registered id.
        timesteps: periods over all markets together.
        num_envs: markets side by side.
        seed: of the markets and of the learner.
        out: folder of checkpoints and TensorBoard logs.
        resume: go on from the newest checkpoint in `out`, if there is one.
        checkpoint_every: periods between checkpoints.
        env_kwargs: arguments of the environment.
        hyperparameters: changes to :data:`HYPERPARAMETERS`.
    """

    algo: str = "ppo"
    env_id: str = "hmgym/Leverage-v0"
    timesteps: int = 2_000_000
    num_envs: int = 256
    seed: int = 0
    out: Path = Path("runs/ppo")
    resume: bool = False
    checkpoint_every: int = 1_000_000
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.algo not in ALGORITHMS:
            raise ValueError(f"`algo` must be one of {sorted(ALGORITHMS)}, got {self.algo!r}")
        for name in ("timesteps", "num_envs", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be >= 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """One point of a learning curve.

    Attributes:
        env_steps: periods so far, over all markets.
        gradient_steps: optimiser steps so far.
        seconds: of training so far, resumed runs added up.
        mean_return: mean sum of rewards of the last episodes, with the exploring policy.
    """

    env_steps: int
    gradient_steps: int
    seconds: float
    mean_return: float


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """A trained policy and how it got there."""

    policy: NormalizedPolicy
    curve: list[CurvePoint]
    env_steps: int
    seconds: float

    @property
    def frames_per_second(self) -> float:
        """Periods a second of training, gradient steps included."""
        return self.env_steps / max(self.seconds, 1e-9)


class NormalizedPolicy:
    """The deterministic policy of a trained model, with the observation statistics that it was trained with."""

    def __init__(self, model: BaseAlgorithm, normalizer: VecNormalize) -> None:
        self._model = model
        self._normalizer = normalizer

    def __call__(self, observation: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Actions (E, size of one action) for observations (E, size)."""
        action, _ = self._model.predict(np.asarray(self._normalizer.normalize_obs(observation)), deterministic=True)
        return action


def train(plan: TrainingPlan, *callbacks: BaseCallback) -> TrainingResult:
    """Train as planned; writes checkpoints and TensorBoard logs under ``plan.out``.

    Args:
        plan: what to train.
        callbacks: more callbacks of stable-baselines3, such as a progress bar.
    """
    plan.out.mkdir(parents=True, exist_ok=True)
    markets = MarketVecEnv(plan.env_id, plan.num_envs, **plan.env_kwargs)
    monitored = VecMonitor(markets)
    found = newest_checkpoint(plan.out) if plan.resume else None
    algorithm = ALGORITHMS[plan.algo]
    log = str(plan.out / "tensorboard")
    if found is None:
        # A copy: the algorithms write into the dictionaries that they are given.
        settings = copy.deepcopy({**HYPERPARAMETERS[plan.algo], **plan.hyperparameters})
        if plan.algo == "ppo":
            settings["batch_size"] = _largest_divisor(settings["n_steps"] * plan.num_envs, settings["batch_size"])
        normalized = VecNormalize(monitored, gamma=settings.get("gamma", 0.99))
        model = algorithm(
            "MlpPolicy", normalized, seed=plan.seed, tensorboard_log=log, device="cpu",
            stats_window_size=max(100, plan.num_envs), **settings,
        )  # fmt: skip
        markets.seed(_market_seed(plan.seed))  # after the algorithm, which seeds its environment too
        recorder = TrainingRecorder(plan)
    else:
        normalized = VecNormalize.load(str(found / "vecnormalize.pkl"), monitored)
        model = algorithm.load(found / "model.zip", env=normalized, tensorboard_log=log, device="cpu")
        if isinstance(model, OffPolicyAlgorithm) and (found / "replay_buffer.pkl").exists():
            model.load_replay_buffer(found / "replay_buffer.pkl")
        progress = json.loads((found / "progress.json").read_text())
        recorder = TrainingRecorder(plan, progress["seconds"], [CurvePoint(**point) for point in progress["curve"]])
        # The streams of a resumed run start from another seed: the old one would replay what was already learnt from.
        markets.seed(_market_seed(plan.seed, model.num_timesteps))
    remaining = plan.timesteps - model.num_timesteps
    if remaining > 0:
        model.learn(
            remaining, callback=[recorder, *callbacks], reset_num_timesteps=found is None, tb_log_name=plan.algo,
        )  # fmt: skip
    normalized.training = False
    return TrainingResult(
        policy=NormalizedPolicy(model, normalized), curve=recorder.curve, env_steps=model.num_timesteps,
        seconds=recorder.seconds,
    )  # fmt: skip


def _market_seed(seed: int, *stage: int) -> int:
    """Seed of the first market of a run. Rows count up from it, so seeds of runs that count up would share markets."""
    return int(np.random.SeedSequence([seed, *stage]).generate_state(1)[0])


def newest_checkpoint(out: Path) -> Path | None:
    """Folder of the newest complete checkpoint under `out`, None if there is none."""
    complete = [path.parent for path in (out / "checkpoints").glob("*/progress.json")]
    return max(complete, key=lambda path: int(path.name), default=None)


class TrainingRecorder(BaseCallback):
    """Keeps the learning curve and writes checkpoints.

    A checkpoint is a folder ``checkpoints/<periods>`` with the model, the VecNormalize statistics, the replay buffer
    where there is one, and ``progress.json``, written last, so that a folder that has it is complete.
    """

    def __init__(self, plan: TrainingPlan, seconds: float = 0.0, curve: list[CurvePoint] | None = None) -> None:
        super().__init__()
        self._plan = plan
        self._before = seconds
        self._begin = time.perf_counter()
        self._next_checkpoint = 0
        self._next_point = self._first_point = 0
        self.curve: list[CurvePoint] = curve or []

    @property
    def seconds(self) -> float:
        """Seconds of training so far, resumed runs added up."""
        return self._before + time.perf_counter() - self._begin

    def _on_training_start(self) -> None:
        self._begin = time.perf_counter()
        self._next_checkpoint = self.num_timesteps + self._plan.checkpoint_every
        self._first_point = self._plan.num_envs * (self.training_env.get_attr("max_episode_steps")[0] or 0)

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        # Here and not at the end of a rollout: the gradient steps on the last rollout are then part of what is saved.
        # The first episodes to end are the ruined ones; until all could have ended, their mean says nothing.
        if self.num_timesteps >= max(self._next_point, self._first_point):
            self._next_point = self.num_timesteps + self._plan.timesteps // 500
            self._add_point()
        if self.num_timesteps >= self._next_checkpoint:
            self._next_checkpoint = self.num_timesteps + self._plan.checkpoint_every
            self._save()

    def _on_training_end(self) -> None:
        self._before, self._begin = self.seconds, time.perf_counter()
        self._add_point()
        self._save()
        self._begin = time.perf_counter()

    def _add_point(self) -> None:
        recent = self.model.ep_info_buffer
        if recent:
            self.curve.append(
                CurvePoint(
                    env_steps=self.num_timesteps,
                    gradient_steps=_gradient_steps(self.model),
                    seconds=round(self.seconds, 3),
                    mean_return=float(np.mean([episode["r"] for episode in recent])),
                )
            )

    def _save(self) -> None:
        folder = self._plan.out / "checkpoints" / str(self.num_timesteps)
        folder.mkdir(parents=True, exist_ok=True)
        self.model.save(folder / "model.zip")
        normalizer = self.model.get_vec_normalize_env()
        assert normalizer is not None
        normalizer.save(str(folder / "vecnormalize.pkl"))
        if isinstance(self.model, OffPolicyAlgorithm):
            for older in folder.parent.glob("*/replay_buffer.pkl"):
                older.unlink()  # only the newest is resumed from, and it is large
            self.model.save_replay_buffer(folder / "replay_buffer.pkl")
        progress = {"seconds": self.seconds, "curve": [vars(point) for point in self.curve]}
        (folder / "progress.json").write_text(json.dumps(progress))


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
