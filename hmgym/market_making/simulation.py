"""Simulated market making: the chain of `hmgym.market_making.tables`, path by path."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hmgym.checks import integer
from hmgym.market_making import kernels
from hmgym.market_making.inventory_hjb import InventoryHJB
from hmgym.market_making.quotes import Floats
from hmgym.market_making.tables import read_tables

_BLOCK = 50  # steps whose draws are made together


@dataclass(frozen=True, kw_only=True, eq=False)
class Simulation:
    """What paths of the chain ended with.

    Attributes:
        profit: (runs,) cash and inventory at mid at the end less those at the start, money.
        inventory: (runs,) at the end, shares.
        trades: (runs,) fills on both sides.
    """

    profit: Floats
    inventory: NDArray[np.int64]
    trades: NDArray[np.int64]


def simulate(
    model: InventoryHJB,
    bid: ArrayLike,
    ask: ArrayLike,
    *,
    dt: float,
    runs: int,
    seed: int = 0,
    initial_inventory: int = 0,
) -> Simulation:
    """Paths of a market maker under given quotes; `exact_law` is their law.

    Fills of bids, fills of asks and mid have a stream of draws each. The first runs are the same however many there are
    only in law: a step's draws are made for all runs together.

    Args:
        model: fills and mid; its horizon and its limit play no part.
        bid: (steps, 2Q'+1) depth of the bid in step t at inventory −Q' … Q', below mid, price; NaN is no quote. That at
            Q' is none whatever stands there.
        ask: (steps, 2Q'+1) likewise, above mid; that at −Q' is none.
        dt: length of a step, time.
        runs: paths, ≥ 1.
        seed: ≥ 0.
        initial_inventory: shares, in [−Q', Q'].

    Raises:
        ValueError: an argument is none of these.
    """
    tables = read_tables(model, bid, ask, dt, initial_inventory)
    runs, seed = integer("runs", runs, 1), integer("seed", seed, 0)
    buyers, sellers, mid = (np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(3))
    largest = tables.inventory.size // 2
    place = np.full(runs, tables.start)
    profit, trades = np.zeros(runs), np.zeros(runs, np.int64)
    scale = model.volatility * np.sqrt(tables.dt)
    for first in range(0, len(tables.bid), _BLOCK):
        rows = slice(first, first + _BLOCK)
        shape = (len(tables.bid[rows]), runs)
        moves = model.drift * tables.dt + scale * mid.standard_normal(shape)
        kernels.simulate(
            *(table[rows] for table in (tables.bid, tables.ask, tables.bid_fill, tables.ask_fill)),
            *(model.impact, buyers.random(shape), sellers.random(shape), moves),
            *(place, profit, trades),
        )
    return Simulation(profit=profit, inventory=place - largest, trades=trades)
