"""Investors who follow the gradient flow of their objective for a while, rather than jump to its top.

With expected returns r = m − log p and G half the risk aversion times the covariance, the flow of r'w − w'Gw from the
positions held, ẇ = r − 2Gw, is after a time τ at

    w(τ) = A r + e^{−2Gτ} w_prev,     A = (I − e^{−2Gτ}) (2G)⁻¹.

That is the top of another objective of the same kind, with risk ½A⁻¹ and beliefs m + A⁻¹ e^{−2Gτ} w_prev: an ordinary
row of the clearing, so the flow runs at the prices that clear, to the last digit where no limit binds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from hmgym.arrays import namespace, placed
from hmgym.checks import check_interval, check_number, integer
from hmgym.investors.cohort import Optimisers, Setting, View
from hmgym.investors.draws import Draws, Layout


@dataclass(frozen=True, kw_only=True)
class FlowFollowerConfig:
    """What flow followers are like.

    Attributes:
        seats: b.
        wealth_share: of all wealth, of all of them together.
        risk_aversion: γ > 0.
        flow_time: τ > 0; a position along which returns have variance s² a month goes e^{−γs²τ} of the way not.
        correction: share of log(value / price) that they expect to be made up in a month.
        short_leverage: κ >= 0.
        long_leverage: θ >= 1.
    """

    name: ClassVar[str] = "flow-followers"
    numpy_ready: ClassVar[bool] = True

    seats: int = 2
    wealth_share: float = 0.1
    risk_aversion: float = 4.0
    flow_time: float = 20.0
    correction: float = 0.2
    short_leverage: float = 0.5
    long_leverage: float = 2.0

    def __post_init__(self) -> None:
        integer("seats", self.seats, 1)
        check_interval("wealth_share", self.wealth_share, 0.0, 1.0, open_interval=True)
        for name in ("risk_aversion", "flow_time"):
            check_number(name, getattr(self, name), 0.0, strict=True)
        check_interval("correction", self.correction, 0.0, 1.0)
        check_number("short_leverage", self.short_leverage, 0.0)
        check_number("long_leverage", self.long_leverage, 1.0)

    def build(self, setting: Setting) -> FlowFollowers:
        """The cohort as a market uses it."""
        return FlowFollowers(self, setting)


class FlowFollowers:
    """The cohort.

    Args:
        config: of the cohort.
        setting: of the market.
    """

    optimises = True
    first_draws, monthly_draws = Layout(), Layout()

    def __init__(self, config: FlowFollowerConfig, setting: Setting) -> None:
        self.config, self.seats, self._device = config, config.seats, setting.device
        self._growth = setting.growth
        double = config.risk_aversion * torch.as_tensor(setting.covariance, dtype=torch.float64).cpu()  # 2G
        values, vectors = torch.linalg.eigh(double)
        remaining = torch.exp(-values * config.flow_time)
        # A⁻¹ = 2G / (1 − e^{−2Gτ}); where 2G is next to nothing that is 1/τ.
        inverse = values / -torch.expm1(-values * config.flow_time)

        def matrix(eigenvalues: Tensor) -> Any:
            return placed((vectors * eigenvalues) @ vectors.T, self._device)

        self._risk, self._pull = matrix(0.5 * inverse), matrix(inverse * remaining)

    def target_shares(self, draws: Draws, n_markets: int) -> Tensor:
        """Equal parts of the cohort's."""
        share = torch.full((n_markets, self.seats), self.config.wealth_share / self.seats, dtype=torch.float64)
        placed_share: Tensor = placed(share, self._device)
        return placed_share

    def start(self, draws: Draws, n_markets: int) -> tuple[()]:
        """Nothing to remember: what they hold is in the books."""
        return ()

    def demand(self, view: View, memory: Any) -> Optimisers:
        """The row whose top is where the flow has got to."""
        config, xp = self.config, namespace(view.wealth)
        expected = view.log_price + self._growth + config.correction * (view.log_value - view.log_price)
        wealth = xp.where(view.wealth > 0.0, view.wealth, xp.ones_like(view.wealth))
        held = view.holdings * xp.exp(view.log_price)[:, None] / wealth[..., None]
        beliefs = expected[:, None] + held @ self._pull
        ones = xp.ones_like(view.wealth)
        risk = xp.broadcast_to(self._risk, (*view.wealth.shape, *self._risk.shape))
        return Optimisers(beliefs, risk, config.short_leverage * ones, config.long_leverage * ones)

    def remember(self, memory: Any, log_return: Tensor, draws: Draws) -> tuple[()]:
        """Nothing."""
        return ()

    def replace(self, memory: Any, ruined: Tensor, draws: Draws | None) -> tuple[()]:
        """Newcomers are like those who left."""
        return ()
