"""``optimize_portfolio``: the exact optimum of one investor with price beliefs, and its gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hmgym.clearing import price_kernels as kernels
from hmgym.clearing.price_inputs import examine, is_uniform, read_per_market, read_portfolios
from hmgym.clearing.threads import as_array, over_markets


def optimize_portfolio(
    Sigma: Any,
    expected_returns: Any,
    commission: Any,
    holdings: Any,
    budget: Any,
    short_leverage: Any,
    long_leverage: Any,
    prices: Any,
    *,
    commission_on: str = "buys",
) -> Tensor:
    """Find the holdings that are best at given prices, under limits on every position and on cash.

        max  (M - p)'h - h'Sigma h - sum_i c_i max(h_i - h_prev,i, 0)
        over  -short W <= p_i h_i <= long W,   -short W <= W - p'h <= long W

    Args:
        Sigma: ``(N, N)``, ``(B, N, N)`` or ``(E, B, N, N)`` covariance of next period's prices ((money/share)^2),
            times half the risk aversion; symmetric positive semidefinite. Its number of dimensions decides whether one
            portfolio, B portfolios or B portfolios in each of E markets are solved; call that shape ``batch``.
        expected_returns: ``batch + (N,)`` expected *price* M of the next period, money a share.
        commission: c, money a share, >= 0. Scalar, ``batch`` or ``batch + (N,)``. It is a cost in the objective only
            and does not enter cash. One dimension is per asset for one portfolio, per investor in a batch.
        holdings: ``batch + (N,)`` or scalar: shares held before the trade, the reference of the commission.
        budget: ``batch``: total wealth W before the trade, money, >= 0.
        short_leverage: limit of short positions as a fraction of W, >= 0; shapes as ``commission``. With limits per
            asset, cash is bounded by the largest of them; with N+1, ``batch + (N+1,)``, by the first.
        long_leverage: limit of long positions likewise; the N+1 limits of an investor must sum to at least 1.
        prices: ``(N,)``, or ``(E, N)`` with E markets: p, money a share, > 0.
        commission_on: "buys" charges purchases, "trades" charges sales too.

    Returns:
        Post-trade holdings in shares, ``batch + (N,)``, float64. Where several are optimal, one of them. Gradients
        (first order) flow to every input; at a kink they are those of the limits that the solution stands at.

    Raises:
        ValueError: an input has a wrong shape or an inadmissible value.
    """
    problems, batch, device = read_portfolios(
        Sigma, expected_returns, commission, holdings, budget, short_leverage, long_leverage, commission_on, 2
    )
    E, B, N = problems.expected.shape
    p = read_per_market("prices", prices, batch, N).expand(E, N)
    per_market = {"prices": p.detach().numpy()}
    problems, values, reasons = examine(problems, per_market, is_uniform(long_leverage, batch))
    if reasons:
        market, reason = next(iter(reasons.items()))
        raise ValueError(reason if len(batch) < 2 else f"market {market}: {reason}")
    p = p[:, None].expand(E, B, N)
    tensors = (*problems.tensors(), p)
    values.append(as_array(p))
    if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
        best: Tensor = _Portfolio.apply(problems.both_sides, values, *tensors)  # type: ignore[no-untyped-call]
    else:
        best = _solve(problems.both_sides, values)[0]
    return best.reshape(*batch, N).to(device)


def _solve(both_sides: bool, values: list[Any]) -> tuple[Tensor, ...]:
    """Holdings (K, N) of K = EB portfolios, and what the adjoint needs: weights, states, rows."""
    inputs = _as_rows(arrays(both_sides, *values))
    K, N = inputs[1].shape
    best, weights = np.empty((K, N)), np.empty((K, N))
    state, row, status = np.empty((K, N), np.int8), np.empty(K, np.int8), np.empty(K, np.int64)
    over_markets(kernels.optimize_portfolios, K, 1, *inputs, best, weights, state, row, status)
    lost = np.flatnonzero(status)
    if lost.size:
        raise ValueError(
            f"{lost.size} portfolios could not be optimised in double precision, the first is number {lost[0]}: "
            "choose units in which prices and covariances are nearer to 1"
        )
    return tuple(torch.from_numpy(x) for x in (best, weights, state, row))


def arrays(both_sides: bool, *tensors: Tensor | np.ndarray[Any, Any]) -> list[Any]:
    """Tensors of ``Portfolios`` and what follows them as contiguous arrays, in the order of the kernels' arguments."""
    flat = [as_array(x) for x in tensors]
    return [*flat[:3], both_sides, *flat[3:]]


def _as_rows(inputs: list[Any]) -> list[Any]:
    """Arrays (E, B, ...) as (EB, ...): to a portfolio its market does not matter."""
    return [x if isinstance(x, bool) else x.reshape(-1, *x.shape[2:]) for x in inputs]


class _Portfolio(torch.autograd.Function):
    """``_solve`` with its adjoint. ``values`` are the arrays of the tensors, made already."""

    @staticmethod
    def forward(ctx: Any, both_sides: bool, values: list[Any], *tensors: Tensor) -> Tensor:
        best, weights, state, row = _solve(both_sides, values)
        ctx.both_sides = both_sides
        ctx.save_for_backward(*tensors, weights, state, row)
        return best

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, best_bar: Tensor) -> Any:
        *tensors, weights, state, row = ctx.saved_tensors
        inputs = _as_rows(arrays(ctx.both_sides, *tensors))
        bars, log_price_bar = cotangents(tensors[:9])
        over_markets(
            kernels.pull_back_portfolios, weights.shape[0], 1, *inputs, weights.numpy(), state.numpy(), row.numpy(),
            np.ascontiguousarray(best_bar.numpy()), *_as_rows(kernel_order(bars, log_price_bar)),
        )  # fmt: skip
        prices_bar = log_price_bar / tensors[9].numpy()
        return (None, None, *(torch.from_numpy(x) for x in (*bars, prices_bar)))


def cotangents(tensors: Any) -> tuple[list[Any], Any]:
    """Empty cotangents of the tensors of ``Portfolios`` and of log prices."""
    bars = [np.zeros(tuple(x.shape)) for x in tensors]
    return bars, np.zeros(bars[1].shape)


def kernel_order(bars: list[Any], log_price_bar: Any) -> list[Any]:
    """Cotangents in the order of the adjoint kernels' arguments."""
    covariance, expected, commission, held, wealth, short, long, cash_short, cash_long = bars
    return [covariance, expected, commission, held, short, long, log_price_bar, wealth, cash_short, cash_long]
