"""PPO in one file, after the manner of CleanRL, on a batch of markets that clear together.

    python examples/cleanrl_ppo.py --num-envs 256 --total-timesteps 2000000

The whole algorithm stands below; only the command line and the comparison at the end are the library's.
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
from torch import Tensor, nn
from torch.distributions import Normal
from tqdm import trange

import hmgym  # noqa: F401  (registers the ids)


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Arguments of the command line."""

    env_id: str = "hmgym/Leverage-v0"
    """id of the environment"""
    seed: int = 0
    """of the markets, the weights and the exploration"""
    total_timesteps: int = 2_000_000
    """environment steps, over all markets together"""
    num_envs: int = 256
    """markets side by side"""
    num_steps: int = 16
    """steps of every market between two updates"""
    minibatch_size: int = 2048
    """steps in a gradient step"""
    update_epochs: int = 6
    """passes over the collected steps in an update"""
    learning_rate: float = 1e-3
    """of Adam"""
    gamma: float = 0.95
    """discount factor: short, because an action earns its reward in the next month"""
    gae_lambda: float = 0.9
    """of generalized advantage estimation"""
    clip: float = 0.2
    """how far the probability ratio may move before its gradient stops"""
    value_weight: float = 0.5
    """weight of the critic's loss"""
    max_grad_norm: float = 0.5
    """norm to which the gradient is cut"""
    log_std: float = 0.5
    """log standard deviation of the first actions: wide, good actions lie at the edges of the box"""
    hidden: int = 64
    """units in each of the two layers of the actor and of the critic"""
    episodes: int = 512
    """episodes of the evaluation"""
    screening_episodes: int = 64
    """episodes of every constant of the grid that the policy is compared with; 0 leaves the best constant out"""


class RunningMoments(nn.Module):
    """Mean and variance of all rows seen so far, by the parallel update of Chan, Golub and LeVeque (1979)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))
        self.register_buffer("count", torch.tensor(1.0))

    def update(self, rows: Tensor) -> None:
        """Add rows (n, size)."""
        count = self.count + len(rows)
        shift = rows.mean(0) - self.mean
        spread = self.variance * self.count + rows.var(0, correction=0) * len(rows)
        self.variance.copy_((spread + shift**2 * self.count * len(rows) / count) / count)
        self.mean += shift * len(rows) / count
        self.count.copy_(count)


class Agent(nn.Module):
    """A Gaussian actor and a critic, two networks, on observations in units of their running deviation."""

    def __init__(self, observations: int, actions: int, hidden: int, log_std: float) -> None:
        super().__init__()
        self.moments = RunningMoments(observations)
        self.actor = _network(observations, hidden, actions, last_gain=0.01)
        self.critic = _network(observations, hidden, 1, last_gain=1.0)
        self.log_std = nn.Parameter(torch.full((actions,), log_std))

    def scale(self, observation: Tensor) -> Tensor:
        """Observation less its mean, over its standard deviation, cut at 10."""
        return ((observation - self.moments.mean) / (self.moments.variance + 1e-8).sqrt()).clamp(-10.0, 10.0)

    def distribution(self, observation: Tensor) -> Normal:
        """Of the actions; the environment clips what lies outside of its box."""
        return Normal(self.actor(self.scale(observation)), self.log_std.exp())

    def value(self, observation: Tensor) -> Tensor:
        """Expected discounted sum of scaled rewards, (...,)."""
        return self.critic(self.scale(observation)).squeeze(-1)

    @torch.no_grad()
    def __call__(self, observation: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Mean actions (E, size of one action) for observations (E, size): the policy that is evaluated."""
        return self.distribution(torch.as_tensor(observation)).mean.clamp(-1.0, 1.0).numpy()


def _network(inputs: int, hidden: int, outputs: int, last_gain: float) -> nn.Sequential:
    layers = [nn.Linear(inputs, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, outputs)]
    for layer, gain in zip(layers, (2**0.5, 2**0.5, last_gain), strict=True):
        nn.init.orthogonal_(layer.weight, gain)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])


def train(args: Arguments) -> tuple[Agent, int, float]:
    """The trained agent, how many environment steps it took, and how many seconds."""
    torch.manual_seed(args.seed)
    # SameStep: a market that ends is reset at once, and what was seen last of the old episode is in "final_obs". So
    # every row of the rollout is a step that was really taken; with NextStep the row after an end would be an
    # action that the market ignored.
    envs = gym.make_vec(args.env_id, num_envs=args.num_envs, autoreset_mode="SameStep")
    n_observations, n_actions = envs.single_observation_space.shape[0], envs.single_action_space.shape[0]
    agent = Agent(n_observations, n_actions, args.hidden, args.log_std)
    optimizer = torch.optim.Adam(agent.parameters(), lr=args.learning_rate, eps=1e-5)
    reward_moments, discounted = RunningMoments(1), torch.zeros(args.num_envs)

    shape = (args.num_steps, args.num_envs)
    observations, actions = torch.zeros(*shape, n_observations), torch.zeros(*shape, n_actions)
    log_probs, rewards, dones, values = (torch.zeros(shape) for _ in range(4))
    # Row i of the batch is seeded seed + i, so the seeds of two runs are drawn far apart.
    first_seed = int(np.random.SeedSequence(args.seed).generate_state(1)[0])
    observation = torch.as_tensor(envs.reset(seed=first_seed)[0])
    updates = max(1, args.total_timesteps // (args.num_steps * args.num_envs))
    running, ended = np.zeros(args.num_envs), np.zeros(0)
    begin = time.perf_counter()
    with trange(updates, unit="update", disable=None) as bar:
        for _ in bar:
            for step in range(args.num_steps):
                with torch.no_grad():
                    distribution = agent.distribution(observation)
                    action = distribution.sample()
                    values[step] = agent.value(observation)
                observations[step], actions[step] = observation, action
                log_probs[step] = distribution.log_prob(action).sum(-1)
                following, reward, terminated, truncated, info = envs.step(action.numpy())
                done = torch.as_tensor(terminated | truncated)

                # Rewards in units of the deviation of their discounted sum: the critic then fits numbers near 1.
                discounted = discounted * args.gamma + torch.as_tensor(reward, dtype=torch.float32)
                reward_moments.update(discounted[:, None])
                rewards[step] = torch.as_tensor(reward) / (reward_moments.variance + 1e-8).sqrt()
                discounted[done] = 0.0
                # Ten years are a limit of the experiment, not an end of the world: where an episode was truncated, the
                # critic says what would have followed. Ruin is an end, and is worth nothing more.
                cut = np.flatnonzero(truncated & ~terminated)
                if cut.size:
                    last = torch.as_tensor(np.stack(info["final_obs"][cut]))
                    with torch.no_grad():
                        rewards[step, cut] += args.gamma * agent.value(last)
                dones[step] = done
                observation = torch.as_tensor(following)

                running += reward
                ended = np.concatenate([ended, running[done.numpy()]])[-4 * args.num_envs :]
                running[done.numpy()] = 0.0

            with torch.no_grad():
                advantages = _advantages(rewards, values, dones, agent.value(observation), args.gamma, args.gae_lambda)
            batch = (observations, actions, log_probs, advantages, advantages + values)
            _update(agent, optimizer, [tensor.flatten(0, 1) for tensor in batch], args)
            # Between updates, never within: the ratio of probabilities compares policies on the same scaled input.
            agent.moments.update(observations.flatten(0, 1))
            if ended.size:
                bar.set_postfix(exploring_return=f"{ended.mean():.2f}")
    envs.close()
    return agent, updates * args.num_steps * args.num_envs, time.perf_counter() - begin


def _advantages(
    rewards: Tensor, values: Tensor, dones: Tensor, last_value: Tensor, gamma: float, gae_lambda: float
) -> Tensor:
    """Generalized advantage estimates, all (steps, E): A_t = δ_t + γλ (1 − d_t) A_{t+1}."""
    result, running, following = torch.zeros_like(rewards), torch.zeros_like(last_value), last_value
    for step in reversed(range(len(rewards))):
        surprise = rewards[step] + gamma * following * (1.0 - dones[step]) - values[step]
        running = surprise + gamma * gae_lambda * (1.0 - dones[step]) * running
        result[step], following = running, values[step]
    return result


def _update(agent: Agent, optimizer: torch.optim.Optimizer, batch: list[Tensor], args: Arguments) -> None:
    """Some passes of gradient steps on the clipped objective."""
    size = len(batch[0])
    for _ in range(args.update_epochs):
        for rows in torch.randperm(size).split(min(args.minibatch_size, size)):
            observation, action, old_log_prob, advantage, target = (tensor[rows] for tensor in batch)
            advantage = (advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-8)
            ratio = (agent.distribution(observation).log_prob(action).sum(-1) - old_log_prob).exp()
            gain = torch.minimum(ratio * advantage, ratio.clamp(1.0 - args.clip, 1.0 + args.clip) * advantage).mean()
            value_loss = (agent.value(observation) - target).square().mean()
            optimizer.zero_grad()
            (args.value_weight * value_loss - gain).backward()
            nn.utils.clip_grad_norm_(agent.parameters(), args.max_grad_norm)
            optimizer.step()


def main(argv: list[str]) -> int:
    """Train, then compare with constants on the same shocks."""
    args = tyro.cli(Arguments, args=argv, description=(__doc__ or "").split("\n\n")[0])
    # The networks are small: a second thread of torch would only keep busy a core that clearing can use.
    torch.set_num_threads(1)
    agent, env_steps, seconds = train(args)
    compare(
        agent, args.env_id, name="PPO (one file)", seed=args.seed, env_steps=env_steps, seconds=seconds,
        episodes=args.episodes, screening_episodes=args.screening_episodes,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
