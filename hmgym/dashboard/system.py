"""What the page has to know of a system: its name, its controls, and a function that runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Slider:
    """A number between two ends, an integer where the ends, the step and the first value are integers.

    Attributes:
        name: of the argument that it sets.
        label: what stands over it.
        low, high: the ends, both allowed.
        step: between neighbouring values.
        value: the first.
        unit: "" for a plain number, "%" for a fraction that is shown in per cent.

    Raises:
        ValueError: the numbers are out of order, or the unit is unknown.
    """

    name: str
    label: str
    low: float
    high: float
    step: float
    value: float
    unit: str = ""

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"`high` of {self.name} must be > low = {self.low}, got {self.high}")
        if not 0 < self.step <= self.high - self.low:
            raise ValueError(f"`step` of {self.name} must lie in (0, high - low], got {self.step}")
        if not self.low <= self.value <= self.high:
            raise ValueError(f"`value` of {self.name} must lie in [{self.low}, {self.high}], got {self.value}")
        if self.unit not in ("", "%"):
            raise ValueError(f'`unit` of {self.name} must be "" or "%", got {self.unit!r}')

    @property
    def whole(self) -> bool:
        """Whether its values are integers."""
        return all(isinstance(number, int) for number in (self.low, self.high, self.step, self.value))

    @property
    def format(self) -> str:
        """How its value is written, with as many digits as its step needs: "0", "0.00", "0.0%"."""
        shown = self.step * (100 if self.unit == "%" else 1)
        digits = next(d for d in range(12) if d == 11 or abs(round(shown, d) - shown) < 1e-9 * shown)
        return "0" + ("." + "0" * digits if digits else "") + self.unit


@dataclass(frozen=True, kw_only=True)
class Number:
    """An integer that is typed in, `low` or more; as `Slider` otherwise."""

    name: str
    label: str
    low: int
    value: int

    def __post_init__(self) -> None:
        if self.value < self.low:
            raise ValueError(f"`value` of {self.name} must be >= low = {self.low}, got {self.value}")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One of several values.

    Attributes:
        name, label, value: as of `Slider`.
        options: the values; numbers, in ascending order, become the stops of a slider, text a list.

    Raises:
        ValueError: `value` is none of them.
    """

    name: str
    label: str
    options: Sequence[Any]
    value: Any

    def __post_init__(self) -> None:
        if self.value not in self.options:
            raise ValueError(f"`value` of {self.name} must be one of {list(self.options)}, got {self.value!r}")

    @property
    def numeric(self) -> bool:
        """Whether all options are numbers."""
        return all(isinstance(option, (int, float)) for option in self.options)


Control = Slider | Number | Choice


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a run leaves on the page.

    Attributes:
        figure: the panels.
        summary: figures by name.
        call: the Python that gives the same.
    """

    figure: Figure
    summary: Mapping[str, float | str]
    call: str


@dataclass(frozen=True, kw_only=True)
class System:
    """One system of the page.

    Attributes:
        name: short, without spaces.
        title: of its tab.
        about: a sentence or two, above the controls.
        controls: from top to bottom.
        run: takes the values of the controls by name; what it raises is shown on the page.

    Raises:
        ValueError: two controls have one name.
    """

    name: str
    title: str
    about: str
    controls: tuple[Control, ...]
    run: Callable[[Mapping[str, Any]], Shown]

    def __post_init__(self) -> None:
        names = [control.name for control in self.controls]
        if len(set(names)) < len(names):
            raise ValueError(f"`controls` of {self.name} must have names of their own, got {names}")

    def values(self) -> dict[str, Any]:
        """The first value of every control."""
        return {control.name: control.value for control in self.controls}
