"""Numbers at the edge of float64: nearly singular risk, large limits, prices orders of magnitude apart, transforms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.markets import random_markets
from benchmarks.stress import WRONG, portfolio_errors
from hmgym.clearing import Problem, clear, clear_market, kernels
from hmgym.clearing.solve import Solved, _solve_in_decimals, kernel_arrays
from tests.clearing.test_clear_market import BACKENDS


def nearly_singular() -> dict[str, torch.Tensor]:
    """One market whose investors' risk has condition numbers of 1e12."""
    rng = np.random.default_rng(3)
    f = rng.normal(size=(1, 5, 2))
    risk = 0.045 * (f[..., :, None] * f[..., None, :] + 1e-12 * np.eye(2))
    arrays = {"beliefs": 0.1 * rng.normal(size=(1, 5, 2)), "risk": risk, "wealth": np.ones((1, 5))}
    arrays |= {"short_leverage": np.full((1, 5), 0.5), "long_leverage": np.full((1, 5), 1.5), "supply": np.ones((1, 2))}
    return {name: torch.tensor(x) for name, x in arrays.items()}


@pytest.mark.parametrize("backend", [*BACKENDS, "auto"])
def test_portfolios_of_nearly_singular_risk_are_right_or_not_converged(backend: str) -> None:
    markets = nearly_singular()
    solution = clear_market(**markets, backend=backend, errors="mark")
    assert portfolio_errors(markets, solution)["wrong"] == 0
    if backend != "kernel":
        assert bool(solution.converged.all())


@pytest.mark.parametrize("extras", [{"with_orders": True}, {"with_cost": True}, {"with_own_limits": True}])
def test_random_markets_of_nearly_singular_risk(extras: dict[str, bool]) -> None:
    for volatility in (0.003, 0.3):
        rng = np.random.default_rng(51)
        markets = random_markets(rng, 100, 8, 2, volatility=volatility, condition=1e12, **extras)
        solution = clear_market(**markets, errors="mark")
        assert int(solution.converged.sum()) >= 99
        errors = portfolio_errors(markets, solution)
        assert errors["wrong"] == 0
        assert errors["optimality"] <= WRONG


def test_prices_fourteen_orders_of_magnitude_apart_from_far_away() -> None:
    rng = np.random.default_rng(31)
    markets = random_markets(rng, 10, 3, 5, volatility=0.03)
    markets["beliefs"] = torch.tensor(np.log(10.0) * rng.uniform(-10, 4, (10, 3, 5)))
    mean = markets["beliefs"].mean(1).exp()
    cold = clear_market(**markets)
    for start in (torch.ones_like(mean), mean.flip(1)):
        solution = clear_market(**markets, warm_start=start)
        torch.testing.assert_close(solution.prices, cold.prices, rtol=1e-9, atol=0)
        assert portfolio_errors(markets, solution)["wrong"] == 0


def in_decimals(markets: dict[str, torch.Tensor]) -> Solved:
    """Everything by the last resort."""
    return _solve_in_decimals(Problem.of(**markets).as_arrays().replace(start=None), 0.0, [])


@pytest.mark.parametrize(
    ("seed", "shape", "kind", "rows"),
    [
        (60, (200, 40, 5), "with_orders", [31, 191]),
        (60, (200, 40, 5), "with_own_limits", [123]),
        (63, (1000, 20, 3), "with_orders", [282, 477]),
    ],
)
def test_markets_that_float64_cannot_settle(seed: int, shape: tuple[int, ...], kind: str, rows: list[int]) -> None:
    options = {kind: True, "with_cost": True}
    markets = random_markets(np.random.default_rng(seed), *shape, volatility=0.03, condition=1e12, **options)
    markets = {name: x[rows] for name, x in markets.items()}
    solution = clear_market(**markets)
    assert bool(solution.converged.all())
    errors = portfolio_errors(markets, solution)
    assert errors["wrong"] == 0
    assert errors["optimality"] <= 1e-12


@pytest.mark.parametrize("extras", [{"with_orders": True}, {"with_cost": True}, {"with_own_limits": True}])
def test_the_search_in_decimals_finds_what_the_kernels_find(extras: dict[str, bool]) -> None:
    markets = random_markets(np.random.default_rng(57), 10, 6, 3, **extras)
    markets["wealth"][0, 0] = 0.0
    kernel, decimals = clear_market(**markets, backend="kernel"), in_decimals(markets)
    assert bool(decimals.converged.all())
    for found, expected in ((decimals.prices, kernel.prices), (decimals.weights, kernel.weights)):
        torch.testing.assert_close(torch.tensor(found), expected, rtol=1e-9, atol=1e-9)
    assert float(decimals.residual.max()) <= 1e-14


def test_the_search_in_decimals_ends_where_there_is_no_equilibrium() -> None:
    markets = random_markets(np.random.default_rng(58), 1, 3, 4)
    markets["short_leverage"], markets["long_leverage"] = torch.zeros(1, 3, 5).double(), torch.full((1, 3, 5), 0.4)
    markets["orders"] = torch.tensor([[-0.35, -0.35, -0.35, 0.0]]) * markets["wealth"].sum()
    found = in_decimals({name: x.double() for name, x in markets.items()})
    assert not found.converged.any()
    assert np.isnan(found.prices).all()


def test_the_kernels_check_refuses_what_another_method_got_wrong() -> None:
    markets = random_markets(np.random.default_rng(59), 4)
    problem = Problem.of(**markets).as_arrays()
    found = in_decimals(markets)
    found.weights[1, 0, :2] += [1e-6, -1e-6]
    found.prices[2, 0] *= 1.0 + 1e-6
    residual, status = np.zeros(4), np.zeros(4, np.int64)
    kernels.check_markets(0, 4, *kernel_arrays(problem), found.prices, found.weights, found.state, residual, status)
    assert (status == kernels.CLEARED).tolist() == [True, False, False, True]
    assert np.isnan(found.prices[1:3]).all()


def test_the_check_of_the_stress_sees_wrong_portfolios() -> None:
    markets = random_markets(np.random.default_rng(52), 3)
    solution = clear_market(**markets)
    assert portfolio_errors(markets, solution)["wrong"] == 0
    solution.weights[0, 0, 0] += 1e-6
    solution.weights[1, 0] = torch.tensor([0.25, 0.25, 0.25, 0.25])
    assert portfolio_errors(markets, solution)["wrong"] == 2
    solution.prices[2, 1] = torch.nan
    assert portfolio_errors(markets, solution)["wrong"] == 3


def test_a_position_at_a_large_limit_stands_at_it_on_both_paths() -> None:
    markets = random_markets(np.random.default_rng(53), 40, 6, 3, volatility=0.01)
    markets["short_leverage"][:], markets["long_leverage"][:] = 367.3, 368.4
    kernel, batched = (clear_market(**markets, backend=backend) for backend in BACKENDS)
    assert torch.equal(kernel.active_limits, batched.active_limits)
    assert int((kernel.active_limits != 0).sum()) > 0


def test_the_torch_path_reports_its_iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    markets = random_markets(np.random.default_rng(54), 3)

    def gives_up(first: int, last: int, *arguments: object) -> None:
        *_, iterations, status = arguments
        iterations[first:last], status[first:last] = 0, kernels.NOT_CONVERGED  # type: ignore[index]

    monkeypatch.setattr(kernels, "clear_markets", gives_up)
    solution = clear_market(**markets)
    assert bool((solution.iterations > 0).all())


@pytest.mark.parametrize("smoothing", [1e-31, 1e-150, 5e-324])
def test_smoothing_too_small_for_float64_is_refused(smoothing: float) -> None:
    with pytest.raises(ValueError, match="`smoothing` must be 0 or at least 1e-30"):
        clear_market(**random_markets(np.random.default_rng(55), 1), smoothing=smoothing)


@pytest.mark.parametrize("smoothing", [0.0, 1e-2])
def test_transforms_of_torch_func(smoothing: float) -> None:
    markets = random_markets(np.random.default_rng(56), 3, with_cost=True)
    x = markets.pop("beliefs")

    def checked(beliefs: torch.Tensor) -> torch.Tensor:
        return clear_market(beliefs, **markets, smoothing=smoothing).prices

    def unchecked(beliefs: torch.Tensor) -> torch.Tensor:
        return clear(Problem.of(beliefs, **markets), smoothing=smoothing).prices

    expected = torch.autograd.functional.jacobian(checked, x)
    torch.testing.assert_close(torch.func.jacrev(checked)(x), expected, rtol=1e-9, atol=1e-9)
    gradient = torch.func.grad(lambda beliefs: checked(beliefs).sum())(x)
    torch.testing.assert_close(gradient, expected.sum((0, 1)), rtol=1e-9, atol=1e-9)
    several = torch.stack([x, x + 0.1])
    for row, prices in zip(several, torch.func.vmap(unchecked)(several), strict=True):
        assert torch.equal(prices, checked(row))
    gradients = torch.func.vmap(torch.func.grad(lambda beliefs: unchecked(beliefs).sum()))(several)
    torch.testing.assert_close(gradients[0], gradient, rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match=r"`clear_market` checks values, which `torch.vmap` hides: stack the markets"):
        torch.func.vmap(checked)(several)
