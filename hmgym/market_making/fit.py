"""The market maker's model that a recorded book is most like, measured under the rule of fills of its replay."""

from __future__ import annotations

import math

import numpy as np

from hmgym.checks import check_number, integer
from hmgym.market_making.inventory_hjb import InventoryHJB
from hmgym.market_making.quotes import Floats
from hmgym.market_making.replay import BookReplay, fill_shares

DEPTHS = 33
"""Depths that fills are measured at, from mid to four times the book's scale of depths."""
ROWS = 4096
"""Rows at which quotes are posted, equally far apart, at most."""


def fit_model(
    replay: BookReplay,
    *,
    steps: int,
    max_inventory: int,
    running_penalty: float = 0.0,
    terminal_penalty: float = 0.0,
    risk_aversion: float = 0.0,
) -> InventoryHJB:
    """The model whose time is in steps: σ of mid's move in a step, and A e^{−kδ} the share of quotes filled in one.

    Both are measured on the training rows alone. The line ln(share) = ln A − kδ is that of weighted least squares over
    the depths at which anything was filled, weights n p / (1 − p), which is 1 / variance of ln(share). Where fewer than
    two depths were filled, or the line does not fall, 1/k is the book's scale of depths and A what gives the mean share
    seen; where nothing was filled, half a fill counts as seen.

    Args:
        replay: the book and its rule of fills.
        steps: of the horizon.
        max_inventory: Q, lots.
        running_penalty: φ, money / (lot² step).
        terminal_penalty: a, money / lot².
        risk_aversion: γ, 1 / money.

    Raises:
        ValueError: an argument is out of range.
    """
    steps = integer("steps", steps, 1)
    for name, value in (("running_penalty", running_penalty), ("terminal_penalty", terminal_penalty)):
        check_number(name, value, 0.0)
    depths = np.linspace(0.0, 4.0 * replay.scales.depth, DEPTHS)
    first, last = replay.starts("training", 1)
    rows = np.unique(np.linspace(first, last, min(ROWS, last - first + 1)).astype(np.int64))
    rate, decay = fit_fills(depths, fill_shares(replay, depths, rows).mean(1), 2 * rows.size, replay.scales.depth)
    return InventoryHJB(
        volatility=replay.scales.volatility, arrival_rate=rate, depth_decay=decay, horizon=float(steps),
        max_inventory=max_inventory, risk_aversion=risk_aversion, running_penalty=running_penalty,
        terminal_penalty=terminal_penalty,
    )  # fmt: skip


def fit_fills(depths: Floats, shares: Floats, count: int, scale: float) -> tuple[float, float]:
    """A and k of shares ≈ A e^{−kδ}.

    Args:
        depths: (D,) δ, price.
        shares: (D,) in [0, 1].
        count: quotes that a share was measured on.
        scale: 1/k where the shares do not tell, price.
    """
    seen = shares > 0.0
    if seen.sum() >= 2:
        weight = count * shares[seen] / (1.0 - shares[seen] + 1.0 / count)
        x, y = depths[seen], np.log(shares[seen])
        centre, level = np.average(x, weights=weight), np.average(y, weights=weight)
        slope = float(np.sum(weight * (x - centre) * (y - level)) / np.sum(weight * (x - centre) ** 2))
        # A line that falls by less than this over all depths would have them all be one.
        if -slope * (depths[-1] - depths[0]) > 0.1:
            return math.exp(level - slope * centre), -slope
    most = float(shares.sum()) or 0.5 / count
    return most / float(np.exp(-depths / scale).sum()), 1.0 / scale
