"""Market clearing as batched tensor operations: the path for any device.

A primal-dual interior point on the optimality conditions of all investors and of the market at once, one step
length a market, followed by an active-set polish to rounding. The barrier is the smoothing of `clear_market`,
scaled by each investor's risk: with ``smoothing > 0`` the interior point stops on the central path instead of
following it to the end, and no polish is needed.

Layout: the batch of markets is the last dimension and sums run in an order that does not depend on it, so a market
gives the same bits alone and among others. No operation mixes markets.
"""

from __future__ import annotations

import dataclasses
from typing import Self

import torch
from torch import Tensor

_EPS = 2.0**-52
_INF = float("inf")
_LOG_PRICE_STEP = 2.0  # largest change of a log price in one step
_TO_BOUNDARY = 0.999
_CAUTION = 30  # steps after which second-order corrections are left out
_CENTRAL = 0.1  # least target of a product, as a share of the common one
_PINNED = 1e-11  # an investor whose positions can move less than this is held at its only portfolio
_POLISH_STEPS = 10
_GAPS = (1e-3, 1e-7, 1e-11, 1e-15)  # relative complementarity at which the polish is tried, in turn
_UNMET = 1e-12  # accepted excess demand relative to supply beyond its rounding floor
_SETTLED = 1e-8
_NATURAL = 1e-11  # accepted distance, in weights, of a portfolio from its own projected gradient step


def clear_batched(
    beliefs: Tensor,
    risk: Tensor,
    wealth: Tensor,
    short_leverage: Tensor,
    long_leverage: Tensor,
    supply: Tensor,
    orders: Tensor,
    last_prices: Tensor | None,
    reference_weights: Tensor | None,
    trading_cost: Tensor | None,
    smoothing: float = 0.0,
    initial_log_prices: Tensor | None = None,
    max_iterations: int = 100,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    r"""Log prices u at which the investors' demand and the orders take up the supply, market by market.

    .. math:: \sum_b W_b w_{b,i} + D_i = S_i e^{u_i}, \qquad
        w_b = \arg\max_{1'w = 1,\; -\kappa_b \le w \le \theta_b}
        (m_b - u)'w - w'G_b w - \sum_i c_{b,i} |w_i - \bar w_{b,i}|

    Cash is asset 0 of w and has neither risk, return nor trading cost. Investors with W <= 0 demand nothing; their
    weights are all cash. Arguments are float64 and are not checked.

    Args:
        beliefs: m, expected log price of the next period, (E, B, N).
        risk: G, half the risk aversion times the covariance of a period's returns, positive definite, (E, B, N, N).
        wealth: W, money, (E, B).
        short_leverage: kappa, multiple of wealth, (E, B).
        long_leverage: theta, multiple of wealth, (E, B).
        supply: S, shares, > 0, (E, N).
        orders: D, money, > 0 buys, (E, N).
        last_prices: where the search starts, money a share, (E, N).
        reference_weights: fractions of wealth from which trading costs are counted, (E, B, N), or None.
        trading_cost: c, fraction of the money traded, (E, B, N), or None.
        smoothing: tau; adds tau tr(G_b)/N times the sum of log distances to the limits to every objective and
            smooths the cost accordingly.
        initial_log_prices: where the search starts, in place of `last_prices`, (E, N).
        max_iterations: interior-point iterations at most.

    Returns:
        prices (E, N); weights (E, B, N+1), cash first; residual (E,), the largest excess demand in shares over
        supply; converged (E,); iterations (E,), interior point and polish together. A market that did not converge
        carries its last iterate and does not affect the others.
    """
    n_markets, n_investors, n_assets = beliefs.shape
    start = initial_log_prices
    if start is None and last_prices is not None:
        start = last_prices.log()
    fields = (beliefs, risk, wealth, short_leverage, long_leverage, supply, orders, reference_weights, trading_cost, start)
    # Large enough to hide the cost of a call, small enough for the memory of the device.
    budget = 2**26 if beliefs.is_cuda else 2**20
    size = max(1, budget // (n_investors * (n_assets + 1) ** 2))
    parts = []
    with torch.no_grad():
        for first in range(0, n_markets, size):
            chunk = [None if x is None else x[first : first + size] for x in fields]
            parts.append(_clear_chunk(_Markets.of(*chunk, smoothing=smoothing), smoothing, max_iterations))
        if not parts:
            empty = beliefs.new_empty
            flags = torch.zeros(0, dtype=torch.bool, device=beliefs.device)
            return empty(0, n_assets), empty(0, n_investors, n_assets + 1), empty(0), flags, flags.long()
        prices, weights, residual, converged, iterations = (torch.cat(x) for x in zip(*parts, strict=True))
        return prices, weights, residual, converged, iterations


# --- tensor algebra with the small dimensions in front, (N, ..., E)


def _sum(x: Tensor, dim: int = 0) -> Tensor:
    """Sum by halving: torch's own order of additions depends on the sizes of the other dimensions."""
    while (n := x.shape[dim]) > 1:
        half = n // 2
        pairs = x.narrow(dim, 0, half) + x.narrow(dim, half, half)
        x = torch.cat((pairs, x.narrow(dim, n - 1, 1)), dim) if n % 2 else pairs
    return x.squeeze(dim)


def _times(matrix: Tensor, x: Tensor) -> Tensor:
    """Matrix times vector, (N, N, ...) and (N, ...)."""
    out = matrix[:, 0] * x[0]
    for j in range(1, len(x)):
        out = torch.addcmul(out, matrix[:, j], x[j])
    return out


def _inverse(matrix: Tensor) -> Tensor:
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


def _add_diagonal(matrix: Tensor, diagonal: Tensor) -> Tensor:
    matrix.diagonal().add_(diagonal.movedim(0, -1))
    return matrix


class _Response:
    """How portfolios answer a gradient: the step x, sum(x) = 0, minimising g'x + x'(Q + diag(stiffness))x / 2.

    One `basic` coordinate, which must not be stiff, is eliminated through the budget, so that the rows of stiff
    (nearly fixed) coordinates keep their relative accuracy. Coordinates outside `free` do not move.
    """

    def __init__(self, quadratic: Tensor, stiffness: Tensor | None, basic: Tensor, free: Tensor | None = None) -> None:
        basic = torch.zeros_like(quadratic[0]).scatter_(0, basic[None], 1.0)
        others = 1.0 - basic if free is None else (1.0 - basic) * free
        column = _sum(quadratic * basic, 1)
        corner = _sum(column * basic)
        if stiffness is not None:
            column = torch.addcmul(column, basic, stiffness)
            corner = _sum(column * basic)
        block = others[:, None] * others
        reduced = (quadratic - column[:, None] - column + corner) * block
        diagonal = 1.0 - others if stiffness is None else torch.addcmul(1.0 - others, others, stiffness)
        self.basic = basic
        self.inverse = _inverse(_add_diagonal(reduced, diagonal)) * block

    def __call__(self, gradient: Tensor) -> Tensor:
        x = _times(self.inverse, _sum(gradient * self.basic) - gradient)
        return x - self.basic * _sum(x)

    def risky(self) -> Tensor:
        """A, the response of the risky positions to beliefs, (N, N, B, E)."""
        row = _sum(self.inverse)
        edge = torch.addcmul(row, self.basic, _sum(row), value=-0.5)[1:]
        basic = self.basic[1:]
        return self.inverse[1:, 1:] - edge[:, None] * basic - basic[:, None] * edge


class _Batch:
    """A dataclass of tensors with the markets last."""

    def take(self, markets: Tensor) -> Self:
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        return type(self)(**{name: None if x is None else x[..., markets] for name, x in fields.items()})

    def put(self, markets: Tensor, source: Self) -> None:
        for f in dataclasses.fields(self):  # type: ignore[arg-type]
            if getattr(self, f.name) is not None:
                getattr(self, f.name)[..., markets] = getattr(source, f.name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Markets(_Batch):
    """A chunk of markets; money in units of wealth plus orders, log prices relative to `start`."""

    quadratic: Tensor  # 2G, cash included, (N+1, N+1, B, E)
    beliefs: Tensor  # (N, B, E)
    wealth: Tensor  # 0 where an investor has none, (B, E)
    moves: Tensor  # 1 for investors with wealth and more than one feasible portfolio, else 0, (B, E)
    scale: Tensor  # tr(G)/N, (B, E)
    width: Tensor  # extent of the feasible positions, at most 1, (B, E)
    lower: Tensor  # (B, E)
    upper: Tensor  # (B, E)
    cost: Tensor | None  # (N, B, E)
    reference: Tensor | None  # (N, B, E)
    supply: Tensor  # (N, E)
    orders: Tensor  # (N, E)
    start: Tensor  # (N, E)
    target: Tensor  # complementarity to end at: tau tr(G)/N, (B, E)

    @classmethod
    def of(
        cls,
        beliefs: Tensor,
        risk: Tensor,
        wealth: Tensor,
        short_leverage: Tensor,
        long_leverage: Tensor,
        supply: Tensor,
        orders: Tensor,
        reference_weights: Tensor | None,
        trading_cost: Tensor | None,
        start: Tensor | None,
        *,
        smoothing: float,
    ) -> _Markets:
        n_assets = beliefs.shape[-1]
        beliefs, supply, orders = beliefs.permute(2, 1, 0).contiguous(), supply.T, orders.T
        lower, upper = -short_leverage.T, long_leverage.T
        wealth = wealth.T.clamp(min=0.0)
        quadratic = beliefs.new_zeros((n_assets + 1, n_assets + 1, *wealth.shape))
        quadratic[1:, 1:] = 2.0 * risk.permute(2, 3, 1, 0)
        scale = 0.5 * _sum(torch.stack([quadratic[i, i] for i in range(1, n_assets + 1)])) / n_assets
        # The budget implies these limits. Without smoothing they give the same portfolios and a better scale.
        tight_lower = torch.maximum(lower, 1.0 - n_assets * upper)
        tight_upper = torch.minimum(upper, 1.0 - n_assets * lower)
        unit = _sum(wealth) + _sum(orders.abs())
        wealth, supply, orders = wealth / unit, supply / unit, orders / unit
        moves = (wealth > 0.0) & (tight_upper - tight_lower > _PINNED)
        most = (_sum(wealth * tight_upper) + orders).clamp(min=1e-12) / supply
        least = (_sum(wealth * tight_lower) + orders).clamp(min=1e-12) / supply
        start = _sum(wealth * beliefs, 1) / _sum(wealth).clamp(min=_EPS) if start is None else start.T
        start = torch.minimum(torch.maximum(start, least.log()), most.log())
        if not smoothing:
            lower, upper = tight_lower, tight_upper
        lower, upper = torch.where(moves, lower, -1.0), torch.where(moves, upper, 2.0)
        cost = reference = None
        if trading_cost is not None and reference_weights is not None:
            cost = torch.where(moves, trading_cost.permute(2, 1, 0), 0.0)
            reference = torch.where(cost > 0.0, reference_weights.permute(2, 1, 0), 0.0)
            if not smoothing:
                # Beyond the limits the cost is linear however far the reference lies.
                span = upper - lower
                reference = torch.minimum(torch.maximum(reference, lower - span), upper + span)
        return cls(
            quadratic=quadratic,
            beliefs=beliefs,
            wealth=wealth,
            moves=moves.to(beliefs.dtype),
            scale=scale,
            width=(tight_upper - tight_lower).clamp(max=1.0),
            lower=lower,
            upper=upper,
            cost=cost,
            reference=reference,
            supply=supply,
            orders=orders,
            start=start,
            target=smoothing * scale,
        )

    def gradient(self, weights: Tensor, log_prices: Tensor) -> Tensor:
        """2Gw - (m - u), the gradient of every objective but for limits and costs, (N+1, B, E)."""
        out = _times(self.quadratic, weights)
        out[1:] -= (self.beliefs - self.start[:, None]) - log_prices[:, None]
        return out

    def to_prices(self, log_prices: Tensor) -> Tensor:
        """The part of `gradient` that log prices add, (N+1, 1, E)."""
        return torch.cat((torch.zeros_like(log_prices[:1]), log_prices))[:, None]

    def value(self, log_prices: Tensor) -> Tensor:
        """S p, (N, E)."""
        return self.supply * torch.exp(self.start) * torch.exp(log_prices)

    def excess(self, weights: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Excess demand in money, and the part of it beyond rounding relative to supply, the largest of a market."""
        money = self.wealth * weights[1:]
        excess = _sum(money, 1) + self.orders - value
        gross = _sum(money.abs(), 1) + self.orders.abs() + value
        return excess, ((excess.abs() - 16.0 * _EPS * gross) / value).amax(0)


# --- interior point


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Interior(_Batch):
    """An iterate. Every position has a distance to each limit and a shadow price of each; a position with a trading
    cost is its reference plus `bought` less `sold`, whose shadow prices are c - y and c + y, y the marginal cost."""

    weights: Tensor  # (N+1, B, E)
    log_prices: Tensor  # (N, E)
    value: Tensor  # S p while the prices still follow it, (N, E)
    distance: Tensor  # to the lower and to the upper limit, (2, N+1, B, E)
    shadow: Tensor  # (2, N+1, B, E)
    traded: Tensor | None  # bought and sold, (2, N, B, E)
    trade_shadow: Tensor | None  # (2, N, B, E)

    @classmethod
    def first(cls, markets: _Markets) -> _Interior:
        """Equal weights, and shadow prices of the size of the forces on them."""
        n, _, n_investors, n_markets = markets.quadratic.shape
        weights = torch.full_like(markets.quadratic[0], 1.0 / n)
        distance = torch.stack((weights - markets.lower, markets.upper - weights))
        force = markets.gradient(weights, torch.zeros_like(markets.start))[1:]
        product = (force.abs().amax(0) + markets.scale) * distance.amin(0).amin(0)
        product = torch.maximum(product, markets.target)
        traded = trade_shadow = None
        if markets.cost is not None and markets.reference is not None:
            cost = torch.where(markets.cost > 0.0, markets.cost, 1.0)
            trade = weights[1:] - markets.reference
            half = product / cost
            root = torch.sqrt(half * half + trade * trade)
            larger = 0.5 * (half + root + trade.abs())
            smaller = larger - trade.abs()
            traded = torch.stack((torch.where(trade > 0.0, larger, smaller), torch.where(trade > 0.0, smaller, larger)))
            trade_shadow = product / traded
        return cls(
            weights=weights,
            log_prices=torch.zeros_like(markets.start),
            value=markets.value(torch.zeros_like(markets.start)),
            distance=distance,
            shadow=product / distance,
            traded=traded,
            trade_shadow=trade_shadow,
        )


def _interior_step(markets: _Markets, at: _Interior, smooth: bool, cautious: bool) -> tuple[_Interior, Tensor, Tensor]:
    """One predictor-corrector step; also the relative complementarity and the error of the iterate it started from."""
    n = len(at.weights)
    costly = at.traded is not None
    stiffness = _sum(at.shadow / at.distance)
    product = _sum(_sum(at.shadow * at.distance))
    count: Tensor | float = 2.0 * n
    marginal: Tensor | float = 0.0
    if costly:
        pays = (markets.cost > 0.0).to(product.dtype)
        cost_stiffness = pays / _sum(at.traded / at.trade_shadow)
        stiffness = torch.cat((stiffness[:1], stiffness[1:] + cost_stiffness))
        product = product + _sum(_sum(at.traded * at.trade_shadow) * pays)
        count = count + 2.0 * _sum(pays)
        marginal = 0.5 * pays * (at.trade_shadow[1] - at.trade_shadow[0])
        trade = at.weights[1:] - markets.reference
    mean = product / count
    plain = markets.gradient(at.weights, at.log_prices)
    excess, unmet = markets.excess(at.weights, at.value)
    lag = torch.log(at.value / markets.value(at.log_prices))

    basic = stiffness.argmin(0)
    gradient = plain + at.shadow[1] - at.shadow[0]
    gradient[1:] += marginal
    stray = ((gradient - gradient.gather(0, basic[None])).abs() / (markets.scale + stiffness)).amax(0)
    error = torch.maximum(torch.maximum((stray * markets.moves).amax(0), unmet), lag.abs().amax(0))
    second_order = torch.full_like(error, 0.0 if cautious else 1.0)
    least = torch.full_like(error, 0.3 if cautious else 0.0)
    if smooth:
        uneven = (at.shadow * at.distance / markets.target - 1.0).abs().amax(0).amax(0)
        if costly:
            spread = (at.traded * at.trade_shadow / markets.target - 1.0).abs().amax(0) * pays
            uneven = torch.maximum(uneven, spread.amax(0))
        uneven = (uneven * markets.moves).amax(0)
        error = torch.maximum(error, uneven)
        second_order = second_order * (uneven > 0.9)

    response = _Response(markets.quadratic, stiffness, basic)
    slope = _sum(markets.wealth * markets.moves * response.risky(), 2)
    inverse = _inverse(_add_diagonal(slope, at.value))

    def direction(limits: Tensor, trades: Tensor | None) -> tuple[Tensor, ...]:
        """The Newton step towards these products of distances and shadow prices."""
        pull = limits / at.distance
        gradient = plain + pull[1] - pull[0]
        if trades is not None:
            aim = trades / at.trade_shadow
            gradient[1:] += marginal + cost_stiffness * (trade - aim[0] + aim[1])
        step = response(gradient) * markets.moves
        log_prices = _times(inverse, excess + at.value * lag + _sum(markets.wealth * step[1:], 1))
        step = step + response(markets.to_prices(log_prices)) * markets.moves
        distance = torch.stack((step, -step))
        shadow = pull - at.shadow - at.shadow / at.distance * distance
        if trades is None:
            return log_prices, step, distance, shadow
        change = cost_stiffness * (step[1:] + trade - aim[0] + aim[1])
        change = torch.stack((-change, change))
        traded = aim - at.traded - at.traded / at.trade_shadow * change
        return log_prices, step, distance, shadow, traded, change

    def length(step: tuple[Tensor, ...]) -> Tensor:
        """The share of a step at which the first distance or shadow price of a market vanishes."""
        most = torch.maximum((-step[2] / at.distance).amax(0), (-step[3] / at.shadow).amax(0)).amax(0)
        if costly:
            trades = torch.maximum((-step[4] / at.traded).amax(0), (-step[5] / at.trade_shadow).amax(0))
            most = torch.maximum(most, (trades * pays).amax(0))
                most = torch.maximum((most * markets.moves).amax(0), (lag - step[0]).amax(0))
        return most.clamp(min=1e-3).reciprocal()

    def capped(share: Tensor, step: tuple[Tensor, ...]) -> Tensor:
        cap = _LOG_PRICE_STEP / step[0].abs().amax(0).clamp(min=_LOG_PRICE_STEP)
        return torch.minimum(share.clamp(max=1.0), cap)

    limits = markets.target.expand_as(at.distance)
    trades = markets.target.expand_as(at.traded) if costly else None
    step = direction(limits, trades)
    share = capped(length(step), step)
    after = _sum(_sum((at.shadow + share * step[3]) * (at.distance + share * step[2])))
    if costly:
        after = after + _sum(_sum((at.traded + share * step[4]) * (at.trade_shadow + share * step[5])) * pays)
    left = (after / count - markets.target).abs() / torch.maximum(mean, markets.target)
    left = (left * markets.moves).amax(0).clamp(max=1.0)
    aim = markets.target + torch.maximum(left * left * left, least) * (mean - markets.target).clamp(min=0.0)
    limits = torch.maximum(aim - second_order * step[2] * step[3], _CENTRAL * aim)
    trades = torch.maximum(aim - second_order * step[4] * step[5], _CENTRAL * aim) if costly else None
    step = direction(limits, trades)
    share = capped(_TO_BOUNDARY * length(step), step)
    moved = _Interior(
        weights=at.weights + share * step[1],
        log_prices=at.log_prices + share * step[0],
        value=at.value * (1.0 + share * (step[0] - lag)),
        distance=at.distance + share * step[2],
        shadow=at.shadow + share * step[3],
        traded=torch.where(pays > 0.0, at.traded + share * step[4], 1.0) if costly else None,
        trade_shadow=torch.where(pays > 0.0, at.trade_shadow + share * step[5], 1.0) if costly else None,
    )
    gap = (mean / (markets.scale * markets.width * markets.width) * markets.moves).amax(0)
    return moved, gap, error


def _follow_path(
    markets: _Markets, first: _Interior, gap: float | None, max_iterations: int
) -> tuple[_Interior, Tensor, Tensor]:
    """Interior-point steps until every market's relative complementarity is below `gap` or, without one, until two
    full Newton steps past the target's neighbourhood. Returns iterates, steps and which markets got there."""
    live = torch.arange(first.log_prices.shape[-1], device=first.log_prices.device)
    steps = torch.full_like(live, max_iterations)
    arrived = torch.zeros_like(live, dtype=torch.bool)
    settled = torch.zeros_like(live)
    result, at = first.take(live), first
    for iteration in range(1, max_iterations + 1):
        at, reached, error = _interior_step(markets, at, gap is None, iteration > _CAUTION)
        if gap is None:
            settled = settled + (error < _SETTLED)
            finished = settled == 3
        else:
            finished = (reached < gap) & (error < 1e-6)
        if finished.any() or iteration == max_iterations:
            result.put(live, at)
            steps[live[finished]] = iteration
            arrived[live[finished]] = True
            keep = torch.nonzero(~finished)[:, 0]
            if not len(keep):
                break
            live, at, markets, settled = live[keep], at.take(keep), markets.take(keep), settled[keep]
    return result, steps, arrived


# --- active-set polish


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Corner(_Batch):
    """Portfolios with some positions free and the others at a limit or at their reference, and the prices."""

    weights: Tensor  # (N+1, B, E)
    log_prices: Tensor  # (N, E)
    level: Tensor  # marginal value of wealth, the multiplier of the budget, (B, E)

    @classmethod
    def near(cls, markets: _Markets, at: _Interior) -> _Corner:
        stiffness = _sum(at.shadow / at.distance)
        gradient = markets.gradient(at.weights, at.log_prices) + at.shadow[1] - at.shadow[0]
        if at.traded is not None and at.trade_shadow is not None and markets.cost is not None:
            pays = (markets.cost > 0.0).to(stiffness.dtype)
            gradient[1:] += 0.5 * pays * (at.trade_shadow[1] - at.trade_shadow[0])
            stiffness[1:] += pays / _sum(at.traded / at.trade_shadow)
        level = -gradient.gather(0, stiffness.argmin(0, keepdim=True))[0]
        return cls(weights=at.weights, log_prices=at.log_prices, level=level)


def _project(markets: _Markets, at: _Corner) -> tuple[Tensor, Tensor, Tensor]:
    """A projected gradient step of every position by itself, whose fixed points are the optimal portfolios: where it
    lands, whether the position is free there, and the marginal cost of a free one."""
    lower, upper = markets.lower, markets.upper
    curvature = torch.stack((markets.scale, *(markets.quadratic[i, i] for i in range(1, len(at.weights)))))
    goal = at.weights - (markets.gradient(at.weights, at.log_prices) + at.level) / curvature
    if markets.cost is None or markets.reference is None:
        cost, aim, reference = torch.zeros_like(goal), goal, goal
        kink = torch.zeros_like(goal, dtype=torch.bool)
    else:
        cost = torch.cat((torch.zeros_like(goal[:1]), markets.cost))
        reference = torch.cat((goal[:1], markets.reference))
        half = cost / curvature
        kink = ((goal - reference).abs() <= half) & (cost > 0.0)
        aim = torch.where(kink, reference, goal - half * torch.sign(goal - reference))
    landing = torch.maximum(torch.minimum(aim, upper), lower)
    fixed = (aim <= lower) | (aim >= upper) | kink
    marginal = cost * torch.sign(goal - reference)
    # Where nothing is free the budget decides which position gives way: the one that needs the least extra force.
    rising = torch.where(landing >= reference, cost, -cost)
    falling = torch.where(landing > reference, cost, -cost)
    to_rise = torch.where(landing < upper, (landing - goal) * curvature + rising, _INF)
    to_fall = torch.where(landing > lower, (goal - landing) * curvature - falling, _INF)
    missing = 1.0 - _sum(landing)
    up, down = missing > 4.0 * _EPS, missing < -4.0 * _EPS
    rises = up | (~down & (to_rise <= to_fall))
    force = torch.where(up, to_rise, torch.where(down, to_fall, torch.minimum(to_rise, to_fall)))
    gives_way = torch.zeros_like(fixed).scatter_(0, force.argmin(0, keepdim=True), True) & fixed.all(0)
    marginal = torch.where(gives_way, torch.where(rises, rising, falling), marginal)
    return landing, ~fixed | gives_way, marginal


def _polish_step(markets: _Markets, at: _Corner) -> _Corner:
    """Newton on the optimality conditions, with the free positions free and the others where they landed."""
    landing, free, marginal = _project(markets, at)
    room = torch.minimum(at.weights - markets.lower, markets.upper - at.weights)
    basic = torch.where(free, room, -_INF).argmax(0)
    response = _Response(markets.quadratic, None, basic, free.to(landing.dtype))
    weights = torch.where(free, at.weights, landing)
    weights = torch.where(markets.moves > 0.0, weights + response.basic * (1.0 - _sum(weights)), at.weights)
    gradient = markets.gradient(weights, at.log_prices) + marginal
    step = response(gradient) * markets.moves
    value = markets.value(at.log_prices)
    slope = _sum(markets.wealth * markets.moves * response.risky(), 2)
    excess, _ = markets.excess(weights + step, value)
    change = _times(_inverse(_add_diagonal(slope, value)), excess).clamp(-1.0, 1.0)
    # Apart from the first answer, so that its rounding is not left over as excess demand.
    weights = weights + step + response(markets.to_prices(change)) * markets.moves
    log_prices = at.log_prices + change
    level = -_sum((markets.gradient(weights, log_prices) + marginal) * response.basic)
    return _Corner(weights=weights, log_prices=log_prices, level=level)


def _polish(markets: _Markets, at: _Corner) -> tuple[_Corner, Tensor, Tensor]:
    """Polish steps until portfolios are optimal and markets clear to rounding; which did, and steps taken."""
    live = torch.arange(at.log_prices.shape[-1], device=at.log_prices.device)
    arrived = torch.zeros_like(live, dtype=torch.bool)
    steps = torch.full_like(live, _POLISH_STEPS)
    result = at.take(live)
    for iteration in range(1, _POLISH_STEPS + 1):
        at = _polish_step(markets, at)
        # What a few units in the last place of a belief are worth.
        noise = 8.0 * _EPS * (markets.beliefs - markets.start[:, None]).abs().amax(0) / markets.scale
        landing, _, _ = _project(markets, at)
        strays = ((landing - at.weights).abs() / at.weights.abs().clamp(min=1.0)).amax(0) - noise
        unmet = markets.excess(at.weights, markets.value(at.log_prices))[1]
        finished = ((strays * markets.moves).amax(0) < _NATURAL) & (unmet < _UNMET)
        if finished.any() or iteration == _POLISH_STEPS:
            result.put(live, at)
            steps[live[finished]] = iteration
            arrived[live[finished]] = True
            keep = torch.nonzero(~finished)[:, 0]
            if not len(keep):
                break
            live, at, markets = live[keep], at.take(keep), markets.take(keep)
    return result, arrived, steps


def _clear_chunk(markets: _Markets, smoothing: float, max_iterations: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    at = _Interior.first(markets)
    if smoothing > 0.0:
        at, steps, converged = _follow_path(markets, at, None, max_iterations)
        result = _Corner.near(markets, at)
        start = markets.start
    else:
        result = _Corner.near(markets, at)
        start = markets.start.clone()
        live = torch.arange(start.shape[-1], device=start.device)
        converged = torch.zeros_like(live, dtype=torch.bool)
        steps = torch.zeros_like(live)
        rest = markets
        for gap in _GAPS:
            at, taken, _ = _follow_path(rest, at, gap, max_iterations)
            # Prices found so far become the new start: what is left of a log price is small, and its digits count.
            found = rest.start + at.log_prices
            corner = _Corner.near(rest, at)
            corner = dataclasses.replace(corner, log_prices=torch.zeros_like(found))
            corner, arrived, polished = _polish(dataclasses.replace(rest, start=found), corner)
            result.put(live, corner)
            start[:, live] = found
            converged[live] = arrived
            steps[live] += taken + polished
            keep = torch.nonzero(~arrived)[:, 0]
            if not len(keep):
                break
            live, at, rest = live[keep], at.take(keep), rest.take(keep)
    lower, upper = markets.lower, markets.upper
    weights = torch.maximum(torch.minimum(result.weights, upper), lower)
    value = markets.supply * torch.exp(start) * torch.exp(result.log_prices)
    prices = torch.exp(start) * torch.exp(result.log_prices)
    idle = torch.zeros_like(weights)
    idle[0] = 1.0
    weights = torch.where(markets.wealth > 0.0, weights, idle)
    residual = (_sum(markets.wealth * weights[1:] / prices[:, None], 1) - (markets.supply - markets.orders / prices)).abs()
    residual = (residual / markets.supply).amax(0)
    beyond = markets.excess(weights, value)[1]
    converged = converged & ((residual <= 1e-9) | (beyond <= 0.0))
    return prices.T, weights.permute(2, 1, 0), residual, converged, steps
