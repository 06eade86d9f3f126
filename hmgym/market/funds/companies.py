"""Companies: what they pay out, so that none becomes the market.

A share's dividend is its value times the yield plus c (log v − mean log v), the mean over all assets: companies that
have grown beyond the others pay more out, and those that are left behind ask their holders for capital. What is paid
out no longer grows: next month's news is lower by the same part. So expected returns are alike, and values stay of one
order.
"""

from __future__ import annotations

from hmgym.arrays import Array


def extra_payout(log_value: Array, reversion: float) -> Array:
    """c (log v − mean log v) (..., N), of value a month.

    Args:
        log_value: (..., N).
        reversion: c.
    """
    payout: Array = reversion * (log_value - log_value.mean(-1)[..., None])
    return payout
