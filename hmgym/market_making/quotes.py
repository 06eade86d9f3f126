"""Quotes by inventory, and by time and inventory: what solvers return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Quotes:
    """How deep to quote at every inventory.

    A depth is the distance of a quote from mid, in units of price: positive away from it, negative beyond it; NaN where
    nothing is quoted.

    Attributes:
        inventory: (2Q+1,) integers, −Q … Q.
        bid: (…, 2Q+1) depth of the bid, below mid.
        ask: (…, 2Q+1) depth of the ask, above mid.
        value_rate: money a time by which the value grows as the horizon does, in the limit; NaN where there is none.
    """

    inventory: NDArray[np.int64]
    bid: Floats
    ask: Floats
    value_rate: float


@dataclass(frozen=True, kw_only=True, eq=False)
class QuotingSolution(Quotes):
    """The best quotes of a finite horizon, and what they are worth.

    Attributes:
        times: (K,) time since the start; rows of `bid`, `ask` (K, 2Q+1) and `value` are of these times.
        value: (K, 2Q+1) certainty equivalent, money, of holding the inventory then, beyond cash and inventory at mid.
    """

    times: Floats
    value: Floats
