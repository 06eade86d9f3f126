"""The penalty flow in closed form against integrators, differences and its limits; trajectories that stop."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import expm

from hmgym.portfolio import PortfolioProblem, integrate, penalty_flow, penalty_solution, solve
from hmgym.portfolio import penalty as penalty_module
from tests.portfolio.problems import arguments, problem

TIMES = torch.linspace(0.0, 3.0, 7, dtype=torch.float64)


def velocity(given: PortfolioProblem, penalty: float, w: torch.Tensor) -> torch.Tensor:
    """As the page writes it."""
    risk = given.risk_aversion * (given.covariance @ w[..., None])[..., 0]
    cost = 2.0 * given.cost_weight * given.cost_rates * (w - given.holdings)
    missed = (given.groups @ w[..., None])[..., 0] - given.group_totals
    return given.expected_returns - risk - cost - 2.0 * penalty * (given.groups.mT @ missed[..., None])[..., 0]


def test_the_velocity_is_the_slope_of_the_potential_and_vanishes_at_rest() -> None:
    given = problem(3)
    w = given.holdings.clone().requires_grad_()
    missed = (given.groups @ w[..., None])[..., 0] - given.group_totals
    (slope,) = torch.autograd.grad((given.objective(w) + 7.0 * missed.square().sum(-1)).sum(), w)
    torch.testing.assert_close(velocity(given, 7.0, w), -slope)
    for penalty in (0.1, 10.0, 1e3):
        assert float(velocity(given, penalty, penalty_solution(given, penalty)).abs().max()) <= 1e-12 * (1.0 + penalty)


def test_the_error_of_the_penalty_falls_as_one_over_it() -> None:
    given = problem(8, assets=12, groups=3)
    exact = solve(given)
    errors = [float((penalty_solution(given, 10.0**k) - exact.weights).abs().max()) for k in range(2, 9)]
    for one, next_ in itertools.pairwise(errors):
        assert one / next_ == pytest.approx(10.0, rel=0.05)
    rest = penalty_solution(given, 1e6)
    missed = (given.groups @ rest[..., None])[..., 0] - given.group_totals
    torch.testing.assert_close(2e6 * missed, exact.group_multipliers, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("penalty", [0.5, 10.0, 1e3])
def test_the_closed_form_is_the_integrators(penalty: float) -> None:
    given = problem(3)
    found = penalty_flow(given, penalty, given.holdings, TIMES)
    assert found.shape == (7, 3, 6)
    torch.testing.assert_close(found[0], given.holdings, rtol=0.0, atol=1e-13)
    followed = integrate(given, penalty, given.holdings, TIMES)
    torch.testing.assert_close(followed.weights, found, rtol=0.0, atol=1e-8)
    assert not followed.stopped.any()
    row = problem_row(given, 1)
    one = solve_ivp(
        lambda t, w: velocity(row, penalty, torch.as_tensor(w)).numpy(), (0.0, 3.0), row.holdings.numpy(), "LSODA",
        TIMES.numpy(), rtol=1e-12, atol=1e-12,
    )  # fmt: skip
    np.testing.assert_allclose(found[:, 1].numpy(), one.y.T, atol=1e-8)


def problem_row(given: PortfolioProblem, row: int) -> PortfolioProblem:
    names = ("expected_returns", "covariance", "cost_rates", "holdings", "group_totals")
    picked = {name: getattr(given, name)[row] for name in names}
    return PortfolioProblem(
        **picked, groups=given.groups, risk_aversion=given.risk_aversion, cost_weight=given.cost_weight
    )


def test_the_closed_form_is_the_matrix_exponential() -> None:
    given = problem(2, assets=4)
    start = torch.zeros(4, dtype=torch.float64)
    found = penalty_flow(given, 3.0, start, [0.7, 0.1])
    H = (
        given.risk_aversion * given.covariance
        + torch.diag_embed(1.6 * given.cost_rates)
        + 6.0 * given.groups.mT @ given.groups
    )
    rest = penalty_solution(given, 3.0)
    for row in range(2):
        for k, t in enumerate((0.7, 0.1)):
            expected = rest[row].numpy() + expm(-t * H[row].numpy()) @ (start - rest[row]).numpy()
            np.testing.assert_allclose(found[k, row].numpy(), expected, atol=1e-13)
    torch.testing.assert_close(penalty_flow(given, 3.0, start, [1e4])[0], rest, rtol=0.0, atol=1e-13)


@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize("name", ["expected_returns", "covariance", "cost_rates", "group_totals", "holdings", "start"])
def test_gradients_are_those_of_differences(name: str, repeated: bool) -> None:
    given: dict[str, Any] = arguments(2, assets=5, groups=1)
    if repeated:
        given |= {"covariance": torch.eye(5, dtype=torch.float64), "cost_rates": torch.full((5,), 0.2)}
    given["start"] = torch.linspace(-1.0, 1.0, 5, dtype=torch.float64)
    draw = torch.Generator().manual_seed(3)
    value = torch.as_tensor(given[name], dtype=torch.float64)
    direction = torch.randn(value.shape, generator=draw, dtype=torch.float64)
    direction = direction + direction.mT if name == "covariance" else direction
    by = torch.randn(3, 2, 5, generator=draw, dtype=torch.float64)

    def total(x: torch.Tensor) -> torch.Tensor:
        changed = given | {name: x}
        start = changed.pop("start")
        return (by * penalty_flow(PortfolioProblem(**changed), 5.0, start, [0.0, 0.3, 2.0])).sum()

    leaf = value.clone().requires_grad_()
    (slope,) = torch.autograd.grad(total(leaf), leaf)
    h = 1e-5
    difference = float(total(value + h * direction) - total(value - h * direction)) / (2.0 * h)
    assert float((slope * direction).sum()) == pytest.approx(difference, rel=1e-7, abs=1e-8)


def test_a_second_derivative_of_the_flow_is_refused() -> None:
    given = arguments()
    theta = given["covariance"].clone().requires_grad_()
    out = penalty_flow(PortfolioProblem(**given | {"covariance": theta}), 1.0, given["holdings"], [1.0])
    (slope,) = torch.autograd.grad(out.square().sum(), theta, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def test_a_flow_stops_where_it_rests() -> None:
    given = problem(3)
    times = torch.tensor([0.0, 1.0, 50.0, 500.0], dtype=torch.float64)
    seen: list[tuple[int, int]] = []
    found = integrate(
        given, 1.0, given.holdings, times, tolerance=1e-10, stop_below=1e-4,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert found.stopped.all()
    assert ((found.stop_times > 1.0) & (found.stop_times < 500.0)).all()
    torch.testing.assert_close(
        velocity(given, 1.0, found.weights[-1]).norm(dim=-1), torch.full((3,), 1e-4).double(), rtol=1e-3, atol=0.0
    )
    at = torch.stack(
        [penalty_flow(given, 1.0, given.holdings, [float(t)])[0, i] for i, t in enumerate(found.stop_times)]
    )
    torch.testing.assert_close(found.weights[-1], at, rtol=0.0, atol=1e-8)
    rest = integrate(given, 1.0, penalty_solution(given, 1.0), times, stop_below=1e-4)
    assert (rest.stop_times == 0.0).all()
    torch.testing.assert_close(rest.weights, penalty_solution(given, 1.0).expand(4, 3, 6))


@pytest.mark.parametrize("options", [{"bounds": True}, {"limits": 2, "bounds": True, "cost": "linear"}])
def test_the_primal_dual_flow_rests_at_the_solution(options: dict[str, Any]) -> None:
    given = problem(2, seed=1, **options)
    found = integrate(given, 0.5, given.holdings, [0.0, 10.0, 5000.0], stop_below=1e-8)
    assert found.stopped.all()
    torch.testing.assert_close(found.weights[0], given.holdings, rtol=0.0, atol=1e-15)
    torch.testing.assert_close(found.weights[-1], solve(given).weights, rtol=0.0, atol=2e-6)


def test_bad_arguments_are_named() -> None:
    given = problem()
    for penalty in (0.0, -1.0, math.nan, "much", None):
        with pytest.raises(ValueError, match="`penalty` must be"):
            penalty_solution(given, penalty)
    for options in ({"bounds": True}, {"limits": 1}, {"cost": "linear"}):
        with pytest.raises(ValueError, match=r"`(lower|limit_groups|cost)` must be .* for the penalty flow"):
            penalty_flow(problem(**options), 1.0, given.holdings, [0.0])
    for start in ([0.0] * 5, 0.0, [math.inf] * 6):
        with pytest.raises(ValueError, match="`start` must be"):
            penalty_flow(given, 1.0, start, [0.0])
    for times in ([], [-1.0], 0.0, [[0.0]], [math.nan]):
        with pytest.raises(ValueError, match="`times` must be"):
            penalty_flow(given, 1.0, given.holdings, times)
    with pytest.raises(ValueError, match="`times` must increase"):
        integrate(given, 1.0, given.holdings, [1.0, 1.0])
    for name in ("tolerance", "stop_below"):
        with pytest.raises(ValueError, match=f"`{name}` must be"):
            integrate(given, 1.0, given.holdings, [0.0, 1.0], **{name: 0.0})


@pytest.mark.parametrize("rows", [1, 2, 7, 12, 25])
@pytest.mark.parametrize("kind", ["random", "repeated", "stiff", "diagonal", "zero"])
def test_eigenvalues_and_vectors_make_the_matrix_again(rows: int, kind: str) -> None:
    """In batches that do not fill the lanes, and beyond what the compiled decomposition takes."""
    random = np.random.default_rng(rows)
    basis = np.linalg.qr(random.normal(size=(11, rows, rows)))[0]
    values = {
        "random": random.normal(size=(11, rows)), "repeated": np.where(random.random((11, rows)) < 0.5, 1.0, 2.0),
        "stiff": 10.0 ** random.uniform(-4.0, 6.0, (11, rows)), "diagonal": random.normal(size=(11, rows)),
        "zero": np.zeros((11, rows)),
    }[kind]  # fmt: skip
    basis = np.broadcast_to(np.eye(rows), basis.shape) if kind == "diagonal" else basis
    matrix = torch.from_numpy((basis * values[:, None]) @ basis.swapaxes(-1, -2))
    matrix = 0.5 * (matrix + matrix.mT)
    found, vectors = penalty_module._eigen(matrix)
    size = float(matrix.abs().max())
    again = (vectors * found[:, None]) @ vectors.mT
    torch.testing.assert_close(again, matrix, rtol=0.0, atol=2e-14 * size)
    torch.testing.assert_close(vectors.mT @ vectors, torch.eye(rows).to(matrix).expand_as(matrix), rtol=0.0, atol=1e-14)
    expected = np.sort(values, -1)
    np.testing.assert_allclose(found.sort().values, expected, rtol=0.0, atol=2e-14 * max(size, 1e-300))


def test_the_compiled_decomposition_is_the_librarys(monkeypatch: pytest.MonkeyPatch) -> None:
    given = problem(5, seed=3)
    times = torch.tensor([0.0, 0.3, 2.0], dtype=torch.float64)
    found = penalty_flow(given, 10.0, given.holdings, times)
    monkeypatch.setattr(penalty_module, "_COMPILED", 0)
    torch.testing.assert_close(found, penalty_flow(given, 10.0, given.holdings, times), rtol=1e-12, atol=1e-13)
    calls = []
    monkeypatch.setattr(penalty_module, "_COMPILED", 24)
    monkeypatch.setattr(penalty_module.kernels, "eigen", lambda *_: calls.append(1))  # says that it found none
    torch.testing.assert_close(found, penalty_flow(given, 10.0, given.holdings, times), rtol=1e-12, atol=1e-13)
    assert calls == [1]
