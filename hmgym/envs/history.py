"""Series of the running episodes, whatever a simulator records of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hmgym.envs.panels import Series

Snapshot = Mapping[str, npt.NDArray[Any]]
"""What is recorded of one close: arrays by name, leading dimension E; never written to later."""


class History:
    """Series of the running episode of each of E markets.

    Args:
        num_markets: E.
        series: makes the series of an episode from its arrays by name, each with leading dimension T.
    """

    def __init__(self, num_markets: int, series: Callable[..., Series]) -> None:
        self._series = series
        self._closes: list[Snapshot] = []
        self._begin = np.zeros(num_markets, np.int64)

    def restart(self, rows: npt.NDArray[np.int64], snapshot: Snapshot) -> None:
        """Begin new series in these markets with what is there after their reset."""
        if rows.size == self._begin.size:
            self._closes.clear()
            self.append(snapshot)
        else:
            self._closes[-1] = snapshot
        self._begin[rows] = len(self._closes) - 1
        needless = int(self._begin.min())  # closes that no running episode shows any more
        del self._closes[:needless]
        self._begin -= needless

    def append(self, snapshot: Snapshot) -> None:
        """Add the close of one period."""
        self._closes.append(snapshot)

    def episode(self, market: int) -> Any:
        """Series of one market since its last reset.

        Raises:
            RuntimeError: no market was reset yet.
        """
        closes = self._closes[self._begin[market] :]
        if not closes:
            raise RuntimeError("call `reset` before an episode is rendered or asked for")
        return self._series(**{name: np.stack([close[name][market] for close in closes]) for name in closes[0]})
