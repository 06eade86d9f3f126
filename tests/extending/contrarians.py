"""An investor with memory, as docs/extending.md adds it: contrarians bet that recent returns turn around."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hmgym.investors import Draws, Layout, Optimisers, Setting, View


@dataclass(frozen=True, kw_only=True)
class ContrarianConfig:
    """What contrarians are like."""

    name: ClassVar[str] = "contrarians"
    seats: int = 4
    wealth_share: float = 0.2
    gain: float = 0.5
    """of an average return that they expect to be taken back"""
    memory_months: float = 6.0
    risk_aversion: float = 4.0

    def build(self, setting: Setting) -> Contrarians:
        """The cohort as a market uses it."""
        return Contrarians(self, setting)


@dataclass(frozen=True, kw_only=True)
class Average:
    """What they remember: an exponentially weighted average of monthly log returns."""

    mean_return: Tensor  # (E, b, N)


class Contrarians:
    """Expected log price next month: log p + news − gain · average return."""

    optimises = True
    first_draws, monthly_draws = Layout(), Layout()

    def __init__(self, config: ContrarianConfig, setting: Setting) -> None:
        self.config, self.seats, self._setting = config, config.seats, setting

    def target_shares(self, draws: Draws, n_markets: int) -> Tensor:
        share = self.config.wealth_share / self.seats
        return torch.full((n_markets, self.seats), share, dtype=torch.float64, device=self._setting.device)

    def start(self, draws: Draws, n_markets: int) -> Average:
        shape = (n_markets, self.seats, self._setting.n_assets)
        return Average(mean_return=torch.zeros(shape, dtype=torch.float64, device=self._setting.device))

    def demand(self, view: View, memory: Average) -> Optimisers:
        expected = (view.log_price + view.news)[:, None] - self.config.gain * memory.mean_return
        no_borrowing = torch.zeros_like(view.wealth)
        risk = 0.5 * self.config.risk_aversion * self._setting.covariance
        return Optimisers(expected, risk.expand(*view.wealth.shape, -1, -1), no_borrowing, no_borrowing + 1.0)

    def remember(self, memory: Average, log_return: Tensor, draws: Draws) -> Average:
        weight = 1.0 / self.config.memory_months
        return Average(mean_return=memory.mean_return + weight * (log_return[:, None] - memory.mean_return))

    def replace(self, memory: Average, ruined: Tensor, draws: Draws | None) -> Average:
        return memory  # a newcomer sees the same returns
