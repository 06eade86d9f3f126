"""Impact: trades move the price, and a dealer takes the other side of them.

Investors decide at the last close, moved by this month's news n, what they want to hold. With a the net demand for an
asset as a fraction of its supply, dt a month and τ a memory,

    a_τ ← (1 − dt/τ) a_τ + (dt/τ) a,      f(a_τ) = ν a_τ (â − |a_τ|),      log p ← log p + n + f(a_τ) dt,

and everybody's trades are executed at the new price. f is the quadratic impact of Halperin and Feldshteyn (2018), arXiv
1805.06126, made odd; beyond |a_τ| = â/2, where it would turn around, it stays what it is there. News, with its drift,
what signals add to it and its correlated noise, is the rest of the return.

The dealer's stock stays within a share of the supply: demand that would carry it further is rationed, all who trade
that asset alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from hmgym.arrays import Numpy, namespace, to_numpy, to_torch
from hmgym.clearing import optimize_portfolio
from hmgym.market.demand import Demand, Trade
from hmgym.market.mechanisms import DEALER, Anticipation

if TYPE_CHECKING:
    from hmgym.market.config import MarketConfig
    from hmgym.market.shocks import Shocks
    from hmgym.market.state import MarketState

_MONTH = 1.0 / 12.0  # years
_LEAST = 1e-300  # of the supply, as a divisor


@dataclass(frozen=True, kw_only=True)
class ImpactState:
    """What the mechanism remembers."""

    traded: Tensor  # (E, N) a_τ, net demand a month over supply


class Impact:
    """The price mechanism ``"impact"``; parameters are `impact`, `impact_turn`, `impact_memory_months`, `dealer_limit`.

    Args:
        config: of the market.
    """

    accounts: ClassVar[tuple[str, ...]] = (DEALER,)
    numpy_ready: ClassVar[bool] = True

    def __init__(self, config: MarketConfig) -> None:
        self._strength, self._turn = config.impact, config.impact_turn
        self._decay, self._limit = 1.0 / config.impact_memory_months, config.dealer_limit
        self._anticipation = Anticipation(config)

    def begin(self, state: MarketState) -> ImpactState:
        """Nothing has been traded."""
        return ImpactState(traded=namespace(state.prices).zeros_like(state.prices))

    def __call__(self, state: MarketState, demand: Demand, shocks: Shocks | None) -> Trade:
        """Fill what is demanded, as far as the dealer goes."""
        xp = namespace(state.prices)
        weights = self._weights(state, demand)
        quoted = xp.exp(demand.start)  # last close and news
        risky = weights[..., 1:]
        wanted = xp.at_least(demand.wealth, 0.0)[..., None] * risky / quoted[:, None]
        trades, o = wanted - demand.holdings, demand.holdings.shape[1]
        if demand.kept is not None:
            posted = demand.kept - state.holdings[:, o:]
            if demand.posted is not None:
                posted = posted + demand.posted / quoted[:, None]
            trades = xp.concatenate([trades, posted], 1)
        net = trades.sum(1)
        room = self._limit * state.supply + xp.where(net > 0.0, state.dealer_holdings, -state.dealer_holdings)
        size = abs(net)
        within = size <= room
        filled = xp.where(within, 1.0, xp.at_least(room, 0.0) / xp.where(within, 1.0, size + _LEAST))
        traded = state.mechanism.traded
        traded = traded + self._decay * (filled * net / state.supply - traded)
        prices = quoted * xp.exp(_MONTH * self.impact(traded))
        holdings = state.holdings + filled[:, None] * trades
        nothing = xp.zeros_like(prices[:, 0])
        converged = xp.floats(prices > 0.0).sum(-1) == float(prices.shape[1])  # NaN is not
        return Trade(
            prices=prices,
            holdings=holdings,
            weights=weights,
            residual=nothing,
            iterations=xp.integers(nothing),
            converged=converged,
            dealer_holdings=state.supply - holdings.sum(1),
            remembered=ImpactState(traded=traded),
        )

    def impact(self, traded: Tensor) -> Tensor:
        """f (E, N), log return a year, of a_τ."""
        xp, size = namespace(traded), abs(traded)
        bounded = xp.at_most(size, 0.5 * self._turn)
        moved: Tensor = xp.where(traded < 0.0, -1.0, 1.0) * self._strength * bounded * (self._turn - bounded)
        return moved

    def _weights(self, state: MarketState, demand: Demand) -> Tensor:
        """Positions (E, O, N+1) over wealth that are best where prices are the last close moved by news, cash first."""
        beliefs, risk = self._anticipation(state, demand)
        held = self._anticipation.held(state, demand)
        given = (risk, beliefs - demand.start[:, None], held, demand.short_leverage, demand.long_leverage)
        matrix, returns, held, short, long = (to_torch(x) for x in given)
        sound = torch.isfinite(returns).flatten(1).all(-1) & torch.isfinite(matrix).flatten(1).all(-1)
        if not bool(sound.all()):  # a market that came to nothing stays NaN; its portfolios are anything
            at = ~sound
            matrix, returns = matrix.clone(), returns.clone()
            matrix[at], returns[at] = torch.eye(returns.shape[-1], dtype=returns.dtype, device=returns.device), 0.0
        ones = torch.ones_like(returns[..., 0])
        risky = optimize_portfolio(
            matrix, 1.0 + returns, self._anticipation.cost, held, ones, short, long, torch.ones_like(returns[:, 0]),
            commission_on="trades",
        )  # fmt: skip
        weights = torch.cat([1.0 - risky.sum(-1, keepdim=True), risky], -1)
        return weights if namespace(state.prices) is not Numpy else to_numpy(weights)
