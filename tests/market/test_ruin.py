"""Ruin: the floor, who pays for it, and who sits on the seat afterwards."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from hmgym.market import Action


def impoverish(state, investor, factor):
    """The state in which an investor owes so much that its wealth is `factor` of what it was; the bank lent it."""
    lost = (1.0 - factor) * state.wealth[:, investor]
    cash, wealth = state.cash.clone(), state.wealth.clone()
    cash[:, investor] -= lost
    wealth[:, investor] -= lost
    accounts = {**state.accounts, "bank": state.accounts["bank"] + lost}
    return replace(state, cash=cash, wealth=wealth, accounts=accounts)


def ruin_learner(market, generators, state):
    """One month in which the learner, all in with a hundredth of its wealth, loses it all."""
    state = impoverish(state, 0, 0.01)
    # Positions of a hundred times its wealth, and prices that fall: the news is a crash.
    crash = replace(state, news=torch.full_like(state.news, -0.5), log_value=state.log_value - state.news - 0.5)
    return market.transition(crash, None, market.draw_shocks(generators))


def test_a_ruined_learner_is_floored_and_the_default_fund_pays(start):
    market, generators, state = start(3)
    after, outcome = ruin_learner(market, generators, state)
    assert outcome.ruined.all()
    floor = market.config.ruin_fraction
    assert torch.equal(outcome.unit_value, torch.full_like(outcome.unit_value, floor))
    torch.testing.assert_close(outcome.reward, torch.full_like(outcome.reward, math.log(floor)), rtol=0.0, atol=1e-12)
    assert (after.accounts["default_fund"] < 0.0).all()
    # The final state still shows the ruined fund: its holders have the floor, before flows and consumption.
    assert torch.equal(after.unit_value, outcome.unit_value)
    assert after.ruined[:, 0].all()


def test_the_next_month_starts_with_a_newcomer_and_sells_the_estate(start):
    market, generators, state = start(3)
    ruined, _ = ruin_learner(market, generators, state)
    cash_before = ruined.total_cash
    after, outcome = market.transition(ruined, None, market.draw_shocks(generators))
    assert not after.ruined[:, 0].any()
    torch.testing.assert_close(torch.log(after.unit_value), outcome.reward, rtol=0.0, atol=1e-12)
    assert (after.wealth[:, 0] > 0.5 * market.config.learner_share * after.wealth.sum(1)).all()
    torch.testing.assert_close(after.holdings.sum(1), after.supply, rtol=1e-9, atol=0.0)
    torch.testing.assert_close(after.total_cash, cash_before, rtol=1e-9, atol=1e-3)


def test_a_ruined_background_investor_gets_new_traits_and_its_market_alone_changes(start):
    market, generators, state = start(3)
    poor = impoverish(state, 7, 0.001)
    poor = state.with_rows(torch.tensor([0]), poor.select([0]))
    month, _ = market.transition(poor, None, market.draw_shocks(generators))
    assert month.ruined.nonzero().tolist() == [[0, 7]]
    after, _ = market.transition(month, None, market.draw_shocks(generators))
    old, new = state.scenario.population.traits, after.scenario.population.traits
    assert (new.long_leverage != old.long_leverage).nonzero().tolist() == [[0, 7]]
    assert old.risk.flatten(2).ne(new.risk.flatten(2)).any(-1).nonzero().tolist() == [[0, 7]]


def test_leverage_ruins_in_a_crash(start):
    """A learner that borrows to the hilt is ruined when value halves; one without leverage is not."""
    market, generators, state = start(2)
    shocks = [market.draw_shocks(generators) for _ in range(2)]
    results = {}
    for short, long in ((0.0, 1.0), (2.0, 4.0)):
        action = Action(
            short_leverage=torch.full((2, 1), short, dtype=torch.float64),
            long_leverage=torch.full((2, 1), long, dtype=torch.float64),
            beliefs=torch.log(state.prices).unsqueeze(1) + 0.2,
        )
        now, _ = market.transition(state, action, shocks[0])
        crash = replace(now, news=torch.full_like(now.news, -2.0), log_value=now.log_value - now.news - 2.0)
        results[long] = market.transition(crash, action, shocks[1])[1]
    assert results[4.0].ruined.all()
    assert not results[1.0].ruined.any()
