"""Reads and checks the inputs of ``clear_market``: shapes at once, values market by market."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hmgym.clearing.solution import ClearingSolution

SYMMETRY = 1e-8  # largest asymmetry of a risk matrix, relative to its largest entry


def as_float64(name: str, value: Any, device: torch.device | None = None) -> Tensor:
    """``value`` as a float64 tensor (its graph kept), or a ValueError that names it."""
    if isinstance(value, Tensor):
        if value.is_complex() or value.dtype == torch.bool:
            raise ValueError(f"`{name}` must hold real numbers, got dtype {value.dtype}")
        return value.to(torch.float64)
    try:
        return torch.as_tensor(value, dtype=torch.float64, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"`{name}` must be an array of numbers, got {type(value).__name__}: {error}") from error


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
    """Markets whose values admit no equilibrium, each with what was expected and what came."""
    values = {name: x.detach() for name, x in inputs.items() if x is not None}
    reasons: dict[int, str] = {}

    def require(good: Tensor, name: str, expected: str, shown: Tensor | None = None) -> None:
        """Every entry of market e must be good; the message shows the first one that is not."""
        shown = values[name] if shown is None else shown
        flat = good.reshape(good.shape[0], -1)
        for e in torch.nonzero(~flat.all(1))[:, 0].tolist():
            where = int(torch.nonzero(~flat[e])[0, 0])
            got = shown.reshape(shown.shape[0], flat.shape[1], -1)[e, where]
            text = f"{got.item():.6g}" if got.numel() == 1 else f"{got.tolist()}"
            reasons.setdefault(e, f"`{name}` must be {expected}, got {text}")

    for name, x in values.items():
        require(torch.isfinite(x), name, "finite")
    N = values["beliefs"].shape[2]
    short, long, risk = values["short_leverage"], values["long_leverage"], values["risk"]
    require(short >= 0, "short_leverage", ">= 0")
    least = 1.0 / (N + 1)
    if smoothing > 0.0:
        require(long > least, "long_leverage", f"> 1/(N+1) = {least:.6g} with `smoothing`")
    else:
        require(long >= least * (1 - 1e-12), "long_leverage", f">= 1/(N+1) = {least:.6g}")
    require(values["supply"] > 0, "supply", "> 0")
    if "last_prices" in values:
        require(values["last_prices"] > 0, "last_prices", "> 0")
    if "trading_cost" in values:
        require(values["trading_cost"] >= 0, "trading_cost", ">= 0")
    largest = risk.abs().amax((-2, -1))
    asymmetry = (risk - risk.mT).abs().amax((-2, -1))
    require(~(asymmetry > SYMMETRY * largest), "risk", f"symmetric to {SYMMETRY:g} of its largest entry", asymmetry)
    if not torch.equal(inputs["risk"].detach(), inputs["risk"].detach().mT):
        inputs["risk"] = 0.5 * (inputs["risk"] + inputs["risk"].mT)
    safe = torch.where(torch.isfinite(risk), risk, torch.zeros_like(risk))
    _, info = torch.linalg.cholesky_ex(0.5 * (safe + safe.mT))
    if bool((info != 0).any()):
        least_eigenvalue = torch.linalg.eigvalsh(0.5 * (safe + safe.mT))[..., 0]
        require(info == 0, "risk", "positive definite", least_eigenvalue)
    rich = values["wealth"].clamp(min=0.0)
    orders = values.get("orders")
    total = torch.zeros_like(values["supply"]) if orders is None else orders
    room = _buying_power_left(rich, short, long, total)
    if orders is None:
        require(room > 0, "wealth", "> 0 for at least one investor", rich.sum(1, keepdim=True).expand_as(room))
    else:
        require(room > 0, "orders", "such that sell orders do not exceed buying power", -room)
    return reasons


def _buying_power_left(wealth: Tensor, short: Tensor, long: Tensor, orders: Tensor) -> Tensor:
    """``sum_b W_b min(k long_b, 1 + short_b (N+1-k)) + (the k smallest orders)`` for k = 1..N: an equilibrium exists
    if and only if all of them are > 0."""
    N = orders.shape[1]
    k = torch.arange(1, N + 1, dtype=wealth.dtype, device=wealth.device)
    most = torch.minimum(k * long[..., None], 1.0 + short[..., None] * (N + 1 - k))
    return (wealth[..., None] * most).sum(1) + orders.sort(dim=1).values.cumsum(1)
