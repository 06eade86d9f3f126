"""MarketConfig: what it refuses, and markets on the user's own prices."""

from __future__ import annotations

import dataclasses
import datetime
import pickle

import numpy as np
import pandas as pd
import pytest
import torch

from hmgym.data import PriceHistory
from hmgym.investors import LearnerTraits, PopulationConfig
from hmgym.market import Market, MarketConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_assets": 0}, "`n_assets` must be an integer >= 1, got 0"),
        ({"n_assets": 21}, "`n_assets` must be <= 20"),
        ({"n_assets": 3.0}, "`n_assets` must be an integer"),
        ({"n_investors": 2, "n_learners": 1}, "`n_investors` must be"),
        ({"n_investors": 4, "n_learners": 3}, r"`n_investors` must be >= n_learners \+ 2 = 5, got 4"),
        ({"n_learners": 10, "learner_share": 0.1}, r"`learner_share` times n_learners must be < 1"),
        (
            {"fundamentals": "garch"},
            '`fundamentals` must be one of "filtered", "bootstrap", "gaussian", got \'garch\'',
        ),
        ({"trading_cost": -0.1}, r"`trading_cost` must be in \[0, 0.5\], got -0.1"),
        ({"trading_cost": float("nan")}, "`trading_cost` must be in"),
        ({"borrowing_spread": -0.01}, r"`borrowing_spread` must be in \[0, 0.1\], got -0.01"),
        ({"borrowing_spread": "dear"}, r"`borrowing_spread` must be in \[0, 0.1\], got 'dear'"),
        ({"maintenance_margin": 0.95}, r"`maintenance_margin` must be in \[0, 0.9\], got 0.95"),
        ({"initial_margin": 1.5}, r"`initial_margin` must be in \[0, 1\], got 1.5"),
        ({"initial_margin": 0.25}, r"`initial_margin` must be > maintenance_margin = 0.25, got 0.25"),
        ({"maintenance_margin": None}, r"`maintenance_margin` must be in \[0, 0.9\], got None"),
        ({"ownership_limit": 0.0}, r"`ownership_limit` must be in \(0, inf\), got 0.0"),
        ({"ownership_limit": float("nan")}, r"`ownership_limit` must be in \(0, inf\), got nan"),
        ({"ownership_limit": "a fifth"}, r"`ownership_limit` must be in \(0, inf\), got 'a fifth'"),
        ({"issuance_rate": -0.1}, r"`issuance_rate` must be in \[0, 1\], got -0.1"),
        ({"issuance_band": "wide"}, r"`issuance_band` must be in \[0, 10\], got 'wide'"),
        ({"short_limit": 0.0}, r"`short_limit` must be in \(0, inf\), got 0.0"),
        ({"short_limit": -0.1}, r"`short_limit` must be in \(0, inf\), got -0.1"),
        ({"short_limit": "none"}, r"`short_limit` must be in \(0, inf\), got 'none'"),
        (
            {"cost_anticipation": "cubic"},
            '`cost_anticipation` must be one of "quadratic", "exact", "none", got \'cubic\'',
        ),
        ({"cost_anticipation": None}, "`cost_anticipation` must be one of .* got None"),
        ({"interest_rate": "2 %"}, "`interest_rate` must be in"),
        ({"ruin_fraction": 0.0}, r"`ruin_fraction` must be in \(0, 1\), got 0.0"),
        ({"signal_r2": 1.1}, "`signal_r2` must be in"),
        ({"shares": -1.0}, "`shares` must be in"),
        ({"initial_mispricing": 9.0}, "`initial_mispricing` must be in"),
        ({"assets": ("MSFT", "JPM")}, "`assets` must name n_assets = 3 columns, got 2"),
        ({"assets": ("MSFT", "JPM", "NOPE")}, "`assets` must be among .* got NOPE"),
        ({"history": "test"}, '`history` must be a PriceHistory or one of "training", "held-out", "all", got \'test\''),
        ({"history": 3}, "`history` must be a PriceHistory .* or the name of a packaged span, got int"),
        ({"dates": "1990-01-01"}, "`dates` must be two ISO dates, first and last, or None, got '1990-01-01'"),
        ({"dates": ("1990-01-01", 2000)}, "`dates` must be two ISO dates"),
        (
            {"dates": ("1990-01-01", "2000-13-01")},
            r"`dates` must be ISO dates \(YYYY-MM-DD\), got '1990-01-01' and '2000",
        ),
        ({"dates": ("2000-01-01", "1990-01-01")}, "`dates` must be the first and the last, in this order, got 2000"),
        ({"dates": ("2011-01-01", "2012-01-01")}, "`dates` must hold at least two rows of .* 1990-01-31 to 2009-12-31"),
        ({"dates": ("1990-01-01", "1990-04-30")}, "`history` must have at least 5 months, got 4"),
        (
            {"population": PopulationConfig(long_leverage=(0.2, 1.0))},
            r"`population.long_leverage\[0\]` must be >= 1/\(N\+1\) = 0.25, got 0.2",
        ),
        (
            {"population": PopulationConfig(learner=LearnerTraits(long_leverage=0.2))},
            r"`population.learner.long_leverage` must be >= 1/\(N\+1\) = 0.25, got 0.2",
        ),
    ],
)
def test_bad_markets(settings, message):
    with pytest.raises(ValueError, match=message):
        MarketConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fundamentalists": 0.8, "trend_followers": 0.3}, "`fundamentalists` \\+ `trend_followers` must be <= 1"),
        ({"pull": (0.4, 0.1)}, r"`pull` must be a pair \(low, high\) with 0 <= low <= high"),
        ({"pull": (0.1, 0.2, 0.3)}, r"`pull` must be a pair \(low, high\) with"),
        ({"risk_aversion": (0.0, 1.0)}, r"`risk_aversion` must be a pair .* 0 < low <= high, got"),
        ({"error_persistence": 1.0}, "`error_persistence` must be < 1"),
        ({"trend_memory_months": ()}, "`trend_memory_months` must"),
        ({"wealth_tail": 0.0}, "`wealth_tail` must be a number >= 0.1"),
    ],
)
def test_bad_populations(settings, message):
    with pytest.raises(ValueError, match=message):
        PopulationConfig(**settings)


def test_bad_learners():
    with pytest.raises(ValueError, match=r"`learner\.risk_aversion` must be a number > 0, got -1"):
        LearnerTraits(risk_aversion=-1.0)


def test_frozen_equal_and_picklable():
    config = MarketConfig(n_assets=4)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.n_assets = 5
    assert config == pickle.loads(pickle.dumps(config)) == MarketConfig().replace(n_assets=4)
    assert hash(config) == hash(MarketConfig(n_assets=4))


def prices(n_assets=3, days=900, seed=0):
    rng = np.random.default_rng(seed)
    index = pd.bdate_range("2010-01-01", periods=days)
    walk = np.exp(np.cumsum(rng.normal(0.0, 0.01, (days, n_assets)), axis=0))
    return pd.DataFrame(50.0 * walk, index=index, columns=[f"stock{i}" for i in range(n_assets)])


def test_daily_prices_become_month_ends(tmp_path):
    frame = prices()
    frame.to_csv(tmp_path / "daily.csv")
    config = MarketConfig.from_prices(frame, trading_cost=0.001)
    assert config == MarketConfig.from_prices(tmp_path / "daily.csv", trading_cost=0.001)
    assert config.n_assets == 3
    assert config.assets == ("stock0", "stock1", "stock2")
    assert len(config.history.dates) == frame.index.to_period("M").nunique()
    assert len(MarketConfig.from_prices(frame, month_ends=False).history.dates) == 900
    market = Market(config)
    state = market.initial(market.draw_initial_shocks(np.random.default_rng(0), 2))
    state, outcome = market.transition(state, None, market.draw_shocks(np.random.default_rng(1), 2))
    assert outcome.converged.all()
    assert torch.isfinite(state.prices).all()


def test_spans_of_the_packaged_prices():
    """No month's return is in both the history that agents train on and the one that is held out."""
    spans = {name: MarketConfig(history=name).selected_history for name in ("training", "held-out", "all")}
    assert {name: (len(s.dates), str(s.dates[0]), str(s.dates[-1])) for name, s in spans.items()} == {
        "training": (240, "1990-01-31", "2009-12-31"),
        "held-out": (156, "2010-01-29", "2022-12-28"),
        "all": (396, "1990-01-31", "2022-12-28"),
    }
    assert not set(spans["training"].dates) & set(spans["held-out"].dates)
    assert MarketConfig() == MarketConfig(history=None) == MarketConfig(history="training")
    rows = [{tuple(row) for row in spans[name].log_returns} for name in ("training", "held-out")]
    assert not rows[0] & rows[1]
    assert MarketConfig(history="all", dates=("1990-01-01", "2009-12-31")).selected_history == spans["training"]


def test_dates_of_the_users_prices():
    config = MarketConfig.from_prices(prices(2), dates=("2011-01-01", "2012-12-31"))
    chosen = config.selected_history
    assert len(chosen.dates) == 24
    assert chosen.dates[0].year == 2011
    assert chosen.dates[-1].year == 2012
    np.testing.assert_allclose(config.volatility.variance, chosen.log_returns.var(0, ddof=1))


def test_some_of_the_users_columns():
    config = MarketConfig.from_prices(prices(5), assets=["stock4", "stock1"])
    assert config.n_assets == 2
    np.testing.assert_allclose(config.fundamental_returns.mean(0), config.growth, atol=1e-15)


def test_bad_prices():
    with pytest.raises(ValueError, match="`n_assets` follows from `source`"):
        MarketConfig.from_prices(prices(), n_assets=3)
    with pytest.raises(ValueError, match="`history` must have at least 5 months, got 3"):
        MarketConfig.from_prices(prices(days=60))
    twins = prices(2).assign(stock2=lambda frame: 2.0 * frame.stock0)
    with pytest.raises(ValueError, match=r"linearly independent returns .* stock0, stock1, stock2"):
        MarketConfig.from_prices(twins)
    dates = tuple(datetime.date(2000 + i // 12, i % 12 + 1, 1) for i in range(24))
    flat = PriceHistory(dates=dates, assets=("flat",), prices=np.ones((24, 1)))
    with pytest.raises(ValueError, match="every asset's return must vary, got a constant for flat"):
        MarketConfig.from_prices(flat)
