"""Reads and checks the inputs of ``clear_market``: shapes at once, values market by market."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hmgym.clearing import kernels
from hmgym.clearing.solution import ClearingSolution
from hmgym.clearing.threads import as_array, over_markets

_ARGUMENTS = (
    "beliefs", "risk", "wealth", "short_leverage", "long_leverage", "supply", "orders", "last_prices", "positions",
    "trading_cost",
)  # fmt: skip
_ABSENT = np.zeros((1, 0))
SYMMETRY = 1e-8  # largest asymmetry of a risk matrix, relative to its largest entry


def as_float64(name: str, value: Any, device: torch.device | None = None) -> Tensor:
    """``value`` as a float64 tensor (its graph kept), or a ValueError that names it."""
    if isinstance(value, Tensor):
        if value.layout != torch.strided:
            raise ValueError(f"`{name}` must be a dense array of numbers, got layout {value.layout}")
        if value.is_complex() or value.dtype == torch.bool:
            raise ValueError(f"`{name}` must hold real numbers, got dtype {value.dtype}")
        return value.to(torch.float64)
    if isinstance(value, np.ma.MaskedArray):
        raise ValueError(f"`{name}` must be an array of numbers without a mask, got {type(value).__name__}")
    if isinstance(value, (list, tuple)) and any(isinstance(x, Tensor) for x in value):
        value = [as_float64(name, x, device) for x in value]
        try:
            return torch.stack(value)
        except RuntimeError as error:
            raise ValueError(f"`{name}` must be an array of numbers, got rows that differ: {error}") from error
    try:
        array = np.asarray(value)
        if array.dtype == object:
            array.astype(np.float64)  # says which numbers do not fit
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"`{name}` must be an array of numbers, got {type(value).__name__}: {error}") from error
    if array.dtype.kind in "bc":
        raise ValueError(f"`{name}` must hold real numbers, got dtype {array.dtype}")
    if array.dtype.kind not in "iuf":
        raise ValueError(f"`{name}` must be an array of numbers, got {type(value).__name__} of dtype {array.dtype}")
    array = array.astype(np.float64, copy=False)
    if not array.flags.writeable or any(step < 0 for step in array.strides):
        array = array.copy()  # what torch does not take
    return torch.as_tensor(array, device=device)


def expand(name: str, value: Tensor, *shapes: tuple[int, ...]) -> Tensor:
    """``value`` expanded from the first of ``shapes`` it has to the last of them, which is the full one."""
    full = shapes[-1]
    for shape in shapes:
        if tuple(value.shape) == shape:
            return value.reshape(shape + (1,) * (len(full) - len(shape))).expand(full)
    allowed = " or ".join(str(shape) for shape in shapes)
    raise ValueError(f"`{name}` must have shape {allowed}, got {tuple(value.shape)}")


def market_inputs(
    beliefs: Any,
    risk: Any,
    wealth: Any,
    short_leverage: Any,
    long_leverage: Any,
    supply: Any,
    orders: Any,
    last_prices: Any,
    positions: Any,
    trading_cost: Any,
    smoothing: float,
    warm_start: Any,
) -> tuple[dict[str, Any], dict[int, str], bool]:
    """The arguments of ``clear_unchecked``, the markets that cannot be cleared with the reason, and whether batched."""
    if not isinstance(smoothing, (int, float)) or not 0.0 <= float(smoothing) < float("inf"):
        raise ValueError(f"`smoothing` must be a finite number >= 0, got {smoothing!r}")
    if trading_cost is not None and (last_prices is None or positions is None):
        missing = "last_prices" if last_prices is None else "positions"
        raise ValueError(f"`{missing}` must be given with `trading_cost`, got None")
    m = as_float64("beliefs", beliefs)
    if m.ndim not in (2, 3) or 0 in m.shape:
        raise ValueError(f"`beliefs` must have shape (E, B, N) or (B, N), all >= 1, got {tuple(m.shape)}")
    device = m.device
    batched = m.ndim == 3
    B, N = m.shape[-2:]
    lead = (m.shape[0],) if batched else ()

    def read(name: str, value: Any, *shapes: tuple[int, ...]) -> Tensor:
        tensor = as_float64(name, value, device)
        if tensor.device != device:
            raise ValueError(f"`{name}` must be on {device} as `beliefs` is, got {tensor.device}")
        tensor = expand(name, tensor, *(shape if shape == () else lead + shape for shape in shapes))
        return tensor if batched else tensor[None]

    inputs: dict[str, Any] = {
        "beliefs": m if batched else m[None],
        "risk": read("risk", risk, (B, N, N)),
        "wealth": read("wealth", wealth, (B,)),
        "short_leverage": read("short_leverage", short_leverage, (), (B,)),
        "long_leverage": read("long_leverage", long_leverage, (), (B,)),
        "supply": read("supply", supply, (N,)),
        "orders": None if orders is None else read("orders", orders, (N,)),
        "last_prices": None if last_prices is None else read("last_prices", last_prices, (N,)),
        "positions": None if positions is None else read("positions", positions, (B, N)),
        "trading_cost": None if trading_cost is None else read("trading_cost", trading_cost, (), (B,), (B, N)),
    }
    if isinstance(warm_start, ClearingSolution):
        warm_start = warm_start.prices
    if warm_start is not None:
        prices = read("warm_start", warm_start, (N,)).detach()
        # A failed market's solution is NaN: no place to start from, but no error either.
        good = torch.isfinite(prices) & (prices > 0)
        fallback = torch.exp(inputs["beliefs"].detach().mean(1))
        warm_start = torch.where(good, prices, fallback)
    inputs["warm_start"] = warm_start
    return inputs, _inadmissible(inputs, float(smoothing)), batched


def _inadmissible(inputs: dict[str, Any], smoothing: float) -> dict[int, str]:
    """Markets whose values admit no equilibrium, each with what was expected and what came. Makes risk symmetric."""
    E, B, N = inputs["beliefs"].shape
    arrays = tuple(
        _ABSENT.repeat(E, 0) if inputs[name] is None else as_array(inputs[name].cpu()).reshape(E, -1)
        for name in _ARGUMENTS
    )
    least = 1.0 / (N + 1)
    reason, found = np.zeros(E, np.int64), np.zeros(E)
    over_markets(kernels.examine_markets, E, B, N, arrays, least, smoothing > 0.0, SYMMETRY, reason, found)
    matrices = arrays[1].reshape(E, B, N, N)
    # Compared by numpy: torch would start threads for it, which then spin on the cores that clearing needs.
    if not np.array_equal(matrices, matrices.swapaxes(-1, -2)):
        inputs["risk"] = 0.5 * (inputs["risk"] + inputs["risk"].mT)
    sign = ">" if smoothing else ">="
    expected = {
        kernels.SHORT: "`short_leverage` must be >= 0, got {:.6g}",
        kernels.LONG: f"`long_leverage` must be {sign} 1/(N+1) = {least:.6g}, got {{:.6g}}",
        kernels.SUPPLY: "`supply` must be > 0, got {:.6g}",
        kernels.LAST_PRICES: "`last_prices` must be > 0, got {:.6g}",
        kernels.COST: "`trading_cost` must be >= 0, got {:.6g}",
        kernels.SYMMETRIC: f"`risk` must be symmetric to {SYMMETRY:g} of its largest entry, got asymmetry {{:.6g}}",
        kernels.DEFINITE: "`risk` must be positive definite, got least eigenvalue {:.6g}",
        kernels.WEALTH: "`wealth` must be > 0 for at least one investor, got buying power {:.6g}",
        kernels.ORDERS: "`orders` must be such that sell orders do not exceed buying power, got an excess of {:.6g}",
    }
    reasons: dict[int, str] = {}
    for e in np.flatnonzero(reason).tolist():
        why, what = int(reason[e]), float(found[e])
        if why >= kernels.FINITE:
            reasons[e] = f"`{_ARGUMENTS[why - kernels.FINITE]}` must be finite, got {what}"
            continue
        if why == kernels.DEFINITE:  # found is the investor
            matrix = matrices[e, int(what)]
            what = float(np.linalg.eigvalsh(0.5 * (matrix + matrix.T))[0])
        reasons[e] = expected[why].format(what)
    return reasons
