"""``PortfolioMemory``: what a clearing may start from because the same markets were cleared before."""

from __future__ import annotations

from typing import Any

import numpy as np

from hmgym.clearing.lane_kernels import memory_size
from hmgym.clearing.lanes import WIDTH


class PortfolioMemory:
    """The portfolios that the last clearing of some markets ended with, for the next one to start from.

    A cache: results depend on it only in rounding, whatever it holds. An investor who has no portfolio near the old one
    within its new limits is solved from nothing, and so is a market that does not clear from where it stood. A copy, a
    pickle or a memory used for other numbers of markets, investors or assets starts empty.

    One memory serves one sequence of clearings, in which row e is always the same market; it must not be used by two
    threads at once.
    """

    def __init__(self) -> None:
        self._sizes: tuple[int, int, int] | None = None
        self._numbers = np.empty((0, 0))

    def forget(self, markets: Any = slice(None)) -> None:
        """Forget some markets (anything that indexes rows), as on a reset; only to save time, it changes no result."""
        if self._sizes is not None:
            ages = WIDTH * -(-self._sizes[1] // WIDTH)
            self._numbers[markets, :ages] = -1.0

    def rows(self, n_markets: int, n_investors: int, n_assets: int) -> np.ndarray[Any, Any]:
        """One row for each market, as ``lane_kernels.clear_markets`` takes it."""
        sizes = (n_markets, n_investors, n_assets)
        if self._sizes != sizes:
            self._sizes = sizes
            size = memory_size(n_investors, n_assets)
            room = np.zeros(n_markets * size + WIDTH)
            start = -(room.ctypes.data // room.itemsize) % WIDTH  # lane values are read faster where none is split
            self._numbers = room[start : start + n_markets * size].reshape(n_markets, size)
            self.forget()
        return self._numbers

    def __reduce__(self) -> tuple[type[PortfolioMemory], tuple[()]]:
        return PortfolioMemory, ()
