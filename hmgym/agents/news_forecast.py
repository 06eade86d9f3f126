"""What a learner expects of next month's news, from its own observations and nothing else.

    n_{t+1} ≈ B' x(o_t),    x(o) = (1, s, c s)

with s the signal and c the regime as the learner observes them; without c where the regime is hidden. The news of month
t + 1 stands in the observation of month t + 1, so every month that was played is a row of the regression. B is the
ridge solution over all rows so far, so that a forecast made in a window comes from windows before it.

Source: Hoerl and Kennard (1970), Ridge regression.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hmgym.envs.observation import ObservationMap

_RIDGE = 32.0  # rows without news that the prior counts for
_SATURATED = 1.0 - 1e-9


class NewsForecast:
    """Linear forecast of the news by signal and regime.

    Args:
        observation_map: what the observations mean.
        device: where tensors live.
    """

    def __init__(self, observation_map: ObservationMap, device: torch.device) -> None:
        self._signal = observation_map.columns("signal")
        self._regime = observation_map.columns("regime") if "regime" in observation_map.names else None
        n_assets = self._signal.stop - self._signal.start
        size = 1 + n_assets * (1 if self._regime is None else 2)
        self._moments = torch.zeros(size, size, dtype=torch.float64, device=device)
        self._with_news = torch.zeros(size, n_assets, dtype=torch.float64, device=device)
        self._coefficients = torch.zeros_like(self._with_news)

    @property
    def rows(self) -> int:
        """Months that it has learnt from."""
        return int(self._moments[0, 0])

    def __call__(self, observations: Tensor) -> Tensor:
        """Expected news (..., N), log a month, outside any graph, for observations (..., size)."""
        return self._features(observations.detach()) @ self._coefficients

    def learn(self, observations: Tensor, news: Tensor) -> None:
        """Take in months.

        Args:
            observations: shape (..., size).
            news: shape (..., N), what came in the month after each of them, log a month.
        """
        features = self._features(observations.detach()).flatten(0, -2)
        self._moments += features.T @ features
        self._with_news += features.T @ news.detach().flatten(0, -2)
        prior = torch.diag(torch.diagonal(self._moments) * (_RIDGE / self._moments[0, 0]))
        prior[0, 0] = 0.0  # the mean is not shrunk
        self._coefficients = torch.linalg.solve(self._moments + prior, self._with_news)

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that a continued run needs."""
        return {
            "moments": self._moments.clone(), "with_news": self._with_news.clone(),
            "coefficients": self._coefficients.clone(),
        }  # fmt: skip

    def load_state_dict(self, stored: dict[str, Tensor]) -> None:
        """Go on where `state_dict` was taken."""
        self._moments = stored["moments"].to(self._moments.device).clone()
        self._with_news = stored["with_news"].to(self._moments.device).clone()
        self._coefficients = stored["coefficients"].to(self._moments.device).clone()

    def _features(self, observations: Tensor) -> Tensor:
        signal = torch.atanh(observations[..., self._signal].clamp(-_SATURATED, _SATURATED))  # in its scale
        parts = [torch.ones_like(signal[..., :1]), signal]
        if self._regime is not None:
            parts.append(observations[..., self._regime] * signal)
        return torch.cat(parts, -1)
