"""The market maker's problem with a limit on inventory, and its exact solutions.

Mid moves by dS = μdt + σdW + ξ(dNᵃ − dNᵇ). A bid at depth δ below mid is filled with intensity A e^{−kδ}, an ask above
it likewise, one share a time; |q| ≤ Q, so there is no bid at q = Q and no ask at q = −Q. The market maker maximises

    E −exp(−γ (X_T + q_T S_T − a q_T² − φ ∫ q² dt)),     and its expected argument where γ = 0.

Its certainty equivalent beyond cash and inventory at mid is θ(t, q) = ln v / k + ½ξq², where

    v' = M v,   v_q(T) = exp(−k(a + ½ξ) q²),   M_qq = αq² − kμq,   M_{q,q±1} = −η,
    α = k(½γσ² + φ),   η = A (1 + γ/k)^{−(1 + k/γ)} e^{−½kξ}   (A/e at γ = 0 in place of the power),

and the best depths are, with c = ln(1 + γ/k)/γ (1/k at γ = 0),

    δᵇ = c + ½ξ + ln(v_q / v_{q+1}) / k,     δᵃ = c + ½ξ + ln(v_q / v_{q−1}) / k.

Source: Guéant, Lehalle and Fernandez-Tapia (2013), Dealing with the inventory risk, arXiv 1105.3115; Avellaneda and
Stoikov (2008), High-frequency trading in a limit order book; Cartea, Jaimungal and Penalva (2015), Algorithmic and
High-Frequency Trading, chapter 10.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hmgym.checks import integer, is_finite_number, shown
from hmgym.market_making import kernels
from hmgym.market_making.quotes import Floats, Quotes, QuotingSolution

Method: TypeAlias = Literal["exponential", "finite_difference", "howard"]


@dataclass(frozen=True, kw_only=True)
class InventoryHJB:
    """A market maker's problem (the equations stand at the head of this module).

    Units: those of price, of money (price × share) and of time are the user's own.

    Attributes:
        volatility: σ ≥ 0 of mid, price / √time.
        arrival_rate: A > 0, fills a time at mid.
        depth_decay: k > 0, 1 / price.
        horizon: T > 0, time.
        max_inventory: Q ≥ 1, shares.
        risk_aversion: γ ≥ 0, 1 / money; 0 is risk neutral.
        running_penalty: φ ≥ 0, money / (share² time).
        terminal_penalty: a ≥ 0, money / share².
        drift: μ of mid, price / time.
        impact: ξ ≥ 0, by which a fill moves mid against the market maker, price.

    Raises:
        ValueError: an argument is none of these.
    """

    volatility: float
    arrival_rate: float
    depth_decay: float
    horizon: float
    max_inventory: int
    risk_aversion: float = 0.0
    running_penalty: float = 0.0
    terminal_penalty: float = 0.0
    drift: float = 0.0
    impact: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_inventory", integer("max_inventory", self.max_inventory, 1))
        positive = ("arrival_rate", "depth_decay", "horizon")
        for name in (field.name for field in fields(self) if field.name != "max_inventory"):
            value = getattr(self, name)
            if not is_finite_number(value):
                raise ValueError(f"`{name}` must be a finite number, got {shown(value)}")
            if name in positive and value <= 0.0:
                raise ValueError(f"`{name}` must be > 0, got {shown(value)}")
            if name != "drift" and value < 0.0:
                raise ValueError(f"`{name}` must be >= 0, got {shown(value)}")
            object.__setattr__(self, name, float(value))

    @property
    def inventory(self) -> NDArray[np.int64]:
        """(2Q+1,) −Q … Q, shares."""
        return np.arange(-self.max_inventory, self.max_inventory + 1)

    @cached_property
    def half_spread(self) -> float:
        """c, price: the depth of quotes that neither inventory nor impact moves."""
        ratio = self.risk_aversion / self.depth_decay
        return (math.log1p(ratio) / ratio if ratio else 1.0) / self.depth_decay

    @cached_property
    def curvature(self) -> float:
        """α = k(½γσ² + φ), 1 / (share² time)."""
        return self.depth_decay * self._aversion

    @cached_property
    def coupling(self) -> float:
        """η, 1 / time."""
        ratio = self.risk_aversion / self.depth_decay
        # (1 + γ/k)^{−(1 + k/γ)} = e^{−kc} / (1 + γ/k), which has a limit.
        exponent = self.depth_decay * (self.half_spread + 0.5 * self.impact)
        return self.arrival_rate * math.exp(-exponent) / (1.0 + ratio)

    def solve(
        self, times: ArrayLike | None = None, *, method: Method = "exponential", steps: int = 4000
    ) -> QuotingSolution:
        """The best quotes, and their value, over the horizon.

        Args:
            times: (K,) time since the start, in [0, T], any order; None is 201 of them, equally far apart.
            method: ``"exponential"``, the exponential of M, exact but for rounding; ``"finite_difference"``, implicit
                steps of v' = Mv; ``"howard"``, policy iteration in implicit steps of the Hamilton-Jacobi-Bellman
                equation itself. The last two are of order five and three in time.
            steps: of the last two over the horizon, ≥ 1, the shorter the nearer to its end; those that end at `times`
                are added.

        Raises:
            ValueError: an argument is none of these; or `steps` are too few for the method.
        """
        if method not in get_args(Method):
            raise ValueError(f"`method` must be one of {', '.join(get_args(Method))}, got {shown(method)}")
        steps = integer("steps", steps, 1)
        times = self._times(np.linspace(0.0, self.horizon, 201) if times is None else times)
        left, place = np.unique(self.horizon - times, return_inverse=True)
        if method == "exponential":
            log, gap = kernels.exponential(self._diagonal, self.coupling, np.diff(left, prepend=0.0), self._log_end)
            value, gap = log / self.depth_decay + self._impact_value, gap / self.depth_decay
        else:
            value = self._stepped(method, steps, left)
            gap = np.asarray(-np.diff(value - self._impact_value), dtype=np.float64)
        bid, ask = self._depths(gap[place])
        return QuotingSolution(
            inventory=self.inventory,
            bid=bid,
            ask=ask,
            value_rate=self._smallest[0] / -self.depth_decay,
            times=times,
            value=value[place],
        )

    def stationary(self) -> Quotes:
        """The best quotes of a horizon without end: v is the eigenvector of the smallest eigenvalue of M.

        Its ratios of neighbours are continued fractions from the limits inward, in which nothing grows.
        """
        smallest, gap = self._smallest
        bid, ask = self._depths(gap)
        return Quotes(inventory=self.inventory, bid=bid, ask=ask, value_rate=-smallest / self.depth_decay)

    def closed_form(self) -> Quotes:
        """The quotes of a horizon without end, approximated: v is a Gaussian in q, as it is without a limit and A → ∞.

        With ρ = √(α/η)/k and m = q − kμ/2α: δᵇ = c + ½ξ + (m + ½)ρ, δᵃ = c + ½ξ − (m − ½)ρ, and a value rate of
        (2η − √(αη) + (kμ)²/4α)/k.

        Raises:
            ValueError: the curvature α is 0: nothing makes inventory dear.
        """
        alpha, eta, k = self.curvature, self.coupling, self.depth_decay
        if alpha == 0.0:
            raise ValueError(
                "`curvature` must be > 0 for a closed form, got 0: no risk aversion and no running penalty"
            )
        centre = k * self.drift / (2.0 * alpha)
        slope = math.sqrt(alpha / eta) / k
        bid, ask = self._depths((self.inventory[:-1].astype(np.float64) + 0.5 - centre) * slope)
        rate = (2.0 * eta - math.sqrt(alpha * eta) + alpha * centre**2) / k
        return Quotes(inventory=self.inventory, bid=bid, ask=ask, value_rate=rate)

    def avellaneda_stoikov(self, times: ArrayLike) -> Quotes:
        """The approximation of Avellaneda and Stoikov: δᵇ = c + ½γσ²τ + qγσ²τ, δᵃ = c + ½γσ²τ − qγσ²τ, τ = T − t.

        It knows no limits of inventory, so both sides are quoted everywhere; nor drift, impact and penalties.

        Args:
            times: (K,) time since the start, in [0, T].

        Returns:
            Quotes (K, 2Q+1) without a value rate.

        Raises:
            ValueError: `times` are none of these.
        """
        bid, ask = self.reservation_depths(self.inventory, (self.horizon - self._times(times))[:, None])
        return Quotes(inventory=self.inventory, bid=bid, ask=ask, value_rate=math.nan)

    def reservation_depths(self, inventory: NDArray[np.int64], left: Floats) -> tuple[Floats, Floats]:
        """Depths of bid and ask of that approximation, at inventories and times that are left which broadcast."""
        risk: Floats = self.risk_aversion * self.volatility**2 * left
        middle, skew = self.half_spread + 0.5 * risk, inventory * risk
        return middle + skew, middle - skew

    @property
    def _aversion(self) -> float:
        """½γσ² + φ, what inventory costs, money / (share² time)."""
        return 0.5 * self.risk_aversion * self.volatility**2 + self.running_penalty

    @property
    def _diagonal(self) -> Floats:
        """(2Q+1,) of M."""
        diagonal: Floats = self.curvature * self.inventory**2 - self.depth_decay * self.drift * self.inventory
        return diagonal

    @property
    def _log_end(self) -> Floats:
        """(2Q+1,) ln v at T."""
        return -self.depth_decay * (self.terminal_penalty * self.inventory**2 + self._impact_value)

    @property
    def _impact_value(self) -> Floats:
        """(2Q+1,) θ − ln v / k, money."""
        impact: Floats = 0.5 * self.impact * self.inventory.astype(np.float64) ** 2
        return impact

    def _times(self, times: ArrayLike) -> Floats:
        """`times` as checked floats (K,)."""
        try:
            given = np.array(times, dtype=np.float64)
        except (TypeError, ValueError):
            given = np.empty(0)
        if given.ndim != 1 or given.size == 0 or not np.all((given >= 0.0) & (given <= self.horizon)):
            raise ValueError(f"`times` must be (K,) numbers in [0, horizon = {self.horizon:g}], got {shown(times)}")
        return given

    def _depths(self, gap: Floats) -> tuple[Floats, Floats]:
        """Bid and ask (…, 2Q+1) of what ln v / k falls by (…, 2Q) from an inventory to the next."""
        middle = self.half_spread + 0.5 * self.impact
        none = np.full((*gap.shape[:-1], 1), np.nan)
        return np.concatenate([middle + gap, none], -1), np.concatenate([none, middle - gap], -1)

    def _stepped(self, method: Method, steps: int, left: Floats) -> Floats:
        """Value (K, 2Q+1) at increasing times to the end (K,), in steps that grow in proportion to it and to 1/rate.

        The rate is the largest of change at the end. Far from it, what changes so fast is gone.
        """
        log_end = self._log_end
        fall = np.abs(np.diff(log_end))
        rate = self.coupling * 2.0 * math.exp(min(fall.max(), 600.0)) + np.abs(self._diagonal).max()
        grid = np.expm1(np.linspace(0.0, math.log1p(rate * self.horizon), steps + 1)) / rate
        grid = np.unique(np.concatenate([grid[grid < self.horizon], left]))
        durations = np.diff(grid, prepend=0.0)
        if method == "finite_difference":
            log = kernels.finite_difference(self._diagonal, self.coupling, durations, log_end)
            value = log / self.depth_decay + self._impact_value
            settled = True
        else:
            carried = self.drift * self.inventory - self._aversion * self.inventory**2
            end = -self.terminal_penalty * self.inventory**2
            value, settled = kernels.howard(
                carried,
                self.arrival_rate,
                self.depth_decay,
                self.risk_aversion,
                self.half_spread,
                self.impact,
                durations,
                end,
            )
        if not (settled and np.isfinite(value).all()):
            raise ValueError(f"`steps` must be more for method {method!r} on this problem, got {steps}")
        result: Floats = value[np.searchsorted(grid, left)]
        return result

    @cached_property
    def _smallest(self) -> tuple[float, Floats]:
        """The smallest eigenvalue of M, and what ln v / k of its eigenvector falls by (2Q,) to the next inventory."""
        diagonal, eta = self._diagonal, self.coupling
        n, m = diagonal.size, int(np.argmin(diagonal))
        matrix = np.diag(diagonal) - eta * (np.eye(n, k=1) + np.eye(n, k=-1))
        smallest = float(np.linalg.eigvalsh(matrix)[0])
        last = math.inf
        while True:
            above, above_slope = _ratios((diagonal[:m:-1] - smallest) / eta)
            below, below_slope = _ratios((diagonal[:m] - smallest) / eta)
            mismatch, slope = (diagonal[m] - smallest) / eta, -1.0
            if above.size:
                mismatch, slope = mismatch - 1.0 / above[-1], slope + above_slope / above[-1] ** 2
            if below.size:
                mismatch, slope = mismatch - 1.0 / below[-1], slope + below_slope / below[-1] ** 2
            step = eta * float(mismatch / slope)
            if not abs(step) < last:
                break
            smallest, last = smallest - step, abs(step)
        gap = np.concatenate([-np.log(below), np.log(above[::-1])]) / self.depth_decay
        return smallest, gap


def _ratios(scaled: Floats) -> tuple[Floats, float]:
    """Ratios r_i of an eigenvector's elements, inner over outer, from a limit inward, and the last one's slope.

    Args:
        scaled: (J,) (M_qq − λ) / η from the limit inward; the slope is that by −scaled.
    """
    ratios = np.empty(scaled.size)
    before, slope = math.inf, 0.0
    for i, x in enumerate(scaled.tolist()):
        slope = -1.0 + slope / before**2
        before = x - 1.0 / before
        ratios[i] = before
    return ratios, slope
