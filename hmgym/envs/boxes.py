"""Spaces with names: a learner's action in [-1, 1] and what it observes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

GRID_POINTS = {1: 21, 2: 7, 3: 4}
"""Points of a grid of constants along each entry, by the number of entries; with more, all entries are alike."""


class ActionBox:
    """The action of one learner: named entries, each in [-1, 1].

    Args:
        names: one an entry.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.size = len(self.names)

    def space(self) -> spaces.Box:
        """The Gymnasium space of one action."""
        return spaces.Box(-1.0, 1.0, (self.size,), np.float32)

    def check(self, action: Any, num_markets: int, n_learners: int = 1) -> npt.NDArray[np.float64]:
        """Actions of all learners as a fresh array of shape (E, L, size), entries outside [-1, 1] clipped.

        Args:
            action: numbers of shape (E, L, size), or (E, size) where there is one learner.
            num_markets: E.
            n_learners: L.

        Raises:
            ValueError: the shape is another one, or an entry is NaN or infinite.
        """
        full = (num_markets, n_learners, self.size)
        expected = (num_markets, self.size) if n_learners == 1 else full
        try:
            values = np.array(action, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"`action` must be numbers of shape {expected}, got {action!r}") from error
        if values.shape not in (full, expected):
            raise ValueError(f"`action` must have shape {expected}, got {values.shape}")
        values = values.reshape(full)
        if not np.isfinite(values).all():
            market, learner, entry = np.argwhere(~np.isfinite(values))[0]
            whose = f"market {market}" if n_learners == 1 else f"learner {learner} of market {market}"
            raise ValueError(
                f"`action` must be finite, got {values[market, learner, entry]} for `{self.names[entry]}` of {whose}"
            )
        clipped: npt.NDArray[np.float64] = np.minimum(np.maximum(values, -1.0, out=values), 1.0, out=values)
        return clipped

    def describe(self, action: npt.ArrayLike) -> str:
        """One action for tables, in natural units where these are known: ``"short_leverage +0.5"``."""
        values = self.check(np.asarray(action)[None], 1)[0, 0]
        return ", ".join(f"{name} {value:+.3g}" for name, value in zip(self.names, values, strict=True))

    def grid(self) -> npt.NDArray[np.float64]:
        """Constant actions over the whole box, shape (G, size): those that an agent has to beat."""
        points = GRID_POINTS.get(self.size)
        if points is None:
            return np.repeat(np.linspace(-1.0, 1.0, GRID_POINTS[1])[:, None], self.size, 1)
        return np.array(list(itertools.product(np.linspace(-1.0, 1.0, points), repeat=self.size)))


class ObservationBox:
    """The observation of one learner: named float32 entries.

    Args:
        names: one an entry.
        low: smallest value of an entry.
        high: largest.
    """

    def __init__(self, names: Sequence[str], low: float = -1.0, high: float = 1.0) -> None:
        self.names = tuple(names)
        self.size = len(self.names)
        self._low, self._high = low, high

    def space(self) -> spaces.Box:
        """The Gymnasium space of one observation."""
        return spaces.Box(self._low, self._high, (self.size,), np.float32)
