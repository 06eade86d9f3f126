"""Shocks served period by period, drawn many periods ahead in one call a market."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from hmgym.arrays import namespace, to_torch
from hmgym.market import Shocks


class Source(Protocol):
    """What shocks are drawn by: a market, or another chain."""

    def draw_shocks(self, generators: Sequence[np.random.Generator], *, periods: int) -> Shocks:
        """Shocks of some periods, leading dimensions (periods, E)."""

    def place(self, x: torch.Tensor) -> Any:
        """A constant as the source uses it: a tensor on its device, or an array."""


class ShockStream:
    """The shocks of E markets.

    Every market draws from its own generator and refills on its own count since its last reset, so that what a market
    gets does not depend on its neighbours.

    Args:
        market: what draws.
        periods: periods drawn at a time.
    """

    def __init__(self, market: Source, periods: int) -> None:
        self._market = market
        self._periods = periods
        self._ahead: Shocks | None = None
        self._served_views = False
        self._position = np.zeros(0, np.int64)

    def restart(self, rows: npt.NDArray[np.int64], num_markets: int) -> None:
        """Forget what was drawn ahead for these markets; their next shocks are fresh."""
        if self._position.size != num_markets:
            self._position = np.full(num_markets, self._periods)
        self._position[rows] = self._periods

    def next(self, generators: Sequence[np.random.Generator], frozen: npt.NDArray[np.bool_] | None = None) -> Shocks:
        """Shocks of the next period for every market, the same again until `advance`.

        A frozen market gets arbitrary ones and draws nothing.
        """
        position = self._position
        spent = position == self._periods
        if frozen is not None:
            spent &= ~frozen
        if spent.any():
            self._refill(np.flatnonzero(spent), generators)
        assert self._ahead is not None
        here = np.minimum(position, self._periods - 1)
        first = int(here[0])
        if (here == first).all():
            shocks = self._ahead.period(first)
            self._served_views = True
        else:
            flat = here * here.size + np.arange(here.size)
            shocks = self._ahead.map(lambda ahead: ahead.reshape(-1, *ahead.shape[2:])[flat])
        return shocks

    def advance(self, frozen: npt.NDArray[np.bool_] | None = None) -> None:
        """The shocks that `next` gave are used: go on to those of the period after, but in frozen markets."""
        self._position += 1 if frozen is None else ~frozen

    def state_dict(self) -> dict[str, Any]:
        """What was drawn ahead and how much of it was served, as tensors."""
        ahead = {} if self._ahead is None else {name: to_torch(x).clone() for name, x in self._ahead.tensors.items()}
        return {"position": torch.from_numpy(self._position.copy()), "ahead": ahead}

    def load_state_dict(self, stored: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self._position = stored["position"].numpy().copy()
        place = self._market.place
        self._ahead = Shocks({name: place(x) for name, x in stored["ahead"].items()}) if stored["ahead"] else None
        self._served_views = True

    def _refill(self, rows: npt.NDArray[np.int64], generators: Sequence[np.random.Generator]) -> None:
        fresh = self._market.draw_shocks([generators[row] for row in rows], periods=self._periods)
        if rows.size == len(generators):
            self._ahead = fresh.map(_own)
        else:
            assert self._ahead is not None
            if self._served_views:
                # The last period's shocks may still be asked for, and are views of what would be overwritten.
                self._ahead = self._ahead.map(_own)
                self._served_views = False
            for name, ahead in self._ahead.tensors.items():
                ahead[:, rows] = fresh.tensors[name]
        self._position[rows] = 0


def _own(x: torch.Tensor) -> torch.Tensor:
    """A contiguous copy."""
    copied: torch.Tensor = namespace(x).copy(x)
    return copied
