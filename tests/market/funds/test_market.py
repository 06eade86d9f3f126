"""Index funds, the equilibrium, gradients, and that the market is a pure function of a batch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from hmgym.clearing import optimize_portfolio
from hmgym.market import Action
from hmgym.market.funds.index import index_orders
from hmgym.market.tensors import named_tensors

MECHANISMS = ("clearing", "impact")


def run(market, generators, state, months):
    states = [state]
    for _ in range(months):
        states.append(market.transition(states[-1], None, market.draw_shocks(generators))[0])
    return states


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_index_funds_do_not_trade_for_nothing(mechanism, begin, monkeypatch):
    """Without flows, dividends, interest, fees and costs they keep every share, whatever prices do."""
    market, generators, state = begin(
        2, price_mechanism=mechanism, arrays="numpy", risk_free=0.0, dividend_yield=0.0, active_fee=0.0,
        passive_fee=0.0, information_cost=0.0, trading_cost=0.0,
    )  # fmt: skip
    retail = market.scenario.retail
    plan = retail.plan

    def without_flows(state, gap):
        found = plan(state, gap)
        return found._replace(subscriptions=0.0 * found.subscriptions, redemptions=0.0 * found.redemptions)

    monkeypatch.setattr(retail, "plan", without_flows)
    states = run(market, generators, state, 24)
    first = market.scenario.seats.optimisers
    for one in states:
        assert (one.holdings[:, first:] == state.holdings[:, first:]).all()
        assert (one.cash[:, first:] == 0.0).all()
    assert abs(states[-1].holdings[:, :first] - state.holdings[:, :first]).max() > 1.0  # the others did


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_index_funds_are_never_short_and_hold_the_market(mechanism, begin):
    market, generators, state = begin(4, price_mechanism=mechanism, arrays="numpy", n_momentum=0, dealer_limit=0.2)
    first = market.scenario.seats.optimisers
    for one in run(market, generators, state, 120):
        assert (one.holdings[:, first:] >= 0.0).all()
        owned = one.holdings[:, first:] / one.supply[:, None]
        if mechanism == "clearing":  # rationing differs from asset to asset
            assert (owned.std(-1) <= 0.05 * owned.mean(-1)).all()


def test_index_orders():
    prices, supply = np.array([[10.0, 20.0]]), np.array([[30.0, 5.0]])  # of market value .75 and .25
    holdings = np.array([[[3.0, 0.5], [3.0, 0.5], [0.0, 0.0]]])
    cash, flow = np.array([[1.0, 2.0, 0.0]]), np.array([[7.0, -10.0, 0.0]])
    kept, orders = index_orders(cash, flow, holdings, prices, supply, 0.0)
    np.testing.assert_allclose(orders[0], [[6.0, 2.0], [0.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(kept[0], [[3.0, 0.5], [2.4, 0.4], [0.0, 0.0]])  # 8 short of 40: a fifth is sold
    spent = index_orders(cash, flow, holdings, prices, supply, 0.25)[1]
    np.testing.assert_allclose(spent[0, 0], [4.8, 1.6])


def test_one_equilibrium_from_four_starts(begin):
    market, generators, state = begin(2, n_assets=4)
    state = run(market, generators, state, 6)[-1]
    state, plan = market.scenario.open(state, market.draw_shocks(generators))
    demand = market._demand(state, plan, None)
    random = torch.from_numpy(np.random.default_rng(0).uniform(-2.0, 2.0, demand.start.shape))
    starts = [demand.start, demand.start + 1.0, demand.start - 1.0, demand.start + random]
    found = [market.mechanism(state, demand._replace(start=start), None) for start in starts]
    for trade in found:
        assert trade.converged.all()
        torch.testing.assert_close(trade.prices, found[0].prices, rtol=1e-9, atol=0.0)
        torch.testing.assert_close(trade.holdings, found[0].holdings, rtol=0.0, atol=1e-9 * 1000.0)


def final_wealth(market, state, months, fees=None, action=None):
    if fees is not None:
        state = state.with_tensors({"scenario.traits.fees": fees})
    for shocks in months:
        state, _ = market.transition(state, action, shocks)
    return state.wealth[:, 0].sum()


def slopes(function, x, direction, step):
    """Directional derivative by the graph, and by central differences of fourth order."""
    x = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(function(x), x)
    with torch.no_grad():
        near, far = (function(x + k * direction) - function(x - k * direction) for k in (step, 2.0 * step))
    return float((slope * direction).sum()), float((8.0 * near - far) / (12.0 * step))


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("what", ["fees", "beliefs", "short_leverage", "long_leverage"])
def test_gradients_of_a_funds_final_wealth(what, mechanism, begin):
    market, generators, state = begin(
        1, price_mechanism=mechanism, n_learners=1, fund_spread=0.5, habit_speed=0.3, cost_anticipation="quadratic"
    )
    state = run(market, generators, state, 2)[-1]
    months = [market.draw_shocks(generators) for _ in range(3)]
    n = market.config.n_assets
    own = market.own_action(state)
    if what == "fees":
        x = state.scenario.traits.fees
        direction = torch.zeros_like(x)
        direction[:, 0] = 1.0

        def function(fees):
            return final_wealth(market, state, months, fees=fees)
    elif what == "beliefs":
        x, direction = own.beliefs, torch.linspace(-0.5, 1.0, n, dtype=torch.float64).expand(1, 1, n)

        def function(beliefs):
            return final_wealth(market, state, months, action=Action(beliefs=beliefs))
    else:
        # Limits that bind: shorts of what is thought bad, a position at most so long.
        beliefs = own.beliefs + torch.tensor([-0.3, 0.3, 0.0, 0.1, -0.1], dtype=torch.float64)
        x, direction = torch.full((1, 1), 0.25 if what == "long_leverage" else 0.1).double(), torch.ones(1, 1).double()

        def function(limit):
            limits = {"short_leverage": torch.full((1, 1), 0.1), "long_leverage": torch.full((1, 1), 0.25)}
            return final_wealth(market, state, months, action=Action(beliefs=beliefs, **(limits | {what: limit})))

    slope, difference = slopes(function, x, direction, 1e-5 if what == "fees" else 1e-4)
    assert abs(difference) > 1e-3
    assert slope == pytest.approx(difference, rel=1e-6)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_arrays_and_tensors_agree_and_rows_stand_alone(mechanism, begin):
    settings = {"price_mechanism": mechanism, "n_learners": 1}
    market, generators, state = begin(3, seed=4, **settings)
    arrays, others, beside = begin(3, seed=4, arrays="numpy", **settings)
    single, alone, row = begin(1, seed=5, **settings)
    together = run(market, generators, state, 12)[-1]
    in_arrays = run(arrays, others, beside, 12)[-1]
    by_itself = run(single, alone, row, 12)[-1]
    for name, tensor in named_tensors(together).items():
        array, other = named_tensors(in_arrays)[name], named_tensors(by_itself)[name]
        np.testing.assert_allclose(tensor.numpy(), array, rtol=1e-9, atol=1e-7, err_msg=name)
        np.testing.assert_allclose(tensor[1:2].numpy(), other.numpy(), rtol=1e-9, atol=1e-7, err_msg=name)


def test_the_market_is_a_pure_function(begin, same):
    market, generators, state = begin(2, n_learners=1)
    before, shocks = state.clone(), market.draw_shocks(generators)
    one, _ = market.transition(state, None, shocks)
    other, _ = market.transition(state, None, shocks)
    same(one, other)
    same(state, before)
    own, _ = market.transition(state, market.own_action(state), shocks)
    torch.testing.assert_close(own.prices, one.prices, rtol=1e-12, atol=0.0)


def test_a_learner_is_one_more_active_manager(begin):
    market, generators, state = begin(2, n_learners=1, n_active=0)
    states = run(market, generators, state, 12)
    seats = market.scenario.seats
    assert seats.funds == 1 + 3
    for old, new in itertools.pairwise(states):
        units, worth = new.scenario.units[:, :, 0].sum(1), new.scenario.unit_value[:, 0]
        torch.testing.assert_close(new.wealth[:, 0], units * worth)
        torch.testing.assert_close(new.unit_value[:, 0], worth)
        assert (old.scenario.units[:, :, 0] != new.scenario.units[:, :, 0]).any()
    assert (state.signal == market.scenario.managers.forecasts(state.scenario)[:, 0]).all()


def test_impact_portfolios_are_optimal(begin):
    """What the mechanism solves for is what a portfolio optimiser in prices and shares finds."""
    market, generators, state = begin(1, price_mechanism="impact")
    state, plan = market.scenario.open(state, market.draw_shocks(generators))
    demand = market._demand(state, plan, None)
    trade = market.mechanism(state, demand, None)
    quoted = torch.exp(demand.start)
    scale = quoted[:, None, :, None] * quoted[:, None, None] / demand.wealth[..., None, None]
    expected = quoted[:, None] * (1.0 + demand.beliefs - demand.start[:, None])
    holdings = optimize_portfolio(
        demand.risk * scale, expected, 0.0, 0.0, demand.wealth, demand.short_leverage, demand.long_leverage, quoted
    )
    positions = holdings * quoted[:, None] / demand.wealth[..., None]
    torch.testing.assert_close(trade.weights[..., 1:], positions, rtol=1e-9, atol=1e-12)


def test_the_dealer_stays_within_its_limit(begin):
    market, generators, state = begin(4, price_mechanism="impact", dealer_limit=0.02, arrays="numpy")
    largest = 0.0
    for one in run(market, generators, state, 60):
        stock = abs(one.dealer_holdings / one.supply).max()
        assert stock <= 0.02 + 1e-9
        largest = max(largest, stock)
    assert largest > 0.0199


def test_impact_of_a_trade():
    """f is odd, quadratic, and flat beyond half its turn; the average of trades has the memory that it says."""
    from hmgym.market import MarketConfig
    from hmgym.market.impact import Impact

    impact = Impact(MarketConfig(price_mechanism="impact", impact=8.0, impact_turn=0.4)).impact
    a = np.array([-1.0, -0.2, -0.1, 0.0, 0.1, 0.2, 1.0])
    np.testing.assert_allclose(impact(a), [-0.32, -0.32, -0.24, 0.0, 0.24, 0.32, 0.32])
