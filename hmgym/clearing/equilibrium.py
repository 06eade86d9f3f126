"""``find_equilibrium_prices``: prices at which investors with price beliefs hold what is supplied, and gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, overload

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hmgym.clearing import price_kernels as kernels
from hmgym.clearing.clearing import clear
from hmgym.clearing.portfolio import arrays, cotangents, kernel_order
from hmgym.clearing.price_inputs import Portfolios, examine, is_uniform, read_per_market, read_portfolios
from hmgym.clearing.problem import Problem
from hmgym.clearing.solution import ClearingError
from hmgym.clearing.threads import over_markets

_LOST = "no equilibrium found: the branch could not be followed to its end, and no other start led to one"
_WORTHLESS = "no equilibrium found: along the branch an asset's price falls to zero, and no other start led to one"

# Work of one search, in operations of one evaluation of all demand; evaluations it buys, least and most.
_WORK = 6e9
_LEAST, _MOST = 400, 4500


@dataclass(frozen=True, kw_only=True)
class EquilibriumSolution:
    """Equilibria of a batch of markets. One market of ``(B, ...)`` inputs comes without the leading E.

    Attributes:
        prices: ``(E, N)``; NaN where none was found.
        holdings: ``(E, B, N)`` post-trade shares.
        converged: ``(E,)`` whether the residual is at most 1e-9 or the rounding of the demand's own sum.
        residual: ``(E,)`` ``max_i |sum_b h_bi - S_i| / S_i`` of the returned holdings.
        iterations: ``(E,)`` evaluations of all investors' demand.
        reasons: market index to the reason, for those without result.
    """

    prices: Tensor
    holdings: Tensor
    converged: Tensor
    residual: Tensor
    iterations: Tensor
    reasons: Mapping[int, str] = field(default_factory=dict)


@overload
def find_equilibrium_prices(
    Sigma: Any,
    expected_returns: Any,
    commission: Any,
    holdings: Any,
    budget: Any,
    short_leverage: Any,
    long_leverage: Any,
    supply: Any,
    initial_approximation: Any = None,
    *,
    commission_on: str = "buys",
    return_solution: Literal[False] = False,
) -> Tensor: ...


@overload
def find_equilibrium_prices(
    Sigma: Any,
    expected_returns: Any,
    commission: Any,
    holdings: Any,
    budget: Any,
    short_leverage: Any,
    long_leverage: Any,
    supply: Any,
    initial_approximation: Any = None,
    *,
    commission_on: str = "buys",
    return_solution: Literal[True],
) -> EquilibriumSolution: ...


def find_equilibrium_prices(
    Sigma: Any,
    expected_returns: Any,
    commission: Any,
    holdings: Any,
    budget: Any,
    short_leverage: Any,
    long_leverage: Any,
    supply: Any,
    initial_approximation: Any = None,
    *,
    commission_on: str = "buys",
    return_solution: bool = False,
) -> Tensor | EquilibriumSolution:
    """Find prices p at which the optimal holdings of all investors sum to the supply, ``sum_b h_b(p) = S``.

    Each ``h_b(p)`` is that of ``optimize_portfolio``. With beliefs about prices there can be several equilibria or
    none. The one returned lies on the branch that starts in an economy where all assets are alike (every investor's
    beliefs, risk, holdings and limits averaged over the assets, supplies taken as units, some risk added) and ends in
    the given one (``docs/price_beliefs.md``). With ``initial_approximation`` it is the one at the end of the path from
    there along which all excess demands, in logarithms, shrink in proportion. Where neither ends anywhere other starts
    are tried, within a number of evaluations that depends on the market's size only.

    Args:
        Sigma: ``(B, N, N)`` for one market or ``(E, B, N, N)``; this and the next six as in ``optimize_portfolio``.
        expected_returns: ``(B, N)`` or ``(E, B, N)`` expected prices.
        commission: money a share.
        holdings: shares held before the trade.
        budget: ``(B,)`` or ``(E, B)`` wealth before the trade; an investor with none holds nothing.
        short_leverage: limits of short positions, cash included.
        long_leverage: limits of long positions, cash included.
        supply: ``(N,)`` or ``(E, N)`` shares, > 0.
        initial_approximation: ``(N,)`` or ``(E, N)`` prices, > 0.
        commission_on: "buys" or "trades".
        return_solution: return an ``EquilibriumSolution``, in which a market without result is NaN and not
            ``converged``, instead of prices alone.

    Returns:
        Prices ``(N,)`` or ``(E, N)``, float64, or the solution. Gradients (first order) flow from prices and holdings
        to every input but ``initial_approximation``.

    Raises:
        ValueError: a shape or an option is wrong.
        ClearingError: without ``return_solution``, some markets have no result; ``.markets`` says which and why,
            ``.solution`` holds the others.
    """
    problems, batch, device = read_portfolios(
        Sigma, expected_returns, commission, holdings, budget, short_leverage, long_leverage, commission_on, 3
    )
    E, _, N = problems.expected.shape
    S = read_per_market("supply", supply, batch, N).expand(E, N)
    per_market = {"supply": S.detach().numpy()}
    start = None
    if initial_approximation is not None:
        start = read_per_market("initial_approximation", initial_approximation, batch, N).detach().expand(E, N)
        per_market["initial_approximation"] = start.numpy()
    problems, _, reasons = examine(problems, per_market, is_uniform(long_leverage, batch))
    _require_buyers(problems, reasons)
    solution, status = _solve(problems, S, start, sorted(reasons))
    if not bool(solution.converged.all()):
        for market in torch.nonzero(~solution.converged)[:, 0].tolist():
            reasons.setdefault(market, _WORTHLESS if status[market] == kernels.WORTHLESS else _LOST)
    tensors = {name: x for name, x in vars(solution).items() if name != "reasons"}
    solution = EquilibriumSolution(
        **{name: (x if len(batch) == 2 else x[0]).to(device) for name, x in tensors.items()},
        reasons=dict(sorted(reasons.items())),
    )
    if return_solution:
        return solution
    if reasons:
        raise ClearingError(solution.reasons, solution, E)
    return solution.prices


def _require_buyers(problems: Portfolios, reasons: dict[int, str]) -> None:
    """No equilibrium where nobody may hold an asset: that is a proof, not a failure."""
    money = (problems.long.detach() * problems.wealth.detach()[..., None]).sum(1).numpy()
    for e, i in np.argwhere(money <= 0):
        text = f"`budget` must leave somebody who may buy asset {i}, got no buying power: no equilibrium exists"
        reasons.setdefault(int(e), text)


def _solve(
    problems: Portfolios, supply: Tensor, start: Tensor | None, rejected: list[int]
) -> tuple[EquilibriumSolution, Any]:
    tensors = (*problems.tensors(), supply)
    settings = (problems.both_sides, start, rejected)
    if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
        out = _Equilibrium.apply(settings, *tensors)  # type: ignore[no-untyped-call]
    else:
        out = _find(settings, *tensors)
    prices, holdings, residual, iterations, status = out[:5]
    solution = EquilibriumSolution(
        prices=prices, holdings=holdings, converged=status == kernels.FOUND, residual=residual, iterations=iterations
    )
    return solution, status.tolist()


def _find(settings: tuple[bool, Tensor | None, list[int]], *tensors: Tensor) -> tuple[Tensor, ...]:
    """Prices, holdings, residual, iterations, status, and what the adjoint needs: weights, states, rows."""
    both_sides, start, rejected = settings
    inputs = arrays(both_sides, *tensors)
    E = tensors[1].shape[0]
    status = np.zeros(E, np.int64)
    status[rejected] = kernels.SKIPPED
    begin = None if start is None else np.ascontiguousarray(start.numpy())
    budget = _evaluations(*inputs[1].shape[1:])
    out = _run(inputs, status, begin, branch=True, limit=budget // 3)
    # Where the branch cannot be followed: other starts, in this order.
    for start_of in (_log_price_equilibrium, _free_trade_equilibrium, None):
        lost = (status == kernels.LOST) | (status == kernels.WORTHLESS)
        if start_of is _free_trade_equilibrium:
            lost &= inputs[2].any((1, 2))
        rows = np.flatnonzero(lost)
        if rows.size == 0:
            continue
        part = [x if isinstance(x, bool) else np.ascontiguousarray(x[rows]) for x in inputs]
        reached = np.zeros(rows.size, np.int64)
        if start_of is None:
            result = _run(part, reached, None, branch=False, budget=budget, spent=out[3][rows])
        else:
            begin = start_of(part, budget // 8)
            result = _run(part, reached, begin, branch=False, limit=budget // 8, spent=out[3][rows])
        out[3][rows] = result[3]  # iterations
        found = reached == kernels.FOUND
        for whole, piece in zip(out, result, strict=True):
            whole[rows[found]] = piece[found]
        status[rows[found]] = kernels.FOUND
    prices, holdings, residual, iterations, weights, state, row = (torch.from_numpy(x) for x in out)
    return prices, holdings, residual, iterations, torch.from_numpy(status), weights, state, row


def _evaluations(B: int, N: int) -> int:
    """Evaluations of all demand that a market may take: they bound the search, whatever the machine, and are worth
    about a second and a half of one core where they are not cut off below or above."""
    return int(min(max(_WORK / (B * N * (N * N + 20.0 * N + 200.0)), _LEAST), _MOST))


def _run(
    inputs: list[Any], status: Any, start: Any, *, branch: bool, limit: int = 0, budget: int = 0, spent: Any = None
) -> list[Any]:
    E, B, N = inputs[1].shape
    prices, holdings, weights = np.empty((E, N)), np.empty((E, B, N)), np.zeros((E, B, N))
    state, row = np.zeros((E, B, N), np.int8), np.zeros((E, B), np.int8)
    residual, iterations = np.empty(E), np.zeros(E, np.int64) if spent is None else spent
    given = start is not None
    over_markets(
        kernels.find_markets, E, 16 * B, *inputs, start if given else np.ones((E, N)), given, branch, limit,
        budget, prices, holdings, weights, state, row, residual, iterations, status,
    )  # fmt: skip
    return [prices, holdings, residual, iterations, weights, state, row]


def _log_price_equilibrium(inputs: list[Any], _: int) -> Any:
    """Prices that clear the markets if investors expect the same prices in logarithms, with risk taken at the mean of
    what they expect: a convex problem with one solution, and often close to one here."""
    covariance, expected, _, _, _, wealth, _, _, cash_short, cash_long, supply = inputs
    total = wealth.sum(1, keepdims=True)
    least = 1e-3 * total / (supply * (supply.shape[1] + 1))
    value = np.maximum(((wealth / total)[..., None] * expected).sum(1), least)
    risk = wealth[..., None, None] * covariance / (value[:, None, :, None] * value[:, None, None])
    ridge = 1e-6 * np.einsum("ebii->eb", risk) / supply.shape[1] + 1e-12
    risk = risk + ridge[..., None, None] * np.eye(supply.shape[1])
    beliefs = np.log(np.maximum(expected, 1e-3 * value[:, None]))
    tensors = (torch.from_numpy(x) for x in (beliefs, risk, wealth, cash_short, cash_long, supply))
    start = clear(Problem.of(*tensors, last_prices=torch.from_numpy(value)), backend="kernel")
    prices = start.prices.numpy()  # a start only: the torch path would cost more than it is worth
    return np.where(prices > 0, prices, value)


def _free_trade_equilibrium(inputs: list[Any], limit: int) -> Any:
    """Prices that clear the markets without commissions."""
    free = list(inputs)
    free[2] = np.zeros_like(inputs[2])
    status = np.zeros(inputs[1].shape[0], np.int64)
    prices = _run(free, status, None, branch=True, limit=limit)[0]
    return np.where(prices > 0, prices, inputs[5].sum(1, keepdims=True) / (inputs[-1] * (inputs[-1].shape[1] + 1)))


class _Equilibrium(torch.autograd.Function):
    """``_find`` with its adjoint."""

    @staticmethod
    def forward(ctx: Any, settings: Any, *tensors: Tensor) -> Any:
        out = _find(settings, *tensors)
        prices, _, *rest, weights, state, row = out
        ctx.both_sides = settings[0]
        ctx.save_for_backward(*tensors, prices, weights, state, row)
        ctx.mark_non_differentiable(*rest)
        return out[:5]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, prices_bar: Tensor, holdings_bar: Tensor, *_: Any) -> Any:
        *tensors, prices, weights, state, row = ctx.saved_tensors
        inputs = arrays(ctx.both_sides, *tensors)
        bars, log_price_bar = cotangents(tensors[:9])
        supply_bar = np.zeros(prices.shape)
        over_markets(
            kernels.pull_back_equilibria, prices.shape[0], weights.shape[1], *inputs, prices.numpy(), weights.numpy(),
            state.numpy(), row.numpy(), np.ascontiguousarray(prices_bar.numpy()),
            np.ascontiguousarray(holdings_bar.numpy()), *kernel_order(bars, log_price_bar), supply_bar,
        )  # fmt: skip
        return (None, *(torch.from_numpy(x) for x in bars), torch.from_numpy(supply_bar))
