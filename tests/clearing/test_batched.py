"""The batched tensor path of clearing against conditions and searches that share nothing with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch import Tensor

from hmgym.clearing.batched import clear_batched
from hmgym.clearing.problem import Problem


def random_problem(
    n_markets: int, n_investors: int, n_assets: int, seed: int, *, volatility: float = 0.05, costs: bool = False
) -> Problem:
    """Heavy-tailed wealth, tight and loose limits, orders up to half of what the longest positions could take."""
    rng = np.random.default_rng(seed)
    E, B, N = n_markets, n_investors, n_assets
    factors = rng.standard_normal((E, N, N)) + np.eye(N)
    covariance = factors @ factors.transpose(0, 2, 1) / N + 0.2 * np.eye(N)
    aversion = np.exp(rng.uniform(np.log(1.0), np.log(10.0), (E, B)))
    risk = 0.5 * volatility**2 * aversion[..., None, None] * covariance[:, None]
    wealth = rng.pareto(1.2, (E, B)) + 0.1
    wealth[:, -1] = rng.choice([0.0, -1.0, 1.0], E)
    prices = np.exp(rng.uniform(-1.0, 4.0, (E, N)))
    total = np.maximum(wealth, 0.0).sum(1, keepdims=True)
    supply = total / prices * rng.dirichlet(np.ones(N), E) * 0.8
    beliefs = np.log(prices)[:, None] + 2.0 * volatility * rng.standard_normal((E, B, N))
    long_leverage = np.where(rng.random((E, B)) < 0.3, 1.0, rng.uniform(0.5, 4.0, (E, B)))
    short_leverage = np.where(rng.random((E, B)) < 0.3, 0.0, rng.uniform(0.0, 2.0, (E, B)))
    power = (np.maximum(wealth, 0.0) * np.minimum(long_leverage, 1.0)).sum(1, keepdims=True)
    orders = rng.uniform(-0.5, 0.5, (E, N)) * power / N * (rng.random((E, 1)) < 0.7)
    reference = cost = None
    if costs:
        reference = torch.tensor(rng.dirichlet(np.ones(N + 1), (E, B))[..., 1:] * 1.5 - 0.1)
        cost = torch.tensor(rng.choice([0.0, 1e-3, 1e-2], (E, B, N)))
    arrays = {"beliefs": beliefs, "risk": risk, "wealth": wealth, "supply": supply, "orders": orders, "start": prices}
    arrays |= {"short_leverage": short_leverage, "long_leverage": long_leverage}
    fields = {name: torch.tensor(x) for name, x in arrays.items()}
    return Problem(**fields, reference_weights=reference, trading_cost=cost)


def optimality_violation(problem: Problem, prices: Tensor, weights: Tensor, smoothing: float = 0.0) -> np.ndarray:
    """How much an investor's marginal utilities differ where they should agree, as a log price, (E, B).

    Zero exactly at the optimum of its concave objective, whatever way that was found.
    """
    p, w = prices.numpy(), weights.numpy()
    returns = problem.beliefs.numpy() - np.log(p)[:, None]
    G = problem.risk.numpy()
    w = np.where(problem.wealth.numpy()[..., None] > 0.0, w, 1.0 / w.shape[-1])
    gain = np.concatenate(
        [np.zeros_like(returns[..., :1]), returns - 2.0 * np.einsum("ebij,ebj->ebi", G, w[..., 1:])], -1
    )
    lower, upper = -problem.short_leverage.numpy()[..., None], problem.long_leverage.numpy()[..., None]
    cost, trade = np.zeros_like(w), np.ones_like(w)
    if problem.trading_cost is not None and problem.reference_weights is not None:
        cost[..., 1:] = problem.trading_cost.numpy()
        trade[..., 1:] = w[..., 1:] - problem.reference_weights.numpy()
    if smoothing:
        # In units of weights: near a limit a rounding of w alone moves marginal utility by much.
        tau = smoothing * np.einsum("ebii->eb", G)[..., None] / p.shape[1]
        blur = tau / np.where(cost > 0.0, cost, 1.0)
        root = np.sqrt(blur**2 + trade**2)
        gain += tau / (w - lower) - tau / (upper - w) - np.where(cost > 0.0, cost * trade / (blur + root), 0.0)
        curvature = tau / (w - lower) ** 2 + tau / (upper - w) ** 2
        curvature += np.where(cost > 0.0, cost * blur / (root * (blur + root)), 0.0)
        curvature[..., 1:] += 2.0 * np.einsum("ebii->ebi", G)
        level = np.take_along_axis(gain, curvature.argmin(-1)[..., None], -1)
        violation = (np.abs(gain - level) / curvature).max(-1)
    else:
        near = 1e-12
        up = np.where(w < upper - near, gain - np.where(trade >= -near, cost, -cost), -np.inf)
        down = np.where(w > lower + near, gain - np.where(trade <= near, -cost, cost), np.inf)
        violation = np.maximum(up.max(-1) - down.min(-1), 0.0)
    return np.where(problem.wealth.numpy() > 0.0, violation, 0.0)


def excess_demand(problem: Problem, prices: Tensor, weights: Tensor) -> np.ndarray:
    money = np.maximum(problem.wealth.numpy(), 0.0)[..., None] * weights.numpy()[..., 1:]
    value = problem.supply.numpy() * prices.numpy()
    return np.abs((money.sum(1) + problem.orders.numpy() - value) / value).max(-1)


def assert_cleared(
    problem: Problem, solution: tuple[Tensor, ...], smoothing: float = 0.0, accuracy: float = 1e-12
) -> None:
    prices, weights, residual, converged, _ = solution
    assert converged.all()
    assert (residual <= 1e-9).all()
    assert excess_demand(problem, prices, weights).max() <= 1e-9
    assert (weights.sum(-1) - 1.0).abs().max() <= 1e-12
    rich = problem.wealth > 0.0
    inside = (weights >= -problem.short_leverage[..., None]) & (weights <= problem.long_leverage[..., None])
    assert inside[rich].all()
    assert optimality_violation(problem, prices, weights, smoothing).max() <= accuracy


@pytest.mark.parametrize("costs", [False, True])
@pytest.mark.parametrize(("n_investors", "n_assets"), [(8, 1), (8, 2), (20, 3), (40, 5)])
def test_portfolios_are_optimal_and_markets_clear(n_investors: int, n_assets: int, costs: bool) -> None:
    problem = random_problem(60, n_investors, n_assets, n_assets, costs=costs)
    assert_cleared(problem, clear_batched(problem))


@pytest.mark.parametrize("costs", [False, True])
@pytest.mark.parametrize("volatility", [0.003, 0.4])
def test_daily_and_yearly_risk(volatility: float, costs: bool) -> None:
    problem = random_problem(100, 20, 3, 11, volatility=volatility, costs=costs)
    assert_cleared(problem, clear_batched(problem))


@pytest.mark.parametrize("costs", [False, True])
@pytest.mark.parametrize("smoothing", [1e-6, 1e-3, 1e-1])
def test_smoothed_markets_are_solved_to_full_precision(smoothing: float, costs: bool) -> None:
    problem = random_problem(60, 12, 3, 5, costs=costs)
    assert_cleared(problem, clear_batched(problem, smoothing=smoothing), smoothing, accuracy=1e-11)


def single_asset_position(
    excess_return: float, g: float, kappa: float, theta: float, cost: float, reference: float, tau: float
) -> float:
    """Bisection of an investor's marginal utility, the rest of its wealth being cash."""

    def marginal(w: float) -> float:
        out = excess_return - 2.0 * g * w
        if not tau:
            return out - cost * np.sign(w - reference)
        if cost:
            out -= cost * (w - reference) / (tau / cost + np.hypot(tau / cost, w - reference))
        return out + tau / (w + kappa) - tau / (theta - w) - tau / (1.0 - w + kappa) + tau / (theta - 1.0 + w)

    inset = 1e-14 if tau else 0.0
    low, high = max(-kappa, 1.0 - theta) + inset, min(theta, 1.0 + kappa) - inset
    if marginal(low) <= 0.0:
        return low
    if marginal(high) >= 0.0:
        return high
    return float(brentq(marginal, low, high, xtol=1e-15, rtol=1e-15))


def single_asset_demand(problem: Problem, market: int, log_price: float, smoothing: float) -> float:
    """Money demanded and ordered at a price."""
    p = problem.rows(slice(market, market + 1))
    total = float(p.orders)
    for b in np.flatnonzero(p.wealth[0].numpy() > 0.0):
        g = float(p.risk[0, b])
        total += float(p.wealth[0, b]) * single_asset_position(
            float(p.beliefs[0, b]) - log_price,
            g,
            float(p.short_leverage[0, b]),
            float(p.long_leverage[0, b]),
            0.0 if p.trading_cost is None else float(p.trading_cost[0, b]),
            0.0 if p.reference_weights is None else float(p.reference_weights[0, b]),
            smoothing * g,
        )
    return total


@pytest.mark.parametrize("smoothing", [0.0, 1e-2])
@pytest.mark.parametrize("costs", [False, True])
def test_one_asset_agrees_with_a_search_for_the_price(costs: bool, smoothing: float) -> None:
    problem = random_problem(12, 6, 1, 3, volatility=0.2, costs=costs)
    prices, _, _, converged, _ = clear_batched(problem, smoothing=smoothing)
    assert converged.all()
    for market in range(12):
        supply, last = float(problem.supply[market]), float(problem.start[market].log())
        found = brentq(
            lambda u, m=market, s=supply: single_asset_demand(problem, m, u, smoothing) - s * np.exp(u),
            last - 6.0,
            last + 6.0,
            xtol=1e-13,
        )
        assert float(prices[market].log()) == pytest.approx(found, abs=1e-10)


def test_markets_do_not_disturb_each_other() -> None:
    problem = random_problem(30, 7, 3, 9, costs=True)
    orders = problem.orders.clone()
    orders[4] = -1e9  # more than all wealth can buy
    beliefs = problem.beliefs.clone()
    beliefs[8, 2, 1] = torch.nan
    problem = problem.replace(orders=orders, beliefs=beliefs)
    for smoothing in (0.0, 1e-3):
        together = clear_batched(problem, smoothing=smoothing)
        assert torch.nonzero(~together[3])[:, 0].tolist() == [4, 8]
        for market in (0, 3, 5, 29):
            alone = clear_batched(problem.rows(slice(market, market + 1)), smoothing=smoothing)
            for x, y in zip(together, alone, strict=True):
                assert torch.equal(x[market], y[0])


def test_investors_without_wealth_hold_cash_and_change_nothing() -> None:
    problem = random_problem(10, 6, 2, 1, costs=True)
    wealth = problem.wealth.clone()
    wealth[:, -1], wealth[::2, -2] = -3.0, 0.0
    reference = problem.reference_weights.clone()
    reference[:, -1] = torch.nan
    problem = problem.replace(wealth=wealth, reference_weights=reference)
    prices, weights, _, converged, _ = clear_batched(problem)
    assert converged.all()
    assert (weights[wealth <= 0.0] == torch.tensor([1.0, 0.0, 0.0])).all()
    fewer = Problem(**{k: v if k in ("supply", "orders", "start") else v[:, :-1] for k, v in vars(problem).items()})
    torch.testing.assert_close(clear_batched(fewer)[0], prices, rtol=1e-12, atol=0.0)


def test_limits_that_leave_one_portfolio_or_a_corner() -> None:
    problem = random_problem(20, 6, 3, 2)
    problem = problem.replace(orders=torch.zeros_like(problem.orders))
    quarter = problem.replace(long_leverage=torch.full_like(problem.wealth, 0.25))
    prices, _, _, converged, _ = clear_batched(quarter)
    assert converged.all()
    value = 0.25 * problem.wealth.clamp(min=0.0).sum(1, keepdim=True) / problem.supply
    torch.testing.assert_close(prices, value, rtol=1e-12, atol=0.0)
    for theta in (0.25 * (1.0 + 1e-9), 0.26, 1.0):
        tight = problem.replace(
            short_leverage=torch.zeros_like(problem.wealth), long_leverage=torch.full_like(problem.wealth, theta)
        )
        assert_cleared(tight, clear_batched(tight))


def test_identical_investors_share_one_portfolio() -> None:
    problem = random_problem(10, 5, 2, 4)
    problem = problem.replace(orders=torch.zeros_like(problem.orders))
    same = {k: getattr(problem, k)[:, :1].expand_as(getattr(problem, k)).contiguous() for k in ("beliefs", "risk")}
    ones = torch.ones_like(problem.wealth)
    problem = problem.replace(**same, wealth=ones, short_leverage=0.0 * ones, long_leverage=ones)
    solution = clear_batched(problem)
    assert_cleared(problem, solution)
    torch.testing.assert_close(solution[1], solution[1][:, :1].expand_as(solution[1]), rtol=0.0, atol=1e-10)


def test_a_large_cost_freezes_positions_at_their_reference() -> None:
    problem = random_problem(10, 5, 2, 6, costs=True).replace(orders=torch.zeros(10, 2).double())
    rich = problem.wealth.abs() + 0.1
    held = problem.reference_weights.clamp(min=0.01) / 3.0
    problem = problem.replace(
        wealth=rich,
        reference_weights=held,
        trading_cost=torch.full_like(held, 10.0),
        supply=(rich[..., None] * held).sum(1) / problem.start,
        short_leverage=0.0 * rich,
        long_leverage=1.0 + 0.0 * rich,
    )
    prices, weights, _, converged, _ = clear_batched(problem)
    assert converged.all()
    torch.testing.assert_close(weights[..., 1:], held, rtol=0.0, atol=1e-12)
    torch.testing.assert_close(prices, problem.start, rtol=1e-10, atol=0.0)


def test_the_start_does_not_matter() -> None:
    problem = random_problem(20, 10, 3, 8, costs=True)
    prices, weights, *_ = clear_batched(problem)
    for shift in (-1.0, 0.3):
        other = clear_batched(problem.replace(start=problem.start * np.exp(shift)))
        torch.testing.assert_close(other[0], prices, rtol=1e-11, atol=0.0)
        torch.testing.assert_close(other[1], weights, rtol=0.0, atol=1e-10)


def test_an_empty_batch() -> None:
    prices, weights, residual, converged, iterations = clear_batched(random_problem(1, 4, 2, 0).rows(slice(0, 0)))
    assert prices.shape == (0, 2)
    assert weights.shape == (0, 4, 3)
    assert residual.shape == converged.shape == iterations.shape == (0,)


@pytest.mark.parametrize("costs", [False, True])
@pytest.mark.parametrize("volatility", [0.02, 0.2])
def test_agrees_with_the_compiled_kernel(volatility: float, costs: bool) -> None:
    clear_market = pytest.importorskip("hmgym.clearing").clear_market
    problem = random_problem(200, 20, 3, 21, volatility=volatility, costs=costs)
    positions = None
    if costs:
        rich = torch.where(problem.wealth > 0.0, problem.wealth, 1.0)[..., None]
        positions = problem.reference_weights * rich / problem.start[:, None]
        problem = problem.replace(reference_weights=problem.start[:, None] * positions / rich)
    prices, weights, _, converged, _ = clear_batched(problem)
    fields = vars(problem)
    names = ("beliefs", "risk", "wealth", "short_leverage", "long_leverage", "supply")
    solution = clear_market(
        *(fields[k] for k in names),
        orders=problem.orders,
        last_prices=problem.start,
        positions=positions,
        trading_cost=problem.trading_cost,
        backend="kernel",
    )
    assert converged.all()
    assert solution.converged.all()
    torch.testing.assert_close(prices, solution.prices, rtol=1e-9, atol=0.0)
    torch.testing.assert_close(weights, solution.weights, rtol=0.0, atol=1e-9)
