"""State of the markets, the agent's action, and what a period brought: dataclasses of tensors, leading dimension E."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from torch import Tensor

from hmgym.arrays import Torch, is_array, namespace, to_torch
from hmgym.clearing import ClearingSolution
from hmgym.clearing.solution import active_limits
from hmgym.market.demand import Trade
from hmgym.market.tensors import exogenous_names, map_tensors, named_tensors, with_tensors


@dataclass(frozen=True, kw_only=True)
class MarketState:
    """E markets between two periods: this month's news, signal and regime are already in it.

    Money and shares are float64. What a learner may know before it acts is everything but `next_news` and what other
    investors remember (`scenario`). In a market of arrays (see `Market`) every tensor named here is a numpy array.
    """

    exogenous_fields: ClassVar[tuple[str, ...]] = (
        "log_value", "news", "signal", "regime", "next_news", "news_variance",
    )  # fmt: skip

    month: Tensor  # (E,) int64, periods since the start
    prices: Tensor  # (E, N) last close
    cash: Tensor  # (E, B)
    holdings: Tensor  # (E, B, N) shares
    wealth: Tensor  # (E, B) cash + last close × holdings
    unit_value: Tensor  # (E, L) 1 at the start
    ruined: Tensor  # (E, B) bool; replaced at the start of the next transition
    accounts: Mapping[str, Tensor]  # (E,) each: cash of all who are no investors; docs/economy.md says who pays whom
    supply: Tensor  # (E, N) shares
    dealer_holdings: Tensor  # (E, N) shares of the price mechanism's own account, 0 where it has none
    log_value: Tensor  # (E, N) log fundamental value, this month's news included
    news: Tensor  # (E, N) this month's log return of fundamentals
    signal: Tensor  # (E, N) about next month's news
    regime: Tensor  # (E,) 1.0 when the signal is informative, else 0.0
    last_return: Tensor  # (E, N) log return of the last close
    variance: Tensor  # (E, N) weighted average of squared monthly log returns
    next_news: Tensor  # (E, N) hidden
    news_variance: Tensor  # (E, N) variance of next month's news, which the news so far settle
    scenario: Any  # what the investors remember: a dataclass of tensors that the scenario owns
    mechanism: Any = ()  # what the price mechanism remembers, where it has a past

    @property
    def fundamentals(self) -> Tensor:
        """Fundamental value of a share (E, N), money."""
        value: Tensor = namespace(self.log_value).exp(self.log_value)
        return value

    @property
    def total_cash(self) -> Tensor:
        """Cash (E,) of all investors and all named accounts, which no month changes."""
        total: Tensor = sum(self.accounts.values(), start=self.cash.sum(1))
        return total

    @property
    def gross_money(self) -> Tensor:
        """Money (E,) in all accounts without regard to sign, and market value: what errors of the books are part of."""
        total: Tensor = sum((abs(account) for account in self.accounts.values()), start=abs(self.cash).sum(1))
        return total + (self.supply * self.prices).sum(1)

    @property
    def n_markets(self) -> int:
        return self.prices.shape[0]

    def select(self, index: Any) -> MarketState:
        """The markets that `index` names along the first dimension (slice, integer tensor or mask)."""
        return map_tensors(lambda tensor: tensor[index], self)

    def with_rows(self, index: Any, rows: MarketState) -> MarketState:
        """A copy in which the markets `index` (k,) int64 are those of `rows`, as a reset of some markets needs."""

        def replaced(leaf: Tensor, new: Tensor) -> Tensor:
            if namespace(leaf) is Torch:
                return leaf.index_copy(0, index, new)
            copied: Tensor = namespace(leaf).copy(leaf)
            copied[index] = new
            return copied

        return map_tensors(replaced, self, rows)

    def detach(self) -> MarketState:
        """The same state outside any graph."""
        return map_tensors(lambda leaf: leaf if is_array(leaf) else leaf.detach(), self)

    def clone(self) -> MarketState:
        """A copy that shares no memory, fit for gradients also where this state was made in inference mode."""
        return map_tensors(lambda leaf: namespace(leaf).copy(leaf), self)

    def as_tensors(self) -> MarketState:
        """The same state in tensors, where it is one of arrays; memory is shared."""
        return map_tensors(to_torch, self)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name, nested ones with dots: ``"accounts.bank"``."""
        return named_tensors(self)

    def with_tensors(self, named: Mapping[str, Tensor]) -> MarketState:
        """A copy in which the tensors of these names, as `tensors` gives them, are others."""
        return with_tensors(self, named)

    def exogenous(self) -> dict[str, Tensor]:
        """The tensors, by name, that neither an action nor the clearing has a part in."""
        named = named_tensors(self)
        return {name: named[name] for name in exogenous_names(self)}


@dataclass(frozen=True, kw_only=True)
class Action:
    """What the learners set this period, in natural units; None leaves the investor's own."""

    short_leverage: Tensor | None = None  # (E, L) κ
    long_leverage: Tensor | None = None  # (E, L) θ
    beliefs: Tensor | None = None  # (E, L, N) expected log price next month
    risk_scale: Tensor | None = None  # (E, L) factor on the learner's risk matrix


@dataclass(frozen=True)
class Outcome:
    """What a period brought."""

    reward: Tensor  # (E, L) change of log unit value
    unit_value: Tensor  # (E, L) after the period, floored where ruined
    wealths: Tensor  # (E, B) money, all investors, after flows and consumption
    ruins: Tensor  # (E, B) bool, all investors
    short_limits: Tensor  # (E, O) κ that held, all whose portfolios were solved; (E, O, N+1) where one a position
    long_limits: Tensor  # (E, O) θ that held, likewise
    trade: Trade  # prices, weights and holdings, residual, iterations, converged

    def as_tensors(self) -> Outcome:
        """The same outcome in tensors, where it is one of arrays; memory is shared."""
        parts = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "trade"}
        arrays: dict[str, Any] = {
            name: to_torch(x) for name, x in self.trade._asdict().items() if x is not None and name != "solution"
        }
        return Outcome(**{name: to_torch(x) for name, x in parts.items()}, trade=self.trade._replace(**arrays))

    @property
    def wealth(self) -> Tensor:
        """(E, L) money of the learners after flows and consumption."""
        return self.wealths[:, : self.reward.shape[1]]

    @property
    def ruined(self) -> Tensor:
        """(E, L) bool, learners."""
        return self.ruins[:, : self.reward.shape[1]]

    @property
    def short_leverage(self) -> Tensor:
        """(E, L) the learners' κ."""
        return self.short_limits[:, : self.reward.shape[1]]

    @property
    def long_leverage(self) -> Tensor:
        """(E, L) the learners' θ."""
        return self.long_limits[:, : self.reward.shape[1]]

    @property
    def prices(self) -> Tensor:
        """(E, N) prices of the trade."""
        return self.trade.prices

    @property
    def holdings(self) -> Tensor:
        """(E, B, N) shares after the trade."""
        return self.trade.holdings

    @property
    def weights(self) -> Tensor:
        """(E, O, N+1) planned positions over pre-trade wealth, cash first."""
        return self.trade.weights

    @property
    def residual(self) -> Tensor:
        """(E,) largest relative excess demand."""
        return self.trade.residual

    @property
    def iterations(self) -> Tensor:
        """(E,) of the price mechanism; Newton steps of a clearing."""
        return self.trade.iterations

    @property
    def converged(self) -> Tensor:
        """(E,) bool."""
        return self.trade.converged

    @property
    def solution(self) -> ClearingSolution | None:
        """Of the clearing; None where another mechanism made the price."""
        return self.trade.solution

    @property
    def active_limits(self) -> Tensor:
        """(E, L, N+1) int8: −1 where a learner's weight is at −κ, 1 at θ, else 0; cash first."""
        learners = slice(None), slice(self.reward.shape[1])
        return active_limits(self.trade.weights[learners], self.short_leverage, self.long_leverage)
