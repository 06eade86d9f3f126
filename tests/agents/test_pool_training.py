"""A pool's rule trained through a market that clears."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from hmgym.agents.pool_training import (
    MARKET_OBJECTIVES,
    PoolMarketRun,
    pool_of,
    run_pool_in_market,
    train_pool_in_market,
    with_constant_weights,
    with_pool,
)
from hmgym.clearing import ClearingError
from hmgym.envs import make_markets
from hmgym.market import Market, MarketConfig
from hmgym.market.pooled import PoolInvestor
from hmgym.pools import PoolParameters


def config(k_per_day: float = 0.1, **changes: Any) -> MarketConfig:
    bounds = PoolInvestor().config
    parameters = PoolParameters.initial(4, bounds, memory=90.0, k_per_day=k_per_day, pre_scaling=5.0, **changes)
    return MarketConfig(
        price_mechanism="pools", pools=(PoolInvestor(), PoolInvestor(size=0.2, parameters=parameters)), n_investors=8
    )


NAMES = ("sp_k", "logit_lamb", "sp_exponents", "sp_pre_exp_scaling")


@pytest.mark.parametrize("objective", MARKET_OBJECTIVES)
def test_the_gradient_that_training_climbs_is_that_of_differences(objective: str) -> None:
    market = config(exponent=1.5)
    training = train_pool_in_market(
        market, pool=1, objective=objective, updates=1, window=4, months=4, markets=2, seed=3
    )
    start = pool_of(market, 1).parameters
    assert start is not None

    def made(change: torch.Tensor) -> float:
        moved = {name: start.to_dict()[name] + change[i] for i, name in enumerate(NAMES)}
        pool = replace(pool_of(market, 1), parameters=PoolParameters(**{**start.to_dict(), **moved}))
        # Training draws as a run of the same seed does.
        run = run_pool_in_market(with_pool(market, pool, 1), pool=1, months=4, markets=2, seed=3)
        return float(getattr(run, objective).mean() / 4.0)

    assert float(training.objective[0]) == pytest.approx(made(torch.zeros(4, 4)), rel=1e-10)
    differences = torch.zeros(4, 4, dtype=torch.float64)
    for i in range(4):
        for j in range(4):
            step = torch.zeros(4, 4, dtype=torch.float64)
            step[i, j] = 1e-5
            differences[i, j] = (made(step) - made(-step)) / 2e-5
    assert float(training.gradient_norm[0]) == pytest.approx(float(differences.norm()), rel=1e-5)
    # Adam's first step has the sign of the gradient, whatever its size.
    trained = training.parameters.to_dict()
    for i, name in enumerate(NAMES):
        moved = trained[name] - start.to_dict()[name]
        large = differences[i].abs() > 1e-6
        assert bool(large.any())
        torch.testing.assert_close(moved[large].sign(), differences[i][large].sign(), rtol=0.0, atol=0.0)


@pytest.mark.parametrize("objective", MARKET_OBJECTIVES)
def test_training_raises_its_objective_on_its_own_shocks(objective: str) -> None:
    market = config()
    training = train_pool_in_market(
        market, pool=1, objective=objective, updates=15, window=6, months=6, markets=3, fresh=False, learning_rate=0.1,
        seed=1,
    )  # fmt: skip
    assert training.months == 15 * 6 * 3

    def earned(changed: MarketConfig) -> float:
        run = run_pool_in_market(changed, pool=1, months=6, markets=3, seed=1)
        return float(getattr(run, objective).mean())

    before, after = earned(market), earned(with_pool(market, training.pool, 1))
    assert 6.0 * float(training.objective[0]) == pytest.approx(before, rel=1e-9)
    assert after > before + 0.02
    assert float(training.objective[-1]) > float(training.objective[0])
    assert bool((training.objective[1:] != training.objective[:-1]).all())


def test_windows_go_on_and_episodes_begin_anew() -> None:
    seen: list[tuple[int, int]] = []
    arguments: dict[str, Any] = {"pool": 1, "markets": 2, "window": 3, "learning_rate": 1e-12}
    training = train_pool_in_market(
        config(), months=8, updates=4, progress=lambda done, total: seen.append((done, total)), **arguments
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert training.months == 2 * (3 + 3 + 2 + 3)
    again = train_pool_in_market(config(), months=8, updates=4, **arguments)
    torch.testing.assert_close(again.objective, training.objective, rtol=0.0, atol=0.0)
    # With parameters that hardly move, the windows of an episode make up the run of its months.
    run = run_pool_in_market(config(), pool=1, months=8, markets=2)
    parts = training.objective[:3] * torch.tensor([3.0, 3.0, 2.0])
    assert float(parts.sum()) == pytest.approx(float(run.log_value.mean()), rel=1e-6)
    same = train_pool_in_market(config(), months=3, updates=3, fresh=False, **arguments).objective
    assert float(same.std()) < 1e-9
    other = train_pool_in_market(config(), months=3, updates=3, **arguments).objective
    assert float(other.std()) > 1e-5


def test_what_is_not_trained_stays() -> None:
    market = config()
    own = pool_of(market, 1)
    training = train_pool_in_market(market, pool=1, updates=2, window=3, months=3, markets=2)
    assert own.parameters is not None
    before, after = own.parameters.to_dict(), training.parameters.to_dict()
    for name in ("logit_delta_lamb", "initial_weights_logits"):
        torch.testing.assert_close(after[name], before[name], rtol=0.0, atol=0.0)
    for name in NAMES:
        assert bool((after[name] != before[name]).any())
    assert bool((after["sp_exponents"] >= 0.0).all())
    assert (training.pool.size, training.pool.parameters) == (own.size, training.parameters)
    none = train_pool_in_market(market, pool=1, updates=0)
    assert none.objective.shape == (0,)
    torch.testing.assert_close(none.parameters.sp_k, before["sp_k"], rtol=0.0, atol=0.0)


def test_a_window_that_does_not_clear_is_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    transition = Market.transition

    def failing(self: Market, *arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise ClearingError({0: "residual 1"}, None, 2)  # type: ignore[arg-type]
        return transition(self, *arguments, **named)

    monkeypatch.setattr(Market, "transition", failing)
    training = train_pool_in_market(config(), pool=1, updates=3, window=2, months=4, markets=2)
    assert torch.isfinite(training.objective).tolist() == [True, False, True]
    assert torch.isfinite(training.gradient_norm).tolist() == [True, False, True]
    assert training.months == 2 * 2 * 2


def test_a_run_is_the_market_s_own_arithmetic() -> None:
    run = run_pool_in_market(config(), pool=1, months=5, markets=3, seed=2)
    assert isinstance(run, PoolMarketRun)
    assert (run.value.shape, run.hold.shape, run.loss.shape, run.weights.shape) == ((6, 3), (6, 3), (5, 3), (6, 3, 4))
    torch.testing.assert_close(run.hold[0], run.value[0])
    torch.testing.assert_close(run.log_value - run.over_hold, (run.hold[-1] / run.hold[0]).log())
    # In the first month the first reserves are those that rebalancing is set against.
    torch.testing.assert_close(run.loss[0], run.hold[1] - run.value[1])
    assert bool((run.loss >= -1e-9).all())
    kept = (run.value[1:] + run.loss) / run.value[:-1]  # of keeping every month's reserves
    torch.testing.assert_close(run.log_value + run.log_loss, kept.log().sum(0))
    still = run_pool_in_market(with_constant_weights(config(), 1), pool=1, months=5, markets=3, seed=2)
    torch.testing.assert_close(still.weights, still.weights[:1].expand(6, 3, 4), rtol=0.0, atol=0.0)
    torch.testing.assert_close(still.value[0], run.value[0])
    assert float((run.weights[-1] - run.weights[0]).abs().max()) > 1e-3


def test_the_market_of_an_environment_can_be_trained_in() -> None:
    parameters = PoolParameters.initial(4, PoolInvestor().config)
    env: Any = make_markets("hmgym/Leverage-v0", 1, pools=[PoolInvestor(parameters=parameters)], n_investors=8)
    training = train_pool_in_market(env.config, updates=1, window=2, months=2, markets=2)
    assert np.isfinite(float(training.objective[0]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pool": 0}, "`pool` must be one with `parameters`, got pool 0, whose weights stand still"),
        ({"pool": 2}, "`pool` must be below the number of pools, 2, got 2"),
        ({"objective": "sharpe"}, "`objective` must be one of log_value, over_hold, got 'sharpe'"),
        ({"window": 0}, "`window` must be an integer >= 1, got 0"),
        ({"months": 11}, "`months` must be an integer >= 12, got 11"),
        ({"markets": 0}, "`markets` must be an integer >= 1, got 0"),
        ({"updates": -1}, "`updates` must be an integer >= 0, got -1"),
        ({"learning_rate": 0.0}, "`learning_rate` must be"),
        ({"weight_decay": -1.0}, "`weight_decay` must be"),
        ({"clip": float("nan")}, "`clip` must be"),
        ({"fresh": "yes"}, "`fresh` must be True or False, got 'yes'"),
        ({"seed": -1}, "`seed` must be an integer >= 0, got -1"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train_pool_in_market(config(), **{"pool": 1, "updates": 0, **arguments})


def test_a_market_without_pools_is_named() -> None:
    with pytest.raises(ValueError, match='`config` must have `pools` and `price_mechanism="pools"`'):
        train_pool_in_market(MarketConfig())
    with pytest.raises(ValueError, match="`config` must be a MarketConfig, got 3"):
        run_pool_in_market(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`months` must be an integer >= 1, got 0"):
        run_pool_in_market(config(), months=0)
