"""A distribution from its transforms: a smooth part as a Fourier series, and atoms."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hmgym.market_making.quotes import Floats

_TAIL = 1e-15  # probability beyond either end of the series' interval, at most
_CUT = 1e-13  # of the smooth part's transform beyond the last frequency, at most
_BISECTIONS = 200  # at most: the interval is then down to neighbouring floats


@dataclass(frozen=True, kw_only=True, eq=False)
class Distribution:
    """Of a number X with a smooth density between two ends, and atoms.

    Attributes:
        low: lower end, beyond which nothing lies but rounding.
        high: upper end.
        frequencies: (J,) 2πj / (high − low), j = 1 … J.
        coefficients: (J,) of the smooth part's transform E e^{iuX} there.
        smooth: weight of the smooth part.
        atoms: (L,) where there are any.
        weights: (L,) theirs.
    """

    low: float
    high: float
    frequencies: Floats
    coefficients: NDArray[np.complexfloating[Any, Any]]
    smooth: float
    atoms: Floats
    weights: Floats

    @classmethod
    def from_transform(
        cls,
        *,
        characteristic: Callable[[Floats], NDArray[np.complex128]],
        bound: Callable[[Floats], Floats],
        log_moment: Callable[[Floats], Floats],
        std: float,
        atoms: Floats,
        weights: Floats,
    ) -> Distribution:
        """The distribution of X with these transforms.

        The ends are where Chernoff's bound on the tails is negligible, and the series goes as far as its transform is
        not. A density that is normal given something else makes both small at once.

        Args:
            characteristic: E e^{iuX} of frequencies (J,).
            bound: no less than it in size, falling in u to the weight of all atoms.
            log_moment: ln E e^{sX} of real s (J,).
            std: of X.
            atoms: (L,) where X has any.
            weights: (L,) theirs.
        """
        scale = std if std > 0.0 else 1.0
        rates = 2.0 ** np.arange(-4.0, 8.0) / scale
        below = (log_moment(-rates) - math.log(_TAIL)) / rates
        above = (log_moment(rates) - math.log(_TAIL)) / rates
        low, high = -float(below.min()), float(above.min())
        smooth = max(1.0 - float(weights.sum()), 0.0)
        if smooth < _CUT:
            none = np.empty(0)
            return cls(
                low=low, high=high, frequencies=none, coefficients=none + 0j, smooth=0.0, atoms=atoms, weights=weights
            )
        trial = 2.0 ** np.arange(-2.0, 30.0, 0.25) / scale
        last = trial[np.argmax(bound(trial) - float(weights.sum()) < _CUT)]
        step = 2.0 * math.pi / (high - low)
        frequencies = step * np.arange(1, math.ceil(last / step) + 1)
        of_atoms = np.exp(1j * frequencies[:, None] * atoms) @ weights
        return cls(
            low=low,
            high=high,
            frequencies=frequencies,
            coefficients=characteristic(frequencies) - of_atoms,
            smooth=smooth,
            atoms=atoms,
            weights=weights,
        )

    def cumulative(self, x: Floats) -> Floats:
        """P(X ≤ x)."""
        x = np.asarray(x, dtype=np.float64)
        inside = np.clip(x, self.low, self.high)
        u = self.frequencies
        wave = np.exp(-1j * u * inside[..., None]) - np.exp(-1j * u * self.low)
        series = (wave / (-1j * u) * self.coefficients).real.sum(-1)
        smooth = (self.smooth * (inside - self.low) + 2.0 * series) / (self.high - self.low)
        total: Floats = smooth + (self.weights * (self.atoms <= x[..., None])).sum(-1)
        return total

    def shortfall(self, x: float) -> float:
        """E (x − X)⁺, for x between the ends."""
        u, passed = self.frequencies, x - self.low
        start = np.exp(-1j * u * self.low)
        wave = (np.exp(-1j * u * x) - start) / -(u**2) + start * passed / (1j * u)
        smooth = (0.5 * self.smooth * passed**2 + 2.0 * (wave * self.coefficients).real.sum()) / (self.high - self.low)
        return float(smooth + self.weights @ np.maximum(x - self.atoms, 0.0))

    def quantile(self, probability: float) -> float:
        """The least x with P(X ≤ x) ≥ probability."""
        low, high = self.low, self.high
        for _ in range(_BISECTIONS):
            middle = 0.5 * (low + high)
            if not low < middle < high:
                break
            low, high = (low, middle) if self.cumulative(np.array(middle)) >= probability else (middle, high)
        return high
