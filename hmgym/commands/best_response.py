"""By how much one learner of a market gains when it alone learns on: a lower bound, found by gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tqdm import tqdm

from hmgym.agents.analytic_policy_gradient import WindowSettings
from hmgym.agents.best_response import best_response
from hmgym.agents.evaluation import EPISODES
from hmgym.agents.networks import SquashedGaussianPolicy
from hmgym.commands.console import check_at_least, parse, refusals, say

PROG = "hmgym best-response"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options."""

    policy: Path
    """policy.pt of a checkpoint of apg or shac: what all learners play"""
    env: str = "hmgym/Beliefs-v0"
    """id of the environment"""
    n_learners: int = 4
    """learners of every market"""
    timesteps: int = 100_000
    """periods of training, over all learners of all markets"""
    episodes: int = EPISODES
    """of the comparison"""
    seed: int = 0
    """of the training"""
    out: Path | None = None
    """file that the deviating policy is written to"""
    settings: WindowSettings = field(default_factory=WindowSettings)
    """how the deviating learner learns"""


def main(argv: Sequence[str]) -> int:
    """Check one policy and say what a deviation gains; returns the exit status."""
    arguments = parse(Arguments, argv, prog=PROG, description=__doc__)
    torch.set_num_threads(1)
    with refusals(PROG), tqdm(total=arguments.timesteps, unit="step", unit_scale=True, disable=None) as bar:
        check_at_least(arguments, n_learners=1, timesteps=1, episodes=2, seed=0)
        if not arguments.policy.is_file():
            raise ValueError(f"`policy` must be a file, got {arguments.policy}")
        policy = SquashedGaussianPolicy.load(arguments.policy)
        found = best_response(
            policy, arguments.env, n_learners=arguments.n_learners, timesteps=arguments.timesteps, seed=arguments.seed,
            episodes=arguments.episodes, settings=arguments.settings,
            progress=lambda steps: bar.update(min(steps, arguments.timesteps) - bar.n),
        )  # fmt: skip
    low, high = found.gain.ci95
    say(
        f"{arguments.env}, {arguments.n_learners} learners: {found.before.mean:+.4f} an episode when all play the "
        f"policy; learner 0 gains {found.gain.mean:+.4f} [{low:+.4f}, {high:+.4f}] by deviating "
        f"({arguments.episodes} paired episodes, {found.env_steps:,} periods of training)"
    )
    if arguments.out is not None:
        found.policy.save(arguments.out)
    return 0
