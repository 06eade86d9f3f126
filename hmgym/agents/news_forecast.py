"""What a learner expects of next month's news, from its own observations and nothing else.

With d the volatility of next month's news and z = s/d the signal, both as they are observed,

    n_{t+1} ≈ n̄ + d_t ∘ (B' x(o_t) + k(m_t) ∘ z_t),    x(o) = (z, c z)

where c is the regime; without c where the regime is hidden. The news of month t + 1 stands in the observation of month
t + 1, so every month that was played is a row of the regression: B is the ridge solution over all rows so far, so that
a forecast made in a window comes from windows before it. k is what a memory m adds, linear in it, learnt with it.

Source: Hoerl and Kennard (1970), Ridge regression.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from hmgym.envs.observation import OBSERVATION_TABLE

_RIDGE = 32.0  # rows without news that the prior counts for
_SATURATED = 1.0 - 1e-9
_LEAST_VOLATILITY = 1e-4  # log a month
_SCALES = {entry.name: entry.scale for entry in OBSERVATION_TABLE}


@runtime_checkable
class TellsNews(Protocol):
    """An observation that holds news, signals and the volatility of news, as that of a market does."""

    names: tuple[str, ...]

    def columns(self, name: str) -> slice:
        """The entries of a quantity of :data:`~hmgym.envs.observation.OBSERVATION_TABLE`."""


def news_columns(observation_map: TellsNews) -> list[int]:
    """Entries of an observation that tell of news: what a memory has to read to learn how good the signals are."""
    columns = [observation_map.columns(name) for name in ("news", "signal", "news_volatility")]
    return [entry for column in columns for entry in range(column.start, column.stop)]


class NewsForecast:
    """Linear forecast of the news by signal and regime.

    Args:
        observation_map: what the observations mean.
        device: where tensors live.
    """

    def __init__(self, observation_map: TellsNews, device: torch.device) -> None:
        self._map = observation_map
        self._hidden = "regime" not in observation_map.names
        signal = observation_map.columns("signal")
        self.n_assets = signal.stop - signal.start
        size = self.n_assets * (1 if self._hidden else 2)
        self._count = torch.zeros((), dtype=torch.float64, device=device)
        self._sum = torch.zeros(self.n_assets, dtype=torch.float64, device=device)
        self._moments = torch.zeros(size, size, dtype=torch.float64, device=device)
        self._with_news = torch.zeros(size, self.n_assets, dtype=torch.float64, device=device)
        self._coefficients = torch.zeros_like(self._with_news)

    @property
    def rows(self) -> int:
        """Months that it has learnt from."""
        return int(self._count)

    def __call__(self, observations: Tensor, gain: Tensor | None = None) -> Tensor:
        """Expected news (..., N), log a month, for observations (..., size), which are taken as given.

        Args:
            observations: shape (..., size).
            gain: shape (..., N), k of a memory; None is none.
        """
        features, signal, volatility = self._read(observations)
        expected = features @ self._coefficients
        if gain is not None:
            expected = expected + gain * signal
        return self._sum / self._count.clamp(min=1.0) + volatility * expected

    def loss(self, observations: Tensor, gain: Tensor, news: Tensor) -> Tensor:
        """Mean squared error in units of the news' volatility; gradients flow to `gain` alone. Arguments as above."""
        volatility = self._read(observations)[2]
        return (((news - self(observations, gain)) / volatility) ** 2).mean()

    @torch.no_grad()
    def learn(self, observations: Tensor, news: Tensor) -> None:
        """Take in months.

        Args:
            observations: shape (..., size).
            news: shape (..., N), what came in the month after each of them, log a month.
        """
        came = news.flatten(0, -2)
        self._count += len(came)
        self._sum += came.sum(0)
        features, _, volatility = (part.flatten(0, -2) for part in self._read(observations))
        self._moments += features.T @ features
        self._with_news += features.T @ ((came - self._sum / self._count) / volatility)
        prior = torch.diag(torch.diagonal(self._moments) * (_RIDGE / self._count))
        self._coefficients = torch.linalg.solve(self._moments + prior, self._with_news)

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that a continued run needs."""
        return {
            "count": self._count.clone(), "sum": self._sum.clone(), "moments": self._moments.clone(),
            "with_news": self._with_news.clone(), "coefficients": self._coefficients.clone(),
        }  # fmt: skip

    def load_state_dict(self, stored: dict[str, Tensor]) -> None:
        """Go on where `state_dict` was taken."""
        own = {name: stored[name].to(self._count.device).clone() for name in self.state_dict()}
        self._count, self._sum, self._moments = own["count"], own["sum"], own["moments"]
        self._with_news, self._coefficients = own["with_news"], own["coefficients"]

    def _read(self, observations: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features (..., F), standardised signal (..., N) and volatility (..., N), log a month."""
        seen = observations.detach()
        volatility = self._unsquash(seen, "news_volatility").clamp(min=_LEAST_VOLATILITY)
        signal = self._unsquash(seen, "signal") / volatility
        parts = [signal] if self._hidden else [signal, seen[..., self._map.columns("regime")] * signal]
        return torch.cat(parts, -1), signal, volatility

    def _unsquash(self, observations: Tensor, name: str) -> Tensor:
        squashed = observations[..., self._map.columns(name)].clamp(-_SATURATED, _SATURATED)
        return torch.atanh(squashed) * _SCALES[name]
