"""Checks of arguments that more than one package makes; a refusal names the argument, what was expected, what came."""

from __future__ import annotations

import math
import numbers
import operator
from typing import Any

import numpy as np


def integer(name: str, value: Any, least: int) -> int:
    """`value` as an int: whatever counts as an index does, numpy's integers among them; a bool or a float does not.

    Args:
        name: of the argument.
        value: what came.
        least: the smallest that is allowed.

    Raises:
        ValueError: `value` is no integer, or smaller.
    """
    number = _index(value)
    if number is None or number < least:
        raise ValueError(f"`{name}` must be an integer >= {least}, got {value!r}")
    return number


def integer_or_none(name: str, value: Any, least: int) -> int | None:
    """As :func:`integer`; None stays None."""
    number = _index(value)
    if value is not None and (number is None or number < least):
        raise ValueError(f"`{name}` must be an integer >= {least} or None, got {value!r}")
    return number


def _index(value: Any) -> int | None:
    if isinstance(value, (bool, np.bool_)):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def is_finite_number(value: Any) -> bool:
    """Whether `value` is a real number that a float can hold; numpy's are, a bool is not."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def shown(value: Any) -> str:
    """What came, short enough for a message."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def check_interval(name: str, value: Any, low: float, high: float, *, open_interval: bool = False) -> None:
    """Check that an argument is a number between two bounds, both included unless the interval is open.

    Raises:
        ValueError: it is not; names the argument.
    """
    inside = is_finite_number(value) and (low < value < high if open_interval else low <= value <= high)
    if not inside:
        bounds = f"in ({low:g}, {high:g})" if open_interval else f"in [{low:g}, {high:g}]"
        raise ValueError(f"`{name}` must be {bounds}, got {shown(value)}")


def check_number(name: str, value: Any, low: float, high: float = math.inf, *, strict: bool = False) -> None:
    """Check that an argument is a finite number from `low`, itself left out where `strict`, to `high`.

    Raises:
        ValueError: it is not; names the argument.
    """
    if not is_finite_number(value) or value < low or value > high or (strict and value == low):
        bound = f"{'>' if strict else '>='} {low:g}" + (f" and <= {high:g}" if high < math.inf else "")
        raise ValueError(f"`{name}` must be a number {bound}, got {shown(value)}")


def check_pair(name: str, bounds: Any, *, strict: bool = False) -> None:
    """Check that an argument is a pair (low, high) of numbers, 0 <= low <= high, or 0 < low where `strict`.

    Raises:
        ValueError: it is not; names the argument.
    """
    pair = isinstance(bounds, (tuple, list)) and len(bounds) == 2 and all(is_finite_number(one) for one in bounds)
    if not pair or not 0.0 <= bounds[0] <= bounds[1] or (strict and bounds[0] == 0.0):
        order = f"0 {'<' if strict else '<='} low <= high"
        raise ValueError(f"`{name}` must be a pair (low, high) with {order}, got {shown(bounds)}")
