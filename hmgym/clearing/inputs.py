"""Reads and checks the inputs of ``clear_market``: shapes at once, values market by market."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hmgym.clearing import kernels
from hmgym.clearing.pools import Pools
from hmgym.clearing.problem import Problem, per_position
from hmgym.clearing.solution import ClearingSolution
from hmgym.clearing.threads import as_array, over_markets

_ARGUMENTS = (
    "beliefs", "risk", "wealth", "short_leverage", "long_leverage", "supply", "orders", "last_prices", "positions",
    "trading_cost",
)  # fmt: skip
_ABSENT = np.zeros((1, 0))
LEAST_SMOOTHING = 1e-30  # less moves no digit of a solution, and its shadow prices leave the range of float64
WEIGHTS_SUM = 1e-9  # by how much the weights of a pool may miss 1
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


class _Values(torch.autograd.Function):
    """Hands out the values of tensors. ``torch.func`` lets go of them only inside of such a function."""

    @staticmethod
    def forward(receive: Callable[[Any], None], *tensors: Tensor) -> Tensor:
        receive(as_array(x.cpu()) for x in tensors)
        return torch.empty(0)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        raise AssertionError("values have no gradient")

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> Any:
        raise ValueError(
            "`clear_market` checks values, which `torch.vmap` hides: stack the markets in the leading dimension E, or "
            "map `hmgym.clearing.clear`, which checks nothing"
        )


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
) -> tuple[Problem, dict[int, str], bool]:
    """The problem, the markets that cannot be cleared with the reason, and whether the arguments were batched."""
    if not isinstance(smoothing, (int, float)) or not 0.0 <= float(smoothing) < float("inf"):
        raise ValueError(f"`smoothing` must be a finite number >= 0, got {smoothing!r}")
    if 0.0 < smoothing < LEAST_SMOOTHING:
        raise ValueError(f"`smoothing` must be 0 or at least {LEAST_SMOOTHING:g}, got {smoothing!r}")
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

    def read_limit(name: str, value: Any) -> Tensor:
        tensor = as_float64(name, value, device)
        if tensor.ndim == len(lead) + 2:
            return read(name, tensor, (B, N + 1))
        return read(name, tensor, (), (B,))

    beliefs = m if batched else m[None]
    inputs: dict[str, Tensor | None] = {
        "beliefs": beliefs,
        "risk": read("risk", risk, (B, N, N)),
        "wealth": read("wealth", wealth, (B,)),
        "short_leverage": read_limit("short_leverage", short_leverage),
        "long_leverage": read_limit("long_leverage", long_leverage),
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
        fallback = torch.exp(beliefs.detach().mean(1))
        warm_start = torch.where(good, prices, fallback)
    reasons, risk = _inadmissible(inputs, float(smoothing))
    problem = Problem.of(**(inputs | {"risk": risk}), start=warm_start)
    return problem, reasons, batched


def _inadmissible(inputs: dict[str, Tensor | None], smoothing: float) -> tuple[dict[int, str], Tensor]:
    """Markets whose values admit no equilibrium, each with what was expected and what came; and risk, symmetric."""
    beliefs, risk = inputs["beliefs"], inputs["risk"]
    assert beliefs is not None
    assert risk is not None
    E, B, N = beliefs.shape
    limits = {name: inputs[name] for name in ("short_leverage", "long_leverage")}
    if any(x is not None and x.ndim == 3 for x in limits.values()):
        limits = {name: None if x is None else per_position(x, N + 1) for name, x in limits.items()}
    given = {name: x for name in _ARGUMENTS if (x := (inputs | limits)[name]) is not None}
    values: list[np.ndarray[Any, Any]] = []
    if torch._C._are_functorch_transforms_active():
        _Values.apply(values.extend, *given.values())  # type: ignore[no-untyped-call]
    else:
        values.extend(as_array(x.cpu()) for x in given.values())
    read = {name: x.reshape(E, -1) for name, x in zip(given, values, strict=True)}
    arrays = tuple(read.get(name, _ABSENT.repeat(E, 0)) for name in _ARGUMENTS)
    least = 1.0 / (N + 1)
    reason, found = np.zeros(E, np.int64), np.zeros(E)
    over_markets(kernels.examine_markets, E, B, N, arrays, least, smoothing > 0.0, SYMMETRY, reason, found)
    matrices = arrays[1].reshape(E, B, N, N)
    # Compared by numpy: torch would start threads for it, which then spin on the cores that clearing needs.
    if not np.array_equal(matrices, matrices.swapaxes(-1, -2)):
        risk = 0.5 * (risk + risk.mT)
    sign = ">" if smoothing else ">="
    expected = {
        kernels.SHORT: "`short_leverage` must be >= 0, got {:.6g}",
        kernels.LONG: f"`long_leverage` must be {sign} 1/(N+1) = {least:.6g}, got {{:.6g}}",
        kernels.CROSSED: f"`long_leverage` must be {sign} -`short_leverage` everywhere, got {{:.6g}} as their sum",
        kernels.LOWER_SUM: f"`short_leverage` must sum to {sign} -1 over an investor's positions, got {{:.6g}}",
        kernels.UPPER_SUM: f"`long_leverage` must sum to {sign} 1 over an investor's positions, got {{:.6g}}",
        kernels.UNWANTED: "`long_leverage` must let investors hold some of every asset, got {:.6g} of money at most",
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
    return reasons, risk


def pool_inputs(pools: Any, problem: Problem, batched: bool) -> tuple[Pools, dict[int, str]]:
    """Pools as batched tensors, and the markets whose pools are not admissible with the reason.

    Raises:
        ValueError: `pools` is none, or of another shape or device.
    """
    if not isinstance(pools, Pools):
        raise ValueError(f"`pools` must be Pools or None, got {type(pools).__name__}")
    E, _, N = problem.beliefs.shape
    read: dict[str, Tensor] = {}
    for name in ("weights", "reserves"):
        x = as_float64(f"pools.{name}", getattr(pools, name), problem.beliefs.device)
        lead = (E,) if batched else ()
        if x.ndim != len(lead) + 2 or tuple(x.shape[: len(lead)]) != lead or x.shape[-1] != N + 1 or 0 in x.shape:
            raise ValueError(f"`pools.{name}` must have shape {(*lead, 'K', N + 1)}, got {tuple(x.shape)}")
        if x.device != problem.beliefs.device:
            raise ValueError(f"`pools.{name}` must be on {problem.beliefs.device} as `beliefs` is, got {x.device}")
        read[name] = x if batched else x[None]
    weights, reserves = read["weights"], read["reserves"]
    if weights.shape != reserves.shape:
        shapes = tuple(weights.shape[-2:]), tuple(reserves.shape[-2:])
        raise ValueError(f"`pools.reserves` must have the shape of `pools.weights`, {shapes[0]}, got {shapes[1]}")
    reasons: dict[int, str] = {}
    for name, x in read.items():
        low = x.detach().amin((-1, -2)).cpu()
        for e in torch.nonzero(~((low > 0.0) & torch.isfinite(x.detach().sum((-1, -2)).cpu())))[:, 0].tolist():
            reasons.setdefault(e, f"`pools.{name}` must be finite and > 0, got {float(low[e]):.6g}")
    total = weights.detach().sum(-1)
    for e in torch.nonzero((total - 1.0).abs().amax(-1) > WEIGHTS_SUM)[:, 0].tolist():
        worst = total[e][(total[e] - 1.0).abs().argmax()]
        reasons.setdefault(e, f"`pools.weights` must sum to 1 over a pool's positions, got {float(worst):.9g}")
    return Pools(weights=weights, reserves=reserves), reasons
