"""The population of the default market: who sits where, the traits each investor draws, and the belief that follows.

One cohort, so that all of them are one tensor. Seats are fixed: learners first, then fundamentalists, trend followers,
sentiment traders. Who sits on a seat is drawn from shocks when the market starts, and again when a ruined investor is
replaced.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import ClassVar

import torch
from torch import Tensor

from hmgym.arrays import namespace, placed
from hmgym.checks import check_number, check_pair, is_finite_number
from hmgym.investors.cohort import Optimisers, View
from hmgym.investors.draws import Draws, Layout
from hmgym.investors.fundamentalist import expected_correction, next_error
from hmgym.investors.sentiment import next_sentiment
from hmgym.investors.trend_follower import expected_continuation, next_trend

TRAIT_DRAWS = 6  # news weight, pull or gain, risk aversion, horizon, short limit, long limit
_SMALLEST_TAIL = 0.01  # the Pareto distribution is cut here, so that no target share comes near one


@dataclass(frozen=True, kw_only=True)
class LearnerTraits:
    """What a learner believes and allows itself when its agent does not say otherwise.

    Its belief is last log price + drift + news + pull·(log v/p before the news) + signal_weight·signal.
    """

    pull: float = 0.1
    signal_weight: float = 0.3
    news_weight: float = 1.0
    risk_aversion: float = 0.5
    horizon_months: float = 1.0
    short_leverage: float = 1.0
    long_leverage: float = 1.0

    def __post_init__(self) -> None:
        for name in ("pull", "signal_weight", "news_weight", "short_leverage"):
            check_number(f"learner.{name}", getattr(self, name), 0.0)
        for name in ("risk_aversion", "horizon_months", "long_leverage"):
            check_number(f"learner.{name}", getattr(self, name), 0.0, strict=True)


@dataclass(frozen=True, kw_only=True)
class PopulationConfig:
    """Groups and the ranges their traits are drawn from, uniformly; beliefs are in log return a month."""

    fundamentalists: float = 0.5
    """share of the background seats"""
    trend_followers: float = 1.0 / 3.0
    """share of the background seats; the rest are sentiment traders"""
    drift: float = 0.006
    """log return that everybody expects when there is nothing else to expect"""
    news_weight: tuple[float, float] = (0.7, 1.2)
    """how much of this month's fundamental news an investor believes in"""
    pull: tuple[float, float] = (0.1, 0.4)
    trend_gain: tuple[float, float] = (0.0, 0.8)
    trend_memory_months: tuple[float, ...] = (3.0, 6.0, 12.0)
    """memories dealt out to the trend followers in turn"""
    error_persistence: float = 0.95
    error_innovation: float = 0.05
    sentiment_persistence: float = 0.9
    sentiment_innovation: float = 0.01
    risk_aversion: tuple[float, float] = (2.0, 8.0)
    horizon_months: tuple[float, float] = (1.0, 3.0)
    """months of return covariance that the risk matrix spans"""
    short_leverage: tuple[float, float] = (0.0, 0.5)
    long_leverage: tuple[float, float] = (1.0, 2.5)
    wealth_tail: float = 3.0
    """Pareto exponent of the background investors' target wealth"""
    learner: LearnerTraits = field(default_factory=LearnerTraits)

    def __post_init__(self) -> None:
        for name in ("fundamentalists", "trend_followers"):
            check_number(name, getattr(self, name), 0.0, 1.0)
        if self.fundamentalists + self.trend_followers > 1.0 + 1e-12:
            raise ValueError(
                "`fundamentalists` + `trend_followers` must be <= 1, got "
                f"{self.fundamentalists} + {self.trend_followers}"
            )
        check_number("drift", self.drift, -1.0, 1.0)
        for name in ("error_persistence", "sentiment_persistence"):
            check_number(name, getattr(self, name), 0.0, 1.0)
            if getattr(self, name) == 1.0:
                raise ValueError(f"`{name}` must be < 1, got 1.0")
        for name in ("error_innovation", "sentiment_innovation"):
            check_number(name, getattr(self, name), 0.0)
        for name in ("news_weight", "pull", "trend_gain", "short_leverage"):
            check_pair(name, getattr(self, name))
        for name in ("risk_aversion", "horizon_months", "long_leverage"):
            check_pair(name, getattr(self, name), strict=True)
        if not isinstance(self.trend_memory_months, (tuple, list)) or not self.trend_memory_months:
            raise ValueError(f"`trend_memory_months` must be a tuple of numbers >= 1, got {self.trend_memory_months!r}")
        if any(not is_finite_number(memory) or memory < 1.0 for memory in self.trend_memory_months):
            raise ValueError(f"`trend_memory_months` must hold numbers >= 1, got {self.trend_memory_months}")
        check_number("wealth_tail", self.wealth_tail, 0.1)
        if not isinstance(self.learner, LearnerTraits):
            raise ValueError(f"`learner` must be LearnerTraits, got {self.learner!r}")

    def group_sizes(self, n_background: int) -> tuple[int, int, int]:
        """Seats of fundamentalists, trend followers and sentiment traders among `n_background`."""
        fundamentalists = round(self.fundamentalists * n_background)
        trend_followers = min(round(self.trend_followers * n_background), n_background - fundamentalists)
        return fundamentalists, trend_followers, n_background - fundamentalists - trend_followers


@dataclass(frozen=True, kw_only=True)
class Traits:
    """Who sits on the seats: constant until an investor is ruined and replaced."""

    news_weight: Tensor  # (E, B, 1)
    pull: Tensor  # (E, B, 1)
    trend_gain: Tensor  # (E, B, 1)
    risk: Tensor  # (E, B, N, N) half the risk aversion times the return covariance over the investor's horizon
    short_leverage: Tensor  # (E, B)
    long_leverage: Tensor  # (E, B)


@dataclass(frozen=True, kw_only=True)
class PopulationMemory:
    """What the investors of a population carry from month to month."""

    exogenous_fields: ClassVar[tuple[str, ...]] = ("error", "sentiment")

    traits: Traits
    trend: Tensor  # (E, B, N) each investor's own average of returns
    error: Tensor  # (E, B, N) private error in log value
    sentiment: Tensor  # (E, B, N)


class Population:
    """The seats of one kind of market, as constants on a device, and what is drawn for them: a `Cohort`.

    Args:
        config: groups and ranges.
        n_investors: B, learners included.
        n_learners: L, the first seats.
        learner_share: target share of all wealth of each learner.
        others_share: share of all wealth of investors outside this population.
        growth: mean monthly log return, which trends start from.
        covariance: (N, N) monthly return covariance that risk is measured with.
        device: where the constants live; None for arrays in place of tensors.
    """

    def __init__(
        self,
        config: PopulationConfig,
        *,
        n_investors: int,
        n_learners: int,
        learner_share: float,
        covariance: Tensor,
        growth: float,
        device: torch.device | None,
        others_share: float = 0.0,
    ) -> None:
        self.config, self.optimises = config, True
        self.seats, self.n_learners = n_investors, n_learners
        self._learners_share, self._others_share, self._growth = learner_share, others_share, growth
        n_background = n_investors - n_learners
        self.group_sizes = config.group_sizes(n_background)
        fundamentalists, trend_followers, _ = self.group_sizes
        first_trend, first_sentiment = n_learners + fundamentalists, n_learners + fundamentalists + trend_followers
        learner = config.learner

        # One row a trait: uniform on (low, low + width), which for a learner's seat is a point.
        ranges = (
            (config.news_weight, learner.news_weight),
            (None, 0.0),
            (config.risk_aversion, learner.risk_aversion),
            (config.horizon_months, learner.horizon_months),
            (config.short_leverage, learner.short_leverage),
            (config.long_leverage, learner.long_leverage),
        )
        low = torch.zeros(n_investors, TRAIT_DRAWS, dtype=torch.float64)
        width = torch.zeros_like(low)
        for column, (bounds, point) in enumerate(ranges):
            low[:n_learners, column] = point
            if bounds is not None:
                low[n_learners:, column] = bounds[0]
                width[n_learners:, column] = bounds[1] - bounds[0]
        low[n_learners:first_trend, 1], width[n_learners:first_trend, 1] = _low_width(config.pull)
        low[first_trend:first_sentiment, 1], width[first_trend:first_sentiment, 1] = _low_width(config.trend_gain)
        low[:n_learners, 1] = learner.pull
        seat = torch.arange(n_investors)
        follows = (seat >= first_trend) & (seat < first_sentiment)
        background = (seat >= n_learners).double()
        memories = torch.tensor(config.trend_memory_months, dtype=torch.float64)
        decay = 1.0 / memories[(seat - first_trend) % len(memories)]

        def on_device(tensor: Tensor) -> Tensor:
            constant: Tensor = placed(tensor.to(torch.float64), device)
            return constant

        self._low, self._width = on_device(low), on_device(width)
        self._is_trend_follower = on_device(follows.unsqueeze(-1))  # (B, 1)
        self._covariance = covariance
        self.trend_decay = on_device(torch.where(follows, decay, 1.0 / memories.max()).view(1, -1, 1))
        fundamental_seat = ((seat >= n_learners) & (seat < first_trend)).double()
        self.error_innovation = on_device((config.error_innovation * fundamental_seat).view(1, -1, 1))
        self.sentiment_innovation = on_device((config.sentiment_innovation * background).view(1, -1, 1))
        self.signal_weight = on_device((learner.signal_weight * (1.0 - background)).view(1, -1, 1))

        each = (n_investors, covariance.shape[0])
        self.first_draws = Layout(
            normals={"error": each, "sentiment": each},
            uniforms={"traits": (n_investors, TRAIT_DRAWS), "wealth": (n_investors,)},
        )
        self.monthly_draws = Layout(
            innovations={"error": each, "sentiment": each}, uniforms={"newcomers": (n_investors, TRAIT_DRAWS)}
        )

    # A cohort

    def target_shares(self, draws: Draws, n_markets: int) -> Tensor:
        """Target shares of all wealth (E, B): fixed for learners, Pareto (cut at 1 %) for the rest.

        A group's target is its share of the background seats, whoever is rich in it: were the rich all among those
        that ignore value, nobody would have the money to pull prices back to it.
        """
        xp = namespace(draws.wealth)
        exponential = -xp.log(xp.at_least(draws.wealth, _SMALLEST_TAIL))
        pareto = xp.exp(exponential / self.config.wealth_tail)
        pieces = [xp.full_like(pareto[:, : self.n_learners], self._learners_share)]
        rest = 1.0 - self._learners_share * self.n_learners - self._others_share
        first, n_background = self.n_learners, self.seats - self.n_learners
        for size in self.group_sizes:
            group = pareto[:, first : first + size]
            pieces.append(rest * size / n_background * (group / group.sum(-1)[..., None]))
            first += size
        shares: Tensor = xp.concatenate(pieces, 1)
        return shares

    def start(self, draws: Draws, n_markets: int) -> PopulationMemory:
        """Private errors and sentiment from their stationary distributions, trends from the mean growth."""
        config = self.config
        error_spread = self.error_innovation / (1.0 - config.error_persistence**2) ** 0.5
        sentiment_spread = self.sentiment_innovation / (1.0 - config.sentiment_persistence**2) ** 0.5
        return PopulationMemory(
            traits=self.draw_traits(draws.traits),
            trend=namespace(draws.error).full_like(draws.error, self._growth),
            error=error_spread * draws.error,
            sentiment=sentiment_spread * draws.sentiment,
        )

    def demand(self, view: View, memory: PopulationMemory) -> Optimisers:
        """Beliefs from what everybody may know, limits and risk from the traits."""
        traits = memory.traits
        return Optimisers(self.beliefs(view, memory), traits.risk, traits.short_leverage, traits.long_leverage)

    def remember(self, memory: PopulationMemory, log_return: Tensor, draws: Draws) -> PopulationMemory:
        """Trends take the return in; errors and sentiment move on."""
        config = self.config
        return PopulationMemory(
            traits=memory.traits,
            trend=next_trend(
                memory.trend, self.trend_decay, namespace(log_return).across(log_return, memory.trend.shape[1])
            ),
            error=next_error(memory.error, config.error_persistence, self.error_innovation, draws.error),
            sentiment=next_sentiment(
                memory.sentiment, config.sentiment_persistence, self.sentiment_innovation, draws.sentiment
            ),
        )

    def replace(self, memory: PopulationMemory, ruined: Tensor, draws: Draws | None) -> PopulationMemory:
        """Newcomers draw traits and have no error or mood yet; the trend they see is the seat's."""
        xp = namespace(ruined)
        if draws is None:
            uniforms = xp.broadcast_to(xp.floats(ruined & ~ruined)[..., None], (*ruined.shape, TRAIT_DRAWS))
        else:
            uniforms = draws.newcomers
        newcomers = self.draw_traits(uniforms)
        chosen = {}
        for item in fields(Traits):
            old = getattr(memory.traits, item.name)
            mask = ruined.reshape(*ruined.shape, *[1] * (old.ndim - 2))
            chosen[item.name] = xp.where(mask, getattr(newcomers, item.name), old)
        kept = xp.floats(~ruined)[..., None]
        return PopulationMemory(
            traits=Traits(**chosen), trend=memory.trend, error=memory.error * kept, sentiment=memory.sentiment * kept
        )

    # Its parts

    def draw_traits(self, uniforms: Tensor) -> Traits:
        """Traits from uniforms (E, B, TRAIT_DRAWS)."""
        drawn = self._low + self._width * uniforms
        news_weight, reaction, aversion, horizon, short, long = (drawn[..., trait] for trait in range(TRAIT_DRAWS))
        reaction, copied = reaction[..., None], namespace(drawn).copy
        return Traits(
            news_weight=copied(news_weight)[..., None],
            pull=reaction * (1.0 - self._is_trend_follower),
            trend_gain=reaction * self._is_trend_follower,
            risk=(0.5 * aversion * horizon)[..., None, None] * self._covariance,
            short_leverage=copied(short),
            long_leverage=copied(long),
        )

    def required_discount(self, cash_ratio: float) -> Tensor:
        """Log discount of price to value (N,) at which an average background investor would hold the market.

        Holding equal values of all assets takes an expected log return 2 G w = Σ w / E[1/(γ h)], of which the drift
        gives a part and the pull of value, in the fundamentalists' share of the population, the rest. Prices start
        there; limits and differences of opinion decide where they go.
        """
        config = self.config
        average_pull = config.fundamentalists * 0.5 * sum(config.pull)
        weight = 1.0 / ((1.0 + cash_ratio) * self._covariance.shape[0])
        tolerance = _mean_reciprocal(config.risk_aversion) * _mean_reciprocal(config.horizon_months)
        required = weight * self._covariance.sum(-1) / tolerance
        if average_pull == 0.0:
            return 0.0 * required
        xp = namespace(required)
        discount: Tensor = xp.at_most(xp.at_least((required - config.drift) / average_pull, -1.0), 1.0)
        return discount

    def beliefs(self, view: View, memory: PopulationMemory) -> Tensor:
        """Expected log price next month of every investor, (E, B, N).

        m = log p + drift + ν·news + pull·(log v − news − log p + e) + gain·x + s + (learners) signal_weight·signal
        """
        traits, log_price, news = memory.traits, view.log_price, view.news
        xp, count = namespace(log_price), memory.error.shape[1]
        mispricing = xp.across(view.log_value - news - log_price, count)
        belief: Tensor = xp.across(log_price + self.config.drift, count) + traits.news_weight * xp.across(news, count)
        belief = belief + expected_correction(traits.pull, mispricing, memory.error)
        belief = belief + expected_continuation(traits.trend_gain, memory.trend) + memory.sentiment
        if self.n_learners:
            belief = belief + self.signal_weight * xp.across(view.signal, count)
        return belief


def _mean_reciprocal(bounds: tuple[float, float]) -> float:
    low, high = bounds
    return 1.0 / low if high == low else math.log(high / low) / (high - low)


def _low_width(bounds: tuple[float, float]) -> tuple[float, float]:
    return bounds[0], bounds[1] - bounds[0]
