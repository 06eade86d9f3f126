"""The books of the fund market, every month, in both mechanisms, and who pays whom."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest

import hmgym.market.funds.settlement as settlement
from hmgym.market.funds.checks import month_errors

MECHANISMS = ("clearing", "impact")
CASES = {
    "plain": {},
    "learners": {"n_learners": 2},
    "costly": {"trading_cost": 0.02, "borrowing_spread": 0.02, "active_fee": 0.1, "cost_anticipation": "quadratic"},
    "index funds only": {"n_active": 0, "n_momentum": 0},
    "active funds only": {"n_passive": 0, "n_momentum": 0},
    "wild": {
        "rationality": 20.0, "fund_spread": 2.0, "asset_spread": 3.0, "flow_rate": 0.3, "signals_r2": 0.3,
        "manager_risk_aversion": 0.2, "quadratic_cost": 0.001, "ruin_fraction": 0.7, "n_learners": 1,
    },
    "one asset": {"n_assets": 1},
}  # fmt: skip


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("case", CASES)
def test_every_month_balances(case, mechanism, begin):
    market, generators, state = begin(3, price_mechanism=mechanism, arrays="numpy", **CASES[case])
    ruins, memory = 0, market.memory()
    for _ in range(120):
        old = state
        state, outcome = market.transition(old, None, market.draw_shocks(generators), memory=memory)
        assert outcome.converged.all()
        for name, error in month_errors(market, old, state).items():
            assert error <= 1e-9, name
        assert (state.prices > 0.0).all()
        assert (state.scenario.units >= 0.0).all()
        ruins += int(state.ruined.sum())
    assert ruins > 0 or case != "wild"


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_trading_changes_no_wealth(mechanism, begin):
    """Without what is paid besides, wealth at the close is what was held before, at the new prices."""
    market, generators, state = begin(
        2, price_mechanism=mechanism, arrays="numpy", trading_cost=0.0, risk_free=0.0, dividend_yield=0.0,
        active_fee=0.0, passive_fee=0.0, information_cost=0.0, cash_adjustment=0.0, flow_rate=0.0,
    )  # fmt: skip
    seats = market.scenario.seats
    for _ in range(12):
        old = state
        state, _ = market.transition(old, None, market.draw_shocks(generators))
        values = seats.of_funds(old.cash) + (seats.of_funds(old.holdings) * state.prices[:, None]).sum(-1)
        unit_value = values / old.scenario.units.sum(1)
        np.testing.assert_allclose(state.scenario.unit_value, unit_value, rtol=1e-12)
        wealth = seats.of_retail(old.cash) + (seats.of_retail(old.holdings) * state.prices[:, None]).sum(-1)
        wealth = wealth + (old.scenario.units * unit_value[:, None]).sum(-1)
        np.testing.assert_allclose(seats.of_retail(state.wealth), wealth, rtol=1e-11)
        assert not any(account.any() for name, account in state.accounts.items() if name != "dealer")


class Noted(settlement.Ledger):
    """A ledger that notes what was paid, in order."""

    payments: ClassVar[list] = []

    def pay(self, source, to, amount):
        super().pay(source, to, amount)
        self.payments.append((source, to, amount))


def test_the_order_of_a_month(begin, monkeypatch):
    """Fees are a share of net asset value after flows, interest and dividends; information is a share of the same."""
    monkeypatch.setattr(settlement, "Ledger", Noted)
    monkeypatch.setattr(Noted, "payments", [])
    market, generators, state = begin(2, arrays="numpy")
    state, _ = market.transition(state, None, market.draw_shocks(generators))
    Noted.payments.clear()
    old = state
    state, _ = market.transition(old, None, market.draw_shocks(generators))
    assert [payment[:2] for payment in Noted.payments] == [
        ("investors", "exchange"),
        ("bank", "investors"),
        ("issuer", "investors"),
        ("investors", "companies"),
        ("companies", "vendor"),
        ("investors", "households"),
        ("issuer", "investors"),
        ("default_fund", "investors"),
    ]
    seats, config = market.scenario.seats, market.config
    fees = seats.of_funds(Noted.payments[3][2])
    after = state.scenario.units.sum(1) * state.scenario.unit_value  # once the fee is paid
    rates = np.array([config.active_fee] * 4 + [config.passive_fee] * 3) / 12.0
    np.testing.assert_allclose(fees, rates * (after + fees), rtol=1e-12)
    information = config.information_cost / 12.0 * (after + fees)[:, :4].sum(1)
    np.testing.assert_allclose(Noted.payments[4][2], information, rtol=1e-12)
    np.testing.assert_allclose(state.accounts["vendor"] - old.accounts["vendor"], information, rtol=1e-9)
    np.testing.assert_allclose(
        state.accounts["companies"] - old.accounts["companies"], fees.sum(1) - information, rtol=1e-9
    )


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_flows_change_no_unit_value(mechanism, begin):
    """The same trade settled with and without subscriptions and redemptions strikes the same net asset value."""
    market, generators, state = begin(2, price_mechanism=mechanism, arrays="numpy", risk_free=0.0, dividend_yield=0.0)
    for _ in range(3):
        state, _ = market.transition(state, None, market.draw_shocks(generators))
    shocks = market.draw_shocks(generators)
    opened, plan = market.scenario.open(state, shocks)
    trade = market.mechanism(opened, market.scenario.demand(opened, plan), shocks)
    none = plan._replace(subscriptions=0.0 * plan.subscriptions, redemptions=0.0 * plan.redemptions)
    settled = [market.scenario.settle(opened, promised, trade).scenario for promised in (plan, none)]
    assert abs(plan.subscriptions).sum() > 0.0
    assert abs(plan.redemptions).sum() > 0.0
    np.testing.assert_allclose(settled[0].unit_value, settled[1].unit_value, rtol=1e-12)
    assert abs(settled[0].units - settled[1].units).max() > 0.0


def test_redemptions_are_gated_and_subscriptions_paid_in_cash(begin):
    market, generators, state = begin(4, arrays="numpy", fund_spread=3.0, rationality=10.0, redemption_gate=0.05)
    bound = 0
    for _ in range(24):
        opened, plan = market.scenario.open(state, None)
        issued = opened.scenario.units.sum(1)
        asked = plan.redemptions.sum(1)
        assert (asked <= 0.05 * issued * (1.0 + 1e-12)).all()
        bound += int((asked > 0.0499 * issued).sum())
        cash = market.scenario.seats.of_retail(opened.cash)
        assert (plan.subscriptions.sum(-1) <= np.maximum(cash, 0.0) * (1.0 + 1e-12)).all()
        state, _ = market.transition(state, None, market.draw_shocks(generators))
    assert bound > 0
