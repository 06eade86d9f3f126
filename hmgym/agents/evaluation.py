"""Policies compared on the same shocks: means with 95 % intervals, paired differences, the best constant.

An episode is one seed. Two policies evaluated on the same seeds meet the same markets, the same news and the same other
investors, so that the difference between them is estimated far better than either mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hmgym.agents.baselines import baselines_of
from hmgym.agents.constant import ConstantPolicy, constant_grid
from hmgym.agents.policy import Actor, Policy
from hmgym.checks import integer
from hmgym.envs import BatchVectorEnv, make_markets

FloatArray = npt.NDArray[np.float64]

EPISODES = 2048
"""Episodes of an evaluation."""
EVALUATION_SEED = 1_000_000
"""First seed of the episodes that policies are reported on."""
SELECTION_SEED = 2_000_000
"""First seed of the episodes that the best constant is chosen on."""
SCREENING_EPISODES = 256
"""Episodes that every constant of the grid gets; the best eighth then gets `EPISODES`."""
BATCH = 512

_NORMAL_975 = 1.959963984540054


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean and its 95 % interval.

    Attributes:
        mean: sum of rewards an episode, or a difference of such sums.
        low: lower end of the interval.
        high: upper end.
        count: number of episodes, or of whatever was the unit.
    """

    mean: float
    low: float
    high: float
    count: int

    @property
    def ci95(self) -> list[float]:
        """The interval as a list, as reports write it."""
        return [self.low, self.high]


def estimate(values: npt.ArrayLike) -> Estimate:
    """Mean of independent values with Student's 95 % interval.

    Raises:
        ValueError: fewer than two values, or one is not finite.
    """
    sample = np.asarray(values, np.float64)
    if sample.ndim != 1 or sample.size < 2:
        raise ValueError(f"`values` must be one row of at least 2 numbers, got shape {sample.shape}")
    if not np.isfinite(sample).all():
        raise ValueError("`values` must be finite")
    mean = float(sample.mean())
    half = _quantile(sample.size - 1) * float(sample.std(ddof=1)) / math.sqrt(sample.size)
    return Estimate(mean=mean, low=mean - half, high=mean + half, count=int(sample.size))


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Episodes of one policy.

    Attributes:
        name: of the policy.
        first_seed: episode i has seed first_seed + i.
        returns: shape (episodes,), sum of rewards.
        lengths: shape (episodes,), periods.
        terminated: shape (episodes,), whether the episode came to an end of its own, ruin for one.
        measures: shape (episodes,) each, by name, what else the environment measures of an episode at its last period;
            0 where it was terminated. A market's is `terminal_mark_gain`: by how much the learner's own last trade
            inflated its last mark, in the unit of the log unit value.

    Where a market has several learners an episode is the mean over them, `terminated` the share of them.
    """

    name: str
    first_seed: int
    returns: FloatArray
    lengths: npt.NDArray[Any]
    terminated: npt.NDArray[Any]
    measures: Mapping[str, FloatArray] = field(default_factory=dict)

    @property
    def result(self) -> Estimate:
        """Mean sum of rewards an episode.

        Raises:
            ValueError: there is one episode only, which has no interval.
        """
        if self.returns.size < 2:
            raise ValueError(f"`episodes` must be >= 2 for an interval, got {self.returns.size}")
        return estimate(self.returns)


def evaluate(
    policy: Policy,
    env_id: str,
    *,
    name: str = "policy",
    episodes: int = EPISODES,
    first_seed: int = EVALUATION_SEED,
    batch: int = BATCH,
    env_kwargs: Mapping[str, Any] | None = None,
    seat: int | None = None,
) -> Evaluation:
    """Run one episode a seed and sum its rewards.

    With several learners in a market the policy acts on every seat, and what counts is each learner's first fund: the
    mean over them, or that of one seat.

    Args:
        policy: has `predict`, like stable-baselines3's, asked for the deterministic action and given back the state
            that it returned; or is a function from observations (E, size) to actions (E, size of one action); or plans
            from the state, with `act`.
        env_id: a registered id.
        name: of the policy, for tables.
        episodes: number of seeds.
        first_seed: episode i has seed first_seed + i.
        batch: markets side by side; changes the result of no policy but one that draws for all of them together.
        env_kwargs: arguments of the environment, `max_episode_steps` among them.
        seat: the learner that counts, where a market has several; None takes the mean over them.

    Raises:
        ValueError: an argument is out of range, or `max_episode_steps` is None where the id registers a number: an
            episode would not end.
    """
    episodes, batch = integer("episodes", episodes, 1), integer("batch", batch, 1)
    first_seed = integer("first_seed", first_seed, 0)
    parts: list[_Episodes] = []
    for start in range(0, episodes, batch):
        markets = _markets_that_end(env_id, min(batch, episodes - start), env_kwargs or {})
        learners = markets.n_learners
        if seat is not None and not 0 <= seat < learners:
            raise ValueError(f"`seat` must be one of {learners} learners, got {seat}")
        parts.append(_run(policy, markets, first_seed + start))
        markets.close()

    def series(values: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """A row an episode: of the only learner, of one seat, or the mean over the seats."""
        rows = np.concatenate(values).reshape(episodes, learners)
        if seat is not None or learners == 1:
            return rows[:, seat or 0]
        mean: npt.NDArray[Any] = rows.mean(axis=1)
        return mean

    measures = dict.fromkeys(measure for part in parts for measure in part.measures)
    return Evaluation(
        name=name, first_seed=first_seed, returns=series([part.returns for part in parts]),
        lengths=series([part.lengths for part in parts]), terminated=series([part.terminated for part in parts]),
        measures={measure: series([part.measured(measure) for part in parts]) for measure in measures},
    )  # fmt: skip


@dataclass
class _Episodes:
    """The first episode of every row of a batch, in the making; shapes (rows,)."""

    returns: FloatArray
    lengths: npt.NDArray[np.int64]
    terminated: npt.NDArray[np.bool_]
    measures: dict[str, FloatArray] = field(default_factory=dict)

    def measured(self, name: str) -> FloatArray:
        """A measure, 0 where it was not taken."""
        return self.measures.get(name, np.zeros_like(self.returns))


def _markets_that_end(env_id: str, count: int, env_kwargs: Mapping[str, Any]) -> BatchVectorEnv:
    markets = make_markets(env_id, count, autoreset_mode="SameStep", **env_kwargs)
    if markets.max_episode_steps is None and markets.spec is not None and markets.spec.max_episode_steps is not None:
        raise ValueError("`max_episode_steps` must be a number, got None")
    return markets


def _run(policy: Policy, markets: BatchVectorEnv, seed: int) -> _Episodes:
    actor = Actor(policy, markets)
    observation, _ = markets.reset(seed=seed)
    count = markets.num_envs  # a row a learner
    found = _Episodes(np.zeros(count), np.zeros(count, np.int64), np.zeros(count, np.bool_))
    running, starting = np.ones(count, np.bool_), np.ones(count, np.bool_)
    while running.any():
        period = markets.advance(actor(observation, starting))
        observation, starting = period.observation, period.terminated | period.truncated
        found.returns += np.where(running, period.reward, 0.0)
        found.lengths += running
        found.terminated |= running & period.terminated
        survived = running & period.truncated & ~period.terminated
        if survived.any():
            for name, values in markets.closing_measures().items():
                found.measures[name] = np.where(survived, values, found.measured(name))
        running &= ~starting
    return found


def paired_difference(policy: Evaluation, baseline: Evaluation) -> Estimate:
    """Mean difference of the sums of rewards, episode by episode, with its 95 % interval.

    Raises:
        ValueError: the two were not evaluated on the same seeds.
    """
    if policy.first_seed != baseline.first_seed or policy.returns.size != baseline.returns.size:
        raise ValueError(
            f"`policy` and `baseline` must have the same seeds, got {policy.returns.size} from {policy.first_seed} "
            f"and {baseline.returns.size} from {baseline.first_seed}"
        )
    return estimate(policy.returns - baseline.returns)


@dataclass(frozen=True, kw_only=True)
class ConstantChoice:
    """The best constant and how it was chosen.

    Attributes:
        policy: the best one.
        names: of all constants of the grid.
        screening: shape (grid,), mean sum of rewards of each constant on the screening episodes.
        first_seed: first seed of the episodes it was chosen on.
    """

    policy: ConstantPolicy
    names: list[str]
    screening: FloatArray
    first_seed: int


def choose_best_constant(
    env_id: str,
    *,
    screening_episodes: int = SCREENING_EPISODES,
    episodes: int = EPISODES,
    first_seed: int = SELECTION_SEED,
    env_kwargs: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ConstantChoice:
    """Choose among the constants of the grid, on seeds that no report uses.

    Every constant runs the same screening episodes; the best eighth of the grid then runs `episodes`, and the best of
    these is chosen.

    Args:
        env_id: a registered id.
        screening_episodes: episodes of every constant.
        episodes: episodes of the best eighth; 0 chooses by the screening alone.
        first_seed: first seed of both.
        env_kwargs: arguments of the environment.
        progress: called with the number of evaluations done and in all.

    Raises:
        ValueError: an argument is out of range.
    """
    screening_episodes = integer("screening_episodes", screening_episodes, 1)
    episodes = integer("episodes", episodes, 0)
    markets = make_markets(env_id, 1, **(env_kwargs or {}))
    grid = constant_grid(markets.action_map)
    finalists = max(1, len(grid) // 8) if episodes > 0 else 0
    total = len(grid) + finalists
    done = 0

    def mean(policy: ConstantPolicy, count: int) -> float:
        nonlocal done
        value = float(
            evaluate(policy, env_id, episodes=count, first_seed=first_seed, env_kwargs=env_kwargs).returns.mean()
        )
        done += 1
        if progress is not None:
            progress(done, total)
        return value

    screening = np.array([mean(policy, screening_episodes) for policy in grid])
    order = np.argsort(-screening, kind="stable")
    best = grid[int(order[0])]
    if finalists:
        chosen = [grid[int(index)] for index in order[:finalists]]
        best = chosen[int(np.argmax([mean(policy, episodes) for policy in chosen]))]
    return ConstantChoice(
        policy=best, names=[policy.name for policy in grid], screening=screening, first_seed=first_seed
    )


def evaluate_baselines(
    env_id: str,
    *,
    episodes: int = EPISODES,
    first_seed: int = EVALUATION_SEED,
    env_kwargs: Mapping[str, Any] | None = None,
    choice: ConstantChoice | None = None,
) -> dict[str, Evaluation]:
    """Evaluate what an agent is compared with: the id's own baselines, and the best constant of `choice`.

    See :func:`~hmgym.agents.baselines.baselines_of`.
    """
    runs = {
        name: evaluate(
            baseline.policy, baseline.env_id, name=name.replace("_", " "), episodes=episodes, first_seed=first_seed,
            env_kwargs=baseline.env_kwargs,
        )
        for name, baseline in baselines_of(env_id, env_kwargs).items()
    }  # fmt: skip
    if choice is not None:
        runs["best_constant"] = evaluate(
            choice.policy, env_id, name=f"best constant ({choice.policy.name})", episodes=episodes,
            first_seed=first_seed, env_kwargs=env_kwargs,
        )  # fmt: skip
    return runs


def over_training_seeds(differences: Sequence[float]) -> Estimate:
    """Interval over training seeds: each entry is one trained policy's mean paired difference, the seed is the unit."""
    return estimate(differences)


def _quantile(degrees: int) -> float:
    """97.5 % quantile of Student's t: Fisher and Cornish's expansion, within .2 % from 3 degrees of freedom on."""
    if degrees < 3:
        return (12.706204736, 4.302652730)[degrees - 1]
    z = _NORMAL_975
    terms = (
        (z**3 + z) / 4.0,
        (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / 96.0,
        (3.0 * z**7 + 19.0 * z**5 + 17.0 * z**3 - 15.0 * z) / 384.0,
        (79.0 * z**9 + 776.0 * z**7 + 1482.0 * z**5 - 1920.0 * z**3 - 945.0 * z) / 92160.0,
    )
    return z + math.fsum(term / float(degrees) ** power for power, term in enumerate(terms, start=1))
