"""PPO with TorchRL's collector, advantage and loss, on TorchRL's Gym wrappers.

    python examples/torchrl_gym.py --num-envs 64     # GymWrapper around the batch of markets that clear together
    python examples/torchrl_gym.py --num-envs 1      # GymEnv("hmgym/Leverage-v0"), one market

Needs `pip install 'hmgym[torchrl]'`.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
import tyro
from harness import compare
from tensordict.nn import AddStateIndependentNormalScale, TensorDictModule
from torch import nn
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, ReplayBuffer, SamplerWithoutReplacement
from torchrl.envs import EnvBase, GymEnv, GymWrapper, RewardScaling, TransformedEnv
from torchrl.modules import MLP, IndependentNormal, ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE
from tqdm import tqdm

import hmgym  # noqa: F401  (registers the ids)


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Arguments of the command line."""

    env_id: str = "hmgym/Leverage-v0"
    """id of the environment"""
    seed: int = 0
    """of the markets, the weights and the exploration"""
    total_timesteps: int = 614_400
    """environment steps, over all markets together"""
    num_envs: int = 256
    """markets side by side; 1 takes GymEnv, more take the vector environment"""
    frames_per_batch: int = 4096
    """environment steps between two updates"""
    minibatch_size: int = 1024
    """steps in a gradient step"""
    update_epochs: int = 6
    """passes over the collected steps in an update"""
    learning_rate: float = 1e-3
    """of Adam"""
    gamma: float = 0.95
    """discount factor: short, because an action earns its reward in the next month"""
    gae_lambda: float = 0.9
    """of generalized advantage estimation"""
    reward_scale: float = 10.0
    """what rewards (log returns of a month) are multiplied by for the critic"""
    hidden: int = 64
    """units in each of the two layers of the actor and of the critic"""
    episodes: int = 512
    """episodes of the evaluation"""
    screening_episodes: int = 64
    """episodes of every constant of the grid that the policy is compared with; 0 leaves the best constant out"""


def make_environment(args: Arguments) -> EnvBase:
    """The environment as TorchRL sees it: tensors in, tensors out."""
    if args.num_envs == 1:
        env = GymEnv(args.env_id)
    else:
        # TorchRL resets the markets that ended itself, with the mask that "Disabled" asks for; so the last
        # observation of an episode stays in the data, where the advantage of a truncated episode needs it.
        env = GymWrapper(gym.make_vec(args.env_id, num_envs=args.num_envs, autoreset_mode="Disabled"))
    return TransformedEnv(env, RewardScaling(loc=0.0, scale=args.reward_scale))


class MeanPolicy:
    """The mean action of a trained actor: the policy that is evaluated."""

    def __init__(self, mean: nn.Module) -> None:
        self._mean = mean

    @torch.no_grad()
    def __call__(self, observation: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Actions (E, size of one action) for observations (E, size)."""
        return self._mean(torch.as_tensor(observation)).clamp(-1.0, 1.0).numpy()


def train(args: Arguments) -> tuple[MeanPolicy, int, float]:
    """The trained policy, how many environment steps it took, and how many seconds."""
    torch.manual_seed(args.seed)
    env = make_environment(args)
    env.set_seed(int(np.random.SeedSequence(args.seed).generate_state(1)[0]))
    n_actions = env.action_spec.shape[-1]
    layers = {"num_cells": [args.hidden, args.hidden], "activation_class": nn.Tanh}
    n_observations = env.observation_spec["observation"].shape[-1]
    mean = MLP(in_features=n_observations, out_features=n_actions, **layers)
    # Wide at first, good actions lie at the edges of the box; the environment clips what lies outside.
    spread = AddStateIndependentNormalScale(n_actions, scale_mapping="exp", init_value=0.5)
    actor = ProbabilisticActor(
        TensorDictModule(nn.Sequential(mean, spread), in_keys=["observation"], out_keys=["loc", "scale"]),
        in_keys=["loc", "scale"], distribution_class=IndependentNormal, return_log_prob=True,
    )  # fmt: skip
    critic = ValueOperator(MLP(in_features=n_observations, out_features=1, **layers), in_keys=["observation"])
    collector = Collector(
        env, actor, frames_per_batch=args.frames_per_batch, total_frames=args.total_timesteps,
        auto_register_policy_transforms=False,
    )  # fmt: skip
    advantage = GAE(gamma=args.gamma, lmbda=args.gae_lambda, value_network=critic, average_gae=True)
    loss = ClipPPOLoss(actor, critic, clip_epsilon=0.2, entropy_bonus=False, critic_coeff=0.5, loss_critic_type="l2")
    optimizer = torch.optim.Adam(loss.parameters(), lr=args.learning_rate, eps=1e-5)
    buffer = ReplayBuffer(
        storage=LazyTensorStorage(args.frames_per_batch), sampler=SamplerWithoutReplacement(),
        batch_size=min(args.minibatch_size, args.frames_per_batch),
    )  # fmt: skip
    env_steps, begin = 0, time.perf_counter()
    with tqdm(total=args.total_timesteps, unit="step", unit_scale=True, disable=None) as bar:
        for batch in collector:
            for _ in range(args.update_epochs):
                with torch.no_grad():
                    advantage(batch)
                buffer.extend(batch.reshape(-1))
                for sample in buffer:
                    losses = loss(sample)
                    optimizer.zero_grad()
                    (losses["loss_objective"] + losses["loss_critic"]).backward()
                    nn.utils.clip_grad_norm_(loss.parameters(), 0.5)
                    optimizer.step()
            env_steps += batch.numel()
            bar.update(batch.numel())
            bar.set_postfix(reward_a_month=f"{batch['next', 'reward'].mean().item() / args.reward_scale:.4f}")
    seconds = time.perf_counter() - begin
    collector.shutdown()
    return MeanPolicy(mean), env_steps, seconds


def main(argv: list[str]) -> int:
    """Train, then compare with constants on the same shocks."""
    args = tyro.cli(Arguments, args=argv, description=(__doc__ or "").split("\n\n")[0])
    # The networks are small: a second thread of torch would only keep busy a core that clearing can use.
    torch.set_num_threads(1)
    policy, env_steps, seconds = train(args)
    compare(
        policy, args.env_id, name="PPO (TorchRL)", seed=args.seed, env_steps=env_steps, seconds=seconds,
        episodes=args.episodes, screening_episodes=args.screening_episodes,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
