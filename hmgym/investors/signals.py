"""Signals about assets: correlated Ornstein–Uhlenbeck processes, stepped without error.

    dz_k = φ_k (z̄_k − z_k) dt + σ_k dB_k,      d⟨B_k, B_l⟩ = ρ_kl dt

Over a step the process is Gaussian, whatever its length:

    z' = z̄ + e^{−φ dt} (z − z̄) + L ε,      (L L')_kl = ρ_kl σ_k σ_l (1 − e^{−(φ_k + φ_l) dt}) / (φ_k + φ_l).

Correlating the one-dimensional steps by ρ instead is wrong where speeds differ (3 % between φ = 12 and 1 a month), and
an Euler step at φ dt = 1 forgets everything.

Source: Gardiner (2009), Stochastic Methods, 4.5.6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hmgym.arrays import Array, as_floats, namespace, to_numpy

SIGNALS = ("momentum_1m", "momentum_12m", "value", "growth", "esg")
SPEEDS = (12.0, 6.0, 2.0, 2.0, 1.0)
"""φ of the signals, 1/year"""
VOLATILITIES = (0.2, 0.15, 0.1, 0.1, 0.05)
"""σ of the signals, 1/√year"""
MONTH = 1.0 / 12.0
"""years"""


class Transition(NamedTuple):
    """A step: z' is Gaussian with mean z̄ + decay ∘ (z − z̄) and covariance factor factor'."""

    decay: Array  # (..., K)
    factor: Array  # (..., K, K) lower triangular


@dataclass(frozen=True, eq=False)
class OrnsteinUhlenbeck:
    """K correlated Ornstein–Uhlenbeck processes.

    Numpy arrays or tensors, all of one kind (lists become arrays); leading dimensions go with those of z.

    Attributes:
        mean: (..., K) z̄.
        speed: (..., K) φ > 0, 1/year.
        volatility: (..., K) σ > 0, 1/√year.
        correlation: (..., K, K) ρ, symmetric positive definite with ones on its diagonal.
        dt: length of a step, years, > 0.

    Raises:
        ValueError: a shape or a value is none of these.
    """

    mean: Array
    speed: Array
    volatility: Array
    correlation: Array
    dt: float = MONTH

    def __post_init__(self) -> None:
        like = as_floats("mean", self.mean)
        for name in ("mean", "speed", "volatility", "correlation"):
            object.__setattr__(self, name, as_floats(name, getattr(self, name), like))
        size = like.shape[-1] if like.ndim else 0
        for name in ("mean", "speed", "volatility"):
            shape = tuple(getattr(self, name).shape)
            if size == 0 or shape[-1:] != (size,):
                raise ValueError(f"`{name}` must have shape (..., K) with K = {size} as `mean` has, got {shape}")
        if tuple(self.correlation.shape[-2:]) != (size, size):
            raise ValueError(
                f"`correlation` must have shape (..., {size}, {size}), got {tuple(self.correlation.shape)}"
            )
        for name in ("speed", "volatility"):
            value = to_numpy(getattr(self, name))
            if not (np.isfinite(value) & (value > 0.0)).all():
                raise ValueError(f"`{name}` must be finite and > 0, got {value.tolist()}")
        if not (np.ndim(self.dt) == 0 and np.isfinite(self.dt) and self.dt > 0.0):
            raise ValueError(f"`dt` must be a number > 0, got {self.dt!r}")
        matrix = to_numpy(self.correlation)
        symmetric = np.abs(matrix - matrix.swapaxes(-1, -2)).max() < 1e-12
        unit = np.abs(np.diagonal(matrix, axis1=-2, axis2=-1) - 1.0).max() < 1e-12
        if not (symmetric and unit and np.linalg.eigvalsh(matrix).min() > 0.0):
            raise ValueError(
                f"`correlation` must be symmetric positive definite with unit diagonal, got {matrix.tolist()}"
            )

    @property
    def transition(self) -> Transition:
        """Of one step of length dt."""
        xp = namespace(self.speed)
        both = self._both_speeds
        return Transition(
            decay=xp.exp(-self.speed * self.dt),
            factor=xp.cholesky(-self._covariance_rate * xp.expm1(-both * self.dt) / both),
        )

    @property
    def stationary(self) -> Array:
        """Lower triangular factor (..., K, K) of the stationary covariance, ρ_kl σ_k σ_l / (φ_k + φ_l)."""
        factor: Array = namespace(self.speed).cholesky(self._covariance_rate / self._both_speeds)
        return factor

    def first(self, normals: Array) -> Array:
        """A draw (..., K) of the stationary distribution from independent standard normals (..., K)."""
        return self.mean + namespace(self.mean).dot(self.stationary, normals)

    def step(self, z: Array, normals: Array) -> Array:
        """The processes dt later.

        Args:
            z: (..., K).
            normals: (..., K) independent standard normals.
        """
        decay, factor = self.transition
        return self.mean + decay * (z - self.mean) + namespace(self.mean).dot(factor, normals)

    @property
    def _both_speeds(self) -> Array:
        return self.speed[..., :, None] + self.speed[..., None, :]

    @property
    def _covariance_rate(self) -> Array:
        return self.correlation * self.volatility[..., :, None] * self.volatility[..., None, :]


def default_signals(dt: float = MONTH) -> OrnsteinUhlenbeck:
    """The five of `SIGNALS`, independent and of mean zero, as arrays."""
    size = len(SIGNALS)
    return OrnsteinUhlenbeck(np.zeros(size), np.array(SPEEDS), np.array(VOLATILITIES), np.eye(size), dt)
