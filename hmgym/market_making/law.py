"""The exact law of what given quotes make: moments, certainty equivalents, losses at risk, and gradients.

Profit is cash and inventory at mid at the end less those at the start. It is a functional of the chain of
`hmgym.market_making.tables`, whose state is inventory alone, so the expectation of e^{sX} goes through the steps as a
vector over inventories for any complex s. Its values on the imaginary axis give the distribution by a Fourier series.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hmgym.checks import check_interval, is_finite_number, shown
from hmgym.market_making import kernels
from hmgym.market_making.distribution import Distribution
from hmgym.market_making.inventory_hjb import InventoryHJB
from hmgym.market_making.quotes import Floats
from hmgym.market_making.tables import QuoteTables, gathered, read_tables

Complexes: TypeAlias = NDArray[np.complex128]

_NEGLIGIBLE = 1e-15  # probability of all paths without risk below which they are left out
_ATOMS = 4096  # of their profits that are told apart


@dataclass(frozen=True, kw_only=True, eq=False)
class PolicyLaw:
    """The law of a market maker that follows given quotes.

    Attributes:
        mean: of profit, money.
        std: of profit, money.
        mean_spread: bid depth plus ask depth, price: the mean over steps and the law of inventory, where both are
            quoted; NaN where they never are.
        mean_inventory: at the end, shares.
        std_inventory: at the end, shares.
        mean_trades: fills on both sides.
        expected_reward: of profit less the model's penalties φ Σ q² dt, on inventories after fills, and a q_T²; money.
        inventory: (2Q'+1,) of the table.
        probability: (steps+1, 2Q'+1) of the inventory at the start of every step, and at the end.
    """

    mean: float
    std: float
    mean_spread: float
    mean_inventory: float
    std_inventory: float
    mean_trades: float
    expected_reward: float
    inventory: NDArray[np.int64]
    probability: Floats
    _tables: QuoteTables = field(repr=False)
    _reward_to_go: Floats = field(repr=False)  # (steps+1, 2Q'+1)

    def certainty_equivalent(self, risk_aversion: float) -> float:
        """−ln E e^{−γX} / γ of profit X, money; its mean at γ = 0. A negative γ is fondness of risk.

        Args:
            risk_aversion: γ, 1 / money.

        Raises:
            ValueError: `risk_aversion` is no finite number.
        """
        if not is_finite_number(risk_aversion):
            raise ValueError(f"`risk_aversion` must be a finite number, got {shown(risk_aversion)}")
        if risk_aversion == 0.0:
            return self.mean
        return float(_log_moment(self._tables, np.array([-float(risk_aversion)]))[0]) / -risk_aversion

    def value_at_risk(self, level: float = 0.95) -> float:
        """The loss (positive, money) that profit falls short of with probability 1 − level: minus its quantile there.

        Raises:
            ValueError: `level` is not in (0, 1), or the model's volatility is 0.
        """
        check_interval("level", level, 0.0, 1.0, open_interval=True)
        return -self._distribution.quantile(1.0 - level)

    def conditional_value_at_risk(self, level: float = 0.95) -> float:
        """The mean loss (positive, money) over the worst 1 − level of the law.

        Raises:
            ValueError: `level` is not in (0, 1), or the model's volatility is 0.
        """
        check_interval("level", level, 0.0, 1.0, open_interval=True)
        quantile = self._distribution.quantile(1.0 - level)
        return float(self._distribution.shortfall(quantile)) / (1.0 - level) - quantile

    def cumulative(self, profit: ArrayLike) -> Floats:
        """The probability of profits no larger than these.

        Raises:
            ValueError: the model's volatility is 0.
        """
        return self._distribution.cumulative(np.asarray(profit, dtype=np.float64))

    def reward_gradient(self) -> tuple[Floats, Floats]:
        """The derivatives (steps, 2Q'+1) of the expected reward by the depths of bid and of ask.

        A quote is worth what its step and the rewards to go make of a fill, so nothing is differenced. Zero where
        nothing is quoted; where the probability of a fill has reached 1, the derivative towards lower depths.
        """
        t = self._tables
        decay, law = t.model.depth_decay, self.probability[:-1]
        after = _after(t, self._reward_to_go[1:])
        bought, sold = _moved(t, after)
        neither = (bought - after) * (1.0 - t.ask_fill) + (after - sold) * t.ask_fill
        by_bid = t.bid + neither
        by_ask = t.ask + (sold - after) * (1.0 - t.bid_fill) + (after - bought) * t.bid_fill
        bid_slope = np.where(t.bid_fill < 1.0, -decay * t.bid_fill, 0.0)
        ask_slope = np.where(t.ask_fill < 1.0, -decay * t.ask_fill, 0.0)
        return law * (t.bid_fill + bid_slope * by_bid), law * (t.ask_fill + ask_slope * by_ask)

    @cached_property
    def _distribution(self) -> Distribution:
        t = self._tables
        if t.model.volatility == 0.0:
            raise ValueError("`volatility` must be > 0 for the distribution of profit, got 0")
        spread = t.model.volatility * math.sqrt(t.dt)
        ends, weights = _riskless(t)

        def characteristic(u: Floats) -> Complexes:
            found: Complexes = kernels.characteristic(*t.branches, u, _carry(t, 1j * u), t.start)
            return found

        def bound(u: Floats) -> Floats:
            # |E e^{iuX}| <= E e^{−½u² σ²dt Σq²}: given all fills, X is normal. Falls in u to the weight of Σq² = 0.
            carry = -0.5 * (u[:, None] * spread * t.inventory) ** 2
            total: Floats = np.exp(kernels.log_moment(*t.branches, np.zeros_like(u), carry, t.start))
            return total

        return Distribution.from_transform(
            characteristic=characteristic,
            bound=bound,
            log_moment=lambda s: _log_moment(t, s),
            std=self.std,
            atoms=ends,
            weights=weights,
        )


def exact_law(
    model: InventoryHJB, bid: ArrayLike, ask: ArrayLike, *, dt: float, initial_inventory: int = 0
) -> PolicyLaw:
    """The law of profit, inventory and trades under given quotes, exact but for rounding.

    Args:
        model: fills, mid and penalties. Its horizon and its limit play no part: the table has its own.
        bid: (steps, 2Q'+1) depth of the bid in step t at inventory −Q' … Q', below mid, price; NaN is no quote. That at
            Q' is none whatever stands there.
        ask: (steps, 2Q'+1) likewise, above mid; that at −Q' is none.
        dt: length of a step, time.
        initial_inventory: shares, in [−Q', Q'].

    Raises:
        ValueError: an argument is none of these.
    """
    tables = read_tables(model, bid, ask, dt, initial_inventory)
    steps, n = tables.bid.shape
    q = tables.inventory
    held = q.astype(np.float64)
    drift, variance = model.drift * dt * held, model.volatility**2 * dt * held**2
    chances, gains = tables.branches
    probability = np.zeros((steps + 1, n))
    probability[0, tables.start] = 1.0
    # Moments of profit on each inventory, of profit less its mean so far: large means then cost no digits.
    mean, first, second = 0.0, np.zeros(n), np.zeros(n)
    for step in range(steps):
        moments = (probability[step], first, second)
        flows = [_gained(moments, chances[step, branch], gains[step, branch]) for branch in range(4)]
        mass, first, second = (gathered(*(flow[order] for flow in flows)) for order in range(3))
        mass, first, second = _gained((mass, first, second), 1.0, drift)
        second = second + variance * mass
        moved = float(first.sum()) / float(mass.sum())
        mass, first, second = _gained((mass, first, second), 1.0, -moved)
        mean += moved
        probability[step + 1] = mass
    law = probability[:-1]
    both = law * (tables.bid_quoted & tables.ask_quoted)
    mean_inventory = float(probability[-1] @ q)
    to_go = _reward_to_go(tables)
    return PolicyLaw(
        mean=mean,
        std=math.sqrt(max(float(second.sum()), 0.0)),
        mean_spread=float((both * (tables.bid + tables.ask)).sum() / both.sum()) if both.any() else math.nan,
        mean_inventory=mean_inventory,
        std_inventory=math.sqrt(float(probability[-1] @ (q - mean_inventory) ** 2)),
        mean_trades=float((law * (tables.bid_fill + tables.ask_fill)).sum()),
        expected_reward=float(to_go[0, tables.start]),
        inventory=q,
        probability=probability,
        _tables=tables,
        _reward_to_go=to_go,
    )


def _gained(moments: tuple[Floats, ...], chance: Floats | float, gain: Floats | float) -> tuple[Floats, ...]:
    """Moments of order 0, 1, 2 times a chance, of what has gained an amount."""
    mass, first, second = moments
    return chance * mass, chance * (first + gain * mass), chance * (second + gain * (2.0 * first + gain * mass))


def _log_moment(t: QuoteTables, s: Floats) -> Floats:
    """ln E e^{sX} (J,) of profit X."""
    found: Floats = kernels.log_moment(*t.branches, s, _carry(t, s), t.start)
    return found


def _carry(t: QuoteTables, s: NDArray[Any]) -> NDArray[Any]:
    """ln E e^{sY} (J, n) of what mid's own move Y makes of an inventory in a step, at s (J,), real or imaginary."""
    held = s[:, None] * t.inventory
    carry: NDArray[Any] = t.dt * (t.model.drift * held + 0.5 * (t.model.volatility * held) ** 2)
    return carry


def _riskless(t: QuoteTables) -> tuple[Floats, Floats]:
    """Profits (J,) and probabilities (J,) of the paths that hold nothing after any step: mid plays no part in them."""
    centre = t.inventory.size // 2
    place, ends, weights = t.start, np.zeros(1), np.ones(1)
    for (stay, both, bought, sold), (_, earned, up, down) in zip(*t.branches, strict=True):
        if place == centre:
            ends = np.concatenate([ends, ends + earned[centre]])
            weights = np.concatenate([stay[centre] * weights, both[centre] * weights])
        elif place == centre - 1:
            ends, weights = ends + up[place], weights * bought[place]
        elif place == centre + 1:
            ends, weights = ends + down[place], weights * sold[place]
        else:
            weights = 0.0 * weights
        place = centre
        ends, weights = _merged(ends, weights)
        if weights.sum() < _NEGLIGIBLE:
            return np.empty(0), np.empty(0)
    return ends, weights


def _merged(ends: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Few enough atoms, at the means of those merged: equal ones, and neighbours where there are too many."""
    order = np.argsort(ends)
    ends, weights = ends[order], weights[order]
    span = ends[-1] - ends[0]
    resolution = 1e-13 * max(abs(ends[0]), abs(ends[-1]))
    while True:
        new = np.concatenate([[True], np.diff(ends) > resolution])
        if new.sum() <= _ATOMS:
            break
        resolution = max(10.0 * resolution, 1e-9 * span)
    starts = np.flatnonzero(new)
    total = np.add.reduceat(weights, starts)
    middle = np.add.reduceat(weights * ends, starts) / np.where(total > 0.0, total, 1.0)
    kept = total > 0.0
    return (middle[kept], total[kept]) if kept.any() else (np.zeros(1), np.zeros(1))


def _after(t: QuoteTables, to_go: Floats) -> Floats:
    """Expected reward (…, n) from the fills of a step on, by the inventory after them."""
    q = t.inventory
    after: Floats = to_go + t.dt * (t.model.drift * q - t.model.running_penalty * q**2)
    return after


def _moved(t: QuoteTables, after: Floats) -> tuple[Floats, Floats]:
    """The same after a bid alone, or an ask alone, is filled, with its impact, by the inventory before."""
    q, impact = t.inventory, t.model.impact
    bought, sold = np.zeros_like(after), np.zeros_like(after)
    bought[..., :-1] = after[..., 1:] - impact * (q[:-1] + 1)
    sold[..., 1:] = after[..., :-1] + impact * (q[1:] - 1)
    return bought, sold


def _reward_to_go(t: QuoteTables) -> Floats:
    """Expected reward (steps+1, n) from the start of a step on, by inventory."""
    steps, n = t.bid.shape
    to_go = np.empty((steps + 1, n))
    to_go[-1] = -t.model.terminal_penalty * t.inventory**2
    for step in range(steps - 1, -1, -1):
        after = _after(t, to_go[step + 1])
        bought, sold = _moved(t, after)
        bid, ask = t.bid_fill[step], t.ask_fill[step]
        stays = (1.0 - bid) * (1.0 - ask) + bid * ask
        earned = bid * t.bid[step] + ask * t.ask[step]
        to_go[step] = earned + stays * after + bid * (1.0 - ask) * bought + ask * (1.0 - bid) * sold
    return to_go
