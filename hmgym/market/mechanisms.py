"""Price mechanisms: from what investors post to prices and holdings.

The default clears: one price vector at which demand equals supply. Another mechanism is a class in a file of its own
and a line in `hmgym.market.registry.MECHANISMS`; docs/extending.md shows a complete one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

import torch
from torch import Tensor

from hmgym.clearing import Problem, clear
from hmgym.market.demand import Demand, Trade

if TYPE_CHECKING:
    from hmgym.market.config import MarketConfig
    from hmgym.market.shocks import Shocks
    from hmgym.market.state import MarketState


class PriceMechanism(Protocol):
    """A pure function of state, demand and shocks; gradients flow from every float input to prices and holdings.

    It is made from a `MarketConfig`.
    """

    accounts: tuple[str, ...]
    """named cash accounts of its own; one that trades itself has ``DEALER``"""

    def __call__(self, state: MarketState, demand: Demand, shocks: Shocks | None) -> Trade:
        """Prices and holdings. Never raises for a market without a price: its row is NaN and not converged."""


DEALER = "dealer"
"""Account of a mechanism that takes the other side itself: it pays for the shares in `Trade.dealer_holdings`."""


class Clearing:
    """All demand meets supply at one vector of prices (docs/clearing.md)."""

    accounts: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: MarketConfig) -> None:
        self._cost, self._smoothing = config.trading_cost, config.smoothing

    def __call__(self, state: MarketState, demand: Demand, shocks: Shocks | None) -> Trade:
        """Clear the markets; who posts orders is served at the price that clears."""
        cost = self._cost
        problem = Problem.of(
            demand.beliefs,
            demand.risk,
            demand.wealth,
            demand.short_leverage,
            demand.long_leverage,
            demand.supply,
            orders=demand.orders,
            last_prices=state.prices,
            positions=demand.holdings if cost else None,
            trading_cost=torch.full_like(demand.holdings, cost) if cost else None,
            start=torch.exp(demand.start),
        )
        solution = clear(problem, smoothing=self._smoothing)
        return Trade(
            prices=solution.prices,
            holdings=with_posted(solution.holdings, demand, solution.prices),
            weights=solution.weights,
            residual=solution.residual,
            iterations=solution.iterations,
            converged=solution.converged,
            solution=solution,
        )


def with_posted(holdings: Tensor, demand: Demand, prices: Tensor) -> Tensor:
    """Holdings (E, B, N) of everybody: the optimisers' (E, O, N), then kept shares and what orders bought."""
    if demand.kept is None:
        return holdings
    posted = demand.kept if demand.posted is None else demand.kept + demand.posted / prices[:, None]
    return torch.cat([holdings, posted], 1)
