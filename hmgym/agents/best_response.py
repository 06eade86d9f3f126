"""Best response: by how much one learner gains when it alone learns on, found by gradient.

    gain = E[R_0(π_φ, π, …, π)] − E[R_0(π, π, …, π)],   φ found by ascent from π

A policy that every learner of a market plays is an equilibrium among them when nobody gains by deviating. What gradient
ascent finds is a lower bound of the gain, and may be negative where there is nothing to gain.

    hmgym best-response --policy CHECKPOINT/policy.pt --n-learners 4
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hmgym.agents.analytic_policy_gradient import AnalyticPolicyGradient, WindowSettings
from hmgym.agents.estimates import Estimate
from hmgym.agents.evaluation import EPISODES, PROTOCOL, evaluate, paired_difference
from hmgym.agents.networks import SquashedGaussianPolicy
from hmgym.agents.policy import Actions, Observations
from hmgym.agents.training import spread_seed
from hmgym.envs.differentiable import DifferentiableMarkets


@dataclass(frozen=True, kw_only=True)
class BestResponse:
    """What a learner found when it deviated.

    Attributes:
        policy: its own, the others keep theirs.
        gain: of its sum of rewards an episode, paired, with a 95 % interval.
        before: its mean sum of rewards when everybody plays the same policy.
        env_steps: periods of its training, over all learners of all markets.
    """

    policy: SquashedGaussianPolicy
    gain: Estimate
    before: Estimate
    env_steps: int


class OneDeviates:
    """Learner 0 of every market plays one policy, the others another.

    Args:
        deviant: of learner 0.
        others: of everybody else.
        n_learners: L.
    """

    def __init__(self, deviant: SquashedGaussianPolicy, others: SquashedGaussianPolicy, n_learners: int) -> None:
        self._deviant, self._others, self._n_learners = deviant, others, n_learners

    def predict(
        self, observation: Observations, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Actions, Any]:
        """Actions (E·L, size) for the observations of all learners, market by market, and what both remember.

        Args:
            observation: shape (E·L, size).
            state: what the last call returned; None at the first.
            episode_start: shape (E·L,) bool, rows whose episode begins with this observation.
            deterministic: whether to leave out the noise.
        """
        own = slice(None, None, self._n_learners)
        mine, theirs = (None, None) if state is None else state
        started = None if episode_start is None else episode_start[own]
        action, theirs = self._others.predict(observation, theirs, episode_start, deterministic)
        action[own], mine = self._deviant.predict(observation[own], mine, started, deterministic)
        return action, (mine, theirs)


def best_response(
    policy: SquashedGaussianPolicy,
    env_id: str,
    *,
    n_learners: int,
    timesteps: int = 100_000,
    num_markets: int = 16,
    seed: int = 0,
    episodes: int = EPISODES,
    settings: WindowSettings | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> BestResponse:
    """Let learner 0 of every market learn on from the common policy, and compare on the same shocks.

    Args:
        policy: what all learners play.
        env_id: a registered id.
        n_learners: L, learners of a market.
        timesteps: periods of the deviation's training, over all learners of all markets.
        num_markets: markets side by side in training.
        seed: of the training.
        episodes: of the comparison, on the span and the seeds of the protocol.
        settings: how it learns, but for `memory`, which is the policy's; None takes the defaults of `WindowSettings`.
        env_kwargs: arguments of the environment.
        progress: told the periods so far.

    Raises:
        ValueError: an argument is out of range, or the policy's sizes are not the environment's.
    """
    kwargs = {**(env_kwargs or {}), "n_learners": n_learners}
    markets = DifferentiableMarkets(env_id, num_markets, seed=spread_seed(seed, 1), **kwargs)
    sizes = markets.observation_map.size, markets.action_map.size
    own = policy.normalizer.mean.shape[0], policy.action_size
    if own != sizes:
        raise ValueError(f"`policy` must be for observations and actions of sizes {sizes}, got {own}")
    everybody = tuple(range(n_learners))
    others = None if everybody == (0,) else policy
    settings = replace(settings or WindowSettings(), memory=policy.memory_size)
    agent = AnalyticPolicyGradient(markets, settings, seed, learning_seats=(0,), others=others)
    agent.policy.load_state_dict(policy.state_dict())
    env_steps = 0
    while env_steps < timesteps:
        agent.update(env_steps / timesteps)
        env_steps += agent.env_steps_per_update
        if progress is not None:
            progress(env_steps)
    reported = replace(PROTOCOL, episodes=episodes).report(env_id, kwargs)
    runs = [
        evaluate(OneDeviates(chosen, policy, n_learners), env_id, seat=0, **reported)
        for chosen in (agent.policy, policy)
    ]
    return BestResponse(
        policy=agent.policy, gain=paired_difference(*runs), before=runs[1].result, env_steps=env_steps
    )  # fmt: skip
