"""From the keyword arguments of an environment to a batch of markets; shared by all environments."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from hmgym.checks import integer
from hmgym.data import PriceHistory
from hmgym.envs.actions import ActionMap
from hmgym.envs.batch import MarketBatch
from hmgym.envs.rewards import RewardFunction
from hmgym.market import SCENARIOS, MarketConfig
from hmgym.market.pooled import PoolInvestor, as_pools
from hmgym.market.registry import registered

LEARNERS_SHARE = 0.5
"""Largest target share of all wealth that several learners have together, where no `config` says otherwise."""


def make_config(
    config: MarketConfig | None,
    n_assets: int | None,
    n_investors: int | None,
    n_learners: int | None = None,
    history: PriceHistory | str | None = None,
    scenario: str | None = None,
    pools: int | Sequence[PoolInvestor] | None = None,
) -> MarketConfig:
    """The economy that an environment runs: `config`, or the default one, with what else was asked for.

    Without a `config` each learner's target share of all wealth is that of one learner, and where that would be too
    much they share :data:`LEARNERS_SHARE` equally, so that the crowd still makes the market.

    Raises:
        ValueError: `config` is of another type or another scenario, or a size is impossible.
    """
    if config is not None and scenario is not None and config.scenario != scenario:
        raise ValueError(f'`scenario` must be that of `config`, "{config.scenario}", got {scenario!r}')
    if config is not None and not isinstance(config, MarketConfig):
        raise ValueError(f"`config` must be a MarketConfig or None, got {type(config).__name__}")
    sizes: dict[str, Any] = {
        name: integer(name, value, least)
        for name, value, least in (
            ("n_assets", n_assets, 1),
            ("n_investors", n_investors, 3),
            ("n_learners", n_learners, 0),
        )
        if value is not None
    }
    if history is not None:
        sizes["history"] = history
    if pools is not None:
        joining = as_pools(pools)
        sizes |= {"pools": joining, "price_mechanism": "pools"} if joining else {}
    if config is None and sizes.get("n_learners", 0) > 1:
        sizes["learner_share"] = min(MarketConfig.learner_share, LEARNERS_SHARE / sizes["n_learners"])
    if config is None:
        name = MarketConfig.scenario if scenario is None else scenario
        config_type: type[MarketConfig] = registered("scenario", name, SCENARIOS).config_type
        made = config_type(scenario=name, **sizes)
    else:
        made = dataclasses.replace(config, **sizes)
    if made.n_investors != sizes.get("n_investors", made.n_investors):
        raise ValueError(
            f"`n_investors` must be None in this scenario, where it follows as {made.n_investors}, got {n_investors}"
        )
    return made


def make_batch(
    *,
    num_markets: int,
    leverage: bool,
    beliefs: bool,
    confidence: bool,
    n_assets: int | None,
    n_investors: int | None,
    reward: str | RewardFunction,
    config: MarketConfig | None,
    record: bool,
    n_learners: int | None = None,
    amplification: bool = False,
    hidden_regime: bool = True,
    leverage_axes: int = 1,
    history: PriceHistory | str | None = None,
    scenario: str | None = None,
    pools: int | Sequence[PoolInvestor] | None = None,
) -> MarketBatch:
    """A batch of markets for these arguments; see :class:`~hmgym.envs.markets.MarketEnv` for their meaning."""
    if not isinstance(hidden_regime, (bool, np.bool_)):
        raise ValueError(f"`hidden_regime` must be True or False, got {hidden_regime!r}")
    economy = make_config(config, n_assets, n_investors, n_learners, history, scenario, pools)
    action_map = ActionMap(
        n_assets=economy.n_assets,
        leverage=leverage,
        beliefs=beliefs,
        confidence=confidence,
        leverage_axes=leverage_axes,
    )
    return MarketBatch(economy, action_map, reward, num_markets, record, amplification, bool(hidden_regime))
