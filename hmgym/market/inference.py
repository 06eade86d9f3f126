"""Inference: what can be known of next month's news before it comes, the posterior given the signal and the regime.

News is g + √h ∘ u, and its variance h is known. In the informative regime the signal z tells of u,
z/√h = ρ u + √(1 − ρ²) ε; in the other it is noise alone. u is independent over months, so nothing else tells of it.

Rows of the history: each is as likely as another before the signal, and after it

    P(row | z) ∝ Π_i exp(−½ (z_i/√h_i − ρ u_i,row)² / (1 − ρ²)).

Gaussian: u ~ N(0, R), and

    u | z ~ N(K z/√h, R − ρ K R),      K = ρ R (ρ² R + (1 − ρ²) I)⁻¹.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hmgym.market.config import MarketConfig
from hmgym.market.fundamentals import Fundamentals

_LEAST_NOISE = 1e-8  # a signal without noise leaves the nearest row
_LARGEST_UNIFORM, _SMALLEST_UNIFORM = 1.0 - 2.0**-53, 2.0**-54


class NewsPosterior:
    """Next month's news given the signal, the regime and the variance.

    Args:
        config: of the market.
        fundamentals: the source of its news.
    """

    def __init__(self, config: MarketConfig, fundamentals: Fundamentals) -> None:
        self._gaussian = config.fundamentals == "gaussian"
        self._growth, self._loading = config.growth, config.signal_r2**0.5
        self._noise = (1.0 - config.signal_r2) ** 0.5
        self._residuals, correlation = fundamentals.residuals, fundamentals.correlation
        # From bad months to good ones, so that neighbouring uniforms draw months alike.
        self._order = torch.argsort((self._residuals * fundamentals.deviation).mean(-1), stable=True)
        noise = self._noise**2 * torch.eye(len(correlation), dtype=correlation.dtype, device=correlation.device)
        self._gain = self._loading * torch.linalg.solve(self._loading**2 * correlation + noise, correlation).T
        left = correlation - self._loading * self._gain @ correlation
        self._informed, self._prior = 0.5 * (left + left.T), correlation
        self._informed_factor, self._prior_factor = _root(self._informed), _root(correlation)

    @property
    def draws(self) -> int:
        """Uniforms that one draw takes: the row, and N for Gaussian news."""
        return 1 + self._residuals.shape[1]

    def probabilities(self, signal: Tensor, regime: Tensor, variance: Tensor) -> Tensor:
        """Probability (E, T) of every row of the history; even where fundamentals are Gaussian. Arguments of `mean`."""
        scale = max(self._noise, _LEAST_NOISE)
        misfit = signal.new_zeros(len(signal), self._residuals.shape[0])
        if not self._gaussian and self._loading > 0.0:
            expected = self._loading / scale * self._residuals  # (T, N)
            seen = (signal / (scale * torch.sqrt(variance))).unbind(-1)  # asset by asset: (E, T, N) would be large
            errors = (one.unsqueeze(-1) - row for one, row in zip(seen, expected.unbind(-1), strict=True))
            misfit = sum((error * error for error in errors), start=misfit)
        informed = regime.unsqueeze(-1) > 0.5
        return torch.softmax(-0.5 * torch.where(informed, misfit, torch.zeros_like(misfit)), -1)

    def mean(self, signal: Tensor, regime: Tensor, variance: Tensor) -> Tensor:
        """Mean (E, N) of next month's news, log a month.

        Args:
            signal: shape (E, N).
            regime: shape (E,), 1.0 where the signal is informative.
            variance: shape (E, N), of next month's news before the signal, `MarketState.news_variance`.
        """
        deviation = torch.sqrt(variance)
        if self._gaussian:
            moved = deviation * ((signal / deviation) @ self._gain.T)
            return self._growth + torch.where(regime.unsqueeze(-1) > 0.5, moved, torch.zeros_like(moved))
        return self._growth + deviation * (self.probabilities(signal, regime, variance) @ self._residuals)

    def moments(self, signal: Tensor, regime: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (E, N) and covariance (E, N, N) of next month's news, log a month. Arguments of `mean`."""
        deviation = torch.sqrt(variance)
        outer = deviation.unsqueeze(-1) * deviation.unsqueeze(-2)
        if self._gaussian:
            informed = (regime > 0.5)[:, None, None]
            mean = self.mean(signal, regime, variance)
            return mean, outer * torch.where(informed, self._informed, self._prior)
        probability = self.probabilities(signal, regime, variance)
        mean = probability @ self._residuals
        deviations = self._residuals - mean.unsqueeze(1)  # (E, T, N)
        covariance = deviations.transpose(-1, -2) @ (probability.unsqueeze(-1) * deviations)
        return self._growth + deviation * mean, outer * covariance

    def draw(self, signal: Tensor, regime: Tensor, variance: Tensor, uniforms: Tensor) -> Tensor:
        """Next month's news (E, N).

        A larger first uniform draws a better row of the history, by the mean return of the assets at their average
        volatility, so that stratified uniforms give stratified months. Gaussian news comes from the other uniforms.

        Args:
            signal: shape (E, N).
            regime: shape (E,), 1.0 where the signal is informative.
            variance: shape (E, N), of next month's news before the signal.
            uniforms: shape (E, `draws`), float64, each in [0, 1).

        Raises:
            ValueError: `uniforms` are others.
        """
        _check(uniforms, (signal.shape[0], self.draws))
        if self._gaussian:
            normals = torch.special.ndtri(uniforms[:, 1:].clamp(_SMALLEST_UNIFORM, _LARGEST_UNIFORM)).unsqueeze(-1)
            factor = torch.where(regime[:, None, None] > 0.5, self._informed_factor, self._prior_factor)
            normal: Tensor = self.mean(signal, regime, variance) + torch.sqrt(variance) * (factor @ normals).squeeze(-1)
            return normal
        cumulated = self.probabilities(signal, regime, variance)[:, self._order].cumsum(-1)
        level = uniforms[:, :1] * cumulated[:, -1:]
        at = torch.searchsorted(cumulated, level.contiguous(), right=True).squeeze(-1).clamp(max=len(self._order) - 1)
        drawn: Tensor = self._growth + torch.sqrt(variance) * self._residuals[self._order[at]]
        return drawn


def _check(uniforms: Tensor, shape: tuple[int, int]) -> None:
    if not isinstance(uniforms, Tensor) or uniforms.dtype != torch.float64 or tuple(uniforms.shape) != shape:
        got = f"{uniforms.dtype} {tuple(uniforms.shape)}" if isinstance(uniforms, Tensor) else repr(uniforms)[:80]
        raise ValueError(f"`uniforms` must be a float64 tensor of shape {shape}, got {got}")
    if uniforms.numel():
        least, most = (float(bound) for bound in torch.aminmax(uniforms))
        if not (least >= 0.0 and most < 1.0):  # also true of NaN
            raise ValueError(f"`uniforms` must lie in [0, 1), got values from {least:g} to {most:g}")


def _root(covariance: Tensor) -> Tensor:
    """A matrix F with F F' = C; C may be singular."""
    values, vectors = torch.linalg.eigh(covariance)
    root: Tensor = vectors * torch.sqrt(values.clamp(min=0.0))
    return root
