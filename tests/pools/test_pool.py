"""The pool: both forms, windows, no look-ahead, gradients through everything."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hmgym.pools import PoolConfig, PoolParameters, PowerChannelPool, coarse_weights, fine_weights, reserves_with_fees
from hmgym.pools.parameters import Interpolation
from tests.pools import reference
from tests.pools.markets import check_gradient, random_parameters, random_prices

SMALL = PoolConfig(chunk_minutes=20, interpolation_minutes=15, maximum_change=4e-3, fee=0.003, alternative_decay=True)
MINUTE = 0.002  # volatility


@pytest.mark.parametrize("alternative", [False, True])
@pytest.mark.parametrize("sets", [None, 3])
def test_the_step_form_is_the_vectorised_one(alternative: bool, sets: int | None) -> None:
    pool = PowerChannelPool(SMALL.replace(alternative_decay=alternative))
    prices, parameters = random_prices(405, 3, volatility=MINUTE), random_parameters(3, sets=sets)
    expected = pool.changes(parameters, prices)
    assert expected.shape == (*(() if sets is None else (sets,)), 20, 3)
    state = pool.begin(parameters, prices[0])
    for chunk, price in enumerate(prices[20::20]):
        state, change = pool.step(parameters, state, price)
        torch.testing.assert_close(change, expected[..., chunk, :], rtol=1e-11, atol=1e-15)
        assert float(change.sum(-1).abs().max()) < 1e-15


def test_both_forms_have_the_same_gradient() -> None:
    pool, prices = PowerChannelPool(SMALL), random_prices(200, 3, volatility=MINUTE)
    leaf = random_parameters(3).map(lambda x: x.clone().requires_grad_())
    used = [value for name, value in leaf.to_dict().items() if name != "initial_weights_logits"]
    vectorised = torch.autograd.grad((pool.changes(leaf, prices) ** 2).sum(), used)
    state, total = pool.begin(leaf, prices[0]), torch.zeros((), dtype=torch.float64)
    for price in prices[20::20]:
        state, change = pool.step(leaf, state, price)
        total = total + (change**2).sum()
    for one, other in zip(vectorised, torch.autograd.grad(total, used), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("interpolation", ["linear", "approx_optimal"])
def test_a_run_against_the_equations(interpolation: Interpolation) -> None:
    config = SMALL.replace(interpolation=interpolation, maximum_change=0.1, noise_ratio=0.5, protocol_share=0.1)
    prices, parameters = random_prices(130, 3, seed=3, volatility=0.005), random_parameters(3, seed=3, k_per_day=200.0)
    rule = parameters.decode(config)
    assert rule.denominator_decay is not None
    trend = reference.price_trend(prices[::20].tolist(), rule.decay.tolist(), rule.denominator_decay.tolist())
    changes = reference.weight_changes(trend, rule.k.tolist(), rule.exponents.tolist(), rule.pre_scaling.tolist())
    initial = rule.initial_weights.tolist()
    coarse = reference.coarse_weights(initial, changes, 0.1 / 3, 0.1, 15)
    weights = reference.fine_weights(initial, coarse, 130, 20, 15, interpolation == "approx_optimal")
    reserves = [1e6 * w / float(p) for w, p in zip(initial, prices[0], strict=True)]
    expected = reference.reserves_with_fees(reserves, weights, prices.tolist(), fee=0.003, noise=0.5, share=0.1)
    run = PowerChannelPool(config).simulate(parameters, prices)
    np.testing.assert_allclose(run.weights, weights, rtol=0.0, atol=1e-12)
    np.testing.assert_allclose(run.reserves, expected, rtol=1e-10)
    np.testing.assert_allclose(run.value, (run.reserves * prices).sum(-1), rtol=1e-15)
    np.testing.assert_allclose(run.hold, (run.reserves[0] * prices).sum(-1), rtol=1e-13)
    assert float(run.value[0]) == pytest.approx(1e6, rel=1e-14)
    assert float(run.weights.diff(dim=0).abs().max()) > 1e-4


def test_later_prices_change_nothing_earlier() -> None:
    pool, parameters = PowerChannelPool(SMALL), random_parameters(3, seed=4)
    prices = random_prices(400, 3, seed=4, volatility=MINUTE)
    before = pool.simulate(parameters, prices)
    for minute in (1, 19, 20, 21, 200, 399):
        later = prices.clone()
        later[minute:] *= torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
        after = pool.simulate(parameters, later)
        # Weights of the minute itself are those that stood before its price was seen.
        assert torch.equal(before.weights[: minute + 1], after.weights[: minute + 1])
        assert torch.equal(before.reserves[:minute], after.reserves[:minute])
        assert torch.equal(before.value[:minute], after.value[:minute])
    later = prices.clone()
    later[20] *= torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    assert not torch.equal(before.weights[21], pool.weights(parameters, later)[21])
    assert torch.equal(before.value[:250], pool.simulate(parameters, prices[:250]).value)


def test_windows_are_runs_that_open_later() -> None:
    pool, prices, parameters = (
        PowerChannelPool(SMALL),
        random_prices(600, 3, volatility=MINUTE),
        random_parameters(3, sets=2),
    )
    together = pool.windows(parameters, prices, [0, 100, 340], 210)
    assert together.value.shape == (2, 3, 210)
    for place, start in enumerate((0, 100, 340)):
        one = pool.simulate(parameters, prices, start=start, minutes=210)
        for name in ("weights", "reserves", "value", "hold"):
            torch.testing.assert_close(getattr(one, name), getattr(together, name)[:, place], rtol=0.0, atol=0.0)
        assert torch.equal(one.weights, pool.weights(parameters, prices, start, 210))
        # The rule remembers what was before the start; the weights do not.
        changes = pool.changes(parameters, prices)[:, start // 20 :]
        rule = parameters.decode(SMALL)
        coarse = coarse_weights(
            rule.initial_weights, changes, minimum_weight=0.1 / 3, maximum_change=4e-3, interpolation_minutes=15
        )
        expected = fine_weights(rule.initial_weights, coarse, minutes=210, chunk_minutes=20, interpolation_minutes=15)
        assert torch.equal(one.weights, expected)


def test_gradients_through_a_run() -> None:
    config = SMALL.replace(maximum_change=2e-3)
    pool, prices = PowerChannelPool(config), random_prices(150, 3, seed=5, volatility=0.004)
    parameters = random_parameters(3, k_per_day=100.0)

    def through(name: str):  # type: ignore[no-untyped-def]
        def value(one: torch.Tensor) -> torch.Tensor:
            changed = PoolParameters(**{**parameters.to_dict(), name: one})
            return (pool.simulate(changed, prices).value[::10] / 1e6).log().sum()

        return value

    for name, at in parameters.to_dict().items():
        check_gradient(through(name), at, step=1e-4, tolerance=1e-5)
    check_gradient(lambda p: (pool.simulate(parameters, p).value[-1] / 1e6).log(), prices[:90])


def test_daily_rows_are_days() -> None:
    """A row a day has the weights of a pool by minutes whose prices are the same all day."""
    daily = random_prices(12, 3, seed=6, volatility=0.03)
    parameters = random_parameters(3, seed=6)
    run = PowerChannelPool(PoolConfig(row_minutes=1440)).simulate(parameters, daily)
    minutes = daily.repeat_interleave(1440, dim=0)
    fine = PowerChannelPool().simulate(parameters, minutes)
    torch.testing.assert_close(run.weights, fine.weights[::1440], rtol=1e-12, atol=0.0)


def test_costs_of_a_configuration_are_those_of_reserves() -> None:
    config = SMALL.replace(gas_cost=1.0, arbitrage_fee=1e-4, arbitrage_minutes=3, noise_ratio=1.0, protocol_share=0.3)
    prices, parameters = random_prices(100, 3, volatility=MINUTE), random_parameters(3)
    run = PowerChannelPool(config).simulate(parameters, prices)
    expected = reserves_with_fees(
        run.reserves[0], run.weights, prices, fee=0.003, gas_cost=1.0, arbitrage_fee=1e-4, noise_ratio=1.0,
        protocol_share=0.3, arbitrage_minutes=3,
    )  # fmt: skip
    assert torch.equal(run.reserves, expected)


def test_runs_that_are_refused() -> None:
    pool, prices, parameters = PowerChannelPool(SMALL), random_prices(100, 3), random_parameters(3)
    for wrong, said in (
        ({"start": 7}, "`start` must be a multiple of `chunk_minutes` = 20 below the 100 minutes of `prices`, got 7"),
        ({"start": 100}, "`start` must be"),
        ({"minutes": 101}, "`minutes` must be a multiple of `row_minutes` = 1, at most 100 after `start`, got 101"),
    ):
        with pytest.raises(ValueError, match=said):
            pool.simulate(parameters, prices, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`prices` must have shape \(T, N\) with N = 3 as in `parameters`"):
        pool.simulate(parameters, prices[:, :2])
    with pytest.raises(ValueError, match=r"`price` must have shape \(N,\) with N = 3"):
        pool.begin(parameters, prices[0, :2])
    with pytest.raises(ValueError, match="`parameters` must be PoolParameters, got"):
        pool.changes({}, prices)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`config` must be a PoolConfig, got"):
        PowerChannelPool({"fee": 0.1})  # type: ignore[arg-type]
