"""What rules and lenders allow: limits on top of those that investors set themselves.

Ownership: nobody may plan to hold more than one share of an asset's supply, or to be short more than another, valued at
the last close and this month's news. What the price then does beyond the news can leave it with more or fewer. The two
belong together: where longs are limited in shares and shorts in money only, falling prices let the shorts sell ever more
shares, and prices fall without end.
Margin: who has less equity than the maintenance margin asks for, over the gross value of its positions at the last
close, must pay back its debt and close its shorts this month: its limits are κ = 0 and θ <= 1.
"""

from __future__ import annotations

from torch import Tensor

from hmgym.arrays import namespace
from hmgym.clearing.problem import per_position
from hmgym.market.config import MarketConfig
from hmgym.market.demand import Demand


def limited(config: MarketConfig, demand: Demand, prices: Tensor) -> Demand:
    """The demand as rules and lenders allow it.

    Args:
        config: `ownership_limit`, `short_limit` and `maintenance_margin`.
        demand: what the investors want.
        prices: (E, N) last close.
    """
    xp, wealth, short, long = namespace(prices), demand.wealth, demand.short_leverage, demand.long_leverage
    if config.maintenance_margin > 0.0:
        called = wealth < config.maintenance_margin * xp.dot(abs(demand.holdings), prices)
        if bool(called.any()):
            short = xp.where(called if short.ndim == 2 else called[..., None], 0.0, short)
            long = xp.where(called if long.ndim == 2 else called[..., None], xp.at_most(long, 1.0), long)
    if config.ownership_limit is not None or config.short_limit is not None:
        expected = xp.exp(demand.start)  # last close and news
        positive = xp.where(wealth > 0.0, wealth, xp.ones_like(wealth))
        supply = config.shares * expected[:, None] / positive[..., None]  # (E, O, N) over wealth
        if config.ownership_limit is not None:
            each = per_position(long, config.n_assets + 1)
            bounded = xp.minimum(each[..., 1:], config.largest_holding * supply)
            # Cash may always be all there is: it is what the limit leaves.
            long = xp.concatenate([xp.at_least(each[..., :1], 1.0), bounded], -1)
        if config.short_limit is not None:
            each = per_position(short, config.n_assets + 1)
            short = xp.concatenate([each[..., :1], xp.minimum(each[..., 1:], config.short_limit * supply)], -1)
        # The clearing takes limits of one number an investor or of one a position, the same for both.
        short, long = (per_position(limit, config.n_assets + 1) for limit in (short, long))
    return demand._replace(short_leverage=short, long_leverage=long)
