"""`find_equilibrium_prices`: residuals, which equilibrium, gradients, failures."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import pytest
import torch

from hmgym.clearing.equilibrium import EquilibriumSolution, _evaluations, find_equilibrium_prices
from hmgym.clearing.portfolio import optimize_portfolio
from hmgym.clearing.solution import ClearingError
from tests.clearing.price_problems import generated_market, ordinary_market, seed_market

SEED_PRICES = [29.2456, 32.4128, 20.9177]


def stack(markets: list[dict[str, Any]]) -> dict[str, Any]:
    """Markets side by side."""
    out = {name: np.stack([np.asarray(market[name]) for market in markets]) for name in markets[0]}
    if out["commission"].ndim == 1:
        out["commission"] = out["commission"][:, None]
    return out


def assert_clears(market: dict[str, Any], solution: EquilibriumSolution, **options: str) -> None:
    """The prices are an equilibrium by the library's other function: optimal holdings sum to supply."""
    demand = optimize_portfolio(
        **{name: x for name, x in market.items() if name != "supply"}, prices=solution.prices, **options
    )
    supply = torch.as_tensor(np.asarray(market["supply"]))
    assert float((solution.holdings.sum(-2) / supply - 1.0).abs().max()) <= 1e-9
    # A price is known to a few ulp, so demand is known to its slope times that.
    scale = supply[..., None, :]
    assert float(((demand - solution.holdings) / scale).abs().max()) <= 1e-7


def test_example_of_the_seed_library() -> None:
    market = seed_market()
    np.testing.assert_allclose(find_equilibrium_prices(**market), SEED_PRICES, atol=5e-5)
    solution = find_equilibrium_prices(**market, return_solution=True)
    assert bool(solution.converged)
    assert float(solution.residual) <= 1e-12
    assert solution.holdings.shape == (20, 3)
    assert_clears(market, solution)


@pytest.mark.parametrize(("n", "B", "count"), [(3, 20, 150), (10, 50, 40), (2, 5, 100)])
def test_the_seed_librarys_generator(n: int, B: int, count: int, capsys: pytest.CaptureFixture[str]) -> None:
    markets = [generated_market(n, B, seed) for seed in range(count)]
    solution = find_equilibrium_prices(**stack(markets), return_solution=True)
    found = int(solution.converged.sum())
    with capsys.disabled():
        sys.stdout.write(f"\n  ({n}, {B}): {found} of {count} converged, {count - found} without equilibrium\n")
    assert float(solution.residual[solution.converged].max()) <= 1e-9
    for k in torch.nonzero(solution.converged)[:20, 0].tolist():
        one = EquilibriumSolution(**{name: x[k] for name, x in vars(solution).items() if name != "reasons"})
        assert_clears(markets[k], one)
    # With two assets and five investors some markets have none: one asset is worth less than nothing to hedgers.
    assert found == count if n > 2 else found >= 0.95 * count


def test_large_markets_are_solved_or_flagged_in_bounded_work(capsys: pytest.CaptureFixture[str]) -> None:
    """Thirty assets, a hundred investors: where the branch ends at a price of zero another equilibrium may be found."""
    most = _evaluations(100, 30)
    reasons = {}
    for seed in range(24):
        solution = find_equilibrium_prices(**generated_market(30, 100, seed), return_solution=True)
        assert int(solution.iterations) <= most + 150, seed
        if bool(solution.converged):
            assert float(solution.residual) <= 1e-9
        else:
            reasons[seed] = solution.reasons[0]
            assert bool(solution.prices.isnan().all())
    with capsys.disabled():
        sys.stdout.write(f"\n  (30, 100): {24 - len(reasons)} of 24 converged, in {sorted(reasons)} none found\n")
    assert len(reasons) <= 1
    assert all(reason.startswith("no equilibrium found") for reason in reasons.values())


def test_equilibria_off_the_branch_do_not_depend_on_the_order_of_assets() -> None:
    market = generated_market(30, 100, 7)
    base = find_equilibrium_prices(**market, return_solution=True)
    assert bool(base.converged)
    assert_clears(market, base)
    turn = np.random.default_rng(0).permutation(30)
    turned = {**market, "Sigma": market["Sigma"][:, turn][:, :, turn], "supply": market["supply"][turn]}
    turned["expected_returns"] = market["expected_returns"][:, turn]
    torch.testing.assert_close(find_equilibrium_prices(**turned), base.prices[turn], rtol=1e-8, atol=0.0)


@pytest.mark.parametrize("kind", ["plain", "cost", "caps"])
def test_ordinary_markets(kind: str) -> None:
    """From staircases of bold investors to cautious ones."""
    for seed in range(30):
        market = ordinary_market(3, 20, seed, kind)
        side = ("buys", "trades")[seed % 2]
        solution = find_equilibrium_prices(**market, commission_on=side, return_solution=True)
        assert bool(solution.converged), seed
        assert float(solution.residual) <= 1e-9


def test_identical_investors_have_a_closed_form() -> None:
    """Each holds S/B; first-order conditions give p (1 + mu) = M - 2 Sigma S/B with p'S fixed by the cash limit."""
    market = {
        "Sigma": np.stack([np.eye(2)] * 5),
        "expected_returns": np.tile([12.0, 8.0], (5, 1)),
        "commission": 0.0,
        "holdings": np.zeros((5, 2)),
        "budget": np.full(5, 1000.0),
        "short_leverage": 0.1,
        "long_leverage": 0.7,
        "supply": [10.0, 10.0],
    }
    np.testing.assert_allclose(find_equilibrium_prices(**market), [100.0, 50.0], rtol=1e-13)
    free = {**market, "Sigma": market["Sigma"] * 0.1, "long_leverage": 1.0}
    np.testing.assert_allclose(find_equilibrium_prices(**free), [11.6, 7.6], rtol=1e-13)


def test_one_point_limits() -> None:
    """With long_leverage = 1/(N+1) everybody holds the same weights whatever the beliefs."""
    market = {**seed_market(), "long_leverage": 0.25}
    value = float(market["budget"].sum()) / 4.0
    np.testing.assert_allclose(find_equilibrium_prices(**market), np.full(3, value / 10000.0), rtol=1e-12)


def test_the_start_chooses_among_equilibria() -> None:
    market = seed_market()
    default = find_equilibrium_prices(**market)
    np.testing.assert_allclose(find_equilibrium_prices(**market, initial_approximation=default), default, rtol=1e-12)
    other = find_equilibrium_prices(**market, initial_approximation=[80.7, 1.25, 0.61], return_solution=True)
    np.testing.assert_allclose(other.prices, [80.7088, 1.2536, 0.6137], atol=5e-5)
    assert_clears(market, other)


def test_one_market_does_not_disturb_another() -> None:
    markets = [generated_market(3, 20, seed) for seed in range(4)]
    batch = stack(markets)
    batch["expected_returns"][1, 3, 0] = np.nan
    batch["Sigma"][2, 5] = -np.eye(3)
    with pytest.raises(ClearingError) as caught:
        find_equilibrium_prices(**batch)
    assert sorted(caught.value.markets) == [1, 2]
    assert "`expected_returns` must be finite" in caught.value.markets[1]
    assert "`Sigma` must be positive semidefinite" in caught.value.markets[2]
    solution = caught.value.solution
    assert isinstance(solution, EquilibriumSolution)
    assert solution.converged.tolist() == [True, False, False, True]
    assert bool(solution.prices[1:3].isnan().all())
    for k in (0, 3):
        torch.testing.assert_close(solution.prices[k], find_equilibrium_prices(**markets[k]), rtol=0.0, atol=0.0)


def test_scale_and_order_do_not_matter() -> None:
    market = generated_market(3, 20, 4)
    base = find_equilibrium_prices(**market)
    richer = {**market, "budget": market["budget"] * 7.0, "supply": market["supply"] * 7.0}
    richer["Sigma"] = market["Sigma"] / 7.0
    torch.testing.assert_close(find_equilibrium_prices(**richer), base, rtol=1e-9, atol=0.0)
    order = np.random.default_rng(0).permutation(20)
    names = ("Sigma", "expected_returns", "holdings", "budget", "short_leverage", "long_leverage")
    shuffled = {**market, **{name: market[name][order] for name in names}}
    torch.testing.assert_close(find_equilibrium_prices(**shuffled), base, rtol=1e-10, atol=0.0)
    turn = [2, 0, 1]
    turned = {**market, "Sigma": market["Sigma"][:, turn][:, :, turn], "supply": market["supply"][turn]}
    turned["expected_returns"] = market["expected_returns"][:, turn]
    torch.testing.assert_close(find_equilibrium_prices(**turned), base[turn], rtol=1e-10, atol=0.0)


def test_infeasible_markets_are_flagged_at_once() -> None:
    market = seed_market()
    nobody = {**market, "long_leverage": torch.tensor([[0.0, 0.8, 0.8]]).expand(20, 3)}
    # Identical investors would all have to hold an asset that they expect to be worth less than nothing.
    unwanted = {
        "Sigma": np.stack([np.eye(2) * 0.01] * 5),
        "expected_returns": np.tile([-1.0, 2.0], (5, 1)),
        "commission": 0.0,
        "holdings": np.zeros((5, 2)),
        "budget": np.full(5, 1000.0),
        "short_leverage": 0.1,
        "long_leverage": 0.7,
        "supply": [10.0, 10.0],
    }
    for problem, reason in ((nobody, "no equilibrium exists"), (unwanted, "price falls to zero")):
        begin = time.perf_counter()
        with pytest.raises(ClearingError, match=reason):
            find_equilibrium_prices(**problem)
        assert time.perf_counter() - begin < 60.0  # a hang, not a speed


def directional_slopes(
    market: dict[str, Any], name: str, direction: torch.Tensor, start: torch.Tensor, bars: tuple[torch.Tensor, ...]
) -> tuple[float, float]:
    """One-sided differences of prices and holdings, weighted by ``bars``, as one input moves along a direction."""

    def at(s: float) -> float:
        moved = {**market, name: torch.as_tensor(np.asarray(market[name])) + s * direction}
        solution = find_equilibrium_prices(**moved, initial_approximation=start, return_solution=True)
        return float((solution.prices * bars[0]).sum() + (solution.holdings * bars[1]).sum())

    return (at(0.0) - at(-1e-6)) / 1e-6, (at(1e-6) - at(0.0)) / 1e-6


def test_gradients_equal_central_differences() -> None:
    """Directional, every input on its own; at a kink the one-sided differences disagree."""
    smooth = 0
    for seed in range(6):
        market = seed_market() if seed == 0 else generated_market(3, 20, seed)
        if seed % 2:
            market = {**market, "commission": np.full((20, 3), 0.3), "holdings": np.full((20, 3), 400.0)}
        inputs = {n: torch.as_tensor(np.asarray(x)).clone().requires_grad_() for n, x in market.items()}
        solution = find_equilibrium_prices(**inputs, return_solution=True)
        generator = torch.Generator().manual_seed(seed)
        bars = tuple(torch.randn(s, generator=generator, dtype=torch.float64) for s in ((3,), (20, 3)))
        bars = (bars[0], bars[1] * 1e-3)
        value = (solution.prices * bars[0]).sum() + (solution.holdings * bars[1]).sum()
        gradients = dict(zip(inputs, torch.autograd.grad(value, list(inputs.values())), strict=True))
        for name, x in inputs.items():
            direction = torch.randn(x.shape, generator=generator, dtype=torch.float64) * x.detach().abs()
            if float(direction.abs().max()) == 0.0:
                continue
            if name == "Sigma":
                direction = 0.5 * (direction + direction.mT)
            left, right = directional_slopes(market, name, direction, solution.prices.detach(), bars)
            if abs(left - right) > 1e-3 * max(1.0, abs(left)):
                continue
            exact = float((gradients[name] * direction).sum())
            assert exact == pytest.approx(0.5 * (left + right), rel=1e-5, abs=2e-7), (seed, name)
            smooth += 1
    assert smooth >= 25


def test_gradcheck() -> None:
    market = generated_market(2, 4, 3)
    names = ("Sigma", "expected_returns", "budget", "short_leverage", "long_leverage", "supply")
    units = {"Sigma": 1.0, "budget": 1e5, "supply": 1e4}
    inputs = [torch.tensor(market[name] / units.get(name, 1.0), requires_grad=True) for name in names]

    def prices(*values: torch.Tensor) -> torch.Tensor:
        given = {name: x * units.get(name, 1.0) for name, x in zip(names, values, strict=True)}
        given["Sigma"] = 0.5 * (given["Sigma"] + given["Sigma"].mT)
        return find_equilibrium_prices(**given, commission=0.0, holdings=0.0)

    assert torch.autograd.gradcheck(prices, inputs, eps=1e-6, atol=1e-5, rtol=1e-5)


def test_values_do_not_depend_on_gradients() -> None:
    market = seed_market()
    tracked = {name: x.clone().requires_grad_() for name, x in market.items()}
    torch.testing.assert_close(
        find_equilibrium_prices(**tracked).detach(), find_equilibrium_prices(**market), rtol=0.0, atol=0.0
    )


def test_failed_rows_have_no_gradient() -> None:
    batch = stack([generated_market(3, 20, seed) for seed in range(2)])
    batch["supply"][0, 0] = -1.0
    expected = torch.tensor(batch["expected_returns"], requires_grad=True)
    solution = find_equilibrium_prices(**{**batch, "expected_returns": expected}, return_solution=True)
    assert solution.converged.tolist() == [False, True]
    (gradient,) = torch.autograd.grad(solution.prices[1].sum(), expected)
    assert bool(torch.isfinite(gradient).all())
    assert float(gradient[0].abs().max()) == 0.0
    assert float(gradient[1].abs().max()) > 0.0


def test_shapes() -> None:
    market = generated_market(3, 20, 0)
    prices = find_equilibrium_prices(**market)
    assert prices.shape == (3,)
    assert prices.dtype == torch.float64
    batch = stack([market, market])
    both = find_equilibrium_prices(**{**batch, "supply": market["supply"]}, return_solution=True)
    assert both.prices.shape == (2, 3)
    assert both.holdings.shape == (2, 20, 3)
    assert both.converged.shape == both.residual.shape == both.iterations.shape == (2,)
    torch.testing.assert_close(both.prices[1], prices, rtol=0.0, atol=0.0)
    lists = {name: np.asarray(x).tolist() for name, x in market.items()}
    torch.testing.assert_close(find_equilibrium_prices(**lists), prices, rtol=0.0, atol=0.0)
    per_asset = {**market, "short_leverage": np.repeat(market["short_leverage"][:, None], 3, 1)}
    torch.testing.assert_close(find_equilibrium_prices(**per_asset), prices, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Sigma": np.eye(3)}, r"`Sigma` must have shape \(B, N, N\) or \(E, B, N, N\), all >= 1, got \(3, 3\)"),
        ({"expected_returns": np.zeros((19, 3))}, r"`expected_returns` must have shape \(20, 3\)"),
        ({"expected_returns": np.full((20, 3), np.nan)}, "`expected_returns` must be finite, got nan"),
        ({"budget": np.full(20, -5.0)}, "`budget` must be finite and >= 0, got -5"),
        ({"budget": 0.0}, "`budget` must leave somebody who may buy asset 0"),
        ({"supply": [1.0, 2.0, -3.0]}, "`supply` must be finite and > 0, got -3"),
        ({"supply": [1.0, 2.0]}, r"`supply` must have shape \(3,\), got \(2,\)"),
        ({"long_leverage": 0.2}, r"`long_leverage` must be >= 1/\(N\+1\) = 0.25, got 0.2"),
        ({"initial_approximation": [1.0, 0.0, 1.0]}, "`initial_approximation` must be finite and > 0, got 0"),
        ({"supply": [True, True, True]}, "`supply` must hold real numbers, got dtype bool"),
        ({"supply": np.ma.masked_equal([1.0, 2.0, 3.0], 2.0)}, "`supply` must be an array of numbers without a mask"),
        ({"budget": 10**400}, "`budget` must be an array of numbers, got int: .*too large"),
        ({"initial_approximation": "1"}, "`initial_approximation` must be an array of numbers, got str of dtype <U1"),
        ({"commission_on": None}, '`commission_on` must be "buys" or "trades", got None'),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_equilibrium_prices(**{**generated_market(3, 20, 0), **change})
