"""PPO, A2C, SAC and TD3 of stable-baselines3 as records: what may be set, and the defaults that suit markets.

Large batches and a short horizon: an action earns its reward next month, and markets are cheap. Wide exploration,
because good actions lie at the edges of the box.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import stable_baselines3 as sb3
from stable_baselines3.common.base_class import BaseAlgorithm

from hmgym.agents.algorithms import Algorithm
from hmgym.agents.sb3.training import load_policy, train


@dataclass(frozen=True, kw_only=True)
class CommonHyperparameters:
    """What all of them have."""

    learning_rate: float = 1e-3
    """of the optimiser"""
    gamma: float = 0.95
    """discount a month"""
    net_arch: tuple[int, ...] = (64, 64)
    """units of each hidden layer of actor and critic"""

    def __post_init__(self) -> None:
        if not 0.0 < self.learning_rate <= 1.0:
            raise ValueError(f"`learning_rate` must lie in (0, 1], got {self.learning_rate}")
        if not 0.0 <= self.gamma <= 1.0:
            raise ValueError(f"`gamma` must lie in [0, 1], got {self.gamma}")
        least = {"net_arch": 1, "n_steps": 1, "batch_size": 1, "n_epochs": 1, "buffer_size": 1, "train_freq": 1}
        for name, smallest in {**least, "learning_starts": 0}.items():
            values = getattr(self, name, smallest)
            if any(value < smallest for value in (values if isinstance(values, tuple) else (values,))):
                raise ValueError(f"`{name}` must be >= {smallest}, got {values}")


@dataclass(frozen=True, kw_only=True)
class OnPolicyHyperparameters(CommonHyperparameters):
    """What PPO and A2C have."""

    n_steps: int = 16
    """months of every market between two updates"""
    gae_lambda: float = 0.9
    """of generalised advantage estimation"""
    ent_coef: float = 0.0
    """weight of the entropy in the loss"""
    vf_coef: float = 0.5
    """weight of the critic in the loss"""
    max_grad_norm: float = 0.5
    """longer gradients are shortened to it"""
    log_std_init: float = 0.0
    """log standard deviation of the first actions"""


@dataclass(frozen=True, kw_only=True)
class PPOHyperparameters(OnPolicyHyperparameters):
    """How PPO learns."""

    batch_size: int = 2048
    """periods of a minibatch at most; the largest divisor of the rollout that is no larger is taken"""
    n_epochs: int = 6
    """passes over a rollout"""
    clip_range: float = 0.2
    """how far the probability ratio may move before its gradient stops"""
    target_kl: float | None = None
    """divergence from the policy that acted at which passes over a rollout end"""
    log_std_init: float = 0.5
    """log standard deviation of the first actions"""


@dataclass(frozen=True, kw_only=True)
class A2CHyperparameters(OnPolicyHyperparameters):
    """How A2C learns."""

    learning_rate: float = 7e-4
    """of the optimiser"""
    rms_prop_eps: float = 1e-5
    """ε of RMSprop"""
    normalize_advantage: bool = False
    """whether advantages are normalised"""


@dataclass(frozen=True, kw_only=True)
class OffPolicyHyperparameters(CommonHyperparameters):
    """What SAC and TD3 have."""

    gamma: float = 0.9
    """discount a month"""
    buffer_size: int = 300_000
    """periods that are kept"""
    batch_size: int = 1024
    """periods of a gradient step"""
    learning_starts: int = 10_000
    """periods of random actions at the start"""
    train_freq: int = 1
    """months of every market between two updates"""
    gradient_steps: int = 4
    """gradient steps of an update; -1 takes as many as there were periods"""
    tau: float = 0.005
    """share of the way that the slow critics move to the critics after a gradient step"""


@dataclass(frozen=True, kw_only=True)
class SACHyperparameters(OffPolicyHyperparameters):
    """How SAC learns."""

    ent_coef: float | Literal["auto"] = "auto"
    """weight of the entropy; auto learns it"""
    target_entropy: float | Literal["auto"] = "auto"
    """entropy that is aimed at where the weight is learnt; auto is minus the size of an action"""


@dataclass(frozen=True, kw_only=True)
class TD3Hyperparameters(OffPolicyHyperparameters):
    """How TD3 learns."""

    policy_delay: int = 2
    """gradient steps of the critics for one of the actor"""
    target_policy_noise: float = 0.2
    """standard deviation of the noise that smooths the target's actions"""
    target_noise_clip: float = 0.5
    """largest such noise"""


def record(
    name: str,
    model: type[BaseAlgorithm],
    hyperparameters: type[Any],
    timesteps: int,
    policy: str = "MlpPolicy",
    by_environment: Mapping[str, Mapping[str, Any]] | None = None,
) -> Algorithm:
    """The record of an algorithm with stable-baselines3's interface.

    Args:
        name: as in :data:`~hmgym.agents.algorithms.ALGORITHMS`.
        model: the class.
        hyperparameters: what its constructor and its networks take.
        timesteps: of a plan that does not say.
        policy: name of its networks.
        by_environment: hyperparameters that differ from the defaults, by environment id.
    """
    return Algorithm(
        name=name, hyperparameters=hyperparameters, train=partial(train, model, policy),
        load_policy=partial(load_policy, model), timesteps=timesteps, num_envs=256,
        by_environment=by_environment or {},
    )  # fmt: skip


# Episodes of market making end by themselves, and the best quotes lie inside the box.
_QUOTING = {"gamma": 1.0, "log_std_init": -1.0}

PPO = record("ppo", sb3.PPO, PPOHyperparameters, 1_000_000, by_environment={"hmgym/MarketMaking-v0": _QUOTING})
A2C = record("a2c", sb3.A2C, A2CHyperparameters, 2_000_000)
SAC = record("sac", sb3.SAC, SACHyperparameters, 300_000)
TD3 = record("td3", sb3.TD3, TD3Hyperparameters, 300_000)
