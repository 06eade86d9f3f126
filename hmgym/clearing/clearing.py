"""``clear_market``: one vector of prices at which the demand of all investors meets supply, with exact gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hmgym.arrays import is_array, to_numpy, to_torch
from hmgym.clearing.differentiable import differentiable_solve
from hmgym.clearing.inputs import market_inputs, pool_inputs
from hmgym.clearing.memory import PortfolioMemory
from hmgym.clearing.pools import Pools, PoolTrade, solve_with_pools
from hmgym.clearing.problem import Problem
from hmgym.clearing.solution import ClearingError, ClearingSolution
from hmgym.clearing.solve import Options, Solved, solve


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
    pools: Pools | None = None,
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
        short_leverage: ``(E, B)`` or scalar, >= 0: no position, cash included, is below ``-short_leverage``. Or
            ``(E, B, N+1)``, one for every position, cash first, where a negative one is a least holding.
        long_leverage: ``(E, B)`` or scalar, >= 1/(N+1): no position, cash included, is above ``long_leverage``. Or
            ``(E, B, N+1)``, at least ``-short_leverage``; over an investor's positions they sum to at least 1, and
            ``-short_leverage`` to at most 1.
        supply: ``(E, N)`` shares, > 0.
        orders: ``(E, N)`` money orders that do not react to price; > 0 buys.
        last_prices: ``(E, N)`` last closes; needed with ``trading_cost``, else only a place to start from.
        positions: ``(E, B, N)`` shares held before the trade; needed with ``trading_cost``.
        trading_cost: fraction of the money traded, scalar, ``(E, B)`` or ``(E, B, N)``; charged on
            ``|w_i - w_prev,i|`` with ``w_prev = last_prices * positions / wealth``.
        pools: pools that trade along their invariants to the clearing prices, beside the investors; what they hold is
            part of the supply. The solution then has `pool_reserves` and `pool_loss`.
        smoothing: tau, 0 or at least 1e-30 (less changes no digit). With tau > 0 every investor's objective gains
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
        market that was not cleared has none. They are of first order (of any order with ``smoothing``). ``torch.func``
        (``grad``, ``vjp``, ``jacrev``) works; for ``vmap`` over markets, stack them: they are a batch already.

    Raises:
        ValueError: a shape, dtype or option is wrong.
        ClearingError: with ``errors="raise"``, some market's values are not admissible or it was not cleared.
    """
    if errors not in ("raise", "mark"):
        raise ValueError(f'`errors` must be "raise" or "mark", got {errors!r}')
    if backend not in ("auto", "kernel", "torch"):
        raise ValueError(f'`backend` must be "auto", "kernel" or "torch", got {backend!r}')
    problem, reasons, batched = market_inputs(
        beliefs, risk, wealth, short_leverage, long_leverage, supply, orders, last_prices, positions, trading_cost,
        smoothing, warm_start,
    )  # fmt: skip
    if backend == "kernel" and problem.beliefs.device.type != "cpu":
        raise ValueError(f'`backend="kernel"` needs CPU tensors, got {problem.beliefs.device}')
    of_pools: Pools | None = None
    if pools is not None:
        of_pools, wrong = pool_inputs(pools, problem, batched)
        reasons |= {market: reason for market, reason in wrong.items() if market not in reasons}
    solution = clear(problem, smoothing=smoothing, backend=backend, rejected=sorted(reasons), pools=of_pools)
    if not bool(solution.converged.all()):
        for market in torch.nonzero(~solution.converged)[:, 0].tolist():
            reasons.setdefault(market, f"not converged after {int(solution.iterations[market])} iterations")
    solution = _reported(solution, dict(sorted(reasons.items())), batched)
    if reasons and errors == "raise":
        raise ClearingError(solution.reasons, solution, problem.beliefs.shape[0])
    return solution


def clear(
    problem: Problem,
    *,
    smoothing: float = 0.0,
    backend: str = "auto",
    rejected: Sequence[int] = (),
    memory: PortfolioMemory | None = None,
    pools: Pools | None = None,
) -> ClearingSolution:
    """``clear_market`` for a problem known to be good: float64 tensors of full shape on one device. Never raises.

    Of a problem in numpy arrays the solution is arrays too. Markets listed in ``rejected`` are passed over and marked
    as not converged. A ``memory`` that belongs to these markets saves time from one clearing to the next; without it,
    or with smoothing or off the CPU, nothing is kept. ``pools`` are of full shape, and of
    arrays or tensors as the problem is.
    """
    options = Options(float(smoothing), backend, tuple(rejected), memory)
    limits = problem.short_leverage, problem.long_leverage
    trade: PoolTrade | None = None
    if pools is not None:
        tensors = Pools(weights=to_torch(pools.weights), reserves=to_torch(pools.reserves))
        solved, trade = solve_with_pools(problem.as_tensors(), tensors, dataclasses.replace(options, memory=None))
        if is_array(problem.beliefs):
            solved, trade = Solved(*map(to_numpy, solved)), PoolTrade(*map(to_numpy, trade))
        else:
            limits = limits[0].detach(), limits[1].detach()
    elif is_array(problem.beliefs):
        solved = solve(problem, options)
    else:
        tracked = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in problem.inputs)
        transformed = torch._C._are_functorch_transforms_active()
        solved = differentiable_solve(problem, options) if tracked or transformed else solve(problem, options)
        limits = limits[0].detach(), limits[1].detach()
    return ClearingSolution(
        prices=solved.prices,
        weights=solved.weights,
        holdings=solved.holdings,
        converged=solved.converged,
        residual=solved.residual,
        iterations=solved.iterations,
        short_leverage=limits[0],
        long_leverage=limits[1],
        pool_reserves=None if trade is None else trade.reserves,
        pool_loss=None if trade is None else trade.loss,
    )


def _reported(solution: ClearingSolution, reasons: dict[int, str], batched: bool) -> ClearingSolution:
    """The solution with its reasons, in the shape of the call."""
    tensors = {name: value for name, value in vars(solution).items() if name != "reasons"}
    if not batched:
        tensors = {name: None if value is None else value[0] for name, value in tensors.items()}
    return ClearingSolution(**tensors, reasons=reasons)
