"""G-learning against quadrature, closed forms, brute force and the clearing."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from functools import reduce

import numpy as np
import pytest
import torch

from hmgym.clearing import clear_market
from hmgym.investors.g_learning import GProblem, as_demand, g_recursion, given_funds, look_through

Array = np.ndarray


def spd(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> Array:
    root = rng.normal(size=(*shape, shape[-1])) if len(shape) > 1 else rng.normal(size=(shape[0], shape[0]))
    return scale * (root @ root.swapaxes(-1, -2) / shape[-1] + 0.3 * np.eye(shape[-1]))


def problem(n: int, seed: int = 0, **changes) -> GProblem:
    rng = np.random.default_rng(seed)
    fields = {
        "expected_returns": rng.normal(0.2, 0.3, n),
        "covariance": spd(rng, n, scale=0.2),
        "risk_aversion": 1.5,
        "trading_cost": spd(rng, n, scale=0.1),
        "prior_mean": rng.normal(0.0, 0.2, n),
        "prior_gain": -0.2 * np.eye(n) + 0.05 * rng.normal(size=(n, n)),
        "prior_covariance": spd(rng, n, scale=0.2),
        "inverse_temperature": 2.0,
        "discount": 0.95,
        "growth": 1.0 + rng.normal(0.02, 0.02, n),
    }
    return GProblem(**(fields | changes))


def hermite(n: int, count: int) -> tuple[Array, Array]:
    """Nodes (M, n) and weights (M,) of a standard normal in n dimensions."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    grid = np.array(list(itertools.product(nodes, repeat=n)))
    return grid, reduce(np.multiply.outer, [weights / weights.sum()] * n).ravel()


def reward(p: GProblem, mean: Array, x: Array, u: Array) -> Array:
    w = x + u
    risk = np.einsum("...i,ij,...j", w, p.covariance, w)
    return w @ mean - p.risk_aversion * risk - np.einsum("...i,ij,...j", u, p.trading_cost, u)


def by_quadrature(
    p: GProblem, period: int, after: Callable[[Array], Array] | None, x: Array, count: int
) -> tuple[float, Array, Array]:
    """F(x), mean and covariance of trades: integrals over trades and over returns, no algebra."""
    n = len(x)
    nodes, weights = hermite(n, count)
    trades = p.prior_mean + p.prior_gain @ x + nodes @ np.linalg.cholesky(p.prior_covariance).T
    g = reward(p, p.mean_of(period), x, trades)
    if after is not None:
        normals, chances = hermite(n, 3)
        growth = p.growth + normals @ np.linalg.cholesky(p.covariance).T
        g = g + p.discount * after(growth * (x + trades)[:, None]) @ chances
    density = weights * np.exp(p.inverse_temperature * (g - g.max()))
    total = density.sum()
    mean = density @ trades / total
    spread = trades - mean
    covariance = (density[:, None] * spread).T @ spread / total
    return float(g.max() + np.log(total) / p.inverse_temperature), mean, covariance


def quadratic_through(values: Callable[[Array], float], n: int) -> Callable[[Array], Array]:
    """The quadratic function with these values at enough points."""
    powers = [c for d in range(3) for c in itertools.combinations_with_replacement(range(n), d)]

    def monomials(x: Array) -> Array:
        return np.stack([np.prod(x[..., list(c)], axis=-1) for c in powers], -1)

    points = np.array([np.bincount(np.array(c, dtype=int), minlength=n) for c in powers], float) - 0.3
    coefficients = np.linalg.solve(monomials(points), [values(point) for point in points])
    return lambda x: monomials(x) @ coefficients


def brute_force(p: GProblem, periods: int, x: Array, count: int) -> tuple[float, Array, Array]:
    after = None
    for period in reversed(range(1, periods)):
        later = after

        def value(point: Array, period: int = period, later: Callable | None = later) -> float:
            return by_quadrature(p, period, later, point, count)[0]

        after = quadratic_through(value, len(x))
    return by_quadrature(p, 0, after, x, count)


@pytest.mark.parametrize(("n", "count"), [(1, 60), (2, 40), (3, 28)])
@pytest.mark.parametrize("beta", [0.3, 2.0])
def test_one_period_is_the_integral(n: int, count: int, beta: float) -> None:
    p = problem(n, inverse_temperature=beta)
    x = np.random.default_rng(1).normal(0.0, 0.5, n)
    policy = g_recursion(p)
    value, mean, covariance = brute_force(p, 1, x, count)
    assert float(policy.value(x)) == pytest.approx(value, abs=1e-11)
    np.testing.assert_allclose(policy.mean(x), mean, rtol=0.0, atol=1e-11)
    np.testing.assert_allclose(policy.covariance, covariance, rtol=0.0, atol=1e-11)


@pytest.mark.parametrize(("n", "periods"), [(1, 2), (1, 6), (2, 3), (2, 6)])
def test_several_periods_are_the_recursion_of_integrals(n: int, periods: int) -> None:
    rng = np.random.default_rng(2)
    p = problem(n, expected_returns=tuple(rng.normal(0.2, 0.3, (periods, n))))
    x = rng.normal(0.0, 0.5, n)
    policy = g_recursion(p, periods)
    value, mean, covariance = brute_force(p, periods, x, 50)
    assert float(policy.value(x)) == pytest.approx(value, abs=1e-10)
    np.testing.assert_allclose(policy.mean(x), mean, rtol=0.0, atol=1e-10)
    np.testing.assert_allclose(policy.covariance, covariance, rtol=0.0, atol=1e-10)


def test_two_periods_are_nested_integrals() -> None:
    """No quadratic in between: the later integral is taken at every point that the earlier one asks for."""
    p = problem(1)
    nodes, weights = hermite(1, 60)

    def after(x: Array) -> Array:
        trades = p.prior_mean + p.prior_gain[0] * x + nodes[:, 0] * np.sqrt(p.prior_covariance[0, 0])
        g = reward(p, p.mean_of(1), x[..., None], trades[..., None])
        return np.log(np.exp(p.inverse_temperature * g) @ weights) / p.inverse_temperature

    x = np.array([0.4])
    value, mean, _ = by_quadrature(p, 0, after, x, 60)
    policy = g_recursion(p, 2)
    assert float(policy.value(x)) == pytest.approx(value, abs=1e-11)
    np.testing.assert_allclose(policy.mean(x), mean, rtol=0.0, atol=1e-11)


def test_six_periods_are_one_gaussian_over_all_trades() -> None:
    """Without risk or discounting the path has density Π π₀ exp(βR): its trades are jointly Gaussian, no recursion."""
    n, periods = 2, 6
    rng = np.random.default_rng(3)
    p = problem(
        n, covariance=np.zeros((n, n)), discount=1.0, expected_returns=tuple(rng.normal(0.1, 0.2, (periods, n)))
    )
    x0, beta = rng.normal(0.0, 0.5, n), p.inverse_temperature.item()
    of = torch.as_tensor
    prior = torch.distributions.MultivariateNormal(torch.zeros(n, dtype=torch.float64), of(p.prior_covariance))

    def log_density(trades: torch.Tensor) -> torch.Tensor:
        x, total = of(x0), torch.zeros((), dtype=torch.float64)
        for period, u in enumerate(trades.view(periods, n)):
            total = total + prior.log_prob(u - of(p.prior_mean) - of(p.prior_gain) @ x)
            total = total + beta * (of(p.mean_of(period)) @ (x + u) - u @ of(p.trading_cost) @ u)
            x = of(p.growth) * (x + u)
        return total

    start = torch.zeros(periods * n, dtype=torch.float64, requires_grad=True)
    precision = -torch.autograd.functional.hessian(log_density, start)
    (slope,) = torch.autograd.grad(log_density(start), start)
    covariance = torch.linalg.inv(precision)
    mode = covariance @ slope
    log_total = log_density(mode) + 0.5 * (torch.logdet(covariance) + periods * n * np.log(2.0 * np.pi))
    policy = g_recursion(p, periods)
    assert float(policy.value(x0)) == pytest.approx(float(log_total) / beta, abs=1e-12)
    np.testing.assert_allclose(policy.mean(x0), mode[:n].detach(), rtol=0.0, atol=1e-12)
    np.testing.assert_allclose(policy.covariance, covariance[:n, :n], rtol=0.0, atol=1e-12)


def test_six_periods_without_habit_are_the_best_plan_on_a_tree() -> None:
    """β = ∞ with risk: returns r̄ ± σ on a binary tree, all 63 trades chosen at once."""
    periods = 6
    rng = np.random.default_rng(4)
    p = problem(1, inverse_temperature=np.inf, expected_returns=tuple(rng.normal(0.2, 0.3, (periods, 1))))
    x0, sigma, growth = 0.4, float(p.covariance[0, 0]) ** 0.5, p.growth.item()

    def total(trades: torch.Tensor) -> torch.Tensor:
        x, done, value = torch.full((1,), x0, dtype=torch.float64), 0, torch.zeros((), dtype=torch.float64)
        for period in range(periods):
            u = trades[done : done + len(x)]
            w, done = x + u, done + len(x)
            gain = p.mean_of(period).item() * w - p.risk_aversion.item() * sigma**2 * w * w
            value = value + p.discount.item() ** period * (gain - p.trading_cost.item() * u * u).mean()
            x = torch.cat([(growth + sigma) * w, (growth - sigma) * w])
        return value

    start = torch.zeros(2**periods - 1, dtype=torch.float64, requires_grad=True)
    hessian = torch.autograd.functional.hessian(total, start)
    (slope,) = torch.autograd.grad(total(start), start)
    best = -torch.linalg.solve(hessian, slope)
    policy = g_recursion(p, periods)
    x = np.array([x0])
    assert policy.mean(x).item() == pytest.approx(float(best[0]), abs=1e-12)
    assert float(policy.value(x)) == pytest.approx(float(total(best)), abs=1e-12)
    assert not policy.covariance.any()


@pytest.mark.parametrize("beta", [1e16, np.inf])
def test_without_limit_to_reason_it_is_markowitz_with_costs(beta: float) -> None:
    p = problem(4, inverse_temperature=beta)
    x = np.random.default_rng(5).normal(0.0, 0.5, 4)
    curvature = 2.0 * (p.risk_aversion * p.covariance + p.trading_cost)
    target = np.linalg.solve(curvature, p.expected_returns + 2.0 * p.trading_cost @ x)
    policy = g_recursion(p)
    np.testing.assert_allclose(policy.mean(x), target - x, rtol=0.0, atol=1e-12)
    assert float(policy.value(x)) == pytest.approx(float(reward(p, p.expected_returns, x, target - x)), abs=1e-10)
    assert np.abs(policy.covariance).max() < 1e-12


@pytest.mark.parametrize("periods", [1, 6])
@pytest.mark.parametrize("beta", [1e-8, 1e-14, 1e-100])
def test_without_reason_it_is_habit(periods: int, beta: float) -> None:
    """Policy and value of positions, which is the expected reward under the prior, keep all their digits."""
    p = problem(3, inverse_temperature=beta)
    policy = g_recursion(p, periods)
    np.testing.assert_allclose(policy.offset, p.prior_mean, rtol=0.0, atol=100.0 * beta + 1e-15)
    np.testing.assert_allclose(policy.gain, p.prior_gain, rtol=0.0, atol=100.0 * beta + 1e-15)
    np.testing.assert_allclose(policy.covariance, p.prior_covariance, rtol=100.0 * beta + 1e-14)
    keep, xx, linear = np.eye(3) + p.prior_gain, np.zeros((3, 3)), np.zeros(3)
    for _ in range(periods):
        kept = p.discount * xx * (np.outer(p.growth, p.growth) + p.covariance) - p.risk_aversion * p.covariance
        mean = p.expected_returns + p.discount * p.growth * linear
        costs = p.trading_cost @ p.prior_mean
        xx = keep.T @ kept @ keep - p.prior_gain.T @ p.trading_cost @ p.prior_gain
        linear = keep.T @ (mean + 2.0 * kept @ p.prior_mean) - 2.0 * p.prior_gain.T @ costs
    np.testing.assert_allclose(policy.value.xx, xx, rtol=0.0, atol=1e3 * beta + 1e-14)
    np.testing.assert_allclose(policy.value.x, linear, rtol=0.0, atol=1e3 * beta + 1e-14)


def test_the_value_is_that_of_the_policy() -> None:
    """F = E[G] − information/β under the policy, in closed form for Gaussians."""
    p = problem(3)
    x = np.random.default_rng(6).normal(0.0, 0.5, 3)
    policy = g_recursion(p, 4)
    mean, covariance, action = policy.mean(x), policy.covariance, policy.action_value
    expected = action(x, mean) + np.trace(action.uu @ covariance)
    precision = np.linalg.inv(p.prior_covariance)
    away = mean - p.prior_mean - p.prior_gain @ x
    ratio = np.linalg.slogdet(p.prior_covariance)[1] - np.linalg.slogdet(covariance)[1]
    information = 0.5 * (np.trace(precision @ covariance) - 3.0 + away @ precision @ away + ratio)
    assert float(policy.value(x)) == pytest.approx(float(expected - information / p.inverse_temperature), abs=1e-13)


@pytest.mark.parametrize("drawn", [False, True])
@pytest.mark.parametrize("periods", [1, 6])
def test_the_clearing_holds_what_the_policy_says(periods: int, drawn: bool) -> None:
    """At the prices that clear, weights are x plus the policy's trade at these prices."""
    rng = np.random.default_rng(7)
    n_markets, investors, n = 3, 5, 3
    log_price, wealth = rng.normal(0.0, 0.3, (n_markets, n)), rng.uniform(1.0, 3.0, (n_markets, investors))
    x = rng.uniform(0.05, 0.3, (n_markets, investors, n))
    supply = (x * wealth[..., None]).sum(1) / np.exp(log_price)
    plan = rng.normal(0.1, 0.1, (n_markets, investors, n))
    later = [rng.normal(0.1, 0.1, (n_markets, investors, n)) for _ in range(periods - 1)]
    fields = {
        "covariance": spd(rng, n_markets, 1, n, scale=0.2),
        "risk_aversion": rng.uniform(1.0, 3.0, (n_markets, investors)),
        "trading_cost": spd(rng, n_markets, investors, n, scale=0.05),
        "prior_mean": rng.normal(0.0, 0.02, (n_markets, investors, n)),
        "prior_gain": -0.1 * np.eye(n),
        "prior_covariance": spd(rng, n_markets, investors, n, scale=0.3),
        "inverse_temperature": rng.uniform(2.0, 8.0, (n_markets, investors)),
        "discount": 0.99,
        "growth": 1.0 + rng.normal(0.0, 0.02, (n_markets, investors, n)),
    }
    normals = 0.1 * rng.standard_normal(x.shape) if drawn else None
    p = GProblem(expected_returns=(plan, *later), **fields)
    risk, shift = as_demand(p, g_recursion(p, periods), x, normals)
    beliefs = log_price[:, None] + plan
    solution = clear_market(beliefs + shift, risk, wealth, 50.0, 50.0, supply)
    assert bool((solution.active_limits == 0).all())
    cleared = dataclasses.replace(p, expected_returns=(beliefs - solution.prices.log().numpy()[:, None], *later))
    policy = g_recursion(cleared, periods)
    trade = policy.mean(x) if normals is None else policy.sample(x, normals)
    np.testing.assert_allclose(solution.weights[..., 1:].numpy(), x + trade, rtol=0.0, atol=1e-12)
    again = as_demand(cleared, policy, x, normals)[1]
    np.testing.assert_allclose(again, shift, rtol=0.0, atol=1e-12)  # the price plays no part in it


def test_draws_have_the_covariance_of_the_policy() -> None:
    p = problem(3)
    policy = g_recursion(p, 2)
    factor = (policy.sample(np.zeros(3), np.eye(3)) - policy.offset).T
    np.testing.assert_allclose(factor @ factor.T, policy.covariance, rtol=1e-12)
    risk, _ = as_demand(p, policy, np.zeros(3))
    np.testing.assert_allclose(np.linalg.inv(policy.covariance), 2.0 * p.inverse_temperature * risk, rtol=1e-11)


def test_demand_for_assets_given_that_for_funds() -> None:
    rng = np.random.default_rng(8)
    risk, shift, funds = spd(rng, 2, 5), rng.normal(size=(2, 5)), rng.uniform(0.0, 0.3, (2, 2))
    direct_risk, direct_shift = given_funds(risk, shift, funds)
    own = np.linalg.solve(2.0 * direct_risk, direct_shift[..., None])[..., 0]
    whole = np.concatenate([(1.0 - funds.sum(-1))[:, None] * own, funds], -1)
    slope = shift - 2.0 * np.einsum("eij,ej->ei", risk, whole)  # of the joint problem: zero where assets are free
    np.testing.assert_allclose(slope[:, :3], 0.0, atol=1e-13)


def test_funds_are_what_they_hold() -> None:
    portfolios = np.random.default_rng(9).uniform(size=(2, 3, 4))
    loadings = look_through(portfolios)
    np.testing.assert_array_equal(loadings[:, :4], np.broadcast_to(np.eye(4), (2, 4, 4)))
    np.testing.assert_array_equal(loadings[:, 4:], portfolios)
    np.testing.assert_array_equal(look_through(torch.from_numpy(portfolios)).numpy(), loadings)


def test_funds_without_cost_need_a_temperature() -> None:
    """Look-through makes risk singular: habit or a cost on funds decides between a fund and what it holds."""
    loadings = look_through(np.array([[0.5, 0.5]]))
    fields = {
        "expected_returns": loadings @ [0.05, 0.04],
        "covariance": loadings @ (0.04 * np.eye(2)) @ loadings.T,
        "risk_aversion": 2.0,
        "prior_covariance": 0.1 * np.eye(3),
    }
    g_recursion(GProblem(**fields, inverse_temperature=5.0))
    g_recursion(GProblem(**fields, inverse_temperature=np.inf, trading_cost=0.01))
    with pytest.raises(ValueError, match="`trading_cost` must leave no direction without risk and cost"):
        g_recursion(GProblem(**fields, inverse_temperature=np.inf))


def test_tensors_batches_and_kinds_of_cost_agree() -> None:
    rng = np.random.default_rng(10)
    shapes = {"risk_aversion": (2, 5), "inverse_temperature": (2, 1), "prior_mean": (5, 3)}
    fields = {name: rng.uniform(0.5, 1.5, shape) for name, shape in shapes.items()}
    fields["expected_returns"] = rng.uniform(0.0, 0.2, (2, 5, 3))
    batch, x = problem(3, trading_cost=np.full(3, 0.1), **fields), rng.normal(size=(2, 5, 3))
    names = [field.name for field in dataclasses.fields(GProblem)]
    tensors = GProblem(**{name: torch.as_tensor(getattr(batch, name)) for name in names})
    rows = {"risk_aversion": (1, 3), "inverse_temperature": (1, 0), "prior_mean": (3,), "expected_returns": (1, 3)}
    one = problem(3, trading_cost=0.1 * np.eye(3), **{name: fields[name][row] for name, row in rows.items()})
    policy, single = g_recursion(batch, 3), g_recursion(one, 3)
    np.testing.assert_allclose(policy.mean(x)[1, 3], single.mean(x[1, 3]), rtol=1e-12)
    np.testing.assert_allclose(policy.value(x)[1, 3], single.value(x[1, 3]), rtol=1e-12)
    found = g_recursion(tensors, 3)
    np.testing.assert_allclose(found.mean(torch.as_tensor(x)).numpy(), policy.mean(x), rtol=1e-12)
    np.testing.assert_allclose(found.value(torch.as_tensor(x)).numpy(), policy.value(x), rtol=1e-12)
    for ours, theirs in zip(as_demand(tensors, found, torch.as_tensor(x)), as_demand(batch, policy, x), strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-11, atol=1e-13)
    plain = g_recursion(problem(3, trading_cost=0.1, **fields), 3)
    np.testing.assert_array_equal(plain.mean(x), policy.mean(x))
    assert policy.offset.shape == (2, 5, 3)
    np.testing.assert_allclose(policy.offset + np.einsum("ebij,ebj->ebi", policy.gain, x), policy.mean(x), rtol=1e-11)


@pytest.mark.parametrize("periods", [1, 3])
def test_no_prior_gain_is_a_gain_of_zero(periods: int) -> None:
    none, zero = (g_recursion(problem(3, prior_gain=gain), periods) for gain in (None, np.zeros((3, 3))))
    for name in ("offset", "gain", "covariance"):
        np.testing.assert_allclose(getattr(none, name), getattr(zero, name), rtol=1e-13)
    x = np.array([0.2, -0.1, 0.4])
    np.testing.assert_allclose(none.value(x), zero.value(x), rtol=1e-13)
    np.testing.assert_allclose(none.mean(x), zero.mean(x), rtol=1e-13)


def test_investors_that_share_matrices_are_as_each_alone() -> None:
    rng = np.random.default_rng(12)
    means, x, normals = rng.normal(0.1, 0.1, (2, 5, 3)), rng.normal(size=(2, 5, 3)), rng.normal(size=(2, 5, 3))
    shared = g_recursion(problem(3, expected_returns=means), 2)
    assert shared.root.shape == (3, 3)
    for row in np.ndindex(2, 5):
        alone = g_recursion(problem(3, expected_returns=means[row]), 2)
        np.testing.assert_allclose(shared.mean(x)[row], alone.mean(x[row]), rtol=1e-11)
        np.testing.assert_allclose(shared.sample(x, normals)[row], alone.sample(x[row], normals[row]), rtol=1e-11)
        np.testing.assert_allclose(shared.value(x)[row], alone.value(x[row]), rtol=1e-12)


def test_gradients() -> None:
    rng = np.random.default_rng(11)
    base, x = problem(2), torch.from_numpy(rng.normal(size=2))
    normals = torch.from_numpy(rng.standard_normal(2))
    names = ("expected_returns", "covariance", "risk_aversion", "trading_cost", "prior_mean", "prior_gain")
    names = (*names, "prior_covariance", "inverse_temperature", "discount", "growth")

    def outputs(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        fields = dict(zip(names, values, strict=True))
        for name in ("covariance", "trading_cost", "prior_covariance"):
            fields[name] = 0.5 * (fields[name] + fields[name].mT)
        p = GProblem(**fields)
        policy = g_recursion(p, 3)
        return policy.value(x), policy.sample(x, normals), *as_demand(p, policy, x, normals)

    inputs = [torch.tensor(np.asarray(getattr(base, name)), requires_grad=True) for name in names]
    assert torch.autograd.gradcheck(outputs, inputs, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"covariance": np.ones(3)}, "`covariance` must have shape"),
        ({"expected_returns": np.ones(2)}, r"`expected_returns` must have shape \(\.\.\., 3\), got \(2,\)"),
        ({"inverse_temperature": 0.0}, "`inverse_temperature` must be > 0, got 0"),
        ({"risk_aversion": -1.0}, "`risk_aversion` must be >= 0, got -1"),
        ({"trading_cost": np.ones(2)}, "`trading_cost` must have shape"),
        ({"trading_cost": np.ones((3, 2))}, "`trading_cost` must have shape"),
        ({"trading_cost": -np.eye(3)}, "`trading_cost` must leave no direction"),
        ({"prior_covariance": np.zeros((3, 3))}, "`prior_covariance` must be positive definite"),
        ({"prior_gain": np.ones(3)}, "`prior_gain` must have shape"),
        ({"growth": "much"}, "`growth` must be an array of real numbers"),
    ],
)
def test_bad_input(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        g_recursion(problem(3, **change))


def test_bad_periods() -> None:
    with pytest.raises(ValueError, match="`periods` must be an integer >= 1"):
        g_recursion(problem(3), 0)
    with pytest.raises(ValueError, match="tuple of periods = 3, got 2"):
        g_recursion(problem(3, expected_returns=(np.zeros(3), np.zeros(3))), 3)
