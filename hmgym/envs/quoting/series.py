"""What is recorded of a market maker's episode, and how a picture shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from hmgym.analysis.figures import ASSETS, CROWD, LEARNER
from hmgym.envs.panels import Line, Panel

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class QuotingSeries:
    """One market maker's episode so far, T closes; the first is the start, before any quote.

    Attributes:
        mid: shape (T,), price after the step.
        bid: shape (T,), price quoted in the step; NaN where there was no bid.
        ask: shape (T,), likewise.
        bought: shape (T,), lots bought in the step.
        sold: shape (T,), lots sold.
        inventory: shape (T,), lots after it.
        profit: shape (T,), money since the start.
    """

    mid: FloatArray
    bid: FloatArray
    ask: FloatArray
    bought: FloatArray
    sold: FloatArray
    inventory: FloatArray
    profit: FloatArray

    period: ClassVar[str] = "step"

    def __len__(self) -> int:
        return len(self.mid)

    def panels(self) -> tuple[Panel, ...]:
        """Mid with quotes and fills, inventory, profit."""
        blue, orange = ASSETS[0], ASSETS[1]

        def at_fills(price: FloatArray, filled: FloatArray) -> FloatArray:
            return np.where(filled > 0.0, price, np.nan)

        return (
            Panel(
                title=f"Mid, quotes, and fills: {self.bought.sum():.0f} bought, {self.sold.sum():.0f} sold",
                unit="price", wide=True,
                lines=(
                    Line(values=self.bid, label="bid", colour=blue, dashed=True),
                    Line(values=self.ask, label="ask", colour=orange, dashed=True),
                    Line(values=self.mid, label="mid", colour=CROWD),
                    Line(values=at_fills(self.bid, self.bought), label="bought", colour=blue, points=True),
                    Line(values=at_fills(self.ask, self.sold), label="sold", colour=orange, points=True),
                ),
            ),
            Panel(title=f"Inventory {self.inventory[-1]:+.0f}", unit="lots", lines=(
                Line(values=self.inventory, label="inventory", colour=LEARNER),)),
            Panel(title=f"Profit {self.profit[-1]:+.2f}", unit="money", compared=True, lines=(
                Line(values=self.profit, label="profit", colour=LEARNER),)),
        )  # fmt: skip
