"""Mean and variance of gradients of many markets, too many numbers to keep."""

from __future__ import annotations

import torch
from torch import Tensor

from hmgym.agents.evaluation import Estimate, estimate


class Moments:
    """Running mean and variance of rows (E, P), and the rows' components along one direction.

    Args:
        direction: shape (P,), of unit length.
    """

    def __init__(self, direction: Tensor) -> None:
        self._direction = direction
        self._count, self._sum, self._square = 0, torch.zeros_like(direction), 0.0
        self._along: list[Tensor] = []

    def add(self, rows: Tensor) -> None:
        """Take in rows (E, P)."""
        self._count += len(rows)
        self._sum += rows.sum(0)
        self._square += float((rows * rows).sum())
        self._along.append(rows @ self._direction)

    @property
    def count(self) -> int:
        """Rows so far."""
        return self._count

    @property
    def mean(self) -> Tensor:
        """Mean row, shape (P,)."""
        return self._sum / self._count

    @property
    def variance(self) -> float:
        """Trace of the covariance of a row."""
        return max(self._square / self._count - float(self.mean @ self.mean), 0.0) * self._count / (self._count - 1)

    @property
    def squared_length(self) -> float:
        """Squared length of the expected row, without the part that is noise of the mean."""
        return float(self.mean @ self.mean) - self.variance / self._count

    def along(self) -> Estimate:
        """Expected component along the direction, with its interval."""
        return estimate(torch.cat(self._along).numpy())
