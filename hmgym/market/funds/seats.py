"""Seats: who is where among the investors of a market of funds.

In the order of the seats: learners, active funds, momentum funds, retail investors, index funds. Index funds come last
because they post orders, all others have their portfolios solved (`hmgym.market.demand.Demand`). The F funds by
themselves are counted in the same order, without the retail investors.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from hmgym.arrays import namespace
from hmgym.market.funds.config import FundsConfig


class Seats:
    """Slices of the investors, and of the funds."""

    def __init__(self, config: FundsConfig) -> None:
        self.learners, self.managed = config.n_learners, config.n_learners + config.n_active
        self.momentum, self.index = config.n_momentum, config.n_passive - config.n_momentum
        self.solved = self.managed + self.momentum
        """funds whose portfolios are solved"""
        self.funds, self.retail = self.solved + self.index, config.n_retail
        self.optimisers = self.solved + self.retail
        self.is_active = [fund < self.managed for fund in range(self.funds)]

    def of_funds(self, x: Tensor) -> Tensor:
        """The funds' rows (E, F, ...) of the investors' (E, B, ...)."""
        if not self.index:
            return x[:, : self.solved]
        parts = [x[:, : self.solved], x[:, self.optimisers :]]
        joined: Tensor = namespace(x).concatenate(parts, 1)
        return joined

    def of_retail(self, x: Tensor) -> Tensor:
        """The retail investors' rows (E, R, ...)."""
        return x[:, self.solved : self.optimisers]

    def joined(self, funds: Tensor, retail: Tensor) -> Tensor:
        """All investors' rows (E, B, ...)."""
        parts: list[Any] = [funds[:, : self.solved], retail, funds[:, self.solved :]]
        everybody: Tensor = namespace(retail).concatenate(parts, 1)
        return everybody
