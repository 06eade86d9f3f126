"""Fundamentals: monthly log returns of what the assets are worth, from blocks of real history or from a Gaussian.

Bootstrap: rows of the history, de-meaned and given the configured growth, in blocks of consecutive months; the start of each
block is uniform over all full blocks. Gaussian: growth + C z with C C' the covariance of those same returns.
"""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hmgym.market.config import MarketConfig
from hmgym.market.shocks import uniform


class Fundamentals:
    """The source of news, as constants on a device."""

    def __init__(self, config: MarketConfig, device: torch.device) -> None:
        returns = config.fundamental_returns
        covariance = np.atleast_2d(np.cov(returns, rowvar=False))
        self.returns = torch.tensor(returns, dtype=torch.float64, device=device)  # (T, N)
        self.covariance = torch.tensor(covariance, dtype=torch.float64, device=device)  # (N, N)
        self.deviation = torch.sqrt(torch.diagonal(self.covariance))  # (N,)
        self._factor = torch.linalg.cholesky(self.covariance)
        self._growth = config.growth
        self._gaussian = config.fundamentals == "gaussian"
        self.block_months = config.block_months
        self._starts = len(returns) - config.block_months + 1

    def block_start(self, block: Tensor) -> Tensor:
        """First row (E,) of a block from normals (E, 2)."""
        return (uniform(block) * self._starts).long().clamp(max=self._starts - 1)

    def phase(self, phase: Tensor) -> Tensor:
        """Months (E,) of its block that are behind a market at the start, from normals (E, 2)."""
        return (uniform(phase) * self.block_months).long().clamp(max=self.block_months - 1)

    def advance(self, row: Tensor, left: Tensor, block: Tensor) -> tuple[Tensor, Tensor]:
        """Next row of the history and months left after it, both (E,); a spent block gives way to a new one."""
        if self._gaussian:
            return row, left
        spent = left == 0
        row = torch.where(spent, self.block_start(block), row + 1)
        left = torch.where(spent, self.block_months, left) - 1
        return row, left

    def news(self, row: Tensor, normals: Tensor) -> Tensor:
        """News (E, N): the history's row, or the Gaussian of the normals."""
        if self._gaussian:
            return self._growth + (normals.unsqueeze(-2) * self._factor).sum(-1)
        return self.returns[row]
