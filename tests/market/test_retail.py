"""Retail investors of a market are G-learning investors: their demand is that of the general recursion."""

from __future__ import annotations

import numpy as np
import pytest

import hmgym.market.funds as funds
import hmgym.market.funds.retail as retail_module
from hmgym.investors.g_learning import GProblem, as_demand, g_recursion, given_funds, look_through
from hmgym.market import Market


@pytest.mark.parametrize("rationality", [0.3, 5.0])
def test_retail_investors_are_those_of_the_recursion(rationality: float) -> None:
    config = funds.FundsConfig(n_assets=5, n_retail=7, n_active=3, n_passive=2, n_learners=0, rationality=rationality)
    market = Market(config, arrays="numpy")
    generators = [np.random.default_rng(seed) for seed in range(2)]
    state = market.initial(market.draw_initial_shocks(generators))
    for _ in range(6):
        state, _ = market.transition(state, None, market.draw_shocks(generators))
    retail, own, n = market.scenario.retail, state.scenario, config.n_assets
    gap = np.random.default_rng(1).normal(0.0, 0.1, (2, n))
    outlook = retail.outlook(state, gap)
    x, beta = outlook.positions, rationality / retail_module.REWARD
    loadings = look_through(outlook.portfolios)[:, None]
    returns = config.premium + own.traits.pull * gap[:, None]
    record = np.concatenate([np.zeros((2, n)), own.record], -1)
    mu = (loadings @ returns[..., None])[..., 0] + record[:, None]
    habits, market_value = np.asarray(retail._habits), state.supply * state.prices
    habits = np.broadcast_to(habits, (2, n + 5)).copy()
    habits[:, :n] = habits[:, :n].sum(-1, keepdims=True) * market_value / market_value.sum(-1, keepdims=True)
    spread = np.maximum(np.asarray(retail._habits), retail_module._LEAST_POSITION)
    spread = np.concatenate([config.asset_spread * spread[:n], config.fund_spread * spread[n:]])
    problem = GProblem(
        expected_returns=mu,
        covariance=loadings @ market.fundamentals.covariance @ loadings.swapaxes(-1, -2),
        risk_aversion=own.traits.risk_aversion,
        trading_cost=config.quadratic_cost,
        prior_mean=config.habit_speed * habits[:, None],
        prior_gain=-config.habit_speed * np.eye(n + 5),
        prior_covariance=np.diag(spread**2),
        inverse_temperature=beta,
    )
    policy = g_recursion(problem)
    risk, shift = as_demand(problem, policy, x)
    # Their noise, of law N(0, 2G/β), is made of other normals than the general policy's.
    root = retail._root
    aversion = np.sqrt(own.traits.risk_aversion)[..., None]
    risky = aversion * (own.noise[..., :n] @ root.T)
    noise = (loadings @ risky[..., None])[..., 0] + np.sqrt(retail._stiffness) * own.noise[..., n:]
    noise = np.sqrt(2.0 / beta) * noise
    law = 2.0 / beta * (aversion[..., None] ** 2 * problem.covariance + np.diag(retail._stiffness))
    np.testing.assert_allclose(law, 2.0 * risk / beta, rtol=1e-12)
    np.testing.assert_allclose(outlook.wanted, mu + shift + noise, rtol=0.0, atol=1e-12)
    drawn = x + policy.mean(x) + np.linalg.solve(policy.precision, noise[..., None])[..., 0]
    np.testing.assert_allclose(retail._fund_positions(own, outlook), drawn[..., n:], rtol=0.0, atol=1e-12)
    plan = retail.plan(state, gap)
    wanted, direct_risk, direct = retail.demand(state, plan)
    wealth = market.scenario.seats.of_retail(state.wealth)
    in_funds = ((own.units - plan.redemptions) * own.unit_value[:, None] + plan.subscriptions) / wealth[..., None]
    general = given_funds(risk, mu + shift + noise, in_funds)
    np.testing.assert_allclose(direct_risk, general[0], rtol=1e-12)
    np.testing.assert_allclose(wanted, general[1], rtol=0.0, atol=1e-12)
    np.testing.assert_allclose(direct, wealth * (1.0 - in_funds.sum(-1)), rtol=1e-12)
