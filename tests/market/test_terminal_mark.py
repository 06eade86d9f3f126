"""Marking at one's own impact must not pay."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hmgym.market import Action, Market, MarketConfig
from tests.economies import FREE


def limits(n_markets, short, long):
    return Action(
        short_leverage=torch.full((n_markets, 1), short, dtype=torch.float64),
        long_leverage=torch.full((n_markets, 1), long, dtype=torch.float64),
    )


def last_month(settings, n_markets, months, usual, final):
    """Log unit value at the end, and what the last mark gained from the last trade; same shocks on every call."""
    market = Market(MarketConfig(**settings))
    generators = [np.random.default_rng(900 + i) for i in range(n_markets)]
    state = market.initial(market.draw_initial_shocks(generators))
    for _ in range(months - 1):
        state, _ = market.transition(state, limits(n_markets, *usual), market.draw_shocks(generators))
    shocks = market.draw_shocks(generators)
    action = limits(n_markets, *final)
    gain = market.terminal_mark_gain(state, action, shocks)[:, 0]
    state, _ = market.transition(state, action, shocks)
    return torch.log(state.unit_value)[:, 0], gain


@pytest.mark.parametrize("settings", [{}, FREE], ids=["default", "free"])
def test_levering_up_just_before_the_end_does_not_gain(settings):
    n_markets = 200
    for usual in ((0.0, 1.0), (0.5, 1.5)):
        calm, calm_gain = last_month(settings, n_markets, 18, usual, usual)
        pumped, pumped_gain = last_month(settings, n_markets, 18, usual, (2.0, 4.0))
        difference = (pumped - pumped_gain) - (calm - calm_gain)
        standard_error = difference.std() / n_markets**0.5
        assert difference.mean() + 2.0 * standard_error < 0.0
        # What the mark gained is what the correction takes off: it is there to be seen, where rules leave room for it.
        more = pumped_gain - calm_gain
        assert more.mean() > (0.01 if settings else 3.0 * more.std() / n_markets**0.5)


def test_without_a_trade_there_is_no_gain():
    """A learner that wants what it has: its belief is the one that makes its old shares optimal."""
    market = Market(MarketConfig(**FREE))
    generators = [np.random.default_rng(i) for i in range(20)]
    state = market.initial(market.draw_initial_shocks(generators))
    shocks = market.draw_shocks(generators)
    own = market.own_action(state)
    action = Action(short_leverage=own.short_leverage + 3.0, long_leverage=own.long_leverage + 3.0, beliefs=own.beliefs)
    for _ in range(250):  # p = prices at this belief; move the belief until the demand is the old holding
        _, outcome = market.transition(state, action, shocks)
        money = (state.holdings - outcome.holdings)[:, :1] * outcome.prices.unsqueeze(1)
        wanted = money / state.wealth[:, :1, None]
        correction = 2.0 * (state.scenario.population.traits.risk[:, 0] @ wanted[:, 0].unsqueeze(-1)).squeeze(-1)
        action = Action(
            short_leverage=action.short_leverage,
            long_leverage=action.long_leverage,
            beliefs=action.beliefs + 1.5 * correction.unsqueeze(1),
        )
    traded = ((outcome.holdings - state.holdings)[:, 0].abs() / state.holdings[:, 0]).max()
    assert traded < 1e-4
    gain = market.terminal_mark_gain(state, action, shocks)
    # The correction's second pass leaves a remainder of second order in the month's price change.
    assert gain.abs().max() < 2e-3


def test_shapes_and_several_learners():
    market = Market(MarketConfig(n_learners=3))
    state = market.initial(market.draw_initial_shocks(np.random.default_rng(0), 5))
    gain = market.terminal_mark_gain(state, None, market.draw_shocks(np.random.default_rng(1), 5))
    assert gain.shape == (5, 3)
    assert torch.isfinite(gain).all()
