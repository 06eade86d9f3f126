"""Cohorts, traits and beliefs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hmgym.investors import PopulationConfig
from hmgym.market import Market, MarketConfig


def many(n_markets=300, **settings):
    market = Market(MarketConfig(**settings))
    generators = [np.random.default_rng(i) for i in range(n_markets)]
    return market, market.initial(market.draw_initial_shocks(generators))


def test_cohorts():
    config = PopulationConfig()
    assert config.group_sizes(19) == (10, 6, 3)
    assert config.group_sizes(2) == (1, 1, 0)
    assert PopulationConfig(fundamentalists=0.0, trend_followers=1.0).group_sizes(7) == (0, 7, 0)


def test_traits_are_uniform_over_their_ranges():
    market, state = many()
    traits, (fundamentalists, followers, _) = state.scenario.population.traits, market.scenario.population.group_sizes
    first, second = 1 + fundamentalists, 1 + fundamentalists + followers
    for values, low, high in (
        (traits.news_weight[:, 1:], 0.7, 1.2),
        (traits.pull[:, 1:first], 0.1, 0.4),
        (traits.trend_gain[:, first:second], 0.0, 0.8),
        (traits.short_leverage[:, 1:], 0.0, 0.5),
        (traits.long_leverage[:, 1:], 1.0, 2.5),
    ):
        assert low <= values.min()
        assert values.max() <= high
        assert float(values.mean()) == pytest.approx((low + high) / 2, abs=0.02 * (high - low) + 0.01)
    assert not traits.pull[:, first:].any()
    assert not traits.trend_gain[:, :first].any()
    assert not traits.trend_gain[:, second:].any()
    scale = traits.risk[..., 0, 0] / market.fundamentals.covariance[0, 0]
    assert scale[:, 1:].min() >= 0.5 * 2.0 * 1.0
    assert scale[:, 1:].max() <= 0.5 * 8.0 * 3.0
    assert torch.equal(scale[:, 0], scale[:1, 0].expand(300))


def test_a_learner_has_its_share_and_the_rest_are_unequal():
    market, state = many()
    share = state.wealth / state.wealth.sum(1, keepdim=True)
    torch.testing.assert_close(share, state.scenario.target_share)
    own = market.config.learner_share
    for seats, expected in (
        (slice(1), own), (slice(1, 11), (1.0 - own) * 10 / 19), (slice(17, None), (1.0 - own) * 3 / 19)
    ):  # fmt: skip
        torch.testing.assert_close(share[:, seats].sum(1), torch.full((300,), expected, dtype=torch.float64))
    # Pareto: logs are exponential of rate `wealth_tail`, cut where one in a hundred lies beyond. Of ten the largest and
    # the smallest lie as far apart as order statistics say.
    beyond = np.linspace(0.0, math.log(100.0), 10_001)
    apart = np.trapezoid(1.0 - (1.0 - np.exp(-beyond)) ** 10, beyond) - 0.1
    group = share[:, 1:11]
    found = market.config.population.wealth_tail * torch.log(group.max(1).values / group.min(1).values)
    assert float(found.mean()) == pytest.approx(apart, abs=3.0 * float(found.std()) / 300**0.5)
    assert share.max() < 0.5


def test_the_learners_belief():
    """Last log price + .006 + news + .1 (log v/p before the news) + .3 signal."""
    market, state = many(4)
    gap = state.log_value - state.news - torch.log(state.prices)
    expected = torch.log(state.prices) + 0.006 + state.news + 0.1 * gap + 0.3 * state.signal
    torch.testing.assert_close(market.beliefs(state)[:, 0], expected, rtol=0.0, atol=1e-13)


def test_the_beliefs_of_others():
    market, state = many(4)
    beliefs, traits, log_price = market.beliefs(state), state.scenario.population.traits, torch.log(state.prices)
    gap = state.log_value - state.news - log_price
    common = log_price + 0.006
    fundamentalist, follower, moody = 1, 12, 19
    torch.testing.assert_close(
        beliefs[:, fundamentalist],
        common
        + traits.news_weight[:, fundamentalist] * state.news
        + traits.pull[:, fundamentalist] * (gap + state.scenario.population.error[:, fundamentalist])
        + state.scenario.population.sentiment[:, fundamentalist],
    )
    torch.testing.assert_close(
        beliefs[:, follower],
        common
        + traits.news_weight[:, follower] * state.news
        + traits.trend_gain[:, follower] * state.scenario.population.trend[:, follower]
        + state.scenario.population.sentiment[:, follower],
    )
    torch.testing.assert_close(
        beliefs[:, moody],
        common + traits.news_weight[:, moody] * state.news + state.scenario.population.sentiment[:, moody],
    )


def test_moods_keep_their_spread():
    """Errors and sentiment start in, and stay in, their stationary distributions."""
    market, state = many(60)
    generators = [np.random.default_rng(1000 + i) for i in range(60)]
    for _ in range(40):
        state, _ = market.transition(state, None, market.draw_shocks(generators))
    assert float(state.scenario.population.error[:, 1:11].std()) == pytest.approx(
        0.05 / (1.0 - 0.95**2) ** 0.5, rel=0.05
    )
    assert float(state.scenario.population.sentiment[:, 1:].std()) == pytest.approx(
        0.01 / (1.0 - 0.9**2) ** 0.5, rel=0.05
    )
    assert not state.scenario.population.error[:, 11:].any()
    assert not state.scenario.population.error[:, 0].any()
    assert not state.scenario.population.sentiment[:, 0].any()


def test_memories_differ():
    market, state = many(2)
    generators = [np.random.default_rng(i) for i in range(2)]
    before = state.scenario.population.trend
    state, _ = market.transition(state, None, market.draw_shocks(generators))
    response = (state.scenario.population.trend - before) / (state.last_return.unsqueeze(1) - before)
    memories = {round(1.0 / float(value)) for value in response[0, 11:17, 0]}
    assert memories == {3, 6, 12}
