"""Probes: what a trained policy is held against, each of which tells another way in which a return may be no skill.

| row | what it tells |
|---|---|
| random, no leverage | what comes by itself |
| best constant | what one number an axis earns |
| best rule | what a line in one feature earns (:mod:`hmgym.agents.rule_search`) |
| filter rule | what the exact posterior of a hidden regime earns in one line (:mod:`hmgym.agents.regime_filter`) |
| without information | the policy itself where signals are noise: what it earns by valuation or by its size alone |
| history look-up | what looking this month's news up in the history tells of the next: nothing, or the history leaks |
| price-taker's policy | trained with a share of wealth of .001: what minding one's own impact is worth |

The first five and look-up need no training and stand in `hmgym evaluate`; policies that were trained without
information or as price-takers are rows of ``python -m benchmarks.leaderboard``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from hmgym.agents.evaluation import PROTOCOL, Evaluation, Protocol, evaluate
from hmgym.agents.lookup import HistoryLookup
from hmgym.agents.policy import Policy
from hmgym.agents.rule_search import RuleBudget, RuleChoice, choose_best_rule, filter_families
from hmgym.envs import MarketVectorEnv, make_markets
from hmgym.envs.setup import make_config
from hmgym.market import MarketConfig

PRICE_TAKER_SHARE = 0.001
"""Share of all wealth with which a learner hardly moves a price."""
NO_INFORMATION = dict(MarketConfig.NO_INFORMATION)
"""Changes to the default economy that make every signal noise."""
_SIZES = ("n_assets", "n_investors", "n_learners")


def with_economy(env_kwargs: Mapping[str, Any] | None, **changes: Any) -> dict[str, Any]:
    """Arguments of a market whose economy differs in some parameters; the other arguments stay.

    Args:
        env_kwargs: arguments of the environment.
        changes: parameters of :class:`~hmgym.market.MarketConfig`.

    Raises:
        ValueError: one is out of range.
    """
    if not changes:
        return dict(env_kwargs or {})
    given, config = _split(env_kwargs)
    return {**given, "config": config.replace(**changes)}


def _split(env_kwargs: Mapping[str, Any] | None) -> tuple[dict[str, Any], MarketConfig]:
    """Arguments of a market that say nothing of its economy, and the economy that the others make."""
    given = dict(env_kwargs or {})
    sizes: dict[str, Any] = {name: given.pop(name, None) for name in (*_SIZES, "scenario")}
    return given, make_config(given.pop("config", None), **sizes)


def no_information(env_kwargs: Mapping[str, Any] | None = None) -> dict[str, float]:
    """Changes that make every signal noise, in whatever scenario: for `with_economy`.

    Args:
        env_kwargs: arguments of the environment.
    """
    _, config = _split(env_kwargs)
    return dict(config.NO_INFORMATION)


def without_information(
    policy: Policy,
    env_id: str,
    env_kwargs: Mapping[str, Any] | None = None,
    *,
    protocol: Protocol = PROTOCOL,
) -> Evaluation:
    """A policy on the episodes of the protocol, every signal noise.

    Raises:
        ValueError: the id is no market.
    """
    settings = protocol.report(env_id, env_kwargs)
    settings["env_kwargs"] = with_economy(settings["env_kwargs"], **no_information(settings["env_kwargs"]))
    return evaluate(policy, env_id, name="without information", **settings)


def lookups(
    env_id: str,
    env_kwargs: Mapping[str, Any] | None = None,
    *,
    protocol: Protocol = PROTOCOL,
    permutations: int = 4,
) -> dict[str, Evaluation]:
    """Looking this month's news up in the history, and its control: the mean over look-ups in permuted histories.

    Where the history does not leak, the two do not differ.

    Raises:
        ValueError: the id is no market.
    """
    settings = protocol.report(env_id, env_kwargs)
    policy = HistoryLookup(env_id, **settings["env_kwargs"])
    controls = [evaluate(policy.permuted(seed), env_id, **settings) for seed in range(permutations)]
    name = "history look-up, permuted"
    return {
        "history_lookup": evaluate(policy, env_id, name="history look-up", **settings),
        "history_lookup_permuted": replace(
            controls[0], name=name, returns=np.mean([run.returns for run in controls], 0),
            terminated=np.mean([run.terminated for run in controls], 0),
        ),
    }  # fmt: skip


def has_rules(env_id: str, env_kwargs: Mapping[str, Any] | None = None) -> bool:
    """Whether the id is a market, whose observation rules can hang on."""
    return isinstance(make_markets(env_id, 1, **(env_kwargs or {})), MarketVectorEnv)


def choose_rules(
    env_id: str,
    env_kwargs: Mapping[str, Any] | None = None,
    *,
    protocol: Protocol = PROTOCOL,
    budget: RuleBudget | None = None,
    workers: int = 1,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, RuleChoice]:
    """The best rule, and the best filter rule where the regime is hidden, chosen as the protocol says.

    Args:
        env_id: a registered market.
        env_kwargs: arguments of the environment.
        protocol: on which span and episodes.
        budget: how thoroughly rules are searched.
        workers: processes.
        progress: called with the name of the row, episodes done and in all.

    Raises:
        ImportError: cma is not installed.
        ValueError: the id is no market.
    """
    settings = protocol.selection(env_id, env_kwargs)
    del settings["screening_episodes"]
    markets = make_markets(env_id, 1, **(env_kwargs or {}))
    searched: dict[str, Any] = {"best_rule": None}
    if isinstance(markets, MarketVectorEnv) and "regime" not in markets.observation_map.names:
        searched["filter_rule"] = filter_families(env_id, settings["env_kwargs"])
    found = {}
    for name, families in searched.items():

        def tell(done: int, total: int, name: str = name) -> None:
            if progress is not None:
                progress(name, done, total)

        found[name] = choose_best_rule(
            env_id, budget=budget, families=families, workers=workers, progress=tell, **settings
        )  # fmt: skip
    return found
