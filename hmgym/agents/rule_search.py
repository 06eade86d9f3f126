"""The best one-line rule of an environment, searched on the seeds and the span that constants are chosen on.

1. Every family (a feature and a form) gets rules spread over its box, all on the same few episodes.
2. The best families are optimised by CMA-ES, several times from different starts, on the same more episodes.
3. What every run of the optimiser found gets as many episodes as a report, and the best of these is chosen.

All rules meet the same shocks, so that what is compared is the rules. A search is thorough enough when other starts end
at the same value: :attr:`RuleChoice.restarts` says so.

Source: Hansen and Ostermeier (2001), Completely derandomized self-adaptation in evolution strategies, as in `cma`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from hmgym.agents.constant import ConstantPolicy
from hmgym.agents.evaluation import PROTOCOL, evaluate_copies
from hmgym.agents.features import features_of
from hmgym.agents.policy import Policy
from hmgym.agents.regime_filter import RegimeFilter
from hmgym.agents.rules import FORMS, RuleFamily, RulePolicy
from hmgym.checks import integer
from hmgym.clearing.threads import set_num_threads
from hmgym.envs import ActionMap, MarketVectorEnv, make_markets

FloatArray = npt.NDArray[np.float64]
T = TypeVar("T")

_FIRST_STEP = 0.3  # of CMA-ES, in a box of [-1, 1]
_MEASURED_EPISODES = 64  # that mean and deviation of the features are taken from


@dataclass(frozen=True, kw_only=True)
class RuleBudget:
    """How thoroughly rules are searched.

    Attributes:
        candidates: rules of every family in the first round.
        screening_episodes: of each of these.
        families: that are optimised, the best of the first round.
        restarts: runs of the optimiser a family.
        population: rules of a generation.
        generations: of a run.
        search_episodes: of each rule of a generation.
    """

    candidates: int = 24
    screening_episodes: int = 64
    families: int = 3
    restarts: int = 2
    population: int = 8
    generations: int = 16
    search_episodes: int = 256

    def __post_init__(self) -> None:
        for name in ("candidates", "screening_episodes", "families", "restarts", "generations", "search_episodes"):
            integer(name, getattr(self, name), 1)
        integer("population", self.population, 4)


class Found(NamedTuple):
    """What one run of the optimiser found."""

    family: RuleFamily
    parameters: FloatArray  # (size,)
    value: float  # mean sum of rewards on the episodes of the search, then of the choice


@dataclass(frozen=True, kw_only=True)
class RuleChoice:
    """The best rule and how it was found.

    Attributes:
        policy: the best one; its `name` is its formula.
        family: form and feature of it.
        value: its mean sum of rewards on the episodes it was chosen on.
        restarts: means on the same episodes of what the other runs on its family found, best first, its own included.
        screening: by family, the best mean of the first round.
        episodes: that the search ran in all.
        first_seed: first seed of the episodes it was chosen on.
    """

    policy: RulePolicy
    family: str
    value: float
    restarts: list[float]
    screening: dict[str, float]
    episodes: int
    first_seed: int

    def described(self) -> dict[str, Any]:
        """For reports."""
        return {
            "formula": self.policy.name, "family": self.family, "parameters": self.policy.parameters[0].tolist(),
            "chosen_mean": self.value, "restarts": self.restarts, "screening": self.screening,
            "search_episodes": self.episodes, "chosen_on_seeds_from": self.first_seed,
        }  # fmt: skip


def rule_families(env_id: str, *, first_seed: int, env_kwargs: Mapping[str, Any] | None = None) -> list[RuleFamily]:
    """Every family of an id: both forms on every feature that varies; x is scaled by a constant policy's episodes.

    Raises:
        ValueError: the id is no market with leverage or beliefs.
    """
    markets = _market(env_id, env_kwargs)
    action_map, seen = markets.action_map, markets.observation_map
    features = features_of(seen, per_asset=action_map.beliefs)
    recorder = _Recorder(ConstantPolicy(np.zeros(action_map.size)))
    evaluate_copies(
        recorder, 1, env_id, episodes=_MEASURED_EPISODES, first_seed=first_seed, env_kwargs=env_kwargs
    )  # fmt: skip
    observations = np.concatenate(recorder.seen)
    families = []
    for one in features:
        x = one(observations)
        center, spread = float(x.mean()), float(x.std())
        if spread > 1e-6:
            families += [
                RuleFamily(feature=one, form=form, action_map=action_map, center=center, spread=spread)
                for form in FORMS
            ]
    return families


def filter_families(env_id: str, env_kwargs: Mapping[str, Any] | None = None) -> list[RuleFamily]:
    """The filter rule of a market with a hidden regime: log ℓ = a + b P, or return_i = a + b P signal_i.

    Raises:
        ValueError: the id is no market with leverage or beliefs.
    """
    markets = _market(env_id, env_kwargs)
    beliefs = markets.action_map.beliefs
    feature: Any = RegimeFilter.of(markets, times_signal=beliefs)
    if beliefs:
        return [RuleFamily(feature=feature, form="linear", action_map=markets.action_map, spread=0.03)]
    return [RuleFamily(feature=feature, form="linear", action_map=markets.action_map, center=0.5, spread=0.5)]


def choose_best_rule(
    env_id: str,
    *,
    budget: RuleBudget | None = None,
    episodes: int = PROTOCOL.episodes,
    first_seed: int = PROTOCOL.selection_seed,
    env_kwargs: Mapping[str, Any] | None = None,
    families: Sequence[RuleFamily] | None = None,
    seed: int = 0,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> RuleChoice:
    """Search the rules of an id.

    Args:
        env_id: a registered id.
        budget: how thoroughly; None takes the default.
        episodes: of the last round.
        first_seed: of all rounds.
        env_kwargs: arguments of the environment.
        families: to search; None takes those of :func:`rule_families`.
        seed: of the search's own draws.
        workers: processes; 1 searches in this one. More of them need ids that importing `hmgym` registers.
        progress: called with the episodes done and in all.

    Raises:
        ImportError: cma is not installed.
        ValueError: an argument is out of range, or the id is no market with leverage or beliefs.
    """
    _cma()
    budget = RuleBudget() if budget is None else budget
    if families is None:
        families = rule_families(env_id, first_seed=first_seed, env_kwargs=env_kwargs)
    game = _Game(env_id, first_seed, dict(env_kwargs or {}))
    kept = min(budget.families, len(families))
    rounds = (
        len(families) * budget.candidates * budget.screening_episodes,
        kept * budget.restarts * budget.population * budget.generations * budget.search_episodes,
        kept * budget.restarts * episodes,
    )
    done, total = 0, sum(rounds)

    def tell(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(min(done, total), total)

    with _workers(workers) as run:
        tasks = [(game, family, budget, seed + at) for at, family in enumerate(families)]
        screened = []
        for found in run(_screen, tasks):
            screened.append(found)
            tell(rounds[0] // len(families))
        best = sorted(range(len(families)), key=lambda at: -screened[at][0].value)[:kept]
        searches = [
            (game, screened[at][min(restart, len(screened[at]) - 1)], budget, seed + 1000 * restart + at)
            for at in best
            for restart in range(budget.restarts)
        ]
        ends = []
        for end in run(_optimise, searches):
            ends.append(end)
            tell(rounds[1] // len(searches))
        final = []
        for end in run(_settle, [(game, end, episodes) for end in ends]):
            final.append(end)
            tell(episodes)
    winner = max(final, key=lambda end: end.value)
    own = [end.value for end in final if end.family.label == winner.family.label]
    return RuleChoice(
        policy=RulePolicy(winner.family, winner.parameters), family=winner.family.label, value=winner.value,
        restarts=sorted(own, reverse=True), episodes=total, first_seed=first_seed,
        screening={family.label: found[0].value for family, found in zip(families, screened, strict=True)},
    )  # fmt: skip


class _Game(NamedTuple):
    """Where rules are tried."""

    env_id: str
    first_seed: int
    env_kwargs: dict[str, Any]

    def means(self, family: RuleFamily, parameters: FloatArray, episodes: int) -> FloatArray:
        """Mean sums of rewards (K,) of K rules (K, size), on the same episodes."""
        returns = evaluate_copies(
            RulePolicy(family, parameters), len(parameters), self.env_id, episodes=episodes,
            first_seed=self.first_seed, env_kwargs=self.env_kwargs,
        )  # fmt: skip
        return np.asarray(returns.mean(1))


def _screen(task: tuple[_Game, RuleFamily, RuleBudget, int]) -> list[Found]:
    """The best rules of the first round, as many as the optimiser has starts, best first."""
    game, family, budget, seed = task
    rules = np.random.default_rng(seed).uniform(-1.0, 1.0, (budget.candidates, family.size))
    values = game.means(family, rules, budget.screening_episodes)
    order = np.argsort(-values, kind="stable")[: budget.restarts]
    return [Found(family, rules[at], float(values[at])) for at in order]


def _optimise(task: tuple[_Game, Found, RuleBudget, int]) -> Found:
    """Where CMA-ES ends from a start."""
    game, start, budget, seed = task
    options = {
        "bounds": [-1.0, 1.0], "popsize": budget.population, "seed": seed + 1, "verbose": -9,
        "maxiter": budget.generations, "verb_log": 0, "verb_disp": 0,
    }  # fmt: skip
    strategy = _cma().CMAEvolutionStrategy(start.parameters, _FIRST_STEP, options)
    for _ in range(budget.generations):
        rules = strategy.ask()
        strategy.tell(rules, (-game.means(start.family, np.array(rules), budget.search_episodes)).tolist())
    return Found(start.family, np.asarray(strategy.result.xbest), -float(strategy.result.fbest))


def _settle(task: tuple[_Game, Found, int]) -> Found:
    """The same rule with its mean on more episodes."""
    game, found, episodes = task
    return found._replace(value=float(game.means(found.family, found.parameters[None], episodes)[0]))


@contextmanager
def _workers(count: int) -> Iterator[Callable[[Callable[[Any], T], Sequence[Any]], Iterator[T]]]:
    """A `map` over this process or over several, a thread each."""
    if integer("workers", count, 1) == 1:
        yield map
        return
    with ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        yield pool.map


def _one_thread() -> None:
    torch.set_num_threads(1)
    set_num_threads(1)


class _Recorder:
    """A policy that keeps what it is shown."""

    def __init__(self, policy: Policy) -> None:
        self._policy: Any = policy
        self.seen: list[npt.NDArray[np.float32]] = []

    def __call__(self, observation: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        self.seen.append(observation.copy())
        action: npt.NDArray[Any] = self._policy(observation)
        return action


def _market(env_id: str, env_kwargs: Mapping[str, Any] | None) -> MarketVectorEnv:
    markets = make_markets(env_id, 1, **(env_kwargs or {}))
    if not isinstance(markets, MarketVectorEnv) or not isinstance(markets.action_map, ActionMap):
        raise ValueError(
            f"`env_id` must be a market whose action sets leverage or beliefs to have rules, got {env_id!r}"
        )
    return markets


def _cma() -> Any:
    try:
        import cma
    except ImportError as error:
        raise ImportError('searching rules needs cma: pip install "hmgym[rules]"') from error
    return cma
