"""Tables of quotes by step and inventory, and what a step of the chain does with them.

The chain is what `exact_law` and `simulate` share. At mid S_t each side is filled with probability
min(1, A e^{−kδ} dt), independently; then mid moves by μdt + ξ(ask fills − bid fills) + σ√dt Z, which the inventory
after the fills carries. At the table's largest inventory nothing is bought and at its smallest nothing is sold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hmgym.checks import check_number, is_finite_number, shown
from hmgym.market_making.inventory_hjb import InventoryHJB
from hmgym.market_making.quotes import Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class QuoteTables:
    """Quotes of T steps at n = 2Q' + 1 inventories, checked, and their chances.

    Attributes:
        model: whose fills and mid they meet.
        dt: length of a step, time.
        start: index of the first inventory.
        inventory: (n,) −Q' … Q'.
        bid: (T, n) depth, 0 where nothing is bought.
        ask: (T, n) likewise.
        bid_fill: (T, n) probability that the bid is filled, 0 where there is none.
        ask_fill: (T, n) likewise.
        bid_quoted: (T, n) whether there is a bid.
        ask_quoted: (T, n) likewise.
    """

    model: InventoryHJB
    dt: float
    start: int
    inventory: NDArray[np.int64]
    bid: Floats
    ask: Floats
    bid_fill: Floats
    ask_fill: Floats
    bid_quoted: NDArray[np.bool_]
    ask_quoted: NDArray[np.bool_]

    @cached_property
    def branches(self) -> tuple[Floats, Floats]:
        """Probabilities and gains (T, 4, n) of no fill, both, a bid alone, an ask alone, by the inventory before."""
        chances, gains = branches_of(
            self.bid, self.ask, self.bid_fill, self.ask_fill, self.inventory, self.model.impact
        )  # fmt: skip
        return np.stack(chances, 1), np.stack(gains, 1)


def log_fill_probability(model: InventoryHJB, dt: float, depth: Any) -> Any:
    """ln min(1, A e^{−kδ} dt) at depths δ, an array or a tensor; capped on the exponent, where nothing overflows."""
    return (math.log(model.arrival_rate * dt) - model.depth_decay * depth).clip(max=0.0)


def branches_of(
    bid: Any, ask: Any, bid_fill: Any, ask_fill: Any, inventory: Any, impact: float
) -> tuple[list[Any], list[Any]]:
    """What a step may bring: no fill, both, a bid alone, an ask alone; arrays or tensors, all of one shape.

    Returns:
        chances: four probabilities.
        gains: what each earns before mid's own move, with the impact that the inventory after it carries.
    """
    chances = [
        (1.0 - bid_fill) * (1.0 - ask_fill), bid_fill * ask_fill, bid_fill * (1.0 - ask_fill),
        ask_fill * (1.0 - bid_fill),
    ]  # fmt: skip
    gains = [0.0 * bid, bid + ask, bid - impact * (inventory + 1), ask + impact * (inventory - 1)]
    return chances, gains


def gathered(none: Any, both: Any, bought: Any, sold: Any) -> Any:
    """What stood on an inventory before the fills (…, n) on the one after; arrays or tensors."""
    after = none + both
    after[..., 1:] += bought[..., :-1]
    after[..., :-1] += sold[..., 1:]
    return after


def read_tables(model: InventoryHJB, bid: ArrayLike, ask: ArrayLike, dt: Any, initial_inventory: Any) -> QuoteTables:
    """Tables from arguments of `exact_law` and `simulate`.

    Raises:
        ValueError: an argument is none that they take; names it.
    """
    if not isinstance(model, InventoryHJB):
        raise ValueError(f"`model` must be an InventoryHJB, got {shown(model)}")
    check_number("dt", dt, 0.0, strict=True)
    depths = {"bid": _read("bid", bid), "ask": _read("ask", ask)}
    if depths["bid"].shape != depths["ask"].shape:
        raise ValueError(f"`ask` must have the shape of `bid`, {depths['bid'].shape}, got {depths['ask'].shape}")
    largest = depths["bid"].shape[1] // 2
    whole = is_finite_number(initial_inventory) and initial_inventory == int(initial_inventory)
    if not whole or abs(initial_inventory) > largest:
        expected = f"an integer in [-{largest}, {largest}], the table's inventories"
        raise ValueError(f"`initial_inventory` must be {expected}, got {shown(initial_inventory)}")
    quoted = {name: np.isfinite(depth) for name, depth in depths.items()}
    quoted["bid"][:, -1] = False
    quoted["ask"][:, 0] = False
    fill = {}
    for name, depth in depths.items():
        depth[~quoted[name]] = 0.0
        fill[name] = np.where(quoted[name], np.exp(log_fill_probability(model, dt, depth)), 0.0)
    return QuoteTables(
        model=model,
        dt=float(dt),
        start=largest + int(initial_inventory),
        inventory=np.arange(-largest, largest + 1),
        bid=depths["bid"],
        ask=depths["ask"],
        bid_fill=fill["bid"],
        ask_fill=fill["ask"],
        bid_quoted=quoted["bid"],
        ask_quoted=quoted["ask"],
    )


def _read(name: str, table: ArrayLike) -> Floats:
    try:
        depths = np.array(table, dtype=np.float64)
    except (TypeError, ValueError):
        depths = np.empty(0)
    if depths.ndim != 2 or depths.shape[0] < 1 or depths.shape[1] < 3 or depths.shape[1] % 2 == 0:
        came = f"shape {depths.shape}" if depths.ndim != 1 or depths.size else shown(table)
        raise ValueError(f"`{name}` must have shape (steps, 2Q+1), steps >= 1, Q >= 1, got {came}")
    if np.isinf(depths).any():
        raise ValueError(f"`{name}` must be finite, or NaN where nothing is quoted, got infinite depths")
    return depths
