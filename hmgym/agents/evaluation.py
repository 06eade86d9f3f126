"""The evaluation protocol: which episodes, of which span of the history, policies are chosen and reported on.

An episode is one seed. Two policies evaluated on the same seeds meet the same markets, the same news and the same other
investors, so that the difference between them is estimated far better than either mean.

| | seeds from | news of the span |
|---|---|---|
| training | the run's own seed | "training", the environment's default |
| learning curves | 3,000,000 | "training" |
| choosing a constant or a rule | 2,000,000 | "training" |
| what is reported | 1,000,000 | "held-out" |

A policy is reported in markets whose news follows a span of the history that nothing was trained or chosen on
(:class:`Protocol`). Where the user gave a history of their own, by `history` or in a `config`, it is used for both.
Everything that compares policies goes by :data:`PROTOCOL`: `hmgym train`, `hmgym evaluate`, the benchmarks.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from hmgym.agents.estimates import Estimate as Estimate
from hmgym.agents.estimates import estimate as estimate
from hmgym.agents.policy import Actor, Policy
from hmgym.checks import integer
from hmgym.envs import BatchVectorEnv, make_markets

FloatArray = npt.NDArray[np.float64]
_BATCH = 512


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How policies are chosen and compared.

    Attributes:
        episodes: of a report, and of the last round of a choice.
        first_seed: of the episodes of a report; the others count up from it.
        selection_seed: of the episodes that a constant or a rule is chosen on.
        screening_episodes: that every candidate gets before the best of them get `episodes`.
        span: of the history, that policies are reported on.
        selection_span: of the history, that constants and rules are chosen on, as policies are trained on it.
    """

    episodes: int = 2048
    first_seed: int = 1_000_000
    selection_seed: int = 2_000_000
    screening_episodes: int = 256
    span: str = "held-out"
    selection_span: str = "training"

    def __post_init__(self) -> None:
        least = {"episodes": 1, "first_seed": 0, "selection_seed": 0, "screening_episodes": 1}
        for name, smallest in least.items():
            integer(name, getattr(self, name), smallest)

    def report(self, env_id: str, env_kwargs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Arguments of :func:`evaluate` for what is reported: `episodes`, `first_seed` and `env_kwargs`.

        Args:
            env_id: a registered id.
            env_kwargs: arguments of the environment.
        """
        return {
            "episodes": self.episodes, "first_seed": self.first_seed,
            "env_kwargs": on_span(env_id, env_kwargs, self.span),
        }  # fmt: skip

    def selection(self, env_id: str, env_kwargs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Arguments of :func:`~hmgym.agents.choose_best_constant`: the same and `screening_episodes`."""
        return {
            "screening_episodes": self.screening_episodes, "episodes": self.episodes,
            "first_seed": self.selection_seed, "env_kwargs": on_span(env_id, env_kwargs, self.selection_span),
        }  # fmt: skip

    def described(self, env_id: str, env_kwargs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """For reports: its fields; the spans are "its own" where the history is the user's or the environment's."""
        used = on_span(env_id, env_kwargs, self.span) != dict(env_kwargs or {})
        spans = {} if used else dict.fromkeys(("span", "selection_span"), "its own")
        return {**{item.name: getattr(self, item.name) for item in fields(self)}, **spans}


PROTOCOL = Protocol()
"""What every command and every benchmark goes by."""
EPISODES, EVALUATION_SEED, SCREENING_EPISODES = PROTOCOL.episodes, PROTOCOL.first_seed, PROTOCOL.screening_episodes


def on_span(env_id: str, env_kwargs: Mapping[str, Any] | None, span: str) -> dict[str, Any]:
    """Arguments of an environment whose news follows a span of the packaged history.

    They stay as they are where the user gave a history, by `history` or by a `config` whose `history` or `dates` are
    not the default's, and where the environment takes none.

    Args:
        env_id: a registered id.
        env_kwargs: arguments of the environment.
        span: "training", "held-out" or "all".
    """
    given = dict(env_kwargs or {})
    markets = make_markets(env_id, 1, **given)
    markets.close()
    takes = "history" in inspect.signature(type(markets)).parameters
    if not takes or "history" in given or _own_history(given.get("config")):
        return given
    return {**given, "history": span}


def _own_history(config: Any) -> bool:
    if config is None:
        return False
    defaults = {item.name: item.default for item in fields(config)}
    return any(getattr(config, name, None) != defaults.get(name) for name in ("history", "dates"))


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
    batch: int = _BATCH,
    env_kwargs: Mapping[str, Any] | None = None,
    seat: int | None = None,
    watch: Callable[[BatchVectorEnv, npt.NDArray[np.bool_]], None] | None = None,
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
        watch: called after every period with the markets and the rows (E·L,) whose episode goes on.

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
        seeds = list(range(first_seed + start, first_seed + start + markets.num_markets))
        parts.append(_run(policy, markets, seeds, watch))
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


def _run(
    policy: Policy,
    markets: BatchVectorEnv,
    seeds: list[int],
    watch: Callable[[BatchVectorEnv, npt.NDArray[np.bool_]], None] | None = None,
) -> _Episodes:
    actor = Actor(policy, markets)
    observation, _ = markets.reset(seed=seeds)
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
        if watch is not None and running.any():
            watch(markets, running)
    return found


def evaluate_copies(
    policy: Policy,
    copies: int,
    env_id: str,
    *,
    episodes: int,
    first_seed: int,
    env_kwargs: Mapping[str, Any] | None = None,
    batch: int = _BATCH,
) -> FloatArray:
    """Sums of rewards of several policies that act as one, on the same episodes: how searches try many side by side.

    Args:
        policy: gets the observations of all copies, those of the first copy first, as many rows each, and returns as
            many actions.
        copies: policies K.
        env_id: a registered id.
        episodes: number of seeds.
        first_seed: episode i has seed first_seed + i in every copy.
        env_kwargs: arguments of the environment.
        batch: markets side by side, at least one a copy.

    Returns:
        shape (K, episodes); where a market has several learners, the mean over them.
    """
    copies, episodes = integer("copies", copies, 1), integer("episodes", episodes, 1)
    parts = []
    each = max(1, batch // copies)
    for start in range(0, episodes, each):
        seeds = list(range(first_seed + start, first_seed + min(start + each, episodes)))
        markets = _markets_that_end(env_id, copies * len(seeds), env_kwargs or {})
        found = _run(policy, markets, seeds * copies)
        parts.append(found.returns.reshape(copies, len(seeds), markets.n_learners).mean(-1))
        markets.close()
    return np.concatenate(parts, 1)


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


def over_training_seeds(differences: Sequence[float]) -> Estimate:
    """Interval over training seeds: each entry is one trained policy's mean paired difference, the seed is the unit."""
    return estimate(differences)
