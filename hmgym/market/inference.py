"""Inference: what can be known of next month's news before it comes, the posterior given the signal and the regime.

In the informative regime the signal is z = ρ (n − g) + √(1 − ρ²) σ ε of the news n, in the other it is noise alone.

Bootstrap: n is a row of the history. Its prior is the share of blocks that hold the row, which is uniform but for the
first and last rows, and its posterior

    P(row | z) ∝ P(row) Π_i exp(−½ (z_i − ρ (n_i,row − g))² / ((1 − ρ²) σ_i²)).

Gaussian: n ~ N(g, C), and with D = diag(σ)

    n | z ~ N(g + K z, C − ρ K C),      K = ρ C (ρ² C + (1 − ρ²) D²)⁻¹.

This month's news is not looked up in the history: whoever did would know the row, and in five months of six the next.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hmgym.market.config import MarketConfig
from hmgym.market.fundamentals import Fundamentals

_LEAST_NOISE = 1e-8  # share of σ; a signal without noise leaves the nearest row
_LARGEST_UNIFORM, _SMALLEST_UNIFORM = 1.0 - 2.0**-53, 2.0**-54


class NewsPosterior:
    """Next month's news given the signal and the regime.

    Args:
        config: of the market.
        fundamentals: the source of its news.
    """

    def __init__(self, config: MarketConfig, fundamentals: Fundamentals) -> None:
        self._fundamentals = fundamentals
        self._gaussian = config.fundamentals == "gaussian"
        self._growth, self._loading = config.growth, config.signal_r2**0.5
        self._noise = (1.0 - config.signal_r2) ** 0.5
        returns, covariance = fundamentals.returns, fundamentals.covariance
        rows = torch.arange(len(returns), device=returns.device)
        self._last_start = len(returns) - config.block_months
        # The rows of a block that a row can be: its place is known no better than that.
        self._first_place = (rows - self._last_start).clamp(min=0)
        self._places = rows.clamp(max=config.block_months - 1) - self._first_place + 1
        self._log_prior = torch.log(self._places.to(torch.float64) / (config.block_months * (self._last_start + 1)))
        # From bad months to good ones, so that neighbouring uniforms draw months alike.
        self._order = torch.argsort(returns.mean(-1), stable=True)
        noise = torch.diag((self._noise * fundamentals.deviation) ** 2)
        signal_covariance = self._loading**2 * covariance + noise
        self._gain = self._loading * torch.linalg.solve(signal_covariance, covariance).T
        left = covariance - self._loading * self._gain @ covariance
        self._informed = 0.5 * (left + left.T)
        self._informed_factor, self._prior_factor = _root(self._informed), _root(covariance)

    @property
    def draws(self) -> int:
        """Uniforms that one draw takes: the row, its place in the block, and N for Gaussian news."""
        return 2 + len(self._fundamentals.deviation)

    def probabilities(self, signal: Tensor, regime: Tensor) -> Tensor:
        """Probability (E, T) of every row of the history; of the prior where fundamentals are Gaussian.

        Args:
            signal: shape (E, N).
            regime: shape (E,), 1.0 where the signal is informative.
        """
        scale = max(self._noise, _LEAST_NOISE) * self._fundamentals.deviation
        misfit = signal.new_zeros(len(signal), 1)
        if not self._gaussian and self._loading > 0.0:
            expected = self._loading * (self._fundamentals.returns - self._growth) / scale  # (T, N)
            seen = (signal / scale).unbind(-1)  # asset by asset: (E, T, N) would be large
            errors = (one.unsqueeze(-1) - row for one, row in zip(seen, expected.unbind(-1), strict=True))
            misfit = sum((error * error for error in errors), start=misfit)
        informed = regime.unsqueeze(-1) > 0.5
        log_posterior = self._log_prior - 0.5 * torch.where(informed, misfit, torch.zeros_like(misfit))
        return torch.softmax(log_posterior, -1)

    def mean(self, signal: Tensor, regime: Tensor) -> Tensor:
        """Mean (E, N) of next month's news, log a month; arguments as in `moments`."""
        if self._gaussian:
            moved = signal @ self._gain.T
            return self._growth + torch.where(regime.unsqueeze(-1) > 0.5, moved, torch.zeros_like(moved))
        return self.probabilities(signal, regime) @ self._fundamentals.returns

    def moments(self, signal: Tensor, regime: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (E, N) and covariance (E, N, N) of next month's news, log a month.

        Args:
            signal: shape (E, N).
            regime: shape (E,), 1.0 where the signal is informative.
        """
        if self._gaussian:
            informed = (regime > 0.5)[:, None, None]
            return self.mean(signal, regime), torch.where(informed, self._informed, self._fundamentals.covariance)
        probability, returns = self.probabilities(signal, regime), self._fundamentals.returns
        mean = probability @ returns
        deviations = returns - mean.unsqueeze(1)  # (E, T, N)
        return mean, deviations.transpose(-1, -2) @ (probability.unsqueeze(-1) * deviations)

    def draw(self, signal: Tensor, regime: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Next month's news (E, N), the row of the history that it is (E,) and the rows left in its block (E,).

        A larger first uniform draws a better month of the bootstrap, by the mean return of the assets, so that
        stratified uniforms give stratified months. Where fundamentals are Gaussian row and place stand for nothing.

        Args:
            signal: shape (E, N).
            regime: shape (E,), 1.0 where the signal is informative.
            uniforms: shape (E, `draws`), float64, each in [0, 1).

        Raises:
            ValueError: `uniforms` are others.
        """
        _check(uniforms, (signal.shape[0], self.draws))
        cumulated = self.probabilities(signal, regime)[:, self._order].cumsum(-1)
        level = uniforms[:, :1] * cumulated[:, -1:]
        at = torch.searchsorted(cumulated, level.contiguous(), right=True).squeeze(-1).clamp(max=len(self._order) - 1)
        row = self._order[at]
        place = self._first_place[row] + (uniforms[:, 1] * self._places[row]).long()
        left = self._fundamentals.block_months - 1 - place
        if not self._gaussian:
            return self._fundamentals.returns[row], row, left
        normals = torch.special.ndtri(uniforms[:, 2:].clamp(_SMALLEST_UNIFORM, _LARGEST_UNIFORM)).unsqueeze(-1)
        informed = regime[:, None, None] > 0.5
        factor = torch.where(informed, self._informed_factor, self._prior_factor)
        return self.mean(signal, regime) + (factor @ normals).squeeze(-1), row, left


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
