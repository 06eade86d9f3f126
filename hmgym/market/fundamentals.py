"""Fundamentals: monthly log returns of what the assets are worth, and the signal that tells of the next ones.

    news = g + √h ∘ u,      signal = √h ∘ (ρ u' + √(1 − ρ²) ε)

g is the configured growth. u, of mean 0 and variance 1, is a row of the history's standardised residuals, all assets
together, every month drawn anew and uniformly, or normal with the history's correlation; no month tells which u comes
next. h, the variance of news, is constant or follows GARCH(1,1): `hmgym.market.volatility`.

| `fundamentals` | u | h |
|---|---|---|
| "filtered" | rows, volatility taken out | GARCH(1,1) |
| "bootstrap" | rows of the history as they are | constant |
| "gaussian" | normals | constant |

The signal is about u' of next month's news, at next month's h, which this month's news settles. ρ² = signal_r2 in the
informative regime and 0 in the other, so that the signal's deviation, that of the news, does not give the regime away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from hmgym.arrays import namespace, placed
from hmgym.market.config import MarketConfig

if TYPE_CHECKING:
    from hmgym.market.shocks import InitialShocks, Shocks
    from hmgym.market.state import MarketState


class Fundamentals:
    """The source of news.

    Args:
        config: of the market.
        device: where constants live; None for arrays in place of tensors.
    """

    def __init__(self, config: MarketConfig, device: torch.device | None) -> None:
        returns, volatility = config.fundamental_returns, config.volatility

        def constant(values: np.ndarray) -> Tensor:
            return placed(torch.from_numpy(np.array(values)), device)  # type: ignore[no-any-return]

        self.device = device
        self.residuals = constant(volatility.residuals)  # (T, N) rows of u
        self.covariance = constant(np.atleast_2d(np.cov(returns, rowvar=False)))  # (N, N) of the history's returns
        self.correlation = constant(np.atleast_2d(np.corrcoef(returns, rowvar=False)))  # (N, N)
        self.deviation = constant(np.sqrt(volatility.variance))  # (N,) of news, whatever the month
        self._factor = constant(np.linalg.cholesky(np.atleast_2d(np.corrcoef(returns, rowvar=False))))
        self._first_variance = constant(volatility.first)  # (S, N)
        self._omega, self._cap = constant(volatility.omega), constant(volatility.cap)
        self._alpha, self._beta = constant(volatility.alpha), constant(volatility.beta)
        self._growth = config.growth
        self._gaussian = config.fundamentals == "gaussian"
        self._changes = bool((volatility.alpha + volatility.beta > 0.0).any())
        self._loading = config.signal_r2**0.5
        self._noise = (1.0 - config.signal_r2) ** 0.5
        self._switch = config.regime_switch

    def begin(self, shocks: InitialShocks) -> dict[str, Tensor]:
        """What a market's first state says of news: `news`, `next_news`, `news_variance`, `signal`, `regime`.

        The variance of its first news is from the stationary distribution, of all assets together.
        """
        variance = self.first_variance(shocks.volatility)
        xp = namespace(variance)
        news = self._growth + xp.sqrt(variance) * self.residual(shocks.row[:, 0], shocks.news[:, 0])
        variance = self.next_variance(variance, news)
        drawn = self.residual(shocks.row[:, 1], shocks.news[:, 1])
        return {"news": news} | self._coming(variance, drawn, self.first_regime(shocks.regime), shocks.signal)

    def move_on(self, state: MarketState, shocks: Shocks, drift: Tensor | None = None) -> dict[str, Tensor]:
        """The same of the next state: the news that was coming is this month's.

        A `drift` (E, N) that a scenario had added to it was no surprise, and moves no variance.
        """
        surprise = state.next_news if drift is None else state.next_news - drift
        variance = self.next_variance(state.news_variance, surprise)
        drawn = self.residual(shocks.row, shocks.news)
        regime = self.next_regime(state.regime, shocks.regime)
        return {"news": state.next_news} | self._coming(variance, drawn, regime, shocks.signal)

    def _coming(self, variance: Tensor, drawn: Tensor, regime: Tensor, normals: Tensor) -> dict[str, Tensor]:
        deviation = namespace(variance).sqrt(variance)
        return {
            "next_news": self._growth + deviation * drawn,
            "news_variance": variance,
            "signal": deviation * self.signal(regime, drawn, normals),
            "regime": regime,
        }

    def residual(self, uniform: Tensor, normals: Tensor) -> Tensor:
        """u (E, N): a row of the residuals, uniform (E,) among them, or the Gaussian of the normals (E, N)."""
        drawn: Tensor
        if self._gaussian:
            drawn = (normals[..., None, :] * self._factor).sum(-1)
        else:
            drawn = self.residuals[namespace(uniform).integers(uniform * self.residuals.shape[0])]
        return drawn

    def first_variance(self, uniform: Tensor) -> Tensor:
        """h (E, N) at the start."""
        drawn: Tensor = self._first_variance[namespace(uniform).integers(uniform * self._first_variance.shape[0])]
        return drawn

    def next_variance(self, variance: Tensor, news: Tensor) -> Tensor:
        """h (E, N) of the month after one with this h and this news."""
        if not self._changes:
            return variance
        error = news - self._growth
        following: Tensor = namespace(variance).at_most(
            self._omega + self._alpha * (error * error) + self._beta * variance, self._cap
        )
        return following

    def first_regime(self, uniform: Tensor) -> Tensor:
        """Regime (E,) at the start: 1.0, the signal is informative, or 0.0, with even odds."""
        regime: Tensor = namespace(uniform).floats(uniform < 0.5)
        return regime

    def next_regime(self, regime: Tensor, uniform: Tensor) -> Tensor:
        """Regime (E,) of the next month."""
        following: Tensor = namespace(regime).where(uniform < self._switch, 1.0 - regime, regime)
        return following

    def signal(self, regime: Tensor, residual: Tensor, normals: Tensor) -> Tensor:
        """Signal (E, N) about next month's u, in standard deviations."""
        informed = self._loading * residual + self._noise * normals
        signal: Tensor = namespace(normals).where(regime[..., None] > 0.5, informed, normals)
        return signal
