"""Fundamentalists: they expect the price to move part of the way to what they think the asset is worth.

pull_b · (log v⁻ − log p + e_b), with v⁻ the fundamental value before this month's news (the news has a term of its own
in every belief), p the last close, and e_b the investor's private error, e' = ρ e + σ z.
"""

from __future__ import annotations

from torch import Tensor


def expected_correction(pull: Tensor, mispricing: Tensor, error: Tensor) -> Tensor:
    """Expected log return toward value.

    Args:
        pull: (E, B, 1) share of the gap expected to close in a month.
        mispricing: (E, 1, N) log value before the news less log price.
        error: (E, B, N) private error in log value.
    """
    return pull * (mispricing + error)


def next_error(error: Tensor, persistence: float, innovation: Tensor, normals: Tensor) -> Tensor:
    """Next month's private error (E, B, N), an autoregression; `innovation` (1, B, 1) is the sd of a month's z."""
    return persistence * error + innovation * normals
