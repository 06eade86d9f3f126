"""What rules and lenders allow: limits on top of those that investors set themselves.

Ownership: nobody may plan to hold more than one share of an asset's supply, or to be short more than another, valued at
the last close and this month's news. What the price then does beyond the news can leave it with more or fewer. The two
belong together: where longs are limited in shares and shorts in money only, falling prices let the shorts sell ever more
shares, and prices fall without end.
Margin: who has less equity than the maintenance margin asks for, over the gross value of its positions at the last
close, must pay back its debt and close its shorts this month: its limits are κ = 0 and θ <= 1.
"""

from __future__ import annotations

import math

from torch import Tensor

from hmgym.arrays import namespace
from hmgym.market.config import MarketConfig
from hmgym.market.demand import Demand

_UNLIMITED = 1e100  # money; infinity would leave no gradient


def limited(config: MarketConfig, demand: Demand, prices: Tensor, supply: Tensor) -> Demand:
    """The demand as rules and lenders allow it.

    Args:
        config: `ownership_limit`, `short_limit` and `maintenance_margin`.
        demand: what the investors want.
        prices: (E, N) last close.
        supply: (E, N) shares.
    """
    xp, wealth, short, long = namespace(prices), demand.wealth, demand.short_leverage, demand.long_leverage
    if config.maintenance_margin > 0.0:
        called = wealth < config.maintenance_margin * xp.dot(abs(demand.holdings), prices)
        if bool(called.any()):
            short = xp.where(called if short.ndim == 2 else called[..., None], 0.0, short)
            long = xp.where(called if long.ndim == 2 else called[..., None], xp.at_most(long, 1.0), long)
    if config.ownership_limit is not None or config.short_limit is not None:
        # The clearing takes limits of one number an investor or of one a position, the same for both.
        short, long = (x if x.ndim == 3 else x[..., None] for x in (short, long))
        whole = supply * xp.exp(demand.start)  # (E, N) money, at last close and news
        share = 1.0 / xp.where(wealth > 0.0, wealth, xp.ones_like(wealth))[..., None]
        short = xp.minimum(short, _with_cash(config.short_limit, whole)[:, None] * share)
        long = xp.minimum(long, _with_cash(config.largest_holding, whole)[:, None] * share)
        if config.ownership_limit is not None:  # what the limit leaves is cash
            long = xp.maximum(long, _with_cash(0.0, whole[:1], cash=1.0))
    return demand._replace(short_leverage=short, long_leverage=long)


def _with_cash(limit: float | None, whole: Tensor, cash: float = _UNLIMITED) -> Tensor:
    """Money (E, N+1) that each position may be at most, cash first; no limit where there is None."""
    first = namespace(whole).full_like(whole[:, :1], cash)
    limited = whole * (_UNLIMITED if limit is None or limit == math.inf else limit)
    joined: Tensor = namespace(whole).concatenate([first, limited], -1)
    return joined
