"""An investor that does not optimise: savers who put a fixed share of their cash into every asset, come what may."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from hmgym.investors import Draws, Layout, Orders, Setting, View


@dataclass(frozen=True, kw_only=True)
class AccumulatorConfig:
    """How much accumulators save and how often they change their mind."""

    name: ClassVar[str] = "accumulators"
    seats: int = 2
    wealth_share: float = 0.1
    monthly_share: float = 0.05
    """of their cash that is spent on shares, or, where the mood turns, got from shares"""
    patience: float = 0.9
    """probability a month of buying rather than selling"""

    def build(self, setting: Setting) -> Accumulators:
        return Accumulators(self, setting)


@dataclass(frozen=True, kw_only=True)
class Mood:
    """Who buys this month."""

    exogenous_fields: ClassVar[tuple[str, ...]] = ("buys",)

    buys: Tensor  # (E, b) 1 or −1


class Accumulators:
    """Money orders of ± monthly_share · cash / N an asset; sellers sell no more than they hold."""

    optimises = False

    def __init__(self, config: AccumulatorConfig, setting: Setting) -> None:
        self.config, self.seats, self._setting = config, config.seats, setting
        self.first_draws = self.monthly_draws = Layout(uniforms={"mood": (config.seats,)})

    def target_shares(self, draws: Draws, n_markets: int) -> Tensor:
        return torch.full_like(draws.mood, self.config.wealth_share / self.seats)

    def start(self, draws: Draws, n_markets: int) -> Mood:
        return self._mood(draws)

    def demand(self, view: View, memory: Mood) -> Orders:
        money = self.config.monthly_share / self._setting.n_assets * view.cash.clamp(min=0.0) * memory.buys
        worth = view.holdings * torch.exp(view.log_price)[:, None]
        return Orders(torch.maximum(money[..., None], -0.5 * worth))

    def remember(self, memory: Mood, log_return: Tensor, draws: Draws) -> Mood:
        return self._mood(draws)

    def replace(self, memory: Mood, ruined: Tensor, draws: Draws | None) -> Any:
        return memory

    def _mood(self, draws: Draws) -> Mood:
        return Mood(buys=2.0 * (draws.mood < self.config.patience).double() - 1.0)
