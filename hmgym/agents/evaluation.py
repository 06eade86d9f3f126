"""Policies compared on the same shocks: means with 95 % intervals, paired differences, the best constant.

An episode is one seed. Two policies evaluated on the same seeds meet the same markets, the same news and the same other
investors, so that the difference between them is estimated far better than either mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hmgym.agents.constant import ConstantPolicy, RandomPolicy, constant_grid, no_leverage
from hmgym.agents.policy import Policy, actions_of
from hmgym.envs import MAX_EPISODE_STEPS, make_markets

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
        ruined: shape (episodes,), whether the episode ended in ruin.
        mark_gain: shape (episodes,), by how much the learner's own last trade inflated its last mark, in the unit of
            the log unit value; 0 where the episode ended in ruin.

    Where a market has several learners an episode is the mean over them, `ruined` the share of them.
    """

    name: str
    first_seed: int
    returns: FloatArray
    lengths: npt.NDArray[Any]
    ruined: npt.NDArray[Any]
    mark_gain: FloatArray

    @property
    def result(self) -> Estimate:
        """Mean sum of rewards an episode."""
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
        policy: has `predict`, like stable-baselines3's, asked for the deterministic action; or is a function from
            observations (E, size) to actions (E, size of one action); or plans from the state, with `act`.
        env_id: a registered id.
        name: of the policy, for tables.
        episodes: number of seeds.
        first_seed: episode i has seed first_seed + i.
        batch: markets side by side; changes the result of no policy but one that draws for all of them together.
        env_kwargs: arguments of the environment, `max_episode_steps` among them.
        seat: the learner that counts, where a market has several; None takes the mean over them.

    Raises:
        ValueError: `episodes` or `batch` is less than 1, there is no such `seat`, or `max_episode_steps` is None: an
            episode would not end.
    """
    if episodes < 1 or batch < 1:
        raise ValueError(f"`episodes` and `batch` must be >= 1, got {episodes} and {batch}")
    arguments = {"max_episode_steps": MAX_EPISODE_STEPS, **(env_kwargs or {})}
    if arguments["max_episode_steps"] is None:
        raise ValueError("`max_episode_steps` must be a number, got None")
    parts: list[tuple[FloatArray, npt.NDArray[np.int64], npt.NDArray[np.bool_], FloatArray]] = []
    for start in range(0, episodes, batch):
        size = min(batch, episodes - start)
        markets = make_markets(env_id, size, autoreset_mode="SameStep", **arguments)
        observation, _ = markets.reset(seed=first_seed + start)
        count = markets.num_envs  # a row a learner
        returns, lengths, mark_gain = np.zeros(count), np.zeros(count, np.int64), np.zeros(count)
        ruined, running = np.zeros(count, np.bool_), np.ones(count, np.bool_)
        while running.any():
            period = markets.advance(actions_of(policy, observation, markets))
            observation = period.observation
            returns += np.where(running, period.reward, 0.0)
            lengths += running
            ruined |= running & period.terminated
            survived = running & period.truncated & ~period.terminated
            if survived.any():
                mark_gain = np.where(survived, markets.terminal_mark_gain(), mark_gain)
            running &= ~(period.terminated | period.truncated)
        markets.close()
        parts.append((returns, lengths, ruined, mark_gain))
    series = [np.concatenate(values) for values in zip(*parts, strict=True)]
    if len(series[0]) > episodes or seat is not None:
        learners = [values.reshape(episodes, -1) for values in series]
        if seat is not None and not 0 <= seat < learners[0].shape[1]:
            raise ValueError(f"`seat` must be one of {learners[0].shape[1]} learners, got {seat}")
        series = [values.mean(axis=1) if seat is None else values[:, seat] for values in learners]
    returns, lengths, ruined, mark_gain = series
    return Evaluation(
        name=name, first_seed=first_seed, returns=returns, lengths=lengths, ruined=ruined, mark_gain=mark_gain
    )


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
    """
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
    """Evaluate what an agent is compared with: random actions, no leverage, and the best constant of `choice`.

    "No leverage" is the learner's own beliefs with κ = 0 and θ = 1, also where the action sets beliefs: it runs on
    ``hmgym/Leverage-v0``, whose shocks are the same.
    """
    arguments = dict(env_kwargs or {})
    action_map = make_markets(env_id, 1, **arguments).action_map
    plain = {name: value for name, value in arguments.items() if name != "confidence"}
    leverage_map = make_markets("hmgym/Leverage-v0", 1, **plain).action_map
    runs: dict[str, Evaluation] = {
        "random": evaluate(
            RandomPolicy(action_map.size), env_id, name="random", episodes=episodes, first_seed=first_seed,
            env_kwargs=arguments,
        ),
        "no_leverage": evaluate(
            no_leverage(leverage_map), "hmgym/Leverage-v0", name="no leverage", episodes=episodes,
            first_seed=first_seed, env_kwargs=plain,
        ),
    }  # fmt: skip
    if choice is not None:
        runs["best_constant"] = evaluate(
            choice.policy, env_id, name=f"best constant ({choice.policy.name})", episodes=episodes,
            first_seed=first_seed, env_kwargs=arguments,
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
