"""What goes into a price mechanism and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from hmgym.arrays import namespace
from hmgym.clearing import ClearingSolution


class Demand(NamedTuple):
    """Everything that a price mechanism gets to know of the investors.

    The first O of a market's B investors solve for their portfolios, learners before all others; the remaining K keep
    their shares, but for what their money orders add.
    """

    log_price: Tensor  # (E, N) last close
    beliefs: Tensor  # (E, O, N) expected log price next month
    risk: Tensor  # (E, O, N, N)
    wealth: Tensor  # (E, O) money at the last close; at most zero demands nothing
    short_leverage: Tensor  # (E, O) κ, or (E, O, N+1) with one limit a position, cash first
    long_leverage: Tensor  # (E, O) θ, likewise
    holdings: Tensor  # (E, O, N) shares before the trade
    supply: Tensor  # (E, N) shares for the optimisers: all but those kept
    start: Tensor  # (E, N) log prices near which the search may start
    orders: Tensor | None = None  # (E, N) sum of all money orders; None for none
    kept: Tensor | None = None  # (E, K, N) shares of those who post orders, before these; None where K = 0
    posted: Tensor | None = None  # (E, K, N) their orders, money

    @property
    def divisor(self) -> Tensor:
        """(E, O) what money is divided by to be a share of wealth: wealth, or 1 where there is none."""
        divisor: Tensor = namespace(self.wealth).where(self.wealth > 0.0, self.wealth, 1.0)
        return divisor


class Trade(NamedTuple):
    """Prices, and who holds what at them."""

    prices: Tensor  # (E, N)
    holdings: Tensor  # (E, B, N) shares after the trade
    weights: Tensor  # (E, O, N+1) planned positions of the optimisers over their wealth, cash first
    residual: Tensor  # (E,) largest relative excess demand
    iterations: Tensor  # (E,) of whatever the mechanism iterates
    converged: Tensor  # (E,) bool; a market that is not has NaN in its row
    dealer_holdings: Tensor | None = None  # (E, N) shares of the mechanism's own account, where it has one
    dealer_pays: Mapping[str, Tensor] | None = None  # (E,) money each that account pays to others
    remembered: Any = None  # what the mechanism's next trade depends on, where it has a past
    solution: ClearingSolution | None = None  # of the mechanism that clears
