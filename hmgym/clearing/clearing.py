"""``clear_market``: one vector of prices at which the demand of all investors meets supply, with exact gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hmgym.clearing import kernels, smooth_kernels
from hmgym.clearing.adjoint import pull_back
from hmgym.clearing.batched import clear_batched
from hmgym.clearing.inputs import market_inputs
from hmgym.clearing.solution import ClearingError, ClearingSolution
from hmgym.clearing.threads import as_array, over_markets

_NONE = np.zeros((1, 1, 1))  # what the kernel gets for a reference and a cost that are not there
_SNAP = 1e-13  # the torch path's positions this close to a limit stand at it


def clear_market(
    beliefs: Any,
    risk: Any,
    wealth: Any,
    short_leverage: Any,
    long_leverage: Any,
    supply: Any,
    *,
    orders: Any = None,
    last_prices: Any = None,
    positions: Any = None,
    trading_cost: Any = None,
    smoothing: float = 0.0,
    warm_start: ClearingSolution | Tensor | None = None,
    errors: str = "raise",
    backend: str = "auto",
) -> ClearingSolution:
    """Find the prices at which investors with log-price beliefs hold exactly what is supplied.

    Investor b holds ``w_b = argmax r'w - w'G_b w - sum_i c_bi |w_i - w_prev,bi|`` over ``sum w = 1``,
    ``-short <= w_i <= long`` (cash included, ``r_0 = 0``), with ``r_b = beliefs_b - log p``. Prices solve

        sum_b W_b w_bi + D_i = S_i p_i,

    the stationarity condition of one strictly convex function: the equilibrium is unique, and exists whenever buying
    power exceeds the sell orders (``docs/clearing.md``).

    Args:
        beliefs: ``(E, B, N)`` expected log price of the next period.
        risk: ``(E, B, N, N)`` matrix G, half the risk aversion times the covariance of the period's returns; symmetric
            positive definite.
        wealth: ``(E, B)`` money, marked before the trade. An investor with wealth <= 0 demands nothing.
        short_leverage: ``(E, B)`` or scalar, >= 0: no position, cash included, is below ``-short_leverage``.
        long_leverage: ``(E, B)`` or scalar, >= 1/(N+1): no position, cash included, is above ``long_leverage``.
        supply: ``(E, N)`` shares, > 0.
        orders: ``(E, N)`` money orders that do not react to price; > 0 buys.
        last_prices: ``(E, N)`` last closes; needed with ``trading_cost``, else only a place to start from.
        positions: ``(E, B, N)`` shares held before the trade; needed with ``trading_cost``.
        trading_cost: fraction of the money traded, scalar, ``(E, B)`` or ``(E, B, N)``; charged on
            ``|w_i - w_prev,i|`` with ``w_prev = last_prices * positions / wealth``.
        smoothing: tau >= 0. With tau > 0 every investor's objective gains
            ``tau_b sum_i log(w_i + short) + tau_b sum_i log(long - w_i)``, ``tau_b = tau tr(G_b)/N``: demand is smooth
            and a limit that does not bind still has a gradient.
        warm_start: an earlier solution, or prices ``(E, N)``, near this one. Saves time, changes nothing else.
        errors: "raise" raises ``ClearingError`` if any market cannot be cleared; "mark" returns the solution with
            NaN and ``converged=False`` in its row.
        backend: "kernel" (compiled, CPU), "torch" (any device), or "auto": the kernel on the CPU, and torch elsewhere
            and for a market on which the kernel gave up. With ``smoothing`` the kernel is another one; it too is only
            there for the CPU, and second derivatives are taken in torch whatever the backend.

    Returns:
        A ``ClearingSolution``. Unbatched inputs ``(B, ...)`` give an unbatched solution. Gradients flow from prices,
        weights and holdings to every input; at a kink they are those of the active set that the solution has, and a
        market that was not cleared has none. They are of first order (of any order with ``smoothing``).

    Raises:
        ValueError: a shape, dtype or option is wrong.
        ClearingError: with ``errors="raise"``, some market's values are not admissible or it was not cleared.
    """
    if errors not in ("raise", "mark"):
        raise ValueError(f'`errors` must be "raise" or "mark", got {errors!r}')
    if backend not in ("auto", "kernel", "torch"):
        raise ValueError(f'`backend` must be "auto", "kernel" or "torch", got {backend!r}')
    inputs, reasons, batched = market_inputs(
        beliefs, risk, wealth, short_leverage, long_leverage, supply, orders, last_prices, positions, trading_cost,
        smoothing, warm_start,
    )  # fmt: skip
    if backend == "kernel" and inputs["beliefs"].device.type != "cpu":
        raise ValueError(f'`backend="kernel"` needs CPU tensors, got {inputs["beliefs"].device}')
    solution = clear_unchecked(**inputs, smoothing=smoothing, backend=backend, rejected=sorted(reasons))
    if not bool(solution.converged.all()):
        for market in torch.nonzero(~solution.converged)[:, 0].tolist():
            reasons.setdefault(market, f"not converged after {int(solution.iterations[market])} iterations")
    solution = _reported(solution, dict(sorted(reasons.items())), batched)
    if reasons and errors == "raise":
        raise ClearingError(solution.reasons, solution, inputs["beliefs"].shape[0])
    return solution


def clear_unchecked(
    beliefs: Tensor,
    risk: Tensor,
    wealth: Tensor,
    short_leverage: Tensor,
    long_leverage: Tensor,
    supply: Tensor,
    *,
    orders: Tensor | None = None,
    last_prices: Tensor | None = None,
    positions: Tensor | None = None,
    trading_cost: Tensor | None = None,
    smoothing: float = 0.0,
    warm_start: Tensor | None = None,
    backend: str = "auto",
    rejected: list[int] | None = None,
) -> ClearingSolution:
    """``clear_market`` for inputs known to be good: float64 tensors of full shape on one device. Never raises.

    ``warm_start`` are prices ``(E, N)``; markets listed in ``rejected`` are passed over and marked as not converged.
    """
    if orders is None:
        orders = torch.zeros_like(supply)
    reference = None
    if trading_cost is not None:
        assert last_prices is not None
        assert positions is not None
        money = last_prices[:, None] * positions
        reference = money / torch.where(wealth > 0, wealth, torch.ones_like(wealth))[..., None]
    base = warm_start if warm_start is not None else last_prices
    settings = (None if base is None else base.detach(), float(smoothing), backend, rejected or [])
    tensors = (beliefs, risk, wealth, short_leverage, long_leverage, supply, orders, reference, trading_cost)
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors):
        prices, weights, holdings, *rest = _Clearing.apply(settings, *tensors)  # type: ignore[no-untyped-call]
    else:
        prices, weights, holdings, *rest = _solve(settings, *tensors)
    residual, iterations, converged, _ = rest
    return ClearingSolution(
        prices=prices,
        weights=weights,
        holdings=holdings,
        converged=converged,
        residual=residual,
        iterations=iterations,
        short_leverage=short_leverage.detach(),
        long_leverage=long_leverage.detach(),
    )


def _solve(
    settings: tuple[Tensor | None, float, str, list[int]],
    beliefs: Tensor,
    risk: Tensor,
    wealth: Tensor,
    short_leverage: Tensor,
    long_leverage: Tensor,
    supply: Tensor,
    orders: Tensor,
    reference: Tensor | None,
    cost: Tensor | None,
) -> tuple[Tensor, ...]:
    """Prices, weights, holdings, residual, iterations, converged and states: the values, without a graph."""
    base, smoothing, backend, rejected = settings
    E, B, N = beliefs.shape
    if backend == "torch" or beliefs.device.type != "cpu":
        return _solve_with_torch(
            settings, beliefs, risk, wealth, short_leverage, long_leverage, supply, orders, reference, cost
        )
    if base is None:
        rich = wealth.detach().clamp(min=0.0)
        mean = (rich[..., None] * beliefs.detach()).sum(1) / rich.sum(1, keepdim=True)
        base = torch.exp(mean)
    costly = cost is not None
    prices, weights = np.empty((E, N)), np.empty((E, B, N + 1))
    residual, iterations, status = np.empty(E), np.zeros(E, np.int64), np.zeros(E, np.int64)
    status[rejected] = kernels.REJECTED
    problem = (
        *(as_array(x) for x in (beliefs, risk, wealth, short_leverage, long_leverage, supply, orders)),
        costly, _NONE if reference is None else as_array(reference), _NONE if cost is None else as_array(cost),
        as_array(base),
    )  # fmt: skip
    state = np.full((E, B, N + 1), kernels.BELOW, np.int8)  # smoothed positions are all free
    if smoothing > 0.0:
        over_markets(
            smooth_kernels.clear_markets, E, B, smoothing, *problem, prices, weights, residual, iterations, status
        )
    else:
        over_markets(kernels.clear_markets, E, B, *problem, prices, weights, state, residual, iterations, status)
    failed = np.flatnonzero((status != kernels.CLEARED) & (status != kernels.REJECTED))
    out_prices, out_weights = torch.from_numpy(prices), torch.from_numpy(weights)
    out_residual, out_state = torch.from_numpy(residual), torch.from_numpy(state)
    converged = torch.from_numpy(status == kernels.CLEARED)
    if failed.size and backend == "auto":
        # The last resort: code that shares nothing with the kernel, on the failed markets alone.
        rows = torch.from_numpy(failed)
        again = _solve_with_torch(
            (base[rows], smoothing, backend, []),
            beliefs[rows], risk[rows], wealth[rows], short_leverage[rows], long_leverage[rows], supply[rows],
            orders[rows],
            None if reference is None else reference[rows],
            None if cost is None else cost[rows],
        )  # fmt: skip
        out_prices[rows], out_weights[rows], out_residual[rows] = again[0], again[1], again[3]
        converged[rows], out_state[rows] = again[5], again[6]
    holdings = torch.from_numpy(np.maximum(as_array(wealth), 0.0)[..., None] * weights[..., 1:] / prices[:, None])
    return out_prices, out_weights, holdings, out_residual, torch.from_numpy(iterations), converged, out_state


def _solve_with_torch(
    settings: tuple[Tensor | None, float, str, list[int]],
    beliefs: Tensor,
    risk: Tensor,
    wealth: Tensor,
    short_leverage: Tensor,
    long_leverage: Tensor,
    supply: Tensor,
    orders: Tensor,
    reference: Tensor | None,
    cost: Tensor | None,
) -> tuple[Tensor, ...]:
    """``_solve`` by the batched torch path, on any device."""
    base, smoothing, _, rejected = settings
    with torch.no_grad():
        prices, weights, residual, converged, iterations = clear_batched(
            beliefs, risk, wealth, short_leverage, long_leverage, supply, orders, base, reference, cost, smoothing
        )
        prices, weights = prices.clone(), weights.clone()
        if rejected:
            converged = converged.clone()
            converged[rejected] = False
        prices[~converged] = torch.nan
        weights[~converged] = torch.nan
        state = torch.full(weights.shape, kernels.BELOW, dtype=torch.int8, device=weights.device)
        if smoothing == 0.0:
            for limit, at_limit in ((-short_leverage, kernels.AT_LOWER), (long_leverage, kernels.AT_UPPER)):
                near = (weights - limit[..., None]).abs() <= _SNAP
                weights = torch.where(near, limit[..., None], weights)
                state[near] = at_limit
            if reference is not None and cost is not None:
                risky = state[..., 1:]
                near = ((weights[..., 1:] - reference).abs() <= _SNAP) & (cost > 0) & (risky & 1).bool()
                weights[..., 1:] = torch.where(near, reference, weights[..., 1:])
                risky[near] = kernels.AT_REFERENCE
            # Where limits leave a single corner the budget still needs one position that may move.
            stuck = ~(state & 1).bool().any(-1)
            state[stuck, weights[stuck].argmax(-1)] = kernels.BELOW
        state[wealth <= 0] = kernels.AT_REFERENCE
        holdings = wealth.clamp(min=0.0)[..., None] * weights[..., 1:] / prices[:, None]
    return prices, weights, holdings, residual, iterations, converged, state


class _Clearing(torch.autograd.Function):
    """``_solve`` with its adjoint (``docs/clearing.md``)."""

    @staticmethod
    def forward(ctx: Any, settings: Any, *tensors: Tensor | None) -> Any:
        out = _solve(settings, *tensors)  # type: ignore[arg-type]
        prices, weights, _, *others, state = out
        ctx.smoothing = settings[1]
        ctx.save_for_backward(*tensors, prices, weights, state)
        ctx.mark_non_differentiable(*others, state)
        return out

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        if ctx.smoothing == 0.0 and torch.is_grad_enabled():
            raise RuntimeError(
                "`clear_market` has second derivatives only with `smoothing` > 0, got `create_graph=True`"
            )
        *tensors, prices, weights, state = ctx.saved_tensors
        return (None, *pull_back(ctx.smoothing, tensors, prices, weights, state, *cotangents[:3]))


def _reported(solution: ClearingSolution, reasons: dict[int, str], batched: bool) -> ClearingSolution:
    """The solution with its reasons, in the shape of the call."""
    tensors = {name: value for name, value in vars(solution).items() if name != "reasons"}
    if not batched:
        tensors = {name: value[0] for name, value in tensors.items()}
    return ClearingSolution(**tensors, reasons=reasons)
