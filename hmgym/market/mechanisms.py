"""Price mechanisms: from what investors post to prices and holdings.

The default clears: one price vector at which demand equals supply. Another mechanism is a class in a file of its own
and a line in `hmgym.market.registry.MECHANISMS`; docs/extending.md shows a complete one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

import torch
from torch import Tensor

from hmgym.arrays import Numpy, namespace, placed
from hmgym.clearing import ClearingSolution, Pools, PortfolioMemory, Problem, clear
from hmgym.market.demand import Demand, Trade

if TYPE_CHECKING:
    from hmgym.market.config import MarketConfig
    from hmgym.market.shocks import Shocks
    from hmgym.market.state import MarketState


_MEMORABLE = 12  # assets from which on starting from last month's portfolios is faster than starting from none


class PriceMechanism(Protocol):
    """A pure function of state, demand and shocks; gradients flow from every float input to prices and holdings.

    It is made from a `MarketConfig`.
    """

    accounts: ClassVar[tuple[str, ...]]
    """named cash accounts of its own; one that trades itself has ``DEALER``"""
    numpy_ready: ClassVar[bool]
    """whether it takes numpy arrays as well as tensors (`hmgym.arrays`): environments then run in half the time"""

    def __call__(self, state: MarketState, demand: Demand, shocks: Shocks | None) -> Trade:
        """Prices and holdings. Never raises for a market without a price: its row is NaN and not converged.

        A mechanism that saves time by what it remembers of the same markets has a method ``memory()``, which makes an
        empty memory with a method ``forget(rows)``, or None, and takes one here as a fourth argument. It is a cache:
        results may depend on it in rounding only. What results do depend on is part of the state: a mechanism with a
        past has a method ``begin(state)``, which makes the first `MarketState.mechanism`, a dataclass of tensors, and
        gives the next one as `Trade.remembered`. One that brings money and shares of its own says how many by a method
        ``stock(remembered)``, (E,) and (E, N).
        """


DEALER = "dealer"
"""Account of a mechanism that takes the other side itself: it pays for the shares in `Trade.dealer_holdings`."""


class Anticipation:
    """How investors allow for the cost of trading when they plan: `MarketConfig.cost_anticipation`."""

    def __init__(self, config: MarketConfig) -> None:
        self.cost = config.trading_cost if config.cost_anticipation == "exact" else 0.0
        """of money traded, off the objective as it is"""
        self._damping = config.trading_cost if config.cost_anticipation == "quadratic" else 0.0
        self._damped = torch.empty(0)

    def __call__(self, state: MarketState, demand: Demand) -> tuple[Tensor, Tensor]:
        """Beliefs and risk of the demand, with the cost in them where it is quadratic."""
        if not self._damping:
            return demand.beliefs, demand.risk
        # q |w − w_prev|² off the objective: 2 q w_prev more return, q more risk of each asset.
        xp = namespace(demand.wealth)
        twice = 2.0 * self._damping / demand.divisor
        held = xp.across(state.prices, demand.holdings.shape[1]) * demand.holdings
        if self._damped.shape != demand.risk.shape[1:]:  # one an investor: long rows are added faster than short ones
            damped = self._damping * torch.eye(held.shape[-1], dtype=torch.float64)
            self._damped = damped.repeat(held.shape[1], 1, 1)
        damped = placed(self._damped, None if xp is Numpy else demand.risk.device)
        return demand.beliefs + twice[..., None] * held, demand.risk + damped

    def held(self, state: MarketState, demand: Demand) -> Tensor:
        """Positions (E, O, N) before the trade over wealth."""
        positions: Tensor = state.prices[:, None] * demand.holdings / demand.divisor[..., None]
        return positions


class Clearing:
    """All demand meets supply at one vector of prices (docs/clearing.md)."""

    accounts: ClassVar[tuple[str, ...]] = ()
    numpy_ready: ClassVar[bool] = True

    def __init__(self, config: MarketConfig) -> None:
        self._n_assets, self._smoothing = config.n_assets, config.smoothing
        self._anticipation = Anticipation(config)

    def memory(self) -> PortfolioMemory | None:
        """Last month's portfolios, near which this month's are; None for the few assets where that saves no time."""
        return PortfolioMemory() if self._n_assets >= _MEMORABLE else None

    def __call__(
        self, state: MarketState, demand: Demand, shocks: Shocks | None, memory: PortfolioMemory | None = None
    ) -> Trade:
        """Clear the markets; who posts orders is served at the price that clears."""
        solution = self._solve(state, demand, memory)
        return Trade(
            prices=solution.prices,
            holdings=with_posted(solution.holdings, demand, solution.prices),
            weights=solution.weights,
            residual=solution.residual,
            iterations=solution.iterations,
            converged=solution.converged,
            solution=solution,
        )

    def _solve(
        self, state: MarketState, demand: Demand, memory: PortfolioMemory | None, pools: Pools | None = None
    ) -> ClearingSolution:
        cost, xp = self._anticipation.cost, namespace(demand.wealth)
        beliefs, risk = self._anticipation(state, demand)
        problem = Problem.of(
            beliefs,
            risk,
            demand.wealth,
            demand.short_leverage,
            demand.long_leverage,
            demand.supply,
            orders=demand.orders,
            last_prices=state.prices,
            positions=demand.holdings if cost else None,
            trading_cost=xp.full_like(demand.holdings, cost) if cost else None,
            start=xp.exp(demand.start),
        )
        return clear(problem, smoothing=self._smoothing, memory=memory, pools=pools)


def with_posted(holdings: Tensor, demand: Demand, prices: Tensor) -> Tensor:
    """Holdings (E, B, N) of everybody: the optimisers' (E, O, N), then kept shares and what orders bought."""
    if demand.kept is None:
        return holdings
    posted = demand.kept if demand.posted is None else demand.kept + demand.posted / prices[:, None]
    joined: Tensor = namespace(holdings).concatenate([holdings, posted], 1)
    return joined
