"""The clearing problem as `clear_batched` sees it: markets last, small dimensions in front.

Sums run in an order that does not depend on the number of markets, and no operation mixes markets, so a market gives
the same bits alone and among others. Products over the small dimensions are written out: on the shapes of this
problem that is faster than batched matrix routines, on processors and accelerators alike.
"""

from __future__ import annotations

import dataclasses
from typing import Self

import torch
from torch import Tensor

from hmgym.clearing.problem import Problem, per_position

EPS = 2.0**-52
_REFINEMENTS = 2
_PINNED = 1e-11  # an investor whose positions can move less than this is held at its only portfolio


def sum_over(x: Tensor, dim: int = 0) -> Tensor:
    """Sum by halving: torch's own order of additions depends on the sizes of the other dimensions."""
    while (n := x.shape[dim]) > 1:
        half = n // 2
        pairs = x.narrow(dim, 0, half) + x.narrow(dim, half, half)
        x = torch.cat((pairs, x.narrow(dim, n - 1, 1)), dim) if n % 2 else pairs
    return x.squeeze(dim)


def times(matrix: Tensor, x: Tensor) -> Tensor:
    """Matrix times vector, (N, N, ...) and (N, ...)."""
    out = matrix[:, 0] * x[0]
    for j in range(1, len(x)):
        out = torch.addcmul(out, matrix[:, j], x[j])
    return out


def inverse(matrix: Tensor) -> Tensor:
    """Inverse of symmetric positive definite matrices (N, N, ...) by symmetric sweeps; no pivoting is needed."""
    a = matrix
    for k in range(len(matrix)):
        pivot = a[k, k].reciprocal()
        row = a[k] * pivot
        a = torch.addcmul(a, a[:, k, None], row[None], value=-1.0)
        a[k] = row
        a[:, k] = row
        a[k, k] = -pivot
    return -a


def add_diagonal(matrix: Tensor, diagonal: Tensor) -> Tensor:
    """Adds in place, (N, N, ...) and (N, ...)."""
    matrix.diagonal().add_(diagonal.movedim(0, -1))
    return matrix


def solve(matrix: Tensor, inverted: Tensor, x: Tensor) -> Tensor:
    """Solution of matrix y = x, refined: an explicit inverse alone loses digits of x where matrix is near singular."""
    y = times(inverted, x)
    for _ in range(_REFINEMENTS):
        y = y + times(inverted, x - times(matrix, y))
    return y


class Response:
    """How portfolios answer a gradient g: the step x, sum(x) = 0, that minimises g'x + x'(Q + diag(stiffness))x / 2.

    One `basic` position (B, E), which should not be stiff, is eliminated through the budget, so that the rows of
    stiff (nearly fixed) positions keep their relative accuracy. Positions outside `free` do not move.
    """

    def __init__(self, quadratic: Tensor, stiffness: Tensor | None, basic: Tensor, free: Tensor) -> None:
        hot = torch.zeros_like(quadratic[0]).scatter_(0, basic[None], 1.0)
        column = sum_over(quadratic * hot, 1)
        if stiffness is not None:
            column = torch.addcmul(column, hot, stiffness)
        others = (1.0 - hot) * free
        block = others[:, None] * others
        reduced = (quadratic - column[:, None] - column + sum_over(column * hot)) * block
        diagonal = 1.0 - others if stiffness is None else torch.addcmul(1.0 - others, others, stiffness)
        self.basic = hot
        self.inverse = inverse(add_diagonal(reduced, diagonal)) * block

    def __call__(self, gradient: Tensor) -> Tensor:
        x = times(self.inverse, sum_over(gradient * self.basic) - gradient)
        return x - self.basic * sum_over(x)

    def risky(self) -> Tensor:
        """A, the response of the risky positions to beliefs, (N, N, B, E)."""
        row = sum_over(self.inverse)
        edge = torch.addcmul(row, self.basic, sum_over(row), value=-0.5)[1:]
        basic = self.basic[1:]
        return self.inverse[1:, 1:] - edge[:, None] * basic - basic[:, None] * edge


def risky(limit: Tensor) -> Tensor:
    """The part of a limit (1, B, E) or (N+1, B, E) that is not cash's own."""
    return limit if len(limit) == 1 else limit[1:]


def _limits(problem: Problem) -> tuple[Tensor, Tensor]:
    """The limits below and above, (1, B, E) where all positions of an investor have the same, else (N+1, B, E)."""
    short, long = problem.short_leverage, problem.long_leverage
    if short.ndim == 2 and long.ndim == 2:
        return -short.T[None], long.T[None]
    n = problem.supply.shape[-1] + 1
    return -per_position(short, n).permute(2, 1, 0), per_position(long, n).permute(2, 1, 0)


def _sum_of_others(limit: Tensor, n_assets: int) -> Tensor:
    """For each position the sum of the limits of the N others, shape as `limit`."""
    if len(limit) == 1:
        return n_assets * limit
    return torch.stack([sum_over(torch.cat((limit[:i], limit[i + 1 :]))) for i in range(len(limit))])


def _middle(lower: Tensor, upper: Tensor, n_assets: int) -> Tensor:
    """The feasible portfolio as far from all lower limits as from the upper ones, in shares of the width."""
    if len(lower) == 1:
        return torch.full_like(lower, 1.0 / (n_assets + 1))
    low, width = sum_over(lower), upper - lower
    return lower + (1.0 - low) / sum_over(width).clamp(min=EPS) * width


class Batch:
    """A dataclass of tensors with the markets last."""

    def take(self, markets: Tensor) -> Self:
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        return type(self)(**{name: None if x is None else x[..., markets] for name, x in fields.items()})

    def put(self, markets: Tensor, source: Self) -> None:
        for f in dataclasses.fields(self):  # type: ignore[arg-type]
            getattr(self, f.name)[..., markets] = getattr(source, f.name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Markets(Batch):
    """A batch of markets; money in units of wealth plus orders, log prices relative to `start`."""

    quadratic: Tensor  # 2G, cash included, (N+1, N+1, B, E)
    curvature: Tensor  # of every position by itself; cash takes `scale`, (N+1, B, E)
    scale: Tensor  # tr(G)/N, (B, E)
    beliefs: Tensor  # (N, B, E)
    wealth: Tensor  # 0 where an investor has none, (B, E)
    moves: Tensor  # investors with wealth and more than one feasible portfolio, (B, E) bool
    movable: Tensor  # positions of such investors that limits leave room to move, (P, B, E) bool, P = 1 or N+1
    middle: Tensor  # of the limits, where positions that do not move stay, (P, B, E)
    lower: Tensor  # (P, B, E)
    upper: Tensor  # (P, B, E)
    width: Tensor  # extent of the feasible positions, at most 1, (B, E)
    cost: Tensor | None  # (N, B, E)
    reference: Tensor | None  # (N, B, E)
    supply: Tensor  # (N, E)
    orders: Tensor  # (N, E)
    start: Tensor  # (N, E)
    target: Tensor  # product of distance and shadow price to end at, tau tr(G)/N, (B, E)

    @classmethod
    def of(cls, problem: Problem, *, smoothing: float) -> Markets:
        """Arguments as in `clear_batched`."""
        n_assets = problem.beliefs.shape[-1]
        beliefs, supply, orders = problem.beliefs.permute(2, 1, 0).contiguous(), problem.supply.T, problem.orders.T
        wealth = problem.wealth.T.clamp(min=0.0)
        lower, upper = _limits(problem)
        quadratic = beliefs.new_zeros((n_assets + 1, n_assets + 1, *wealth.shape))
        quadratic[1:, 1:] = 2.0 * problem.risk.permute(2, 3, 1, 0)
        diagonal = torch.stack([quadratic[i, i] for i in range(1, n_assets + 1)])
        scale = 0.5 * sum_over(diagonal) / n_assets
        # The budget implies these limits. Without smoothing they give the same portfolios and a better scale.
        tight_lower = torch.maximum(lower, 1.0 - _sum_of_others(upper, n_assets))
        tight_upper = torch.minimum(upper, 1.0 - _sum_of_others(lower, n_assets))
        unit = sum_over(wealth) + sum_over(orders.abs())
        wealth, supply, orders = wealth / unit, supply / unit, orders / unit
        movable = (wealth > 0.0) & (tight_upper - tight_lower > _PINNED)
        moves = movable.any(0)
        middle = _middle(lower, upper, n_assets)
        # No price is beyond what limits and orders allow; a negative floor allows any.
        most = (sum_over(wealth * risky(tight_upper), 1) + orders).clamp(min=1e-12) / supply
        least = (sum_over(wealth * risky(tight_lower), 1) + orders).clamp(min=1e-12) / supply
        if problem.start is None:
            start = sum_over(wealth * beliefs, 1) / sum_over(wealth).clamp(min=EPS)
        else:
            start = problem.start.log().T
        start = torch.minimum(torch.maximum(start, least.log()), most.log())
        if not smoothing:
            lower, upper = tight_lower, tight_upper
        lower, upper = torch.where(movable, lower, middle), torch.where(movable, upper, middle)
        cost = reference = None
        if problem.trading_cost is not None and problem.reference_weights is not None:
            cost = torch.where(risky(movable), problem.trading_cost.permute(2, 1, 0), 0.0)
            reference = torch.where(cost > 0.0, problem.reference_weights.permute(2, 1, 0), 0.0)
            if not smoothing:
                # Beyond the limits the cost is linear however far away the reference lies.
                span = risky(upper - lower)
                reference = torch.minimum(torch.maximum(reference, risky(lower) - span), risky(upper) + span)
        return cls(
            quadratic=quadratic,
            curvature=torch.cat((scale[None], diagonal)),
            scale=scale,
            beliefs=beliefs,
            wealth=wealth,
            moves=moves,
            movable=movable,
            middle=middle,
            lower=lower,
            upper=upper,
            width=(tight_upper - tight_lower).amax(0).clamp(min=_PINNED, max=1.0),
            cost=cost,
            reference=reference,
            supply=supply,
            orders=orders,
            start=start,
            target=smoothing * scale,
        )

    def gradient(self, weights: Tensor, log_prices: Tensor) -> Tensor:
        """2Gw - (m - u), the gradient of every objective but for limits and costs, (N+1, B, E)."""
        out = times(self.quadratic, weights)
        out[1:] -= (self.beliefs - self.start[:, None]) - log_prices[:, None]
        return out

    def value(self, log_prices: Tensor) -> Tensor:
        """S p, (N, E)."""
        return self.supply * torch.exp(self.start) * torch.exp(log_prices)

    def excess(self, weights: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Excess demand in money, and relative to supply the largest of a market that is more than rounding."""
        money = self.wealth * weights[1:]
        excess = sum_over(money, 1) + self.orders - value
        rounding = 16.0 * EPS * (sum_over(money.abs(), 1) + self.orders.abs() + value)
        # Where rounding leaves more than this of the supply unplaced, the market has not cleared.
        rounding = torch.minimum(rounding, 1e-6 * value)
        return excess, torch.where(excess.abs() <= rounding, 0.0, excess.abs() / value).amax(0)

    def worst(self, x: Tensor) -> Tensor:
        """The largest of a market's investors that move, (B, E) to (E,)."""
        return torch.where(self.moves, x, 0.0).amax(0)

    def easiest(self, stiffness: Tensor) -> Tensor:
        """The position that moves most easily, (N+1, B, E) to (B, E)."""
        return torch.where(self.movable, stiffness, torch.inf).argmin(0)
