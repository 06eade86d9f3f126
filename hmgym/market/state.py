"""State of the markets, the agent's action, and what a period brought: dataclasses of tensors, leading dimension E."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from hmgym.clearing import ClearingSolution
from hmgym.clearing.solution import active_limits
from hmgym.investors import Traits

ACCOUNTS = ("households", "issuer", "bank", "exchange", "default_fund")
"""Every cash account besides the investors' own; docs/economy.md says who pays whom."""


@dataclass(frozen=True, kw_only=True)
class MarketState:
    """E markets between two periods: this month's news, signal and regime are already in it.

    Money and shares are float64. What a learner may know before it acts is everything but `next_news`, `block_row`,
    `block_left` and the other investors' `error`, `sentiment`, `traits`.
    """

    month: Tensor  # (E,) int64, periods since the start
    prices: Tensor  # (E, N) last close
    cash: Tensor  # (E, B)
    holdings: Tensor  # (E, B, N) shares
    wealth: Tensor  # (E, B) cash + last close × holdings
    unit_value: Tensor  # (E, L) 1 at the start
    ruined: Tensor  # (E, B) bool; replaced at the start of the next transition
    balances: Tensor  # (E, 5) cash of ACCOUNTS
    supply: Tensor  # (E, N) shares
    log_value: Tensor  # (E, N) log fundamental value, this month's news included
    news: Tensor  # (E, N) this month's log return of fundamentals
    signal: Tensor  # (E, N) about next month's news
    regime: Tensor  # (E,) 1.0 when the signal is informative, else 0.0
    last_return: Tensor  # (E, N) log return of the last close
    variance: Tensor  # (E, N) weighted average of squared monthly log returns
    trend: Tensor  # (E, B, N) each investor's own average of returns
    error: Tensor  # (E, B, N)
    sentiment: Tensor  # (E, B, N)
    target_share: Tensor  # (E, B) of all wealth
    traits: Traits
    next_news: Tensor  # (E, N) hidden
    block_row: Tensor  # (E,) int64, row of the history that `next_news` is
    block_left: Tensor  # (E,) int64, rows left in the block

    @property
    def accounts(self) -> dict[str, Tensor]:
        """Every cash account besides the investors' own, by name, each (E,)."""
        return dict(zip(ACCOUNTS, self.balances.unbind(-1), strict=True))

    @property
    def fundamentals(self) -> Tensor:
        """Fundamental value of a share (E, N), money."""
        return torch.exp(self.log_value)

    @property
    def n_markets(self) -> int:
        return self.prices.shape[0]

    def select(self, index: Any) -> MarketState:
        """The markets that `index` names along the first dimension (slice, integer tensor or mask)."""
        return _map(lambda tensor: tensor[index], self)

    def with_rows(self, index: Tensor, rows: MarketState) -> MarketState:
        """A copy in which the markets `index` (k,) int64 are those of `rows`, as a reset of some markets needs."""
        return _map(lambda tensor, new: tensor.index_copy(0, index, new), self, rows)

    def detach(self) -> MarketState:
        """The same state outside any graph."""
        return _map(lambda tensor: tensor.detach(), self)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name, those of the traits as ``"traits.risk"``."""
        named = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        traits = named.pop("traits")
        return named | {f"traits.{item.name}": getattr(traits, item.name) for item in dataclasses.fields(traits)}

    @classmethod
    def from_tensors(cls, named: Mapping[str, Tensor]) -> MarketState:
        """The state that `tensors` gave."""
        traits = {name.removeprefix("traits."): value for name, value in named.items() if name.startswith("traits.")}
        return cls(
            traits=Traits(**traits), **{name: value for name, value in named.items() if not name.startswith("traits.")}
        )

    def clone(self) -> MarketState:
        """A copy that shares no memory, fit for gradients also where this state was made in inference mode."""
        return _map(lambda tensor: tensor.clone(), self)


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
    short_limits: Tensor  # (E, B) κ that held, all investors
    long_limits: Tensor  # (E, B) θ that held, all investors
    solution: ClearingSolution  # prices, weights and holdings of all investors, residual, iterations, converged

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
        """(E, N) clearing prices."""
        return self.solution.prices

    @property
    def holdings(self) -> Tensor:
        """(E, B, N) shares after the trade."""
        return self.solution.holdings

    @property
    def weights(self) -> Tensor:
        """(E, B, N+1) planned positions over pre-trade wealth, cash first."""
        return self.solution.weights

    @property
    def residual(self) -> Tensor:
        """(E,) largest relative excess demand."""
        return self.solution.residual

    @property
    def iterations(self) -> Tensor:
        """(E,) Newton steps."""
        return self.solution.iterations

    @property
    def converged(self) -> Tensor:
        """(E,) bool."""
        return self.solution.converged

    @property
    def active_limits(self) -> Tensor:
        """(E, L, N+1) int8: −1 where a learner's weight is at −κ, 1 at θ, else 0; cash first."""
        learners = slice(None), slice(self.reward.shape[1])
        return active_limits(self.solution.weights[learners], self.short_leverage, self.long_leverage)


_Tensors = TypeVar("_Tensors", MarketState, Traits)


def _map(function: Callable[..., Tensor], *groups: _Tensors) -> _Tensors:
    """Apply a function of tensors to every field of dataclasses of tensors, nested ones included."""
    values: dict[str, Any] = {}
    for item in dataclasses.fields(groups[0]):
        parts = [getattr(group, item.name) for group in groups]
        values[item.name] = function(*parts) if isinstance(parts[0], Tensor) else _map(function, *parts)
    return type(groups[0])(**values)
