"""What is recorded of a market's episode, and how a picture shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from hmgym.analysis.figures import ASSETS, CROWD
from hmgym.arrays import to_numpy
from hmgym.envs.panels import Line, Panel, learner_colours
from hmgym.market import MarketState

FloatArray = npt.NDArray[np.float64]


def gross_leverage(state: MarketState) -> tuple[FloatArray, FloatArray]:
    """Gross leverage of the learners and of the crowd: money in risky positions, of either sign, over wealth.

    Returns:
        learners: shape (E, L), multiple of each learner's wealth.
        crowd: shape (E,), of all who are no learners together, multiple of their wealth.
    """
    n = state.unit_value.shape[1]
    prices = to_numpy(state.prices)[:, None, :]
    positions = to_numpy(state.holdings) * prices
    wealth = to_numpy(state.cash) + positions.sum(-1)
    gross = np.abs(positions).sum(-1)
    floor = 1e-9  # money; wealth below it counts as none
    learners = gross[:, :n] / np.maximum(wealth[:, :n], floor)
    crowd = gross[:, n:].sum(-1) / np.maximum(wealth[:, n:].sum(-1), floor)
    return learners, crowd


@dataclass(frozen=True, kw_only=True)
class EpisodeSeries:
    """One market's episode so far, T closes.

    Attributes:
        assets: names of the N assets.
        prices: shape (T, N), currency.
        fundamentals: shape (T, N), currency.
        unit_value: shape (T,), 1 at reset; (T, L) where there are several learners.
        learner_leverage: shape (T,), multiple of wealth; (T, L) where there are several learners.
        crowd_leverage: shape (T,), multiple of wealth.
    """

    assets: tuple[str, ...]
    prices: FloatArray
    fundamentals: FloatArray
    unit_value: FloatArray
    learner_leverage: FloatArray
    crowd_leverage: FloatArray

    period: ClassVar[str] = "month"

    @staticmethod
    def snapshot(state: MarketState) -> dict[str, FloatArray]:
        """What one close adds to the series of E markets."""
        leverage, crowd = gross_leverage(state)
        unit_value = np.array(to_numpy(state.unit_value))
        if unit_value.shape[1] == 1:
            unit_value, leverage = unit_value[:, 0], leverage[:, 0]
        return {
            "prices": np.array(to_numpy(state.prices)),
            "fundamentals": np.array(to_numpy(state.fundamentals)),
            "unit_value": unit_value,
            "learner_leverage": leverage,
            "crowd_leverage": crowd,
        }

    def __len__(self) -> int:
        return len(self.unit_value)

    def panels(self) -> tuple[Panel, ...]:
        """Prices against fundamental values, the learners' unit values, everybody's leverage."""
        colours = [ASSETS[i % len(ASSETS)] for i in range(len(self.assets))]
        values = [
            Line(
                values=self.fundamentals[:, i], label=f"{self.assets[i]}, fundamental value", colour=colour, dashed=True
            )
            for i, colour in enumerate(colours)
        ]
        prices = [
            Line(values=self.prices[:, i], label=self.assets[i], colour=colour) for i, colour in enumerate(colours)
        ]
        one = self.unit_value.ndim == 1
        who = "Learner" if one else "Learners"
        crowd = Line(values=self.crowd_leverage, label="crowd", colour=CROWD)
        return (
            Panel(
                title="Price (solid) and fundamental value (dashed)", unit="money a share", wide=True, log=True,
                lines=(*values, *prices),
            ),
            Panel(
                title=("Learner's unit value " if one else "Learners' unit values ") + _span(self.unit_value[-1]),
                unit="1 at reset", log=True, compared=True, lines=_of_learners(self.unit_value, who.lower()),
            ),
            Panel(
                title=f"Gross leverage: {who.lower()} {_span(self.learner_leverage[-1])}, "
                f"crowd {self.crowd_leverage[-1]:.2f}",
                unit="of wealth", floor=0.0, lines=(crowd, *_of_learners(self.learner_leverage, who.lower())),
            ),
        )  # fmt: skip


def _of_learners(values: FloatArray, label: str) -> tuple[Line, ...]:
    lines = np.atleast_2d(values.T)
    return tuple(
        Line(values=line, label="" if i else label, colour=colour)
        for i, (line, colour) in enumerate(zip(lines, learner_colours(len(lines)), strict=True))
    )


def _span(values: FloatArray) -> str:
    """One number as it is, several by their smallest and largest."""
    return f"{values:.2f}" if values.ndim == 0 else f"{values.min():.2f} to {values.max():.2f}"
