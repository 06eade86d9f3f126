"""Active-set polish for `clear_batched`: from an interior point's neighbourhood to portfolios exact to rounding."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from hmgym.clearing.batched_interior import Interior
from hmgym.clearing.batched_problem import EPS, Batch, Markets, Response, add_diagonal, inverse, solve, sum_over

_STEPS = 10
_STRAY = 1e-11  # accepted distance, in weights, of a portfolio from its own projected gradient step
_UNMET = 1e-12  # accepted excess demand relative to supply


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corner(Batch):
    """Portfolios with some positions free and the others at a limit or at their reference, and the prices."""

    weights: Tensor  # (N+1, B, E)
    log_prices: Tensor  # (N, E)
    level: Tensor  # marginal value of wealth, the multiplier of the budget, (B, E)

    @classmethod
    def near(cls, markets: Markets, at: Interior) -> Corner:
        """The weights of an interior iterate, at log prices that are the markets' start."""
        gradient = markets.gradient(at.weights, torch.zeros_like(at.log_prices)) + at.pressure()
        level = -gradient.gather(0, markets.easiest(at.stiffness()[0])[None])[0]
        return cls(weights=at.weights, log_prices=torch.zeros_like(at.log_prices), level=level)


def _project(markets: Markets, at: Corner) -> tuple[Tensor, Tensor, Tensor]:
    """A projected gradient step of every position by itself, whose fixed points are the optimal portfolios.

    Returns where the positions land, which are free there, and the marginal cost of the free ones.
    """
    lower, upper, curvature = markets.lower, markets.upper, markets.curvature
    goal = at.weights - (markets.gradient(at.weights, at.log_prices) + at.level) / curvature
    if markets.cost is None or markets.reference is None:
        cost, aim, reference = torch.zeros_like(goal), goal, goal
        kink = torch.zeros_like(goal, dtype=torch.bool)
    else:
        cost = torch.cat((torch.zeros_like(goal[:1]), markets.cost))
        reference = torch.cat((goal[:1], markets.reference))
        kink = ((goal - reference).abs() <= cost / curvature) & (cost > 0.0)
        aim = torch.where(kink, reference, goal - torch.sign(goal - reference) * cost / curvature)
    landing = torch.maximum(torch.minimum(aim, upper), lower)
    fixed = (aim <= lower) | (aim >= upper) | kink
    marginal = cost * torch.sign(goal - reference)
    # Where nothing is free the budget decides which position gives way: the one that needs the least extra force.
    rising = torch.where(landing >= reference, cost, -cost)
    falling = torch.where(landing > reference, cost, -cost)
    to_rise = torch.where(landing < upper, (landing - goal) * curvature + rising, torch.inf)
    to_fall = torch.where(landing > lower, (goal - landing) * curvature - falling, torch.inf)
    missing = 1.0 - sum_over(landing)
    up, down = missing > 4.0 * EPS, missing < -4.0 * EPS
    rises = up | (~down & (to_rise <= to_fall))
    force = torch.where(up, to_rise, torch.where(down, to_fall, torch.minimum(to_rise, to_fall)))
    gives_way = torch.zeros_like(fixed).scatter_(0, force.argmin(0, keepdim=True), True) & fixed.all(0)
    marginal = torch.where(gives_way, torch.where(rises, rising, falling), marginal)
    return landing, ~fixed | gives_way, marginal


def _step(markets: Markets, at: Corner) -> Corner:
    """Newton on the optimality conditions, with the free positions free and the others where they landed."""
    landing, free, marginal = _project(markets, at)
    free = free & markets.movable
    room = torch.minimum(at.weights - markets.lower, markets.upper - at.weights)
    basic = torch.where(free, room, -torch.inf).argmax(0)
    response = Response(markets.quadratic, None, basic, free.to(landing.dtype))
    weights = torch.where(free, at.weights, landing)
    weights = weights + response.basic * (1.0 - sum_over(weights))
    weights = torch.where(markets.moves, weights, at.weights)
    step = response(markets.gradient(weights, at.log_prices) + marginal)
    value = markets.value(at.log_prices)
    slope = sum_over(torch.where(markets.moves, markets.wealth, 0.0) * response.risky(), 2)
    excess, _ = markets.excess(weights + step, value)
    slope = add_diagonal(slope, value)
    change = solve(slope, inverse(slope), excess).clamp(-1.0, 1.0)
    # Apart from the first response, so that its rounding is not left over as excess demand: what is left is shared
    # among the free positions in proportion to their slopes.
    weights = weights + step + response(torch.cat((torch.zeros_like(change[:1]), change))[:, None])
    log_prices = at.log_prices + change
    level = -sum_over((markets.gradient(weights, log_prices) + marginal) * response.basic)
    return Corner(weights=weights, log_prices=log_prices, level=level)


def _is_exact(markets: Markets, at: Corner) -> Tensor:
    landing, _, _ = _project(markets, at)
    # What a few units in the last place of a belief are worth.
    force = (markets.beliefs - markets.start[:, None]).abs().amax(0) + at.level.abs()
    stray = (landing - at.weights).abs() - 8.0 * EPS * force / markets.curvature
    stray = (stray / at.weights.abs().clamp(min=1.0)).amax(0)
    unmet = markets.excess(at.weights, markets.value(at.log_prices))[1]
    return (markets.worst(stray) < _STRAY) & (unmet <= _UNMET)


def polish(markets: Markets, at: Corner) -> tuple[Corner, Tensor, Tensor]:
    """Steps until portfolios are optimal and markets clear to rounding; also which did, and the steps taken."""
    live = torch.arange(at.log_prices.shape[-1], device=at.log_prices.device)
    arrived = torch.zeros_like(live, dtype=torch.bool)
    steps = torch.full_like(live, _STEPS)
    result = at.take(live)
    for iteration in range(1, _STEPS + 1):
        at = _step(markets, at)
        finished = _is_exact(markets, at)
        if finished.any() or iteration == _STEPS:
            result.put(live, at)
            steps[live[finished]] = iteration
            arrived[live[finished]] = True
            keep = torch.nonzero(~finished)[:, 0]
            if not len(keep):
                break
            live, at, markets = live[keep], at.take(keep), markets.take(keep)
    return result, arrived, steps
