"""Primal-dual interior point for `clear_batched`: one predictor-corrector step, and the loop over steps.

Every position keeps a distance to both limits and a shadow price for each; a position with a trading cost c is its
reference plus what is bought less what is sold, with shadow prices c - y and c + y, y the marginal cost. A barrier
makes every product of a pair equal to a target. That barrier is the smoothing of `clear_market`, cost included, so
the smoothed problem is the point of the path where the target is tau tr(G)/N.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from hmgym.clearing.batched_problem import Batch, Markets, Response, add_diagonal, inverse, solve, sum_over

_LOG_PRICE_STEP = 2.0  # largest change of a log price in one step
_TO_BOUNDARY = 0.999  # share of the way to the first vanishing distance or shadow price
_CENTRAL = 0.1  # least target of a product, as a share of the common one
_CAUTION = 30  # steps after which second-order corrections are left out and products must shrink
_NEAR = 1e-6  # error of an iterate from which the polish may start
_SETTLED = 1e-8  # error of an iterate from which two full Newton steps reach rounding


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interior(Batch):
    """An iterate. P is the number of pairs: N+1 positions with limits, and N with a trading cost if there is one."""

    weights: Tensor  # (N+1, B, E)
    log_prices: Tensor  # (N, E)
    distance: Tensor  # to the lower and upper limit; bought and sold, (2, P, B, E)
    shadow: Tensor  # (2, P, B, E)
    counts: Tensor  # 1 for the pairs that exist, else 0, (P, B, E)

    @classmethod
    def first(cls, markets: Markets) -> Interior:
        """The middle of the limits, and shadow prices of the size of the forces there."""
        weights = markets.middle.expand_as(markets.curvature).clone()
        counts = torch.ones_like(weights) * markets.movable
        distance = torch.stack((weights - markets.lower, markets.upper - weights))
        distance = torch.where(markets.movable, distance, 1.0)
        force = markets.gradient(weights, torch.zeros_like(markets.start))[1:]
        product = (force.abs().amax(0) + markets.scale) * distance.amin(0).amin(0)
        product = torch.maximum(product, markets.target)
        shadow = product / distance
        if markets.cost is not None and markets.reference is not None:
            pays = markets.cost > 0.0
            trade = weights[1:] - markets.reference
            half = product / torch.where(pays, markets.cost, 1.0)
            root = torch.sqrt(half * half + trade * trade)
            more = 0.5 * (half + root + trade.abs())
            less = half * more / (root + trade.abs())
            buys = trade > 0.0
            traded = torch.stack((torch.where(buys, more, less), torch.where(buys, less, more)))
            distance = torch.cat((distance, traded), 1)
            shadow = torch.cat((shadow, product / traded), 1)
            counts = torch.cat((counts, pays.to(counts.dtype)))
        return cls(
            weights=weights, log_prices=torch.zeros_like(markets.start), distance=distance, shadow=shadow, counts=counts
        )

    def stiffness(self) -> tuple[Tensor, Tensor | None]:
        """What limits and costs add to the curvature of a position, and the part of the costs."""
        n = len(self.weights)
        limits = sum_over(self.shadow[:, :n] / self.distance[:, :n])
        if self.distance.shape[1] == n:
            return limits, None
        costs = self.counts[n:] / sum_over(self.distance[:, n:] / self.shadow[:, n:])
        return torch.cat((limits[:1], limits[1:] + costs)), costs

    def pressure(self) -> Tensor:
        """What limits and costs add to the gradient of an objective, (N+1, B, E)."""
        n = len(self.weights)
        out = self.shadow[1, :n] - self.shadow[0, :n]
        if self.distance.shape[1] > n:
            out[1:] += 0.5 * self.counts[n:] * (self.shadow[1, n:] - self.shadow[0, n:])
        return out


def _products(at: Interior, distance: Tensor, shadow: Tensor) -> Tensor:
    """Mean product of an investor's pairs, (B, E)."""
    return sum_over(sum_over(distance * shadow) * at.counts) / (2.0 * sum_over(at.counts)).clamp(min=1.0)


def _step(markets: Markets, at: Interior, smooth: bool, cautious: bool) -> tuple[Interior, Tensor, Tensor]:
    """One predictor-corrector step; also the relative gap and the error of the iterate that it started from."""
    n = len(at.weights)
    stiffness, cost_stiffness = at.stiffness()
    basic = markets.easiest(stiffness)
    mean = _products(at, at.distance, at.shadow)
    plain = markets.gradient(at.weights, at.log_prices)
    value = markets.value(at.log_prices)
    excess, unmet = markets.excess(at.weights, value)

    gradient = plain + at.pressure()
    stray = (gradient - gradient.gather(0, basic[None])).abs() / (markets.scale + stiffness)
    error = torch.maximum(markets.worst(torch.where(markets.movable, stray, 0.0).amax(0)), unmet)
    second_order = torch.full_like(error, 0.0 if cautious else 1.0)
    least = torch.full_like(error, 0.3 if cautious else 0.0)
    if smooth:
        uneven = (at.distance * at.shadow / markets.target - 1.0).abs().amax(0) * at.counts
        uneven = markets.worst(uneven.amax(0))
        error = torch.maximum(error, uneven)
        # Near the target plain Newton steps converge, where corrections can have fixed points of their own.
        second_order = second_order * (uneven > 0.9)
        least = least * (uneven > 0.9)

    response = Response(markets.quadratic, stiffness, basic, markets.movable.to(mean.dtype))
    slope = sum_over(torch.where(markets.moves, markets.wealth, 0.0) * response.risky(), 2)
    slope = add_diagonal(slope, value)
    inverted = inverse(slope)

    def newton(products: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The Newton step towards these products: weights, log prices, distances and shadow prices."""
        pull = products[:, :n] / at.distance[:, :n]
        gradient = plain + pull[1] - pull[0]
        drift = torch.zeros_like(plain[1:])
        if cost_stiffness is not None and markets.reference is not None:
            aim = products[:, n:] / at.shadow[:, n:]
            drift = at.weights[1:] - markets.reference - aim[0] + aim[1]
            marginal = 0.5 * at.counts[n:] * (at.shadow[1, n:] - at.shadow[0, n:])
            gradient[1:] += marginal + cost_stiffness * drift
        weights = response(gradient)
        log_prices = solve(slope, inverted, excess + sum_over(markets.wealth * weights[1:], 1))
        weights = weights + response(torch.cat((torch.zeros_like(value[:1]), log_prices))[:, None])
        distance = torch.stack((weights, -weights))
        shadow = pull - at.shadow[:, :n] - at.shadow[:, :n] / at.distance[:, :n] * distance
        if cost_stiffness is not None:
            change = cost_stiffness * (weights[1:] + drift)
            change = torch.stack((-change, change))
            traded = aim - at.distance[:, n:] - at.distance[:, n:] / at.shadow[:, n:] * change
            distance, shadow = torch.cat((distance, traded), 1), torch.cat((shadow, change), 1)
        return weights, log_prices, distance * at.counts, shadow * at.counts

    def length(log_prices: Tensor, distance: Tensor, shadow: Tensor, share: float) -> Tensor:
        """How much of a step to take: a share of what makes the first distance or shadow price vanish."""
        most = torch.maximum((-distance / at.distance).amax(0), (-shadow / at.shadow).amax(0))
        most = (most.amax(0).amax(0) / share).clamp(min=1.0)
        return torch.maximum(most, log_prices.abs().amax(0) / _LOG_PRICE_STEP).reciprocal()

    _, log_prices, distance, shadow = newton(markets.target.expand_as(at.distance))
    share = length(log_prices, distance, shadow, 1.0)
    left = _products(at, at.distance + share * distance, at.shadow + share * shadow)
    left = (left - markets.target).abs() / torch.maximum(mean, markets.target).clamp(min=1e-300)
    left = markets.worst(left).clamp(max=1.0)
    aim = markets.target + torch.maximum(left * left * left, least) * (mean - markets.target).clamp(min=0.0)
    weights, log_prices, distance, shadow = newton(
        torch.maximum(aim - second_order * distance * shadow, _CENTRAL * aim)
    )
    share = length(log_prices, distance, shadow, _TO_BOUNDARY)
    if cautious:
        # The mean product is quadratic in the share: go no further than its minimum, or than where the quadratic
        # term adds a tenth. Without this an investor's products can grow and shrink for ever.
        bend = _products(at, distance, shadow).clamp(min=1e-300)
        furthest = torch.maximum(
            0.5 * (mean - aim) / bend, torch.sqrt(0.1 * torch.maximum(mean, markets.target) / bend)
        )
        share = torch.minimum(share, torch.where(markets.moves, furthest, torch.inf).amin(0))
    moved = Interior(
        weights=at.weights + share * weights,
        log_prices=at.log_prices + share * log_prices,
        distance=at.distance + share * distance,
        shadow=at.shadow + share * shadow,
        counts=at.counts,
    )
    return moved, markets.worst(mean / (markets.scale * markets.width * markets.width)), error


def follow_path(
    markets: Markets, first: Interior, gap: float | None, max_iterations: int
) -> tuple[Interior, Tensor, Tensor]:
    """Steps until a market's products are below `gap` times its scale or, without one, at their positive targets.

    Returns iterates, steps and which markets got there; a market that did is left as it is.
    """
    live = torch.arange(first.log_prices.shape[-1], device=first.log_prices.device)
    steps = torch.full_like(live, max_iterations)
    arrived = torch.zeros_like(live, dtype=torch.bool)
    settled = torch.zeros_like(live)
    result, at = first.take(live), first
    for iteration in range(1, max_iterations + 1):
        at, reached, error = _step(markets, at, gap is None, iteration > _CAUTION)
        if gap is None:
            settled = settled + (error < _SETTLED)
            finished = settled == 3
        else:
            finished = (reached < gap) & (error < _NEAR)
        gone = finished | ~torch.isfinite(error)
        if gone.any() or iteration == max_iterations:
            result.put(live, at)
            steps[live[gone]] = iteration
            arrived[live[finished]] = True
            keep = torch.nonzero(~gone)[:, 0]
            if not len(keep):
                break
            live, at, markets, settled = live[keep], at.take(keep), markets.take(keep), settled[keep]
    return result, steps, arrived
