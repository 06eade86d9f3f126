"""Fundamentals: monthly log returns of what the assets are worth, and the signal that tells of the next ones.

Bootstrap: rows of the history, de-meaned and given the configured growth, in blocks of consecutive months; the start
of each block is uniform over all full blocks. Gaussian: growth + C z with C C' the covariance of those same returns.

Signal: ρ (next news − growth) + √(1 − ρ²) σ z, with ρ² = signal_r2 in the informative regime and 0 in the other, so
that its deviation σ, that of the news, does not give the regime away.
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
        returns = config.fundamental_returns
        covariance = torch.from_numpy(np.atleast_2d(np.cov(returns, rowvar=False)))
        self.device = device
        self.returns: Tensor = placed(torch.from_numpy(returns), device)  # (T, N)
        self.covariance: Tensor = placed(covariance, device)  # (N, N)
        self.deviation: Tensor = placed(torch.sqrt(torch.diagonal(covariance)), device)  # (N,)
        self._factor: Tensor = placed(torch.linalg.cholesky(covariance), device)
        self._growth = config.growth
        self._gaussian = config.fundamentals == "gaussian"
        self.block_months = config.block_months
        self._starts = len(returns) - config.block_months + 1
        self._loading = config.signal_r2**0.5
        self._noise = (1.0 - config.signal_r2) ** 0.5
        self._switch = config.regime_switch

    def begin(self, shocks: InitialShocks) -> dict[str, Tensor]:
        """What a market's first state says of news: `news`, `next_news`, `signal`, `regime`, `block_row`, `block_left`.

        The first block of history is entered anywhere.
        """
        passed = self.phase(shocks.phase)
        row = self.block_start(shocks.block[:, 0]) + passed
        news = self.news(row, shocks.news[:, 0])
        row, left = self.advance(row, self.block_months - 1 - passed, shocks.block[:, 1])
        return {"news": news} | self._coming(row, left, self.first_regime(shocks.regime), shocks.news[:, 1], shocks)

    def move_on(self, state: MarketState, shocks: Shocks) -> dict[str, Tensor]:
        """The same of the next state: the news that was coming is this month's."""
        row, left = self.advance(state.block_row, state.block_left, shocks.block)
        regime = self.next_regime(state.regime, shocks.regime)
        return {"news": state.next_news} | self._coming(row, left, regime, shocks.news, shocks)

    def _coming(
        self, row: Tensor, left: Tensor, regime: Tensor, normals: Tensor, shocks: InitialShocks | Shocks
    ) -> dict[str, Tensor]:
        next_news = self.news(row, normals)
        signal = self.signal(regime, next_news, shocks.signal)
        return {"next_news": next_news, "signal": signal, "regime": regime, "block_row": row, "block_left": left}

    def block_start(self, uniform: Tensor) -> Tensor:
        """First row (E,) of a block, uniform over the full blocks."""
        row: Tensor = namespace(uniform).integers(uniform * self._starts)
        return row

    def phase(self, uniform: Tensor) -> Tensor:
        """Months (E,) of its block that are behind a market at the start."""
        passed: Tensor = namespace(uniform).integers(uniform * self.block_months)
        return passed

    def advance(self, row: Tensor, left: Tensor, block: Tensor) -> tuple[Tensor, Tensor]:
        """Next row of the history and months left after it, both (E,); a spent block gives way to a new one."""
        if self._gaussian:
            return row, left
        spent, xp = left == 0, namespace(row)
        row = xp.where(spent, self.block_start(block), row + 1)
        left = xp.where(spent, self.block_months, left) - 1
        return row, left

    def news(self, row: Tensor, normals: Tensor) -> Tensor:
        """News (E, N): the history's row, or the Gaussian of the normals."""
        if self._gaussian:
            news: Tensor = self._growth + (normals[..., None, :] * self._factor).sum(-1)
        else:
            news = self.returns[row]
        return news

    def first_regime(self, uniform: Tensor) -> Tensor:
        """Regime (E,) at the start: 1.0, the signal is informative, or 0.0, with even odds."""
        regime: Tensor = namespace(uniform).floats(uniform < 0.5)
        return regime

    def next_regime(self, regime: Tensor, uniform: Tensor) -> Tensor:
        """Regime (E,) of the next month."""
        following: Tensor = namespace(regime).where(uniform < self._switch, 1.0 - regime, regime)
        return following

    def signal(self, regime: Tensor, next_news: Tensor, normals: Tensor) -> Tensor:
        """Signal (E, N) about next month's news."""
        noise = self.deviation * normals
        informed = self._loading * (next_news - self._growth) + self._noise * noise
        signal: Tensor = namespace(noise).where(regime[..., None] > 0.5, informed, noise)
        return signal
