"""The market is a pure function: of its arguments alone, row by row, and it changes none of them."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

from hmgym.market import Market, MarketConfig

SETTINGS = [
    {},
    {"fundamentals": "gaussian", "trading_cost": 0.002},
    {"n_assets": 5, "n_investors": 23, "n_learners": 3},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_row_does_not_depend_on_its_neighbours(settings, start, random_action, same):
    market, generators, state = start(19, **settings)
    alone = [np.random.default_rng(7)]
    one = market.initial(market.draw_initial_shocks(alone))
    rng = np.random.default_rng(0)
    for _ in range(60):
        action = random_action(market, state, rng)
        row = type(action)(
            short_leverage=action.short_leverage[7:8].clone(), long_leverage=action.long_leverage[7:8].clone()
        )
        state, outcome = market.transition(state, action, market.draw_shocks(generators))
        one, single = market.transition(one, row, market.draw_shocks(alone))
        assert torch.equal(outcome.reward[7:8], single.reward)
    same(state.select(slice(7, 8)), one)


def test_nothing_is_changed_and_the_same_again_is_the_same(start, same):
    market, generators, state = start(3, n_learners=2, trading_cost=0.001)
    shocks = market.draw_shocks(generators)
    kept_state, kept_shocks = copy.deepcopy(state), copy.deepcopy(shocks)
    first, _ = market.transition(state, market.own_action(state), shocks)
    again, _ = market.transition(state, None, shocks)
    same(first, again)
    same(state, kept_state)
    same(shocks, kept_shocks)
    same(pickle.loads(pickle.dumps(first)), first)


def test_many_periods_are_the_numbers_of_single_ones(start, same):
    market, _, _ = start(1)
    together = market.draw_shocks([np.random.default_rng(i) for i in range(3)], periods=5)
    generators = [np.random.default_rng(i) for i in range(3)]
    for period in range(5):
        same(market.draw_shocks(generators), together.period(period))


def test_a_single_generator_is_spawned(start, same):
    market, _, _ = start(1)
    shocks = market.draw_shocks(np.random.default_rng(3), 4)
    children = np.random.default_rng(3).spawn(4)
    same(shocks, market.draw_shocks(children))
    assert shocks.regime.unique().numel() == 4


def test_rows_can_be_replaced(start, same):
    market, generators, state = start(4)
    state, _ = market.transition(state, None, market.draw_shocks(generators))
    fresh = market.initial(market.draw_initial_shocks([np.random.default_rng(50), np.random.default_rng(51)]))
    mixed = state.with_rows(torch.tensor([3, 1]), fresh)
    same(mixed.select([1, 3]), fresh.select([1, 0]))
    same(mixed.select([0, 2]), state.select([0, 2]))
    assert mixed.n_markets == 4


def test_learners_own_action_is_what_none_means(start, same):
    market, generators, state = start(2, n_learners=2)
    shocks = market.draw_shocks(generators)
    same(
        market.transition(state, None, shocks)[0],
        market.transition(state, market.own_action(state), shocks)[0],
    )


def test_next_months_news_is_public_only_next_month(start):
    market, generators, state = start(3)
    hidden = state.next_news
    state, _ = market.transition(state, None, market.draw_shocks(generators))
    assert torch.equal(state.news, hidden)


def test_bad_arguments():
    market = Market(MarketConfig())
    state = market.initial(market.draw_initial_shocks(np.random.default_rng(0), 2))
    shocks = market.draw_shocks(np.random.default_rng(1), 2)
    own = market.own_action(state)
    for changes, message in (
        ({"long_leverage": torch.full((2, 1), 0.2)}, r"`long_leverage` must be >= 1/\(N\+1\) = 0.25 and .* got 0.2"),
        ({"short_leverage": torch.full((2, 1), -0.1)}, "`short_leverage` must be >= 0"),
        ({"short_leverage": torch.full((2, 1), torch.nan)}, "`short_leverage` must be >= 0 and < 1000, got"),
        ({"short_leverage": torch.ones(2)}, r"`short_leverage` must have shape \(2, 1\), got \(2,\)"),
        ({"beliefs": torch.ones(2, 1, 4)}, r"`beliefs` must have shape \(2, 1, 3\)"),
        ({"risk_scale": torch.zeros(2, 1)}, "`risk_scale` must be >= 1e-06"),
    ):
        bad = type(own)(**changes)
        with pytest.raises(ValueError, match=message):
            market.transition(state, bad, shocks)
    with pytest.raises(ValueError, match=r"`errors` must be .* got 'ignore'"):
        market.transition(state, None, shocks, errors="ignore")
    with pytest.raises(ValueError, match="`n_markets` must be >= 1"):
        market.draw_shocks(np.random.default_rng(0))
    with pytest.raises(ValueError, match="one generator for each of 3 markets, got 2"):
        market.draw_shocks([np.random.default_rng(0)] * 2, 3)
    with pytest.raises(ValueError, match="must be numpy Generators"):
        market.draw_shocks([1, 2])
    with pytest.raises(ValueError, match="`periods` must be an integer >= 1, got 0"):
        market.draw_shocks(np.random.default_rng(0), 1, periods=0)
