"""The rule: from smoothed trends of prices to changes of weights that sum to zero.

With e₀ = p₀ and a₀ = 0, each price moves e by (1−λ)(p − e) and makes a = λa + (p − e)/(1−λ), with the new e. The trend
is g = a/(be), b = λ/(1−λ)³: on a straight line of prices g·e tends to its slope. The signal sgn(g)|g/2s|^q becomes

    Δw = k (signal − Σ k·signal / Σ k).

Source: the power-channel rule of QuantAMM's public simulator, whose names docs/pools.md maps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hmgym.checks import shown
from hmgym.pools.operators import Trend, price_rows, rows
from hmgym.pools.parameters import Real, common_shape, tensor_of


def price_trend(prices: Tensor, decay: Real, denominator_decay: Real | None = None) -> Tensor:
    """Trends g of prices, relative changes a chunk.

    Args:
        prices: (M, N) or (…, M, N) at the starts of chunks, > 0; M ≥ 1.
        decay: (…, N) or scalar λ a chunk, in [0, 1].
        denominator_decay: likewise, of the average that a/b is divided by; None is e itself.

    Returns:
        (…, M−1, N): row m − 1 is known when the price of row m is.

    Raises:
        ValueError: an argument is none of these.
    """
    prices = read_prices("prices", prices)
    own = _decay("decay", decay)
    below = None if denominator_decay is None else _decay("denominator_decay", denominator_decay)
    shapes = [prices.shape[:-2] + prices.shape[-1:], own.shape, *([] if below is None else [below.shape])]
    try:
        *lead, assets = common_shape(*shapes)
    except RuntimeError as error:
        expected = f"a shape that broadcasts with that of prices without time, {tuple(shapes[0])}"
        raise ValueError(f"`decay` must have {expected}, got {tuple(own.shape)}") from error
    if assets != prices.shape[-1]:
        raise ValueError(f"`decay` must be of {prices.shape[-1]} assets as prices are, got {tuple(own.shape)}")
    flat = [None if each is None else rows(each.expand(*lead, assets), lead, 1) for each in (own, below)]
    trend: Tensor = Trend.apply(price_rows(prices, lead), *flat)  # type: ignore[no-untyped-call]
    return trend.reshape(*lead, *trend.shape[1:])


def weight_changes(trend: Real, k: Real, exponents: Real, pre_scaling: Real) -> Tensor:
    """Δw = k (signal − Σ k·signal / Σ k) with signal sgn(g)|g/2s|^q; they sum to zero.

    Where all k are 0 so are the changes, and the mean of signals is the plain one: gradients are finite.

    Args:
        trend: (…, M, N) g.
        k: (…, N) or scalar, ≥ 0, weight a unit of signal.
        exponents: likewise, q > 0; below 1 the slope at no trend is infinite, and 0 stands for it.
        pre_scaling: likewise, s > 0.

    Returns:
        (…, M, N).

    Raises:
        ValueError: an argument is none of these.
    """
    g = tensor_of("trend", trend)
    if g.ndim < 2:
        raise ValueError(f"`trend` must have shape (..., M, N), got {tuple(g.shape)}")
    each = {"k": k, "exponents": exponents, "pre_scaling": pre_scaling}
    given = {name: tensor_of(name, value) for name, value in each.items()}
    holds = {"k": given["k"] >= 0.0, "exponents": given["exponents"] > 0.0, "pre_scaling": given["pre_scaling"] > 0.0}
    for name, bound in (("k", ">= 0"), ("exponents", "> 0"), ("pre_scaling", "> 0")):
        if not bool(holds[name].all()):
            raise ValueError(f"`{name}` must be {bound}, got {shown(given[name].tolist())}")
    k, q, s = (_over_time(found, g) for found in given.values())
    x = g / (2.0 * s)
    still = x == 0.0
    power = torch.where(still, torch.ones_like(x), x.abs()) ** (q - 1.0)
    # x·|x|^(q−1) has a slope at 0: 1 where q = 1 and 0 above.
    signal = x * torch.where(still, (q == 1.0).to(x.dtype).expand_as(x), power)
    total = k.sum(-1, keepdim=True)
    none = total == 0.0
    share = torch.where(
        none, torch.full_like(k, 1.0 / k.shape[-1]), k / torch.where(none, torch.ones_like(total), total)
    )
    return k * (signal - (share * signal).sum(-1, keepdim=True))


def read_prices(name: str, prices: Tensor, least: int = 1, checked: bool = True) -> Tensor:
    """Prices (…, T, N) as float64; whether they are positive is left open where not `checked`.

    Raises:
        ValueError: they are none.
    """
    found = tensor_of(name, prices)
    if found.ndim < 2 or found.shape[-2] < least or found.shape[-1] < 1:
        expected = f"shape (T, N) or (..., T, N) with T >= {least}"
        raise ValueError(f"`{name}` must have {expected}, got {tuple(found.shape)}")
    if checked:
        check_positive(name, found)
    return found


def check_positive(name: str, found: Tensor) -> None:
    """Check that all numbers are positive and finite.

    Raises:
        ValueError: one is not; names it.
    """
    low, high = (float(bound) for bound in torch.aminmax(found.detach())) if found.numel() else (1.0, 1.0)
    if not (low > 0.0 and high < float("inf")):
        raise ValueError(f"`{name}` must be positive and finite, got {low if not low > 0.0 else high}")


def _decay(name: str, value: Real) -> Tensor:
    found = tensor_of(name, value)
    if not bool(((found >= 0.0) & (found <= 1.0)).all()):
        raise ValueError(f"`{name}` must be in [0, 1], got {shown(found.tolist())}")
    return found if found.ndim else found[None]


def _over_time(parameter: Tensor, trend: Tensor) -> Tensor:
    """(…, N) as (…, 1, N), of as many assets as the trend has."""
    assets = trend.shape[-1]
    if parameter.ndim and parameter.shape[-1] not in (1, assets):
        raise ValueError(f"parameters must be of {assets} assets as `trend` is, got shape {tuple(parameter.shape)}")
    spread = parameter.expand(*parameter.shape[:-1], assets)
    return spread.unsqueeze(-2)
