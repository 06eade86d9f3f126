"""Checks of arguments that more than one package makes; a refusal names the argument, what was expected, what came."""

from __future__ import annotations

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
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"`{name}` must be an integer >= {least}, got {value!r}") from None
    if number < least:
        raise ValueError(f"`{name}` must be >= {least}, got {number}")
    return number


def integer_or_none(name: str, value: Any, least: int) -> int | None:
    """As :func:`integer`; None stays None."""
    try:
        return None if value is None else integer(name, value, least)
    except ValueError as error:
        raise ValueError(str(error).replace(", got", " or None, got", 1)) from None
