"""What rules and lenders allow: limits on top of those that investors set themselves.

Ownership: nobody may plan to hold more than one share of an asset's supply, or to be short more than another, valued
at the last close and this month's news. What the price then does beyond the news can leave it with more or fewer. The
two belong together: where longs are limited in shares and shorts in money only, falling prices let the shorts sell ever
more shares, and prices fall without end. Several learners of a market share a limit: they may act on one policy, and
four who each kept that of one would corner what one cannot.
Margin: equity is wealth over the gross value of positions, at the last close. Who has less than the maintenance margin
must pay back its debt and close its shorts this month: its limits are κ = 0 and θ <= 1. Up to the initial margin they
rise in proportion to what the investor wants, so nothing jumps when equity crosses either.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hmgym.arrays import namespace, placed
from hmgym.market.config import MarketConfig
from hmgym.market.demand import Demand

_UNLIMITED = 1e100  # of the supply, or of money; infinity would leave no gradient


class Limits:
    """The limits of one kind of market.

    Args:
        config: `ownership_limit`, `short_limit`, `maintenance_margin` and `initial_margin`.
        device: where constants live; None for arrays in place of tensors.
    """

    def __init__(self, config: MarketConfig, device: torch.device | None) -> None:
        self._maintenance, self._initial = config.maintenance_margin, config.initial_margin
        self._owned = config.ownership_limit is not None
        self._limited = self._owned or config.short_limit is not None
        largest = min(config.largest_holding, _UNLIMITED)
        shortest = _UNLIMITED if config.short_limit is None else config.short_limit

        def positions(cash: float, assets: float) -> Tensor:
            constant: Tensor = placed(torch.tensor([cash] + [assets] * config.n_assets, dtype=torch.float64), device)
            return constant

        self._long, self._short = positions(_UNLIMITED, largest), positions(_UNLIMITED, shortest)
        self._learners = config.n_learners if config.largest_learner_holding < config.largest_holding else 0
        self._learner_long = positions(_UNLIMITED, min(config.largest_learner_holding, _UNLIMITED))
        self._floor = positions(1.0, 0.0)  # what the limit leaves is cash

    def __call__(self, demand: Demand, prices: Tensor, supply: Tensor) -> Demand:
        """The demand as rules and lenders allow it.

        Args:
            demand: what the investors want.
            prices: (E, N) last close.
            supply: (E, N) shares.
        """
        xp, wealth, short, long = namespace(prices), demand.wealth, demand.short_leverage, demand.long_leverage
        if self._maintenance > 0.0:
            gross = xp.dot(abs(demand.holdings), prices)
            if bool((wealth < self._initial * gross).any()):
                above = wealth / xp.where(gross > 0.0, gross, 1.0) - self._maintenance
                credit = xp.at_most(xp.at_least(above / (self._initial - self._maintenance), 0.0), 1.0)
                credit = xp.where(gross > 0.0, credit, 1.0)
                short = short * (credit if short.ndim == 2 else credit[..., None])
                own = xp.at_most(long, 1.0)
                long = own + (credit if long.ndim == 2 else credit[..., None]) * (long - own)
        if self._limited:
            # The clearing takes limits of one number an investor or of one a position, the same for both.
            count, positions = demand.wealth.shape[-1], prices.shape[-1] + 1
            short, long = (x if x.ndim == 3 else xp.spread(x, positions) for x in (short, long))
            whole = supply * xp.exp(demand.start)  # money, at last close and news
            whole = xp.concatenate([xp.ones_like(whole[:, :1]), whole], -1)  # (E, N+1)
            share = xp.spread(1.0 / demand.divisor, positions)
            short = xp.minimum(short, xp.across(whole * self._short, count) * share)
            long = xp.minimum(long, xp.across(whole * self._long, count) * share)
            if n := self._learners:
                own = xp.minimum(long[:, :n], xp.across(whole * self._learner_long, n) * share[:, :n])
                long = xp.concatenate([own, long[:, n:]], 1)
            if self._owned:
                long = xp.maximum(long, self._floor)
        return demand._replace(short_leverage=short, long_leverage=long)
