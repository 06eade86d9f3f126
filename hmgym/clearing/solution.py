"""What a solver returns and how it fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from hmgym.arrays import namespace


@dataclass(frozen=True)
class ClearingSolution:
    """Cleared markets. Shapes are those of a batch; an unbatched call returns them without the leading E.

    Attributes:
        prices: ``(E, N)`` clearing prices.
        weights: ``(E, B, N+1)`` positions as fractions of pre-trade wealth, cash first. An investor without wealth
            holds cash only.
        holdings: ``(E, B, N)`` shares, ``wealth * weights / prices``.
        converged: ``(E,)`` whether the residual is at most 1e-9 or the rounding of the demand's own sums.
        residual: ``(E,)`` ``max_i |sum_b h_bi - (S_i - D_i / p_i)| / S_i`` of the returned holdings.
        iterations: ``(E,)`` Newton steps.
        short_leverage, long_leverage: the limits that the portfolios obey, ``(E, B)`` or ``(E, B, N+1)``.
        reasons: market index to the reason, for those that have not converged.
        pool_reserves: ``(E, K, N+1)`` money and shares of the pools after the trade, where there are some.
        pool_loss: ``(E, K)`` money that each lost against keeping what it held.
    """

    prices: Tensor
    weights: Tensor
    holdings: Tensor
    converged: Tensor
    residual: Tensor
    iterations: Tensor
    short_leverage: Tensor = field(repr=False)
    long_leverage: Tensor = field(repr=False)
    reasons: Mapping[int, str] = field(default_factory=dict)
    pool_reserves: Tensor | None = None
    pool_loss: Tensor | None = None

    @property
    def active_limits(self) -> Tensor:
        """``(E, B, N+1)`` int8: -1 where a position stands at the short limit, 1 at the long limit, 0 between."""
        return active_limits(self.weights, self.short_leverage, self.long_leverage)


class ClearingError(ValueError):
    """Some markets could not be cleared.

    Attributes:
        markets: index of each such market and the reason.
        solution: the solution of the whole batch; the others are cleared, the failed rows are NaN and not converged.
    """

    def __init__(self, markets: Mapping[int, str], solution: object, n_markets: int) -> None:
        shown = [f"market {index}: {reason}" for index, reason in list(markets.items())[:5]]
        if len(markets) > len(shown):
            shown.append(f"and {len(markets) - len(shown)} more")
        super().__init__(f"{len(markets)} of {n_markets} markets not cleared. " + "; ".join(shown))
        self.markets = dict(markets)
        self.solution = solution
        self._n_markets = n_markets

    def __reduce__(self) -> Any:
        return type(self), (self.markets, self.solution, self._n_markets)


def active_limits(weights: Tensor, short_leverage: Tensor, long_leverage: Tensor) -> Tensor:
    """``ClearingSolution.active_limits`` of ``weights (..., N+1)`` with limits ``(...)`` or ``(..., N+1)``."""
    short, long = (x if x.ndim == weights.ndim else x[..., None] for x in (short_leverage, long_leverage))
    xp = namespace(weights)
    limits: Tensor = xp.signs(weights == long) - xp.signs(weights == -short)
    return limits
