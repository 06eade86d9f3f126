"""Index funds: they keep the shares that they have, and trade only what money comes in or must go out.

Cash that is there once the month's subscriptions and redemptions are settled buys the market, each asset by its share
of market value at the last close. Where cash is short, the same fraction of every position is sold. So without flows,
dividends, interest, fees and costs nothing is traded, and nothing is ever short.
"""

from __future__ import annotations

from torch import Tensor

from hmgym.arrays import namespace


def index_orders(
    cash: Tensor, flow: Tensor, holdings: Tensor, prices: Tensor, supply: Tensor, cost: float
) -> tuple[Tensor, Tensor]:
    """What index funds keep and what they order.

    Args:
        cash: (E, I) of the funds.
        flow: (E, I) money that subscriptions bring less what redemptions take, at the last close.
        holdings: (E, I, N) shares.
        prices, supply: (E, N) last close, shares.
        cost: of trading, fraction of money.

    Returns:
        kept shares (E, I, N) and money orders (E, I, N) >= 0.
    """
    xp, free = namespace(prices), cash + flow
    market = supply * prices
    weights = (market / market.sum(-1)[:, None])[:, None]
    orders = (xp.at_least(free, 0.0) / (1.0 + cost))[..., None] * weights
    worth = xp.dot(holdings, prices)
    short = xp.at_least(-free, 0.0) / (1.0 - cost)
    some = worth > 0.0
    sold = xp.at_most(xp.where(some, short / xp.where(some, worth, 1.0), 0.0), 1.0)
    return holdings * (1.0 - sold)[..., None], orders
