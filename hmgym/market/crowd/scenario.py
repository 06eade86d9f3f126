"""The crowd: the population of the configuration, learners first, and whatever cohorts join it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from hmgym.arrays import namespace, to_numpy
from hmgym.checks import shown
from hmgym.investors import Population
from hmgym.investors.cohort import Cohort, Optimisers, Orders, Setting, View
from hmgym.investors.draws import Draws, Layout
from hmgym.investors.population import PopulationMemory
from hmgym.market.config import MarketConfig
from hmgym.market.crowd.issuance import issued_shares
from hmgym.market.crowd.replacement import replace_ruined
from hmgym.market.crowd.settlement import settle
from hmgym.market.demand import Demand, Trade
from hmgym.market.fundamentals import Fundamentals
from hmgym.market.settlement import Settlement
from hmgym.market.shocks import InitialShocks, Shocks, initial_layout, period_layout
from hmgym.market.state import MarketState

_SHARES_GAP = 1e-9
ACCOUNTS = ("households", "issuer", "bank", "exchange", "default_fund")


@dataclass(frozen=True, kw_only=True)
class CrowdState:
    """What the investors of a crowd carry from month to month."""

    target_share: Tensor  # (E, B) of all wealth
    memories: tuple[Any, ...]  # of the cohorts, in the order of their seats

    @property
    def population(self) -> PopulationMemory:
        """Of the population, the first cohort."""
        memory: PopulationMemory = self.memories[0]
        return memory


class CrowdScenario:
    """Cohorts of one market; learners are the first investors of the first cohort.

    Args:
        config: the market; its cohorts join the population in this order, those that post orders after the others.
        fundamentals: of the market.
    """

    config_type, numpy_ready = MarketConfig, True
    result_type = "hmgym.simulation:SimulationResult"
    accounts = ACCOUNTS

    def __init__(self, config: MarketConfig, fundamentals: Fundamentals) -> None:
        self.config, self._fundamentals = config, fundamentals
        setting = Setting(config.n_assets, fundamentals.covariance, config.growth, fundamentals.device)
        joining = [(other.name, other.build(setting)) for other in config.cohorts]
        joining.sort(key=lambda named: not named[1].optimises)
        self.population = Population(
            config.population,
            n_investors=config.n_investors - sum(other.seats for other in config.cohorts),
            n_learners=config.n_learners,
            learner_share=config.learner_share,
            others_share=sum(other.wealth_share for other in config.cohorts),
            covariance=fundamentals.covariance,
            growth=config.growth,
            device=fundamentals.device,
        )
        self.cohorts: tuple[Cohort, ...] = (self.population, *(cohort for _, cohort in joining))
        ends = list(itertools.accumulate(cohort.seats for cohort in self.cohorts))
        self._seats = [slice(end - cohort.seats, end) for cohort, end in zip(self.cohorts, ends, strict=True)]
        self._n_optimisers = sum(cohort.seats for cohort in self.cohorts if cohort.optimises)
        # The population's draws go without a prefix; each other cohort's carry its name and number.
        self._prefixes = ("", *(f"{name}.{number}." for number, (name, _) in enumerate(joining)))
        wealth = Layout(uniforms={name: self.population.first_draws.uniforms[name] for name in ("traits", "wealth")})
        first, monthly = wealth + initial_layout(config.n_assets), period_layout(config.n_assets)
        for prefix, cohort in zip(self._prefixes, self.cohorts, strict=True):
            first, monthly = (
                first + cohort.first_draws.prefixed(prefix),
                monthly + cohort.monthly_draws.prefixed(prefix),
            )
        self.layouts = first, monthly

    def initial(self, shocks: InitialShocks) -> MarketState:
        """Everybody holds the same portfolio, in proportion to its target wealth.

        Prices are fundamental values times exp(mispricing), whose mean is, unless configured, what
        `Population.required_discount` expects.
        """
        config, fundamentals = self.config, self._fundamentals
        drawn = [self._drawn(shocks, prefix) for prefix in self._prefixes]
        n_markets = shocks.regime.shape[0]
        share = _joined([c.target_shares(d, n_markets) for c, d in zip(self.cohorts, drawn, strict=True)])
        xp = namespace(shocks.regime)
        self._check_shares(share)
        mean: float | Tensor
        if config.initial_mispricing is None:
            mean = -self.population.required_discount(config.cash_ratio)
        else:
            mean = config.initial_mispricing
        prices = config.initial_value * xp.exp(mean + config.initial_mispricing_sd * shocks.mispricing)
        supply = xp.full_like(prices, config.shares)
        holdings = share[..., None] * supply[:, None]
        cash = share * (config.cash_ratio * config.initial_value * supply.sum(-1)[:, None])
        first = fundamentals.begin(shocks)
        return MarketState(
            month=xp.integers(xp.zeros_like(prices[:, 0])),
            prices=prices,
            cash=cash,
            holdings=holdings,
            wealth=cash + xp.dot(holdings, prices),
            unit_value=xp.ones_like(share[:, : config.n_learners]),
            ruined=xp.flags_like(cash),
            accounts={name: xp.zeros_like(prices[:, 0]) for name in self.accounts},
            supply=supply,
            dealer_holdings=xp.zeros_like(prices),
            log_value=xp.log(xp.full_like(prices, config.initial_value)) + first["news"],
            last_return=xp.zeros_like(prices),
            variance=xp.copy(xp.broadcast_to(fundamentals.deviation * fundamentals.deviation, prices.shape)),
            scenario=CrowdState(
                target_share=share,
                memories=tuple(c.start(d, n_markets) for c, d in zip(self.cohorts, drawn, strict=True)),
            ),
            **first,
        )

    def open(self, state: MarketState, shocks: Shocks | None) -> tuple[MarketState, dict[str, Tensor]]:
        """Newcomers take the seats of the ruined, companies change the supply.

        Promised are (E, N) shares for sale each by account: estates by the default fund, new shares by the issuer.
        """
        own: CrowdState = state.scenario
        ruined = state.ruined
        state, estate = replace_ruined(state, own.target_share)
        if estate is not None:
            memories = tuple(
                cohort.replace(memory, ruined[:, seats], None if shocks is None else self._drawn(shocks, prefix))
                for cohort, memory, seats, prefix in zip(
                    self.cohorts, own.memories, self._seats, self._prefixes, strict=True
                )
            )
            state = replace(state, scenario=replace(own, memories=memories))
        offered = {} if estate is None else {"default_fund": estate}
        issue = issued_shares(self.config, state)
        if issue is not None:
            state = replace(state, supply=state.supply + issue)
            offered["issuer"] = issue
        return state, offered

    def demand(self, state: MarketState, promised: Any) -> Demand:
        """Rows of the clearing from the cohorts that optimise; the others keep their shares and post orders."""
        log_price = namespace(state.prices).log(state.prices)
        posted = [
            cohort.demand(self._view(state, log_price, seats), memory)
            for cohort, memory, seats in zip(self.cohorts, state.scenario.memories, self._seats, strict=True)
        ]
        optimisers = [part for part in posted if isinstance(part, Optimisers)]
        orders = [part.money for part in posted if isinstance(part, Orders)]
        n, rows = self._n_optimisers, Optimisers(*map(_joined, zip(*optimisers, strict=True)))
        demand = Demand(
            log_price=log_price,
            beliefs=rows.beliefs,
            risk=rows.risk,
            wealth=state.wealth,
            short_leverage=rows.short_leverage,
            long_leverage=rows.long_leverage,
            holdings=state.holdings,
            supply=state.supply,
            start=log_price + state.news,  # with this month's news in, a fifth of the search is saved
        )
        if not orders:
            return demand
        kept, money = state.holdings[:, n:], _joined(orders)
        return demand._replace(
            wealth=state.wealth[:, :n],
            holdings=state.holdings[:, :n],
            supply=state.supply - kept.sum(1),
            orders=money.sum(1),
            kept=kept,
            posted=money,
        )

    def settle(self, state: MarketState, promised: dict[str, Tensor], trade: Trade) -> Settlement:
        """Who pays whom: docs/economy.md."""
        return settle(self.config, state, trade, state.scenario.target_share, promised)

    def advance(self, state: MarketState, settled: Settlement, log_return: Tensor, shocks: Shocks) -> CrowdState:
        """Everybody remembers the month."""
        own: CrowdState = state.scenario
        return CrowdState(
            target_share=own.target_share,
            memories=tuple(
                cohort.remember(memory, log_return, self._drawn(shocks, prefix))
                for cohort, memory, prefix in zip(self.cohorts, own.memories, self._prefixes, strict=True)
            ),
        )

    def drift(self, own: CrowdState, log_value: Tensor) -> None:
        """Nothing that investors remember moves news."""

    def coming(self, own: CrowdState, log_value: Tensor, news: dict[str, Tensor]) -> dict[str, Tensor]:
        """News as it is drawn."""
        return news

    def _check_shares(self, share: Tensor) -> None:
        """Target shares of all wealth must be shares of one whole, cohort by cohort."""
        for cohort, seats in zip(self.cohorts, self._seats, strict=True):
            own = to_numpy(share[:, seats])
            if own.shape[1] != cohort.seats or (own < 0.0).any():
                raise ValueError(
                    f"`target_shares` of {type(cohort).__name__} must be >= 0, of shape (markets, {cohort.seats}), "
                    f"got {shown(own.tolist())}"
                )
        whole = to_numpy(share).sum(1)
        if (abs(whole - 1.0) > _SHARES_GAP).any():
            shares = {other.name: other.wealth_share for other in self.config.cohorts}
            raise ValueError(
                f"`target_shares` must add up to each cohort's `wealth_share`, {shares}, got {whole[0]:g} of all wealth"
            )

    def _view(self, state: MarketState, log_price: Tensor, seats: slice) -> View:
        return View(
            log_price=log_price,
            log_value=state.log_value,
            news=state.news,
            signal=state.signal,
            last_return=state.last_return,
            variance=state.variance,
            cash=state.cash[:, seats],
            wealth=state.wealth[:, seats],
            holdings=state.holdings[:, seats],
        )

    @staticmethod
    def _drawn(shocks: Draws, prefix: str) -> Draws:
        """What one cohort drew, by the names that it gave."""
        if not prefix:
            return shocks
        return Draws({n.removeprefix(prefix): x for n, x in shocks.tensors.items() if n.startswith(prefix)})


def _joined(parts: Any) -> Tensor:
    """Rows of all cohorts side by side, limits of one number an investor and of one a position among them."""
    parts = list(parts)
    if len(parts) == 1:
        only: Tensor = parts[0]
        return only
    xp, most = namespace(parts[0]), max(part.ndim for part in parts)
    if any(part.ndim < most for part in parts):  # (E, b) beside (E, b, N+1)
        width = max(part.shape[-1] for part in parts if part.ndim == most)
        parts = [x if x.ndim == most else xp.spread(x, width) for x in parts]
    joined: Tensor = xp.concatenate(parts, 1)
    return joined
