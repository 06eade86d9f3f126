"""A mean with its 95 % interval, by Student's t."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_NORMAL_975 = 1.959963984540054


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean and its 95 % interval.

    Attributes:
        mean: sum of rewards an episode, or a difference of such sums.
        low: lower end of the interval.
        high: upper end.
        count: number of episodes, or of whatever was the unit.
    """

    mean: float
    low: float
    high: float
    count: int

    @property
    def ci95(self) -> list[float]:
        """The interval as a list, as reports write it."""
        return [self.low, self.high]


def estimate(values: npt.ArrayLike) -> Estimate:
    """Mean of independent values with Student's 95 % interval.

    Raises:
        ValueError: fewer than two values, or one is not finite.
    """
    sample = np.asarray(values, np.float64)
    if sample.ndim != 1 or sample.size < 2:
        raise ValueError(f"`values` must be one row of at least 2 numbers, got shape {sample.shape}")
    if not np.isfinite(sample).all():
        raise ValueError("`values` must be finite")
    mean = float(sample.mean())
    half = _quantile(sample.size - 1) * float(sample.std(ddof=1)) / math.sqrt(sample.size)
    return Estimate(mean=mean, low=mean - half, high=mean + half, count=int(sample.size))


def _quantile(degrees: int) -> float:
    """97.5 % quantile of Student's t: Fisher and Cornish's expansion, within .2 % from 3 degrees of freedom on."""
    if degrees < 3:
        return (12.706204736, 4.302652730)[degrees - 1]
    z = _NORMAL_975
    terms = (
        (z**3 + z) / 4.0,
        (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / 96.0,
        (3.0 * z**7 + 19.0 * z**5 + 17.0 * z**3 - 15.0 * z) / 384.0,
        (79.0 * z**9 + 776.0 * z**7 + 1482.0 * z**5 - 1920.0 * z**3 - 945.0 * z) / 92160.0,
    )
    return z + math.fsum(term / float(degrees) ** power for power, term in enumerate(terms, start=1))
