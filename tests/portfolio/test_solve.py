"""Solutions against an independent solver and the optimality conditions, gradients against differences, batches."""

from __future__ import annotations

import dataclasses
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

from hmgym.portfolio import PortfolioProblem, PortfolioSolution, project, solve
from tests.portfolio.problems import arguments, problem

KINDS: dict[str, dict[str, Any]] = {
    "equalities": {},
    "redundant": {"redundant": True},
    "bounds": {"bounds": True, "groups": 1},
    "limits": {"limits": 3},
    "everything": {"limits": 3, "bounds": True, "redundant": True},
    "linear": {"cost": "linear"},
    "linear, everything": {"cost": "linear", "limits": 3, "bounds": True, "redundant": True},
}
every_kind = pytest.mark.parametrize("options", KINDS.values(), ids=list(KINDS))


def violation(given: PortfolioProblem, found: PortfolioSolution) -> float:
    """Largest of the optimality conditions, from the formulas."""
    w, worst = found.weights, []
    w = w.detach().requires_grad_()
    smooth = dataclasses.replace(given, cost_rates=torch.zeros(given.assets)) if given.cost == "linear" else given
    (slope,) = torch.autograd.grad(smooth.objective(w).sum(), w)
    w = w.detach()
    slope = slope + (given.groups.mT @ found.group_multipliers[..., None])[..., 0]
    worst.append((given.groups @ w[..., None])[..., 0] - given.group_totals)
    if given.limit_groups is not None:
        slope = slope + (given.limit_groups.mT @ found.limit_multipliers[..., None])[..., 0]
        over = (given.limit_groups @ w[..., None])[..., 0] - given.group_limits
        worst += [over.clamp(min=0.0), found.limit_multipliers * over, found.limit_multipliers.clamp(max=0.0)]
    slope = slope + found.upper_multipliers - found.lower_multipliers
    for bound, multiplier, sign in (
        (given.lower, found.lower_multipliers, 1),
        (given.upper, found.upper_multipliers, -1),
    ):
        assert (multiplier >= 0.0).all()
        if bound is not None:
            slack = sign * (w - bound)
            worst += [slack.clamp(max=0.0), multiplier * slack]
        else:
            assert (multiplier == 0.0).all()
    if given.cost == "linear":
        away = w - given.holdings
        still = away.abs() < 1e-9
        least = torch.where(
            still, (slope.abs() - given.cost_rates).clamp(min=0.0), slope + given.cost_rates * away.sign()
        )
        slope = least
    return max(float(x.abs().max()) for x in [slope, *worst])


def by_cvxpy(given: PortfolioProblem, row: int) -> np.ndarray:
    def of(x: Tensor | None, kept: int) -> Any:
        return None if x is None else x.expand(*given.batch, *x.shape[x.ndim - kept :])[row].numpy()

    w = cp.Variable(given.assets)
    theta, nu, away = of(given.covariance, 2), of(given.cost_rates, 1), w - of(given.holdings, 1)
    root = np.linalg.cholesky(theta)
    cost = 0.8 * nu @ cp.square(away) if given.cost == "quadratic" else nu @ cp.abs(away)
    objective = -of(given.expected_returns, 1) @ w + 0.75 * cp.sum_squares(root.T @ w) + cost
    limits = [of(given.groups, 2)[:2] @ w == of(given.group_totals, 1)[:2]]
    if given.limit_groups is not None:
        limits.append(of(given.limit_groups, 2) @ w <= of(given.group_limits, 1))
    if given.lower is not None:
        limits += [w >= of(given.lower, 1), w <= of(given.upper, 1)]
    found = cp.Problem(cp.Minimize(objective), limits)
    found.solve(solver=cp.CLARABEL, tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
    return np.asarray(w.value)


@every_kind
def test_the_optimality_conditions_hold(options: dict[str, Any]) -> None:
    for seed in range(3):
        given = problem(16, assets=8, seed=seed, **options)
        found = solve(given)
        assert found.converged.all()
        assert float(found.residual.max()) <= 1e-9
        assert violation(given, found) <= 1e-9


@every_kind
def test_an_independent_solver_agrees(options: dict[str, Any]) -> None:
    given = problem(4, assets=8, seed=5, **options)
    found = solve(given).weights.numpy()
    for row in range(4):
        expected = by_cvxpy(given, row)
        np.testing.assert_allclose(found[row], expected, atol=2e-6)
        objectives = given.objective(torch.as_tensor(np.stack([found[row], expected]))[:, None])[:, row]
        assert float(objectives[0]) <= float(objectives[1]) + 1e-9


@every_kind
def test_a_batch_is_its_rows(options: dict[str, Any]) -> None:
    given = problem(2, 3, assets=7, **options)
    found = solve(given)
    assert found.weights.shape == (2, 3, 7)
    assert found.converged.shape == found.residual.shape == (2, 3)
    assert found.group_multipliers.shape == (2, 3, given.groups.shape[-2])
    shared = {field.name: getattr(given, field.name) for field in dataclasses.fields(given)}
    kept = {"covariance": 2, "groups": 2, "limit_groups": 2, "risk_aversion": 0, "cost_weight": 0}
    for i, j in ((0, 0), (1, 2)):
        one = PortfolioProblem(**{
            name: x[i, j] if torch.is_tensor(x) and x.ndim == 2 + kept.get(name, 1) else x for name, x in shared.items()
        })  # fmt: skip
        alone = solve(one)
        for field in dataclasses.fields(alone):
            value, row = getattr(alone, field.name), getattr(found, field.name)[i, j]
            if field.name != "residual":
                # Multipliers of what is redundant on the free weights depend on the path to them.
                torch.testing.assert_close(value, row, rtol=0.0, atol=1e-11 if field.name == "weights" else 1e-8)


def test_redundant_groups_change_nothing_but_multipliers() -> None:
    plain, more = solve(problem(4)), solve(problem(4, redundant=True))
    torch.testing.assert_close(more.weights, plain.weights, rtol=0.0, atol=1e-12)
    groups = arguments(4, redundant=True)["groups"]
    pulled = [
        (u.mT @ y[..., None])[..., 0]
        for u, y in ((groups[:2], plain.group_multipliers), (groups, more.group_multipliers))
    ]
    torch.testing.assert_close(*pulled, rtol=0.0, atol=1e-12)
    smallest = (torch.linalg.pinv(groups.mT) @ pulled[1][..., None])[..., 0]
    torch.testing.assert_close(more.group_multipliers, smallest, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize(
    "name", ["expected_returns", "covariance", "cost_rates", "group_totals", "holdings", "risk_aversion"]
)
@every_kind
def test_gradients_are_those_of_differences(options: dict[str, Any], name: str) -> None:
    check_gradient(arguments(3, assets=7, seed=2, **options), name)


def check_gradient(given: dict[str, Any], name: str) -> None:
    draw = torch.Generator().manual_seed(9)
    value = torch.as_tensor(given[name], dtype=torch.float64)
    direction = torch.randn(value.shape, generator=draw, dtype=torch.float64)
    if name == "covariance":
        direction = direction + direction.mT
    if name == "group_totals":  # those of redundant groups cannot move alone
        shift = torch.randn(given["groups"].shape[-1], generator=draw, dtype=torch.float64)
        direction = (given["groups"] @ shift).expand_as(value)
    leaf = value.clone().requires_grad_()
    weights = solve(PortfolioProblem(**given | {name: leaf})).weights
    by = torch.randn(weights.shape, generator=draw, dtype=torch.float64)
    (slope,) = torch.autograd.grad((by * weights).sum(), leaf)
    h = 1e-6
    ends = [
        (by * solve(PortfolioProblem(**given | {name: value + move * h * direction})).weights).sum() for move in (1, -1)
    ]
    assert float((slope * direction).sum()) == pytest.approx(float(ends[0] - ends[1]) / (2.0 * h), rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("name", ["expected_returns", "covariance", "cost_rates", "group_totals"])
def test_gradients_at_repeated_eigenvalues(name: str) -> None:
    for options in ({"groups": 1}, {"groups": 1, "bounds": True}):
        check_gradient(
            arguments(assets=5, **options)
            | {"covariance": torch.eye(5, dtype=torch.float64), "cost_rates": torch.full((5,), 0.2)},
            name,
        )


def test_gradients_of_limits_bounds_and_multipliers() -> None:
    given = problem(limits=3, bounds=True, assets=7, seed=4)
    limits, lower, upper = (x.clone().requires_grad_() for x in (given.group_limits, given.lower, given.upper))
    found = solve(dataclasses.replace(given, group_limits=limits, lower=lower, upper=upper))
    # The envelope theorem: what a constraint costs is its multiplier.
    slopes = torch.autograd.grad(given.objective(found.weights), (limits, lower, upper))
    expected = (-found.limit_multipliers, found.lower_multipliers, -found.upper_multipliers)
    for slope, multiplier in zip(slopes, expected, strict=True):
        torch.testing.assert_close(slope, multiplier.detach(), rtol=0.0, atol=1e-9)
    assert all(float(x.detach().abs().max()) > 0.01 for x in expected[1:])


def test_the_rest_does_not_depend_on_the_penalty() -> None:
    given = problem(16, limits=3, bounds=True, cost="linear")
    expected = solve(given).weights
    for penalty in (0.1, 10.0, 1000.0):
        torch.testing.assert_close(solve(given, penalty=penalty).weights, expected, rtol=0.0, atol=1e-9)


@pytest.mark.parametrize("unit", [1e-5, 1e5])
def test_units_of_return_change_nothing(unit: float) -> None:
    given = problem(8, limits=2, bounds=True, cost="linear")
    scaled = dataclasses.replace(
        given, expected_returns=unit * given.expected_returns, covariance=unit * given.covariance,
        cost_rates=unit * given.cost_rates,
    )  # fmt: skip
    torch.testing.assert_close(solve(scaled).weights, solve(given).weights, rtol=0.0, atol=1e-10)


def test_one_iteration_does_not_converge_and_says_so() -> None:
    found = solve(problem(32, assets=20, groups=4, limits=6, bounds=True, cost="linear"), max_iterations=1)
    assert not found.converged.all()
    assert (found.residual[~found.converged] > 1e-9).all()


def test_where_everything_binds() -> None:
    """Weights that constraints fix leave multipliers that are not unique."""
    given = problem(4, groups=1, lower=0.0, upper=1.0 / 6.0)
    found = solve(given)
    torch.testing.assert_close(found.weights, torch.full_like(found.weights, 1.0 / 6.0))
    assert violation(given, found) <= 1e-9
    pinned = problem(4, groups=1, lower=1.0 / 6.0, upper=1.0 / 6.0)
    assert violation(pinned, solve(pinned)) <= 1e-9


def test_no_trade_at_high_linear_costs() -> None:
    given = problem(3, cost="linear", cost_rates=torch.full((6,), 50.0), bounds=True)
    torch.testing.assert_close(solve(given).weights, given.holdings, rtol=0.0, atol=1e-14)


def test_a_projection_is_the_nearest_point() -> None:
    given = arguments(limits=2, bounds=True, assets=5)
    names = ("groups", "group_totals", "limit_groups", "group_limits", "lower", "upper")
    constraints = {name: given[name] for name in names}
    point = torch.tensor([[1.0, -2.0, 0.5, 0.3, 0.1], [0.0] * 5], dtype=torch.float64, requires_grad=True)
    near = project(point, **constraints)
    for row in range(2):
        w = cp.Variable(5)
        limits = [given["groups"].numpy() @ w == given["group_totals"].numpy(), w >= 0.0, w <= given["upper"].numpy()]
        limits.append(given["limit_groups"].numpy() @ w <= given["group_limits"].numpy())
        cp.Problem(cp.Minimize(cp.sum_squares(w - point[row].detach().numpy())), limits).solve(solver=cp.CLARABEL)
        np.testing.assert_allclose(near[row].detach().numpy(), w.value, atol=1e-6)
    torch.testing.assert_close(project(near.detach(), **constraints), near.detach(), rtol=0.0, atol=1e-11)
    (slope,) = torch.autograd.grad(near[0, 0], point)
    assert torch.isfinite(slope).all()


@pytest.mark.parametrize(
    ("name", "value"), [("penalty", 0.0), ("tolerance", 0.0), ("max_iterations", 0), ("penalty", "a")]
)
def test_bad_options_are_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        solve(problem(), **{name: value})


@pytest.mark.parametrize("options", [{}, {"bounds": True, "groups": 1, "redundant": True}])
def test_second_derivatives_are_those_of_differences(options: dict[str, Any]) -> None:
    given = arguments(assets=4, seed=2, **options)

    def weights(mu: Tensor, nu: Tensor) -> Tensor:
        return solve(PortfolioProblem(**given | {"expected_returns": mu, "cost_rates": nu})).weights

    leaves = [given[name].clone().requires_grad_() for name in ("expected_returns", "cost_rates")]
    assert torch.autograd.gradgradcheck(weights, leaves, atol=1e-5, rtol=1e-4)
