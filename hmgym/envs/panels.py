"""What a picture of an episode shows, said once: frames and figures draw the same panels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from hmgym.analysis.figures import LEARNER, LEARNERS_END

FloatArray = npt.NDArray[np.float64]

_LEAST_TICKS = 3


@dataclass(frozen=True, kw_only=True)
class Line:
    """One series of a panel.

    Attributes:
        values: shape (T,), in the panel's unit; NaN where there is nothing to show.
        label: in the legend; empty shows none.
        colour: as ``"#rrggbb"``.
        dashed: whether the line is dashed, and paler.
        points: whether single points are shown in place of a line.
    """

    values: FloatArray
    label: str = ""
    colour: str = LEARNER
    dashed: bool = False
    points: bool = False


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Lines over the periods of an episode.

    Attributes:
        title: what it shows.
        unit: of the values.
        lines: drawn in this order.
        log: whether the axis is logarithmic; all values are then above 0.
        floor: a value that the axis includes, None for none.
        wide: whether it takes a whole row of the picture.
        compared: whether its first line may be shown beside those of other policies on the same shocks.
    """

    title: str
    unit: str
    lines: tuple[Line, ...]
    log: bool = False
    floor: float | None = None
    wide: bool = False
    compared: bool = False


class Series(Protocol):
    """An episode so far, T closes, as a simulator records it.

    Attributes:
        period: what one period is called on axes and in titles, such as "month".
    """

    period: ClassVar[str]

    def __len__(self) -> int:
        """T; 1 after a reset."""

    def panels(self) -> tuple[Panel, ...]:
        """What a picture shows, from top left to bottom right."""


def log_ticks(low: float, high: float) -> list[float]:
    """Plain numbers from low to high, both above 0, for a logarithmic axis: few enough to be read."""
    decades = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    for steps in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)):
        ticks = [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
        if len(ticks) >= _LEAST_TICKS:
            return ticks
    spacing = 10.0 ** math.floor(math.log10((high - low) / _LEAST_TICKS))
    spacing *= next(step for step in (5.0, 2.0, 1.0) if step * spacing * _LEAST_TICKS <= high - low)
    first, last = math.ceil(low / spacing), math.floor(high / spacing)
    return [round(spacing * at, 12) for at in range(first, last + 1)]


def rgb(colour: str) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255, of ``"#rrggbb"``."""
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return red, green, blue


def mixed(first: str, last: str, share: float) -> str:
    """A colour on the way from the first to the last."""
    return "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in zip(rgb(first), rgb(last), strict=True))


def learner_colours(count: int) -> tuple[str, ...]:
    """One colour a learner."""
    return tuple(mixed(LEARNER, LEARNERS_END, i / max(count - 1, 1)) for i in range(count))
