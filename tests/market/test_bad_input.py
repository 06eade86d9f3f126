"""What does not fit together is named before it is used."""

from __future__ import annotations

import datetime

import numpy as np
import pytest

from hmgym.data import PriceHistory
from hmgym.investors import PopulationConfig
from hmgym.market import Action, Market, MarketConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pull": 0.3}, "`pull` must be a pair"),
        ({"fundamentalists": "many"}, "`fundamentalists` must be a number"),
        ({"trend_memory_months": 3.0}, "`trend_memory_months` must be a tuple"),
        ({"error_innovation": float("inf")}, "`error_innovation` must be a number"),
        ({"wealth_tail": 1e-3}, "`wealth_tail` must be a number >= 0.1"),
        ({"learner": {}}, "`learner` must be LearnerTraits, got {}"),
        ({"pull": (10**400, 1.0)}, r"`pull` must be a pair .*, got .1000"),
        ({"trend_memory_months": ("a",)}, "`trend_memory_months` must hold numbers >= 1"),
    ],
)
def test_population(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PopulationConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"history": "prices.csv"}, "`history` must be a PriceHistory"),
        ({"population": None}, "`population` must be a PopulationConfig"),
        ({"learner_share": 0.0}, "`learner_share` must be > 0"),
        ({"shares": 10**400}, r"`shares` must be in \(0, inf\), got 1000"),
        ({"n_assets": 10**400}, "`n_assets` must be <= 20"),
        ({"assets": 3}, "`assets` must be a tuple of names or None, got 3"),
        ({"growth": 0.004j}, "`growth` must be in"),
        ({"growth": True}, "`growth` must be in"),
    ],
)
def test_config(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MarketConfig(**settings)


def test_a_history_with_a_hole() -> None:
    days = [datetime.date(2020, 1 + month, 15) for month in (0, 1, 2, 5, 6)]
    prices = np.exp(np.random.default_rng(0).normal(size=(5, 2)))
    history = PriceHistory(dates=tuple(days), assets=("A", "B"), prices=prices, source="test")
    with pytest.raises(ValueError, match="prices in every month, got none between 2020-03-15 and 2020-06-15"):
        history.month_ends()


def test_shocks_of_other_markets() -> None:
    market = Market(MarketConfig())
    generators = [np.random.default_rng(seed) for seed in range(4)]
    state = market.initial(market.draw_initial_shocks(generators))
    for shocks in (market.draw_shocks(generators[:1]), market.draw_shocks(generators, periods=2)):
        with pytest.raises(
            ValueError, match=r"`shocks` must be this market's, for 4 markets: news of shape \(4, 3\), got"
        ):
            market.transition(state, None, shocks)
    with pytest.raises(ValueError, match="`shocks` must be Shocks, got NoneType"):
        market.transition(state, None, None)
    for call in (market.beliefs, market.own_action, market.seated):
        with pytest.raises(ValueError, match="`state` must be a MarketState, got int"):
            call(3)
    with pytest.raises(ValueError, match="`shocks` must be InitialShocks, got Shocks"):
        market.initial(market.draw_shocks(generators))
    with pytest.raises(ValueError, match="`generators` must be numpy Generators, one a market, got 3"):
        market.draw_shocks(3)
    with pytest.raises(ValueError, match=r"`periods` must be an integer >= 1, got 1.5"):
        market.draw_shocks(generators, periods=1.5)
    with pytest.raises(ValueError, match="`action` must be an Action or None, got dict"):
        market.transition(state, {}, market.draw_shocks(generators))
    with pytest.raises(ValueError, match=r"`beliefs` must be a tensor of shape \(4, 1, 3\)"):
        market.transition(state, Action(beliefs=1j * np.ones((4, 1, 3))), market.draw_shocks(generators))
    with pytest.raises(ValueError, match="`short_leverage` must be a tensor"):
        market.transition(state, Action(short_leverage="a"), market.draw_shocks(generators))


def test_numbers_of_numpy_count() -> None:
    config = MarketConfig(n_assets=np.int64(2), growth=np.float32(0.004), ruin_fraction=np.float64(0.05))
    assert config == MarketConfig(n_assets=2, growth=float(np.float32(0.004)))
