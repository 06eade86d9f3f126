"""The rows of the leaderboard: an agent is an algorithm, hyperparameters and the markets that it is trained in.

To add one, add a line to :data:`AGENTS`. Rows of agents that are not of this package come from files, see
:mod:`benchmarks.leaderboard.outside`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hmgym.agents.probes import NO_INFORMATION, PRICE_TAKER_SHARE

IDS = ("hmgym/Leverage-v0", "hmgym/Beliefs-v0", "hmgym/LeverageBeliefs-v0")
PLANNED_EPISODES = 128
"""Episodes of a planner, which takes a second for each."""

SEEN = "observation"
MEMORY = "observation, past ones too"
GRADIENT = "observation, gradient through the market"
PRIVILEGED = "the same, and next news with its exact posterior"
MODEL = "model and all hidden state but the future (no training)"


@dataclass(frozen=True, kw_only=True)
class Agent:
    """One row.

    Attributes:
        algo: a name in :data:`hmgym.agents.algorithms.ALGORITHMS`.
        sees: what it may see in training; what it sees when it acts is the observation alone.
        hyperparameters: changes to the algorithm's own.
        environment: arguments of the environment, in training and in evaluation.
        economy: changes to the economy in training; it is evaluated in the id's own.
        timesteps: None takes the algorithm's own.
        num_envs: likewise.
        probe: whether it stands among the probes rather than in competition.
    """

    algo: str
    sees: str
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    economy: Mapping[str, Any] = field(default_factory=dict)
    timesteps: int | None = None
    num_envs: int | None = None
    probe: bool = False


_PRIVILEGED = {"surprise": "posterior"}
AGENTS: dict[str, Agent] = {
    "PPO": Agent(algo="ppo", sees=SEEN),
    "recurrent PPO": Agent(algo="recurrent_ppo", sees=MEMORY),
    "SAC": Agent(algo="sac", sees=SEEN),
    "TQC": Agent(algo="tqc", sees=SEEN),
    "APG": Agent(algo="apg", sees=GRADIENT),
    "APG, privileged": Agent(algo="apg", sees=PRIVILEGED, hyperparameters=_PRIVILEGED),
    "APG with memory": Agent(algo="apg", sees=f"{GRADIENT}, past ones too", hyperparameters={"memory": 16}),
    "APG, 200,000 months": Agent(algo="apg", sees=GRADIENT, timesteps=200_000),
    "APG with memory, 200,000 months": Agent(
        algo="apg", sees=f"{GRADIENT}, past ones too", hyperparameters={"memory": 16}, timesteps=200_000
    ),
    "SHAC": Agent(algo="shac", sees=GRADIENT),
    "APG, trained as price-taker": Agent(
        algo="apg", sees=GRADIENT, economy={"learner_share": PRICE_TAKER_SHARE}, probe=True
    ),
    "APG, trained without information": Agent(
        algo="apg", sees=GRADIENT, economy=NO_INFORMATION, probe=True
    ),
}  # fmt: skip
PLANNERS = ("myopic", "planner")
