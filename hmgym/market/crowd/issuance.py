"""Issuance: companies sell new shares when prices are far above value, and buy shares back when they are far below.

A band around value is left alone. Beyond it supply grows, or shrinks, by the issuance rate times what
log(price / value) lies outside the band. So nobody can hold what there is of an asset for long at a price of its own
making. Cash follows the value of the first shares, whatever the supply became (`settlement`), so what is sold meets
less money a share and what is bought back leaves more: supply settles by itself. Firms do issue when their shares are
dear: Baker and Wurgler (2002), Market timing and capital structure.
"""

from __future__ import annotations

from torch import Tensor

from hmgym.arrays import namespace
from hmgym.market.config import MarketConfig
from hmgym.market.state import MarketState

_LARGEST = 0.2  # of the supply, in a month


def issued_shares(config: MarketConfig, state: MarketState) -> Tensor | None:
    """Shares (E, N) that the issuer sells in this month's trade, negative where it buys; None for none.

    Both sides of the band are judged at the last close and the value then, before this month's news.
    """
    if not config.issuance_rate:
        return None
    xp, band = namespace(state.prices), config.issuance_band
    mispricing = xp.log(state.prices) - (state.log_value - state.news)
    if bool((abs(mispricing) <= band).all()):
        return None
    outside = mispricing - xp.at_most(xp.at_least(mispricing, -band), band)
    growth = xp.at_most(xp.at_least(config.issuance_rate * outside, -_LARGEST), _LARGEST)
    shares: Tensor = state.supply * growth
    return shares
