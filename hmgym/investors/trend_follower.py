"""Trend followers: they expect the average of recent returns to go on.

gain_b · x_b, with x_b an exponentially weighted average of monthly log returns: x' = x + d_b (return − x), d_b one over
the memory in months. Memories differ between investors.
"""

from __future__ import annotations

from torch import Tensor


def expected_continuation(gain: Tensor, trend: Tensor) -> Tensor:
    """Expected log return from the trend; `gain` (E, B, 1), `trend` (E, B, N)."""
    return gain * trend


def next_trend(trend: Tensor, decay: Tensor, log_return: Tensor) -> Tensor:
    """The average after one more return; `decay` (1, B, 1) a month, `log_return` (E, 1, N)."""
    return trend + decay * (log_return - trend)
