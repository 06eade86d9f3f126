"""Styles of active managers: classes of assets, what a screen bars, and what a manager makes of signals.

Signals are those of `hmgym.investors.signals.SIGNALS`, the last axis. Percentiles run from 0, the lowest of the assets,
to 1, the highest; equals share the mean of their ranks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from hmgym.arrays import Array, is_array, namespace, placed
from hmgym.checks import integer, is_finite_number, shown
from hmgym.investors.signals import SIGNALS

STYLES = ("value", "growth", "blend", "esg")
TRUE_WEIGHTS = (0.2, 0.3, 0.25, 0.25, 0.1)
"""expected return a year that a unit of each signal brings, before it is scaled"""
MOMENTUM_WEIGHTS = (0.6, 0.4, 0.0, 0.0, 0.0)
"""what a momentum fund believes in their place"""
VALUE_CLASS, CORE_CLASS, GROWTH_CLASS = 1, 0, -1
_VALUE, _GROWTH = SIGNALS.index("value"), SIGNALS.index("growth")
_STRONG, _WEAK = 1.5, 0.5


def percentiles(values: Array) -> Array:
    """Ranks (..., N) among the N assets, from 0 to 1; of a single asset ½."""
    xp, count = namespace(values), values.shape[-1]
    below = xp.floats(values[..., None, :] < values[..., :, None]).sum(-1)
    above = xp.floats(values[..., None, :] > values[..., :, None]).sum(-1)
    return 0.5 + 0.5 * (below - above) / max(count - 1, 1)


def classification(signals: Array, threshold: float = 0.3) -> Array:
    """Class of every asset (..., N), int8: `VALUE_CLASS`, `GROWTH_CLASS` or between them `CORE_CLASS`.

    Args:
        signals: (..., N, K).
        threshold: by which the percentile of value must exceed that of growth, or the reverse; in [0, 1].

    Raises:
        ValueError: `threshold` is no such number.
    """
    if not is_finite_number(threshold) or not 0.0 <= threshold <= 1.0:
        raise ValueError(f"`threshold` must be a number in [0, 1], got {shown(threshold)}")
    xp = namespace(signals)
    lead = percentiles(signals[..., _VALUE]) - percentiles(signals[..., _GROWTH])
    # Ranks are multiples of ½/(N − 1); the margin keeps a lead of just the threshold in core whatever rounding does.
    margin = threshold + 1e-9
    return xp.signs(lead > margin) - xp.signs(lead < -margin)


def esg_screen(esg: Array, excluded: int | None = None) -> Array:
    """Assets (..., N), bool, that an ESG fund may hold: those with the highest signal. Of equals the first is held.

    Args:
        esg: (..., N) the signal.
        excluded: how many may not be held; None bars all but a fifth, rounded up.

    Raises:
        ValueError: `excluded` is no such number or leaves no asset.
    """
    count = esg.shape[-1]
    barred = count - math.ceil(count / 5) if excluded is None else integer("excluded", excluded, 0)
    if barred >= count:
        raise ValueError(f"`excluded` must be less than the number of assets, {count}, got {barred}")
    own, other = esg[..., :, None], esg[..., None, :]
    before = torch.ones(count, count, dtype=torch.bool).tril(-1)  # the other stands before
    equal = (other == own) & placed(before, None if is_array(esg) else esg.device)
    ahead = namespace(esg).floats((other > own) | equal).sum(-1)
    held: Array = ahead < count - barred
    return held


def style_multipliers(styles: Sequence[str]) -> NDArray[np.float64]:
    """What each style makes of the weights of signals, (B, K): value and growth favour their own over the other.

    Raises:
        ValueError: a style is not of `STYLES`.
    """
    unknown = [style for style in styles if style not in STYLES]
    if unknown:
        raise ValueError(f"`styles` must be of {', '.join(STYLES)}, got {unknown}")
    table = np.ones((len(styles), len(SIGNALS)))
    for row, style in zip(table, styles, strict=True):
        if style in ("value", "growth"):
            own, other = (_VALUE, _GROWTH) if style == "value" else (_GROWTH, _VALUE)
            row[own], row[other] = _STRONG, _WEAK
    return table


def style_weights(multipliers: Array, weights: Array, spread: Array) -> Array:
    """Weights that managers give to signals (..., B, N, K), or with 1 in place of N.

    Args:
        multipliers: (B, K) of `style_multipliers`.
        weights: (K,) true weights, expected return a year.
        spread: (..., B, N, K), or with 1 in place of N: how much of the truth each believes, about 1.
    """
    return multipliers[:, None] * weights * spread


def private_signals(signals: Array, noise: Array, trust: Array) -> Array:
    """What managers see, (..., N, K): θz + (1 − θ)ẑ for value and growth, the truth for the rest.

    Args:
        signals: (..., N, K) z.
        noise: (..., N, 2) ẑ of value and of growth, each manager's own process.
        trust: (..., N, 2) θ in [0, 1].
    """
    xp = namespace(signals)
    seen = trust * signals[..., _VALUE : _GROWTH + 1] + (1.0 - trust) * noise
    rest = (signals[..., :_VALUE], signals[..., _GROWTH + 1 :])
    before, after = (xp.broadcast_to(part, (*seen.shape[:-1], part.shape[-1])) for part in rest)
    joined: Array = xp.concatenate([before, seen, after], -1)
    return joined


def expected_returns(weights: Array, signals: Array) -> Array:
    """Expected return a year (..., N) beyond interest, from weights and signals (..., N, K)."""
    return (weights * signals).sum(-1)
