"""``PortfolioMemory``: what a clearing may start from because the same markets were cleared before."""

from __future__ import annotations

from typing import Any

import numpy as np

from hmgym.clearing import lane_kernels, wide_kernels
from hmgym.clearing.lanes import WIDTH


class PortfolioMemory:
    """The portfolios that the last clearing of some markets ended with, for the next one to start from.

    A cache: results depend on it only in rounding, whatever it holds. An investor who has no portfolio near the old one
    within its new limits is solved from nothing, and so is a market that does not clear from where it stood. With many
    assets the states of positions are all that it keeps, and the markets have a kernel of their own. Used
    for other numbers of markets, investors or assets it starts empty. A copy or a pickle goes on like the original.

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
        """One row for each market, as the ``clear_markets`` that clears markets of so many assets takes it."""
        sizes = (n_markets, n_investors, n_assets)
        if self._sizes != sizes:
            self._sizes = sizes
            fast = wide_kernels if n_assets >= wide_kernels.LEAST_ASSETS else lane_kernels
            size = fast.memory_size(n_investors, n_assets)
            room = np.zeros(n_markets * size + WIDTH)
            start = -(room.ctypes.data // room.itemsize) % WIDTH  # lane values are read faster where none is split
            self._numbers = room[start : start + n_markets * size].reshape(n_markets, size)
            self.forget()
        return self._numbers

    def __getstate__(self) -> tuple[tuple[int, int, int] | None, np.ndarray[Any, Any]]:
        return self._sizes, np.array(self._numbers)

    def __setstate__(self, state: tuple[tuple[int, int, int] | None, np.ndarray[Any, Any]]) -> None:
        self.__init__()  # type: ignore[misc]  # makes room that is aligned
        sizes, numbers = state
        if sizes is not None:
            self.rows(*sizes)[:] = numbers
