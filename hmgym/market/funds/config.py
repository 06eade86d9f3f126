"""What the active/passive fund market is made of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from hmgym.checks import check_interval, check_pair, integer, shown
from hmgym.data import PriceHistory, packaged_span
from hmgym.investors.styles import STYLES
from hmgym.market.config import MarketConfig
from hmgym.market.funds.assets import widened


@dataclass(frozen=True, kw_only=True)
class FundsConfig(MarketConfig):
    """An active/passive fund market; fees, costs and `risk_free` are per year, other rates per month.

    Learners are active managers besides the `n_active`. `n_investors` and `interest_rate` follow from the numbers and
    from `risk_free`; `population`, `cohorts` and `learner_share` belong to the crowd and have no part here.

    Raises:
        ValueError: a value out of range, named.
    """

    NO_INFORMATION: ClassVar[Mapping[str, float]] = {**MarketConfig.NO_INFORMATION, "signals_r2": 0.0}

    scenario: str = "active-passive"
    n_assets: int = 20
    n_retail: int = 100
    n_active: int = 10
    n_passive: int = 5
    """passive funds, momentum funds among them"""
    n_momentum: int = 0
    """of the passive funds, those that follow a momentum rule in place of the index"""
    n_investors: int = 115
    """follows: learners, funds and retail investors"""
    fundamentals: str = "bootstrap"
    """as in `MarketConfig`; with the volatility constant no company outgrows in a few months what cash can follow"""

    active_fee: float = 0.015
    """of net asset value a year, from an active fund to its management company"""
    passive_fee: float = 0.005
    """the same of a passive fund"""
    information_cost: float = 0.003
    """of the net asset value of active funds a year, from management companies to the vendor of information"""
    risk_free: float = 0.02
    """interest a year"""

    fund_share: float = 0.5
    """of the supply that funds hold at the start, and that retail investors are used to hold through funds"""
    active_share: float | None = None
    """the active funds' part of the supply; None divides `fund_share` by the numbers of funds"""
    cash_ratio: float = 0.3
    """cash of all investors over what their shares are worth: at the start at market prices, and at values where
    consumption or issuance steers to"""
    fund_cash: float = 0.05
    """cash of an active or momentum fund at the start, of its net asset value; index funds have none"""
    styles: tuple[str, ...] = STYLES
    """of the active managers, in turn"""
    esg_exclusions: int | None = None
    """assets, the lowest by the ESG signal, that ESG funds may not buy; None bars all but a fifth"""

    rationality: float = 1.0
    """β of the retail investors, in units of 1/(.01 % of wealth a month)"""
    retail_risk_aversion: tuple[float, float] = (1.0, 3.0)
    """range of λ: the retail investors' reward has −λ w'Σw"""
    retail_pull: tuple[float, float] = (0.1, 0.3)
    """range of the share of the gap between price and value that a retail investor expects to close in a month"""
    habit_speed: float = 0.1
    """part of the way back to their habitual portfolio that retail investors' prior goes in a month"""
    asset_spread: float = 0.5
    """standard deviation of the prior of an asset's position, over the habitual one"""
    fund_spread: float = 0.2
    """the same of a fund's"""
    noise_persistence: float = 0.9
    """autocorrelation of the noise of a retail investor's policy"""
    noise_common: float = 0.02
    """share of the variance of that noise that all retail investors have in common"""
    learning_gain: float = 1.0 / 36.0
    """weight of a month in the record of a fund's performance that retail investors go by"""
    redemption_gate: float = 0.25
    """of a fund's units that can be redeemed in a month"""
    overdraft_limit: float = 0.1
    """debt of a fund over its net asset value at which it suspends redemptions; on the way there the gate narrows in
    proportion"""
    quadratic_cost: float = 0.02
    """q: everybody whose portfolio is solved, and retail investors in funds too, dislikes trades of Δw by q Δw²"""

    signals_r2: float = 0.005
    """share of the variance of next month's news that the five signals together explain"""
    manager_risk_aversion: float = 1.5
    manager_pull: float = 0.2
    """share of the gap between price and value that fund managers expect to close in a month"""
    momentum_gain: float = 0.3
    momentum_memory_months: float = 12.0

    payout_reversion: float = 0.005
    """part of log value beyond the average that companies pay out in a month, in place of growing"""
    dividend_yield: float = 0.0025
    trading_cost: float = 0.001
    cost_anticipation: str = "none"
    """on top of `quadratic_cost`"""
    borrowing_spread: float = 0.0
    maintenance_margin: float = 0.0
    short_limit: float | None = None
    ownership_limit: float | None = None
    issuance_rate: float = 0.0
    initial_mispricing: float | None = 0.0
    initial_mispricing_sd: float = 0.05
    wealth_tail: float = 3.0
    """Pareto exponent of retail investors' target wealth"""

    def __post_init__(self) -> None:
        least = {"n_learners": 0, "n_retail": 2, "n_active": 0, "n_passive": 0, "n_momentum": 0}
        for name, smallest in least.items():
            object.__setattr__(self, name, integer(name, getattr(self, name), smallest))
        if self.n_momentum > self.n_passive:
            raise ValueError(f"`n_momentum` must be <= n_passive = {self.n_passive}, got {self.n_momentum}")
        if self.n_active + self.n_passive + self.n_learners == 0:
            raise ValueError("`n_active` must be >= 1 where there is no passive fund and no learner, got 0")
        for name, low, high in (
            ("active_fee", 0.0, 0.5),
            ("passive_fee", 0.0, 0.5),
            ("information_cost", 0.0, 0.5),
            ("risk_free", -0.5, 1.0),
            ("fund_cash", 0.0, 0.9),
            ("habit_speed", 0.0, 1.0),
            ("noise_persistence", 0.0, 0.999999),
            ("noise_common", 0.0, 1.0),
            ("learning_gain", 0.0, 1.0),
            ("redemption_gate", 0.0, 1.0),
            ("quadratic_cost", 0.0, 10.0),
            ("signals_r2", 0.0, 0.9),
            ("payout_reversion", 0.0, 0.1),
            ("manager_pull", 0.0, 1.0),
            ("momentum_gain", 0.0, 10.0),
        ):
            check_interval(name, getattr(self, name), low, high)
        for name, most in (
            ("fund_share", 1.0),
            ("rationality", math.inf),
            ("asset_spread", math.inf),
            ("fund_spread", math.inf),
            ("manager_risk_aversion", math.inf),
            ("momentum_memory_months", math.inf),
            ("wealth_tail", math.inf),
            ("overdraft_limit", math.inf),
        ):
            check_interval(name, getattr(self, name), 0.0, most, open_interval=True)
        for name in ("retail_risk_aversion", "retail_pull"):
            check_pair(name, getattr(self, name))
        self._check_shares()
        if not isinstance(self.styles, (tuple, list)) or not self.styles or set(self.styles) - set(STYLES):
            raise ValueError(f"`styles` must be a tuple of some of {STYLES}, got {shown(self.styles)}")
        object.__setattr__(self, "styles", tuple(self.styles))
        if self.cohorts:
            raise ValueError(f"`cohorts` must be () in a market of funds, got {shown(self.cohorts)}")
        if self.issuance_rate:
            raise ValueError(f"`issuance_rate` must be 0 in a market of funds, got {self.issuance_rate}")
        if self.initial_mispricing is None:
            object.__setattr__(self, "initial_mispricing", 0.0)
        object.__setattr__(self, "n_investors", self.n_learners + self.n_active + self.n_passive + self.n_retail)
        object.__setattr__(self, "interest_rate", self.risk_free / 12.0)
        super().__post_init__()
        if self.esg_exclusions is not None:
            barred = integer("esg_exclusions", self.esg_exclusions, 0)
            if barred >= self.n_assets:
                raise ValueError(f"`esg_exclusions` must be < n_assets = {self.n_assets}, got {barred}")
            object.__setattr__(self, "esg_exclusions", barred)

    def _check_shares(self) -> None:
        managed, passive = self.n_active + self.n_learners, self.n_passive
        if self.active_share is None:
            return
        check_interval("active_share", self.active_share, 0.0, 1.0)
        if self.active_share > self.fund_share:
            raise ValueError(f"`active_share` must be <= fund_share = {self.fund_share}, got {self.active_share}")
        if bool(self.active_share) != bool(managed):
            raise ValueError(f"`active_share` must be > 0 just where there are active funds, got {self.active_share}")
        if bool(self.fund_share - self.active_share) != bool(passive):
            raise ValueError(
                f"`active_share` must be < fund_share = {self.fund_share} just where there are passive funds, "
                f"got {self.active_share}"
            )

    @property
    def shares_of_supply(self) -> tuple[float, float]:
        """What all active funds, learners' among them, and all passive funds hold of the supply at the start."""
        managed = self.n_active + self.n_learners
        active = self.active_share
        if active is None:
            active = self.fund_share * managed / (managed + self.n_passive)
        return active, self.fund_share - active

    @property
    def selected_history(self) -> PriceHistory:
        """The rows and the N columns in use; of more assets than are packaged, the rest are copies (`widened`)."""
        packaged = isinstance(self.history, str) and self.assets is None
        if not packaged or self.n_assets <= len(packaged_span(str(self.history)).assets):
            return super().selected_history
        history = widened(str(self.history), self.n_assets)
        return history if self.dates is None else history.between(*self.dates)

    @property
    def premium(self) -> float:
        """Expected log return of an asset at its value, over interest, a month."""
        return self.growth + self.dividend_yield - self.interest_rate
