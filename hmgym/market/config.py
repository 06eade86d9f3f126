"""What a market is made of: numbers of assets and investors, monthly rates, and where fundamentals come from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hmgym.checks import check_interval, integer, shown
from hmgym.data import PriceHistory, PriceSource, packaged_span, read_prices
from hmgym.investors import PopulationConfig
from hmgym.market.registry import COHORTS, MECHANISMS, SCENARIOS, registered
from hmgym.market.volatility import Volatility, constant, garch

# The packaged stocks in the order a market takes them: three large ones of different trades first, the others by name.
_DEFAULT_ORDER = (
    "MSFT", "JPM", "XOM", "JNJ", "GE", "WMT", "HD", "KO", "BAC", "CVX",
    "AAPL", "AMD", "BBY", "LLY", "MRK", "PEP", "PFE", "PG", "RRC", "UNH",
)  # fmt: skip

COST_ANTICIPATIONS = ("quadratic", "exact", "none")
HOLDERS = 4.0
"""All investors together may hold at least this many times the supply, whatever the ownership limit."""
CONCERT = 1.25
"""Several learners of a market act in concert: together they may hold of an asset this many times their joint target
share of wealth, or what one investor may, if that is more; each of them an equal part."""
FUNDAMENTALS = ("filtered", "bootstrap", "gaussian")


@dataclass(frozen=True, kw_only=True)
class MarketConfig:
    """A market; rates and shares are per month.

    Raises:
        ValueError: a value out of range, named.
    """

    NO_INFORMATION: ClassVar[Mapping[str, float]] = {"signal_r2": 0.0}
    """changes that make every signal noise"""

    n_assets: int = 3
    n_investors: int = 20
    """B, learners included"""
    n_learners: int = 1
    """L, the first L investors"""
    population: PopulationConfig = field(default_factory=PopulationConfig)
    cohorts: tuple[Any, ...] = ()
    """investors that join the population, on seats among the B: parameters of cohorts, or their registered names"""
    scenario: str = "crowd"
    """who is in the market, by the name in `hmgym.market.registry.SCENARIOS`"""
    price_mechanism: str = "clearing"
    """how prices come about, by the name in `hmgym.market.registry.MECHANISMS`"""

    fundamentals: str = "filtered"
    """"filtered" (the history's standardised residuals and its GARCH volatility), "bootstrap" (its months, volatility
    constant) or "gaussian" (normal, volatility constant); months are drawn independently in all"""
    history: PriceHistory | str | None = "training"
    """monthly prices behind the fundamentals, or the name of a span of the packaged stocks: "training" (1990–2009; None
    is the same), "held-out" (2010–2022), "all" (both)"""
    dates: tuple[str, str] | None = None
    """first and last ISO date of the rows of the history that are used, both included; None takes all"""
    assets: tuple[str, ...] | None = None
    """columns of the history, N of them; None takes the first N (of the packaged stocks: MSFT, JPM, XOM, …)"""
    growth: float = 0.0035
    """mean log return of fundamentals, in place of the history's own"""

    dividend_yield: float = 0.0025
    """dividend a share over fundamental value"""
    interest_rate: float = 0.0016
    """on cash, paid and charged"""
    trading_cost: float = 0.004
    """fraction of money traded, charged at settlement"""
    cost_anticipation: str = "quadratic"
    """how investors allow for that cost when they plan: "quadratic" (cost × Δw² for trades of Δw times wealth, right
    where all wealth is traded, and as cheap to clear as none), "exact" (cost × |Δw|) or "none\""""
    borrowing_spread: float = 0.0025
    """interest on debt above `interest_rate`"""
    maintenance_margin: float = 0.25
    """equity over the gross value of positions below which an investor must close shorts and pay its debt; 0: none"""
    initial_margin: float = 0.5
    """equity over the gross value of positions from which on an investor may be as short and as much in debt as its κ
    and θ say; below, less in proportion, down to nothing at `maintenance_margin`"""
    short_limit: float | None = 0.05
    """largest share of an asset's supply that one investor may plan to be short, valued likewise; None for none"""
    ownership_limit: float | None = 0.35
    """largest share of an asset's supply that one investor may plan to hold, valued at the last close and this month's
    news; None for none. Of a small market each may hold 4 / n_investors, if that is more: somebody has to hold it"""
    issuance_rate: float = 1.0
    """growth of an asset's supply over what log(price / value) lies outside the band; 0 for a fixed supply"""
    issuance_band: float = 0.3
    """log(price / value), of either sign, within which companies neither issue nor buy back"""
    flow_rate: float = 0.03
    """share of the distance to its target wealth that flows to or from each investor"""
    cash_ratio: float = 0.3
    """cash of all investors over the fundamental value of the first shares: at the start, and where consumption or
    issuance steers to"""
    cash_adjustment: float = 0.1
    """share of the gap to `cash_ratio` that is closed"""
    learner_share: float = 0.05
    """target share of all wealth of each learner"""
    ruin_fraction: float = 0.05
    """unit value (learners) or fraction of target wealth (others) below which an investor is ruined"""

    signal_r2: float = 0.3
    """share of next month's news that the signal explains in the informative regime; none in the other"""
    regime_switch: float = 1.0 / 48.0
    """probability that the regime changes"""

    initial_value: float = 100.0
    """fundamental value of a share at the start, money"""
    shares: float = 1000.0
    """shares of every asset at the start"""
    initial_mispricing: float | None = None
    """mean log(price/value) at the start; None takes the discount that the population requires"""
    initial_mispricing_sd: float = 0.15
    volatility_memory_months: float = 12.0
    """memory of the return variance that the state keeps for observers"""
    smoothing: float = 0.0
    """smoothing of the clearing; 0 is exact"""
    impact: float = 10.0
    """ν of the mechanism "impact": an asset's log return a year is ν a (â − a) where a month's net demand is a of its
    supply"""
    impact_turn: float = 0.5
    """â, twice the net demand beyond which impact does not grow"""
    impact_memory_months: float = 3.0
    """τ, memory of net demand"""
    dealer_limit: float = 0.5
    """largest stock of the dealer of that mechanism, of either sign, as a share of supply"""
    pools: tuple[Any, ...] = ()
    """of the mechanism "pools", each a `PoolInvestor`; none is one default pool"""

    def __post_init__(self) -> None:
        if not isinstance(self.population, PopulationConfig):
            raise ValueError(f"`population` must be a PopulationConfig, got {type(self.population).__name__}")
        if self.history is None:
            object.__setattr__(self, "history", "training")
        for name, least in (("n_assets", 1), ("n_investors", 3), ("n_learners", 0)):
            object.__setattr__(self, name, integer(name, getattr(self, name), least))
        if self.n_investors < self.n_learners + 2:
            raise ValueError(f"`n_investors` must be >= n_learners + 2 = {self.n_learners + 2}, got {self.n_investors}")
        registered("scenario", self.scenario, SCENARIOS)
        registered("price_mechanism", self.price_mechanism, MECHANISMS)
        self._check_cohorts()
        if self.fundamentals not in FUNDAMENTALS:
            known = ", ".join(f'"{name}"' for name in FUNDAMENTALS)
            raise ValueError(f"`fundamentals` must be one of {known}, got {self.fundamentals!r}")
        for name, low, high in (
            ("growth", -0.1, 0.1),
            ("dividend_yield", 0.0, 0.1),
            ("interest_rate", -0.05, 0.1),
            ("trading_cost", 0.0, 0.5),
            ("borrowing_spread", 0.0, 0.1),
            ("maintenance_margin", 0.0, 0.9),
            ("initial_margin", 0.0, 1.0),
            ("issuance_rate", 0.0, 1.0),
            ("issuance_band", 0.0, 10.0),
            ("flow_rate", 0.0, 1.0),
            ("cash_ratio", 0.0, 10.0),
            ("cash_adjustment", 0.0, 1.0),
            ("learner_share", 0.0, 1.0),
            ("signal_r2", 0.0, 1.0),
            ("regime_switch", 0.0, 1.0),
            ("smoothing", 0.0, 1.0),
            ("initial_mispricing_sd", 0.0, 1.0),
            ("impact", 0.0, 1e6),
            ("dealer_limit", 0.0, 1.0),
        ):
            check_interval(name, getattr(self, name), low, high)
        for name, low, high in (
            ("ruin_fraction", 0.0, 1.0),
            ("initial_value", 0.0, math.inf),
            ("shares", 0.0, math.inf),
            ("volatility_memory_months", 0.99, math.inf),
            ("impact_turn", 0.0, math.inf),
            ("impact_memory_months", 0.99, math.inf),
        ):
            check_interval(name, getattr(self, name), low, high, open_interval=True)
        if self.cost_anticipation not in COST_ANTICIPATIONS:
            known = ", ".join(f'"{name}"' for name in COST_ANTICIPATIONS)
            raise ValueError(f"`cost_anticipation` must be one of {known}, got {self.cost_anticipation!r}")
        if 0.0 < self.maintenance_margin >= self.initial_margin:
            raise ValueError(
                f"`initial_margin` must be > maintenance_margin = {self.maintenance_margin}, got {self.initial_margin}"
            )
        for name in ("ownership_limit", "short_limit"):
            if getattr(self, name) is not None:
                check_interval(name, getattr(self, name), 0.0, math.inf, open_interval=True)
        if self.initial_mispricing is not None:
            check_interval("initial_mispricing", self.initial_mispricing, -3.0, 3.0)
        if self.n_learners and self.learner_share == 0.0:
            raise ValueError("`learner_share` must be > 0 where there are learners, got 0.0")
        if self.learner_share * self.n_learners >= 1.0:
            raise ValueError(
                f"`learner_share` times n_learners must be < 1, got {self.learner_share} * {self.n_learners}"
            )
        history = self.selected_history  # names that are not there are an error here, not in the first draw
        smallest_long = 1.0 / (self.n_assets + 1)
        limits = {"population.long_leverage[0]": self.population.long_leverage[0]}
        if self.n_learners:
            limits["population.learner.long_leverage"] = self.population.learner.long_leverage
        for name, limit in limits.items():
            if limit < smallest_long:
                raise ValueError(f"`{name}` must be >= 1/(N+1) = {smallest_long:g}, got {limit}")
        if len(history.dates) < self.n_assets + 2:
            raise ValueError(
                f"`history` must have at least {self.n_assets + 2} months, got {len(history.dates)} ({history.source})"
            )
        spread = history.log_returns.std(axis=0)
        for name, deviation in zip(history.assets, spread, strict=True):
            if not deviation > 1e-8:
                raise ValueError(f"`history`: every asset's return must vary, got a constant for {name}")
        smallest = np.linalg.eigvalsh(np.atleast_2d(np.corrcoef(history.log_returns.T)))[0]
        if not smallest > 1e-8:
            raise ValueError(
                "`history` must have linearly independent returns (smallest eigenvalue of their correlation > 1e-8), "
                f"got {smallest:.3g} for {', '.join(history.assets)} ({history.source})"
            )

    def _check_cohorts(self) -> None:
        if not isinstance(self.cohorts, (tuple, list)):
            raise ValueError(f"`cohorts` must be a tuple of names or parameters of cohorts, got {self.cohorts!r}")
        cohorts = tuple(
            registered("cohorts", cohort, COHORTS)() if isinstance(cohort, str) else cohort for cohort in self.cohorts
        )
        parts = ("name", "seats", "wealth_share", "build")
        for cohort in cohorts:
            if isinstance(cohort, type) or not all(hasattr(cohort, part) for part in parts):
                raise ValueError(
                    f"`cohorts` must hold parameters of cohorts (`hmgym.investors.cohort.CohortConfig`), got {cohort!r}"
                )
            integer(f"cohorts: seats of {cohort.name}", cohort.seats, 1)
            check_interval(f"cohorts: wealth_share of {cohort.name}", cohort.wealth_share, 0.0, 1.0)
        object.__setattr__(self, "cohorts", cohorts)
        seats = sum(cohort.seats for cohort in cohorts)
        if seats and self.n_investors < self.n_learners + 2 + seats:
            raise ValueError(
                f"`n_investors` must be >= n_learners + 2 + the {seats} seats of `cohorts` = "
                f"{self.n_learners + 2 + seats}, got {self.n_investors}"
            )
        share = self.learner_share * self.n_learners + sum(cohort.wealth_share for cohort in cohorts)
        if cohorts and not share < 1.0:
            raise ValueError(f"`cohorts` and learners must leave some of all wealth to the population, got {share:g}")

    @classmethod
    def from_prices(
        cls, source: PriceSource, *, assets: Sequence[str] | None = None, month_ends: bool = True, **settings: Any
    ) -> MarketConfig:
        """A market whose fundamentals follow the user's own prices.

        Args:
            source: CSV path or pandas frame, see `hmgym.data.read_prices`.
            assets: columns to use; None takes all of them.
            month_ends: keep the last row of each month, what daily prices need; False takes every row as a month.
            settings: any other field of `MarketConfig`.
        """
        for name in ("history", "n_assets"):
            if name in settings:
                raise ValueError(f"`{name}` follows from `source` and `assets`, do not pass it to from_prices")
        history = read_prices(source)
        if month_ends:
            history = history.month_ends()
        if isinstance(assets, str):
            raise ValueError(f"`assets` must be a sequence of names, got the string {assets!r}")
        if assets is not None:
            history = history.select(tuple(assets))
        return cls(history=history, assets=history.assets, n_assets=len(history.assets), **settings)

    def replace(self, **changes: Any) -> MarketConfig:
        """A copy with some fields changed, checked again."""
        return dataclasses.replace(self, **changes)

    @property
    def largest_holding(self) -> float:
        """The ownership limit that is in force, a share of supply; infinite for none."""
        if self.ownership_limit is None:
            return math.inf
        return max(self.ownership_limit, HOLDERS / self.n_investors)

    @property
    def largest_learner_holding(self) -> float:
        """The same for a learner, who shares a limit with the other learners of its market."""
        if self.ownership_limit is None or self.n_learners < 2:
            return self.largest_holding
        together = max(self.largest_holding, CONCERT * self.n_learners * self.learner_share)
        return min(self.largest_holding, together / self.n_learners)

    @property
    def selected_history(self) -> PriceHistory:
        """The rows and the N columns in use."""
        if isinstance(self.history, PriceHistory):
            history, order = self.history, self.history.assets
        elif isinstance(self.history, str):
            history, order = packaged_span(self.history), _DEFAULT_ORDER
        else:
            raise ValueError(
                "`history` must be a PriceHistory (MarketConfig.from_prices reads files) or the name of a packaged "
                f"span, got {type(self.history).__name__}"
            )
        if self.dates is not None:
            history = history.between(*_two_dates(self.dates))
        if self.assets is None:
            if self.n_assets > len(order):
                raise ValueError(
                    f"`n_assets` must be <= {len(order)}, the assets of {history.source}, got {self.n_assets}"
                )
            return history.select(order[: self.n_assets])
        names = isinstance(self.assets, (tuple, list)) and all(isinstance(name, str) for name in self.assets)
        if not names:
            raise ValueError(f"`assets` must be a tuple of names or None, got {self.assets!r}")
        if len(self.assets) != self.n_assets:
            raise ValueError(f"`assets` must name n_assets = {self.n_assets} columns, got {len(self.assets)}")
        return history.select(self.assets)

    @property
    def fundamental_returns(self) -> NDArray[np.float64]:
        """Monthly log returns (T, N) of fundamentals to draw from: the history's, with mean `growth`."""
        returns = self.selected_history.log_returns
        return np.asarray(returns - returns.mean(axis=0) + self.growth)

    @property
    def volatility(self) -> Volatility:
        """What the fundamentals draw from; of a history of fewer than 60 returns volatility is constant."""
        returns = self.selected_history.log_returns
        return garch(returns) if self.fundamentals == "filtered" else constant(returns)


def _two_dates(dates: Any) -> tuple[str, str]:
    if not isinstance(dates, (tuple, list)) or len(dates) != 2 or not all(isinstance(date, str) for date in dates):
        raise ValueError(f"`dates` must be two ISO dates, first and last, or None, got {shown(dates)}")
    return dates[0], dates[1]
