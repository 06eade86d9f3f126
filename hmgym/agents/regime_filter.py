"""The exact Bayes filter of the hidden regime, from observations: was last month's signal worth anything?

With z the signal and u the news that follows it, both in standard deviations of the news, and regime R ∈ {0, 1},

    z = ρ u + √(1 − ρ²) ε in R = 1,      z = ε in R = 0,      P(R changes) = s a month,

so that news after a signal moves the odds of R = 1 by p(z | u, 1)/p(z | 0), and the signal alone, before its news, by
p(z | 1)/p(z | 0), where p(z | 1) mixes over the distribution of u: the rows of the history's residuals, or normals with
their correlation. ρ² is the signal's R². What is observed suffices: this month's news and signal, and the deviation of
next month's news; the model's ρ, s, growth and rows of residuals are known.

Source: Hamilton (1989), A new approach to the economic analysis of nonstationary time series and the business cycle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hmgym.agents.features import Feature, feature
from hmgym.envs import MarketVectorEnv
from hmgym.market import Market

FloatArray = npt.NDArray[np.float64]


class _Belief(NamedTuple):
    """What is remembered of R markets."""

    log_odds: FloatArray  # (R,) of the informative regime, before the signal was seen
    signal: FloatArray  # (R, N) z
    deviation: FloatArray  # (R, N) of the news that comes next


@dataclass(frozen=True, eq=False, kw_only=True)
class RegimeFilter:
    """The posterior of the regime as a feature that remembers.

    Attributes:
        news: this month's, as it is observed.
        signal: likewise.
        volatility: standard deviation of next month's news.
        growth: mean of news.
        signal_r2: ρ².
        switch: s.
        rows: shape (T, N), of u, each as likely as another; None for normal u.
        correlation: shape (N, N), of normal u.
        times_signal: whether x is P · signal, one an asset, rather than P itself.
    """

    news: Feature
    signal: Feature
    volatility: Feature
    growth: float
    signal_r2: float
    switch: float
    rows: FloatArray | None
    correlation: FloatArray
    times_signal: bool = False

    @classmethod
    def of(cls, markets: MarketVectorEnv, *, times_signal: bool = False) -> RegimeFilter:
        """The filter of these markets.

        Raises:
            ValueError: the observation lacks what the filter needs.
        """
        seen, config = markets.observation_map, markets.config
        news, signal, volatility = (feature(seen, name) for name in ("news", "signal", "news_volatility"))
        fundamentals = Market(config, arrays="numpy").fundamentals
        rows = None if config.fundamentals == "gaussian" else np.asarray(fundamentals.residuals)
        return cls(
            news=news, signal=signal, volatility=volatility, growth=config.growth, signal_r2=config.signal_r2,
            switch=config.regime_switch, rows=rows,
            correlation=np.asarray(fundamentals.correlation), times_signal=times_signal,
        )  # fmt: skip

    @property
    def label(self) -> str:
        """For formulas."""
        return "P(informative) · signal_i" if self.times_signal else "P(informative)"

    def follow(
        self, observation: npt.NDArray[np.float32], state: Any, episode_start: npt.NDArray[np.bool_]
    ) -> tuple[FloatArray, Any]:
        """x of observations (R, size) and what is remembered; an episode begins with even odds."""
        news, signal, deviation = self.news(observation), self.signal(observation), self.volatility(observation)
        log_odds = np.zeros(len(observation))
        if state is not None:
            before: _Belief = state
            surprise = (news - self.growth) / before.deviation
            told = before.log_odds + self._after_news(before.signal, surprise)
            log_odds = np.where(episode_start, 0.0, self._next_month(told))
        z = signal / deviation
        probability = _probability(log_odds + self._before_news(z))[:, None]
        x = probability * signal if self.times_signal else probability
        return x, _Belief(log_odds, z, deviation)

    def _after_news(self, z: FloatArray, u: FloatArray) -> FloatArray:
        """log p(z | u, 1) − log p(z | 0), shape (R,)."""
        noise, loading = max(1.0 - self.signal_r2, 1e-12), self.signal_r2**0.5
        return np.asarray((-0.5 * ((z - loading * u) ** 2 / noise - z**2 + np.log(noise))).sum(1))

    def _before_news(self, z: FloatArray) -> FloatArray:
        """log p(z | 1) − log p(z | 0), shape (R,)."""
        if self.signal_r2 == 0.0:
            return np.zeros(len(z))
        if self.rows is None:
            covariance = self.signal_r2 * self.correlation + (1.0 - self.signal_r2) * np.eye(z.shape[1])
            distance = np.einsum("rn,nm,rm->r", z, np.linalg.inv(covariance), z)
            return np.asarray(0.5 * ((z**2).sum(1) - distance - np.linalg.slogdet(covariance)[1]))
        noise, loading = max(1.0 - self.signal_r2, 1e-12), self.signal_r2**0.5
        rows = loading * self.rows
        # |z − ρu|² without the (R, T, N) differences; largest exponents taken out before the exponential.
        exponents = (z @ rows.T - 0.5 * (rows**2).sum(1)) / noise
        largest = exponents.max(1)
        mean = np.exp(exponents - largest[:, None]).mean(1)
        own = (z**2).sum(1) * (0.5 - 0.5 / noise) - 0.5 * z.shape[1] * np.log(noise)
        return np.asarray(own + largest + np.log(mean))

    def _next_month(self, log_odds: FloatArray) -> FloatArray:
        """The same odds after the regime may have changed."""
        probability = _probability(log_odds)
        following = probability + self.switch * (1.0 - 2.0 * probability)
        following = np.clip(following, 1e-12, 1.0 - 1e-12)
        return np.asarray(np.log(following) - np.log1p(-following))


def _probability(log_odds: FloatArray) -> FloatArray:
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * log_odds))
