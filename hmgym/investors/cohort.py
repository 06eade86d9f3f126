"""Cohorts: investors of one kind, with what they remember, what they demand and who replaces them.

A cohort is what one adds to a market: a file with two classes, its parameters and the cohort itself, and one line in
`hmgym.market.registry.COHORTS`. docs/extending.md shows a complete one. The population that every default market has
(fundamentalists, trend followers, sentiment traders and the learners) is a cohort too, the first.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from hmgym.investors.draws import Draws, Layout


class View(NamedTuple):
    """What the investors of a cohort may know when they form demand; E markets, b investors, N assets."""

    log_price: Tensor  # (E, N) last close
    log_value: Tensor  # (E, N) fundamental value, this month's news included
    news: Tensor  # (E, N) this month's log return of fundamentals
    signal: Tensor  # (E, N) about next month's news; the learners', nobody else reads it
    last_return: Tensor  # (E, N) log return of the last close
    variance: Tensor  # (E, N) weighted average of squared monthly log returns
    cash: Tensor  # (E, b) their own
    wealth: Tensor  # (E, b) their own, at the last close
    holdings: Tensor  # (E, b, N) their own, shares


class Optimisers(NamedTuple):
    """Demand of investors whose portfolios are solved in the clearing."""

    beliefs: Tensor  # (E, b, N) expected log price next month
    risk: Tensor  # (E, b, N, N) half the risk aversion times the return covariance
    short_leverage: Tensor  # (E, b) κ, or (E, b, N+1) with one limit a position, cash first
    long_leverage: Tensor  # (E, b) θ, likewise


class Orders(NamedTuple):
    """Demand that does not react to the price: money for shares on top of those held, which are kept."""

    money: Tensor  # (E, b, N) > 0 buys; zero keeps the shares as they are


class Setting(NamedTuple):
    """The market that a cohort is built for."""

    n_assets: int
    covariance: Tensor  # (N, N) monthly covariance of fundamental returns
    growth: float  # mean monthly log return of fundamentals
    device: torch.device | None  # of tensors; None where everything is a numpy array


class Cohort(Protocol):
    """b investors of one kind in each of E markets.

    What they remember is a frozen dataclass of tensors (E, b, ...). Its class may have an attribute `exogenous_fields`,
    the names of fields that neither an action nor a price has a part in: a planner that imagines months keeps these.
    """

    seats: int
    """b"""
    optimises: bool
    """whether `demand` gives `Optimisers`, else `Orders`"""
    first_draws: Layout
    """what `start` needs drawn, shapes without E"""
    monthly_draws: Layout
    """what `remember` and `replace` need drawn each month, shapes without E"""

    def target_shares(self, draws: Draws, n_markets: int) -> Tensor:
        """Shares of all wealth (E, b) that flows lead the investors to; what they start with, too."""

    def start(self, draws: Draws, n_markets: int) -> Any:
        """What they remember in the first month."""

    def demand(self, view: View, memory: Any) -> Optimisers | Orders:
        """What they post this month."""

    def remember(self, memory: Any, log_return: Tensor, draws: Draws) -> Any:
        """Their memory after a month in which prices moved by `log_return` (E, N)."""

    def replace(self, memory: Any, ruined: Tensor, draws: Draws | None) -> Any:
        """Their memory with newcomers on the seats of the `ruined` (E, b) bool; no draws, no traits drawn."""


class CohortConfig(Protocol):
    """Parameters of a cohort: a frozen dataclass."""

    name: ClassVar[str]
    """under which it is registered"""
    seats: int
    wealth_share: float
    """of all wealth, of all its investors together"""
    numpy_ready: ClassVar[bool]
    """whether it takes numpy arrays as well as tensors (`hmgym.arrays`): environments then run in half the time"""

    def build(self, setting: Setting) -> Cohort:
        """The cohort as a market uses it."""
