"""Pools on a weighted invariant as investors of a market."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from hmgym.envs import make_markets
from hmgym.market import Market, MarketConfig
from hmgym.market.pooled import PoolInvestor
from hmgym.pools import PoolConfig, PoolParameters, PowerChannelPool, coarse_weights

TWO = (PoolInvestor(), PoolInvestor(size=0.4, weights=(0.4, 0.3, 0.2, 0.1)))
CONFIG = MarketConfig(price_mechanism="pools", pools=TWO, n_investors=10)


def begun(config: MarketConfig = CONFIG, count: int = 8, arrays: str = "torch") -> tuple[Market, list[Any], Any]:
    market = Market(config, arrays=arrays)  # type: ignore[arg-type]
    generators = [np.random.default_rng(row) for row in range(count)]
    return market, generators, market.initial(market.draw_initial_shocks(generators))


def test_every_account_and_every_share_is_conserved() -> None:
    market, generators, state = begun()
    cash, lost = state.total_cash, torch.zeros(8, dtype=torch.float64)
    value = (state.mechanism.reserves[..., 1:] * state.prices[:, None]).sum(-1) + state.mechanism.reserves[..., 0]
    shares = 1000.0 * state.prices.sum(-1, keepdim=True)
    torch.testing.assert_close(value, shares * torch.tensor([[0.1, 0.4]], dtype=torch.float64), rtol=1e-12, atol=0.0)
    for _ in range(36):
        before = state.mechanism
        state, outcome = market.transition(state, None, market.draw_shocks(generators))
        held, solution = state.mechanism, outcome.trade.solution
        assert solution is not None
        assert solution.pool_loss is not None
        lost = lost + solution.pool_loss.sum(-1)
        total = (state.holdings.sum(1) + state.dealer_holdings) / state.supply
        assert float((total - 1.0).abs().max()) < 1e-9
        assert float(((state.total_cash - cash) / state.gross_money).abs().max()) < 1e-12
        torch.testing.assert_close(state.dealer_holdings, held.reserves[..., 1:].sum(1), rtol=1e-12, atol=0.0)
        torch.testing.assert_close(state.accounts["dealer"], held.reserves[..., 0].sum(-1), rtol=1e-9, atol=0.0)
        torch.testing.assert_close(state.accounts["arbitrage"], lost, rtol=1e-9, atol=1e-9)
        assert bool((solution.pool_loss >= -1e-9).all())
        invariant = (held.weights * torch.log(held.reserves / before.reserves)).sum(-1)
        assert float(invariant.abs().max()) < 1e-9
    assert bool((lost > 0.0).all())


def test_arrays_give_what_tensors_give() -> None:
    states = []
    for arrays in ("torch", "numpy"):
        market, generators, state = begun(arrays=arrays)
        for _ in range(12):
            state, _ = market.transition(state, None, market.draw_shocks(generators))
        states.append({name: np.asarray(value) for name, value in state.tensors().items()})
    for name, value in states[0].items():
        np.testing.assert_allclose(states[1][name], value, rtol=1e-9, atol=1e-9, err_msg=name)


def test_a_pool_s_weights_have_derivatives_through_the_market() -> None:
    market, generators, state = begun(count=2)
    shocks = [market.draw_shocks(generators) for _ in range(3)]
    weights = state.mechanism.weights.clone().requires_grad_()

    def worth(weights: torch.Tensor) -> torch.Tensor:
        moved = replace(state, mechanism=replace(state.mechanism, weights=weights))
        for drawn in shocks:
            moved, _ = market.transition(moved, None, drawn)
        priced = torch.cat([torch.ones_like(moved.prices[:, :1]), moved.prices], -1)[:, None]
        return (moved.mechanism.reserves * priced).sum()

    (gradient,) = torch.autograd.grad(worth(weights), weights)
    random = torch.Generator().manual_seed(0)
    direction = torch.randn(weights.shape, generator=random, dtype=torch.float64) * weights.detach()
    direction = direction - weights.detach() * direction.sum(-1, keepdim=True)
    high, low = (float(worth(weights.detach() + step * direction)) for step in (1e-6, -1e-6))
    assert float((gradient * direction).sum()) == pytest.approx((high - low) / 2e-6, rel=1e-6)


def ruled(**changes: Any) -> MarketConfig:
    month = PoolConfig(chunk_minutes=43_200, row_minutes=43_200)
    parameters = PoolParameters.initial(4, month, memory=120.0, k_per_day=0.05)
    moved = parameters.map(lambda x: x.clone())
    pools = PoolInvestor(size=0.3, parameters=moved, **changes), PoolInvestor()
    return MarketConfig(price_mechanism="pools", pools=pools, n_investors=10)


def test_weights_follow_the_rule_on_prices_that_cleared_a_month_before() -> None:
    config = ruled(maximum_change=0.04)
    market, generators, state = begun(config, count=3)
    pool, parameters = PowerChannelPool(config.pools[0].config), config.pools[0].parameters
    seen = [[torch.cat([torch.ones(1, dtype=torch.float64), row]) for row in state.prices]]
    weights = [state.mechanism.weights]
    for _ in range(10):
        state, _ = market.transition(state, None, market.draw_shocks(generators))
        seen.append([torch.cat([torch.ones(1, dtype=torch.float64), row]) for row in state.prices])
        weights.append(state.mechanism.weights)
        assert float((weights[-1] - weights[-2]).abs().max()) <= 0.04 + 1e-12
        torch.testing.assert_close(weights[-1].sum(-1), torch.ones(3, 2, dtype=torch.float64), rtol=1e-12, atol=0.0)
    assert float((weights[-1][:, 0] - weights[0][:, 0]).abs().max()) > 0.01
    torch.testing.assert_close(weights[-1][:, 1], weights[0][:, 1], rtol=0.0, atol=0.0)
    for e in range(3):
        changes = pool.changes(parameters, torch.stack([month[e] for month in seen]))
        for t in range(10):
            moved = coarse_weights(
                weights[t][e, 0], changes[t : t + 1], minimum_weight=0.025, maximum_change=0.04, interpolation_minutes=1
            )  # fmt: skip
            torch.testing.assert_close(weights[t + 1][e, 0], moved.target[0], rtol=1e-10, atol=1e-12)


def test_a_rule_in_arrays_is_the_rule_in_tensors() -> None:
    weights = []
    for arrays in ("torch", "numpy"):
        market, generators, state = begun(ruled(), count=2, arrays=arrays)
        for _ in range(8):
            state, _ = market.transition(state, None, market.draw_shocks(generators))
        weights.append(np.asarray(state.mechanism.weights))
    np.testing.assert_allclose(weights[1], weights[0], rtol=1e-9)


def test_the_parameters_of_a_rule_have_derivatives_through_the_market() -> None:
    config = ruled()
    market, generators, state = begun(config, count=2)
    shocks = [market.draw_shocks(generators) for _ in range(4)]
    parameters = config.pools[0].parameters

    def worth(change: torch.Tensor) -> torch.Tensor:
        moved = replace(parameters, sp_k=parameters.sp_k + change[0], logit_lamb=parameters.logit_lamb + change[1])
        other = Market(config.replace(pools=(replace(config.pools[0], parameters=moved), config.pools[1])))
        now = other.initial(_again(other))
        for drawn in shocks:
            now, _ = other.transition(now, None, drawn)
        priced = torch.cat([torch.ones_like(now.prices[:, :1]), now.prices], -1)
        return (now.mechanism.reserves[:, 0] * priced).sum()

    def _again(other: Market) -> Any:
        return other.draw_initial_shocks([np.random.default_rng(row) for row in range(2)])

    start = torch.zeros(2, 4, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(worth(start), start)
    direction = torch.randn(2, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    high, low = (float(worth(step * direction)) for step in (1e-5, -1e-5))
    assert float((gradient * direction).sum()) == pytest.approx((high - low) / 2e-5, rel=1e-5)
    assert state.prices.shape == (2, 3)


def test_an_environment_with_pools_has_every_face() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make("hmgym/Leverage-v0", pools=1, n_investors=8).unwrapped)
    arguments: dict[str, Any] = {"pools": TWO, "n_investors": 8}
    single, batch = gym.make("hmgym/Leverage-v0", **arguments), gym.make_vec("hmgym/Leverage-v0", 3, **arguments)
    single.reset(seed=5), batch.reset(seed=4)
    batch.action_space.seed(0)
    losses = []
    for _ in range(10):
        actions = batch.action_space.sample()
        ours, theirs = single.step(actions[1]), batch.step(actions)
        np.testing.assert_array_equal(ours[0], theirs[0][1])
        assert ours[1] == theirs[1][1]
        assert ours[4]["pool_loss"] == theirs[4]["pool_loss"][1]
        losses.append(theirs[4]["pool_loss"])
    assert (np.array(losses) >= -1e-9).all()
    assert np.array(losses).sum() > 0.0
    assert "pool_loss" not in gym.make("hmgym/Leverage-v0").reset(seed=0)[1]
    same = make_markets("hmgym/Leverage-v0", 1, pools=0)
    assert same.config.price_mechanism == "clearing"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("pools", "message"),
    [
        (-1, "`pools` must be an integer >= 0, got -1"),
        ([1], "`pools` must be a number of pools or a sequence of PoolInvestor"),
        ((PoolInvestor(weights=(0.5, 0.5)),), "`weights` of a pool must be 4 numbers, cash first, got 2"),
    ],
)
def test_bad_pools_are_named(pools: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_markets("hmgym/Leverage-v0", 1, pools=pools)


def test_a_bad_pool_is_named() -> None:
    with pytest.raises(ValueError, match="`weights` must be numbers > 0 that sum to 1"):
        PoolInvestor(weights=(0.5, 0.6))
    with pytest.raises(ValueError, match="`size` must be in"):
        PoolInvestor(size=0.0)
