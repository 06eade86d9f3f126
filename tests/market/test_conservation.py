"""Shares and cash are conserved, every month, whatever the learners do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hmgym.investors import PopulationConfig
from tests.economies import FREE

WILD = PopulationConfig(short_leverage=(0.5, 3.0), long_leverage=(2.0, 6.0), risk_aversion=(0.5, 2.0))
CASES = {
    "free of frictions": FREE,
    "exact anticipation": {"cost_anticipation": "exact", "borrowing_spread": 0.01},
    "tight rules": {
        "ownership_limit": 0.3,
        "short_limit": 0.02,
        "maintenance_margin": 0.6,
        "initial_margin": 0.9,
        "borrowing_spread": 0.02,
        "n_learners": 2,
    },
    "bootstrap": {},
    "gaussian": {"fundamentals": "gaussian"},
    "costs": {"trading_cost": 0.003},
    "three learners": {"n_learners": 3, "trading_cost": 0.001},
    "no learner": {"n_learners": 0},
    "five assets": {"n_assets": 5, "n_investors": 12},
    "one asset": {"n_assets": 1, "n_investors": 8},
    "ruins": {"population": WILD, "ruin_fraction": 0.3, "n_learners": 2, "trading_cost": 0.002},
}


@pytest.mark.parametrize("case", CASES)
def test_long_runs(case, start, random_action):
    market, generators, state = start(8, seed=11, **CASES[case])
    config, rng = market.config, np.random.default_rng(5)
    cash_at_start = state.total_cash
    rewards = torch.zeros_like(state.unit_value)
    ruins = 0
    for _ in range(360):
        old = state
        state, outcome = market.transition(old, random_action(market, old, rng), market.draw_shocks(generators))
        ruins += int(state.ruined.sum())
        # Shares.
        assert ((state.holdings.sum(1) / state.supply - 1.0).abs() <= 1e-9).all()
        # Cash: what every account holds, together.
        drift = (state.total_cash - cash_at_start).abs()
        assert (drift <= 1e-9 * state.gross_money).all()
        # Wealth is what it says, prices are prices.
        marked = state.cash + (state.holdings * state.prices.unsqueeze(1)).sum(-1)
        torch.testing.assert_close(state.wealth, marked, rtol=1e-12, atol=1e-6)
        assert (state.prices > 0.0).all()
        assert outcome.converged.all()
        # Rewards add up to the log of the unit value.
        began = torch.where(old.ruined[:, : config.n_learners], 0.0, rewards)
        rewards = began + outcome.reward
        torch.testing.assert_close(rewards, torch.log(state.unit_value), rtol=0.0, atol=1e-12)
    assert ruins > 0 or case != "ruins"


def test_costs_paid_are_costs_received(start, random_action):
    market, generators, state = start(6, trading_cost=0.004, n_learners=2)
    rng = np.random.default_rng(1)
    for _ in range(24):
        old = state
        state, _ = market.transition(old, random_action(market, old, rng), market.draw_shocks(generators))
        traded = ((state.holdings - old.holdings) * state.prices.unsqueeze(1)).abs().sum((1, 2))
        traded = traded + ((state.supply - old.supply) * state.prices).abs().sum(1)  # companies that issue or buy back
        received = state.accounts["exchange"] - old.accounts["exchange"]
        torch.testing.assert_close(received, 0.004 * traded, rtol=1e-9, atol=1e-6)


def test_a_trade_at_the_clearing_price_changes_nobodys_wealth(start):
    """Without dividends, interest, flows and consumption, wealth at the close is old positions at new prices."""
    market, generators, state = start(
        4, dividend_yield=0.0, interest_rate=0.0, flow_rate=0.0, cash_adjustment=0.0, n_learners=1, **FREE
    )
    for _ in range(12):
        old = state
        state, _ = market.transition(old, None, market.draw_shocks(generators))
        expected = old.cash + (old.holdings * state.prices.unsqueeze(1)).sum(-1)
        torch.testing.assert_close(state.wealth, expected, rtol=1e-12, atol=1e-6)
        assert not any(account.any() for account in state.accounts.values())


@pytest.mark.parametrize("frictions", [{}, FREE, {"borrowing_spread": 0.02}], ids=["default", "free", "dear debt"])
def test_every_account_has_one_kind_of_payment(start, frictions):
    """The bank pays interest, the issuer dividends and missing cash, households receive consumption."""
    market, generators, state = start(4, n_learners=1, **frictions)
    config, borrowed = market.config, 0.0
    for _ in range(12):
        old = state
        state, _ = market.transition(old, None, market.draw_shocks(generators))
        change = {name: state.accounts[name] - old.accounts[name] for name in state.accounts}
        bought = (state.holdings - old.holdings) * state.prices.unsqueeze(1)
        paid = config.trading_cost * bought.abs().sum(-1)
        cash_after_trade = old.cash - bought.sum(-1) - paid
        debt = cash_after_trade.clamp(max=0.0)
        interest = (config.interest_rate * cash_after_trade + config.borrowing_spread * debt).sum(1)
        torch.testing.assert_close(change["bank"], -interest, rtol=1e-9, atol=1e-6)
        dividends = config.dividend_yield * (old.fundamentals * state.supply).sum(1)  # on new shares too
        wanted = config.cash_ratio * config.shares * old.fundamentals.sum(1)  # of the first shares, at value
        gap = cash_after_trade.sum(1) + interest + dividends - wanted
        adjusted = config.cash_adjustment * gap
        torch.testing.assert_close(change["households"], adjusted.clamp(min=0.0), rtol=1e-9, atol=1e-6)
        issue = (state.supply - old.supply) * state.prices
        paid_by_issuer = config.trading_cost * issue.abs().sum(1)
        raised = issue.sum(1) - paid_by_issuer
        torch.testing.assert_close(change["issuer"], adjusted.clamp(max=0.0) - dividends + raised, rtol=1e-9, atol=1e-6)
        torch.testing.assert_close(change["exchange"], paid.sum(1) + paid_by_issuer, rtol=1e-9, atol=1e-6)
        assert bool(change["exchange"].any()) == bool(config.trading_cost)
        assert not change["default_fund"].any()
        borrowed -= float(debt.sum())
    assert borrowed > 0.0  # somebody paid the spread


def test_flows_and_consumption_do_not_touch_the_unit_value(start):
    """The same first month with and without them gives the same reward and a different wealth."""
    results = []
    for settings in ({}, {"flow_rate": 0.2, "cash_adjustment": 0.9}):
        market, generators, state = start(5, n_learners=2, **settings)
        results.append(market.transition(state, None, market.draw_shocks(generators))[1])
    assert torch.equal(results[0].reward, results[1].reward)
    assert not torch.allclose(results[0].wealth, results[1].wealth)
