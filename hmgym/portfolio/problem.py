"""The portfolio problem: expected return, risk, costs of trading, groups, limits and bounds.

    min  f(w) = −μ'w + (γ/2) w'Θw + cost(w)   over   Uw = λ,  Gw ≤ g,  lb ≤ w ≤ ub,
    cost = σ Σ ν_i (w_i − Ω_i)²  (quadratic)   or   Σ ν_i |w_i − Ω_i|  (linear).

Weights are shares of wealth; μ is a return a period, Θ a return² a period, γ has no unit, ν is a return (a period's
cost of trading all wealth once).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from hmgym.checks import shown
from hmgym.portfolio.checks import batch_shape, check_last, tensor
from hmgym.portfolio.feasibility import check_equalities, check_feasible
from hmgym.portfolio.program import dot

Cost: TypeAlias = Literal["quadratic", "linear"]

_SYMMETRY = 1e-9  # relative to the largest entry
_SEMIDEFINITE = 1e-10  # of the largest variance, by which the smallest eigenvalue may be below 0
_SHAPES = {
    "expected_returns": ("(..., N)", 1), "covariance": ("(..., N, N)", 2), "risk_aversion": ("(...)", 0),
    "cost_rates": ("(..., N)", 1), "holdings": ("(..., N)", 1), "groups": ("(..., M, N)", 2),
    "group_totals": ("(..., M)", 1), "cost_weight": ("(...)", 0), "limit_groups": ("(..., P, N)", 2),
    "group_limits": ("(..., P)", 1), "lower": ("(..., N) or (...)", 0), "upper": ("(..., N) or (...)", 0),
}  # fmt: skip
_OPTIONAL = ("limit_groups", "group_limits", "lower", "upper")
_NOT_NEGATIVE = ("risk_aversion", "cost_rates", "cost_weight")


@dataclass(frozen=True, kw_only=True, eq=False)
class PortfolioProblem:
    """A batch of portfolio problems (the equations stand at the head of this module).

    Everything becomes a float64 tensor; leading dimensions broadcast. Gradients flow to all but
    `groups` and `limit_groups`.

    Attributes:
        expected_returns: (..., N) μ.
        covariance: (..., N, N) Θ, symmetric, positive semidefinite.
        risk_aversion: (...) γ ≥ 0.
        cost_rates: (..., N) ν ≥ 0.
        holdings: (..., N) Ω, weights held before.
        groups: (..., M, N) U, a row a group, 1 for its members; row 0 is the budget. Rows may be redundant.
        group_totals: (..., M) λ; the budget's is 1.
        cost_weight: (...) σ ≥ 0 of the quadratic cost; the linear one has none.
        cost: ``"quadratic"`` or ``"linear"``.
        limit_groups: (..., P, N) G; None for none.
        group_limits: (..., P) g.
        lower: (..., N) or a number a problem, lb; −inf and None are no bound.
        upper: likewise ub; inf and None are none.

    Raises:
        ValueError: an argument is none of these; or no weights keep all constraints.
    """

    expected_returns: Tensor
    covariance: Tensor
    risk_aversion: Tensor
    cost_rates: Tensor
    holdings: Tensor
    groups: Tensor
    group_totals: Tensor
    cost_weight: Tensor = 1.0  # type: ignore[assignment]
    cost: Cost = "quadratic"
    limit_groups: Tensor | None = None
    group_limits: Tensor | None = None
    lower: Tensor | None = None
    upper: Tensor | None = None

    def __post_init__(self) -> None:
        if self.cost not in get_args(Cost):
            raise ValueError(f"`cost` must be one of {', '.join(get_args(Cost))}, got {shown(self.cost)}")
        if (self.limit_groups is None) != (self.group_limits is None):
            missing = "limit_groups" if self.limit_groups is None else "group_limits"
            raise ValueError(f"`{missing}` must be given with its counterpart, got None")
        for name, (shape, dimensions) in _SHAPES.items():
            value = getattr(self, name)
            if value is not None or name not in _OPTIONAL:
                infinite = name in ("lower", "upper")
                object.__setattr__(self, name, tensor(name, value, shape, dimensions, infinite=infinite))
        self._check_shapes()
        self._check_values()
        check_equalities(self.groups, self.group_totals)
        check_feasible(
            self.holdings, self.groups, self.group_totals, self.limit_groups, self.group_limits, self.lower, self.upper
        )

    @property
    def assets(self) -> int:
        """N."""
        return self.expected_returns.shape[-1]

    @functools.cached_property
    def batch(self) -> torch.Size:
        """Leading dimensions."""
        return batch_shape({name: self._leading(name) for name in _SHAPES if getattr(self, name) is not None})

    @property
    def constrained(self) -> bool:
        """Whether there are limits or bounds."""
        return not (self.limit_groups is None and self.lower is None and self.upper is None)

    @property
    def curvature(self) -> Tensor:
        """(..., N, N) H₀ = γΘ + 2σ diag ν; γΘ where cost is linear."""
        risk = self.risk_aversion[..., None, None] * 0.5 * (self.covariance + self.covariance.mT)
        return risk if self.cost == "linear" else risk + torch.diag_embed(self._stiffness)

    @property
    def pull(self) -> Tensor:
        """(..., N) μ + 2σν∘Ω, minus the gradient of f at no weights; μ where cost is linear."""
        if self.cost == "linear":
            return self.expected_returns
        return self.expected_returns + self._stiffness * self.holdings

    @property
    def _stiffness(self) -> Tensor:
        return 2.0 * self.cost_weight[..., None] * self.cost_rates

    def objective(self, weights: Any) -> Tensor:
        """f of weights (..., N): return a period that is missed, (...).

        Raises:
            ValueError: `weights` are none.
        """
        w = tensor("weights", weights, "(..., N)", 1)
        check_last("weights", w, "(..., N)", (self.assets,))
        batch_shape({"batch": self.batch, "weights": w.shape[:-1]})
        away = w - self.holdings
        risk = 0.5 * self.risk_aversion * (w * dot(self.covariance, w)).sum(-1)
        if self.cost == "linear":
            cost = (self.cost_rates * away.abs()).sum(-1)
        else:
            cost = self.cost_weight * (self.cost_rates * away.square()).sum(-1)
        value: Tensor = risk + cost - (self.expected_returns * w).sum(-1)
        return value

    def _leading(self, name: str) -> tuple[int, ...]:
        shape = tuple(getattr(self, name).shape)
        kept = {"lower": 1, "upper": 1}.get(name, _SHAPES[name][1])
        return shape[: max(len(shape) - kept, 0)]

    def _check_shapes(self) -> None:
        n = self.assets
        m = self.groups.shape[-2]
        if n == 0 or m == 0:
            raise ValueError(
                f"`groups` must be (..., M, N) with M, N >= 1, the budget in row 0, got {tuple(self.groups.shape)}"
            )
        last: dict[str, tuple[int, ...]] = {
            "covariance": (n, n), "cost_rates": (n,), "holdings": (n,), "groups": (m, n), "group_totals": (m,),
        }  # fmt: skip
        if self.limit_groups is not None:
            p = self.limit_groups.shape[-2]
            last |= {"limit_groups": (p, n), "group_limits": (p,)}
        for name, expected in last.items():
            check_last(name, getattr(self, name), _SHAPES[name][0], expected)
        for name in ("lower", "upper"):
            value = getattr(self, name)
            if value is not None:
                if value.ndim and value.shape[-1] not in (1, n):
                    raise ValueError(f"`{name}` must be {_SHAPES[name][0]} with N = {n}, got {tuple(value.shape)}")
                object.__setattr__(self, name, value.expand(*value.shape[:-1], n))
        _ = self.batch

    @torch.no_grad()
    def _check_values(self) -> None:
        for name in _NOT_NEGATIVE:
            value = getattr(self, name)
            if (value < 0.0).any():
                raise ValueError(f"`{name}` must be >= 0, got {float(value.min()):g}")
        theta = self.covariance
        size = theta.abs().amax((-2, -1), keepdim=True)
        skew = (theta - theta.mT).abs()
        if (skew > _SYMMETRY * size).any():
            raise ValueError(f"`covariance` must be symmetric, got entries {float(skew.max()):.3g} apart")
        room = torch.diag_embed((_SEMIDEFINITE * size[..., 0] + 1e-300).expand(theta.shape[:-1]))
        if torch.linalg.cholesky_ex(0.5 * (theta + theta.mT) + room).info.any():
            least = float(torch.linalg.eigvalsh(theta).min())
            raise ValueError(f"`covariance` must be positive semidefinite, got an eigenvalue {least:.3g}")
        if self.lower is not None and (self.lower == torch.inf).any():
            raise ValueError("`lower` must be < inf, got inf")
        if self.upper is not None and (self.upper == -torch.inf).any():
            raise ValueError("`upper` must be > -inf, got -inf")
        if self.lower is not None and self.upper is not None and (self.lower > self.upper).any():
            gap = float((self.lower - self.upper).max())
            raise ValueError(f"`lower` must be <= `upper`, got one that is {gap:g} above: the problem is infeasible")
