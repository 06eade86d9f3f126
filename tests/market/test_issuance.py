"""Companies issue shares far above value and buy back far below."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from hmgym import simulate
from hmgym.market import Market, MarketConfig
from hmgym.market.crowd.issuance import issued_shares
from hmgym.market.state import MarketState

CONFIG = MarketConfig(issuance_rate=0.2, issuance_band=0.3)


def priced(market: Market, log_ratio: float) -> MarketState:
    """Markets whose last close was exp(log_ratio) times value, before this month's news."""
    state = market.initial(market.draw_initial_shocks(np.random.default_rng(0), 2))
    return replace(state, prices=torch.exp(state.log_value - state.news + log_ratio))


@pytest.mark.parametrize(
    ("log_ratio", "growth"),
    [(0.0, None), (0.29, None), (-0.29, None), (0.5, 0.04), (-0.5, -0.04), (5.0, 0.2), (-5.0, -0.2)],
)
def test_supply_answers_to_price_outside_the_band(log_ratio: float, growth: float | None) -> None:
    market = Market(CONFIG)
    issued = issued_shares(CONFIG, priced(market, log_ratio))
    if growth is None:
        assert issued is None
    else:
        assert issued is not None
        np.testing.assert_allclose(issued.numpy(), growth * CONFIG.shares, rtol=1e-12)


@pytest.mark.parametrize(("n_assets", "n_investors"), [(3, 20), (2, 8)])
def test_supply_settles_by_itself(n_assets: int, n_investors: int) -> None:
    """Few investors want a discount for all risk; buy-backs leave more money for a share until there is none."""
    run = simulate(months=240, markets=8, seed=0, n_assets=n_assets, n_investors=n_investors)
    assert run.supply[-1].min() > 0.02 * CONFIG.shares
    assert abs(run.mispricing[120:].mean()) < CONFIG.issuance_band


@pytest.mark.parametrize("log_ratio", [-1.0, 0.0, 1.0])
def test_whoever_lifts_prices_prints_no_money(log_ratio: float) -> None:
    """Cash follows value at the first supply, whatever prices and supply are."""
    config = CONFIG.replace(cash_adjustment=1.0)
    market = Market(config)
    state = priced(market, log_ratio)
    after, _ = market.transition(state, None, market.draw_shocks(np.random.default_rng(1), 2))
    wanted = config.cash_ratio * config.shares * state.fundamentals.sum(1)
    torch.testing.assert_close(after.cash.sum(1), wanted, rtol=1e-9, atol=1e-6)


def test_a_fixed_supply() -> None:
    fixed = CONFIG.replace(issuance_rate=0.0)
    assert issued_shares(fixed, priced(Market(fixed), 2.0)) is None


@pytest.mark.parametrize("log_ratio", [0.8, -0.8])
def test_new_shares_are_sold_in_the_trade_at_its_price(log_ratio: float) -> None:
    config = CONFIG.replace(trading_cost=0.0, dividend_yield=0.0, cash_adjustment=0.0)
    market = Market(config)
    state = priced(market, log_ratio)
    after, outcome = market.transition(state, None, market.draw_shocks(np.random.default_rng(1), 2))
    grown = config.shares * (1.0 + math.copysign(0.1, log_ratio))
    np.testing.assert_allclose(after.supply.numpy(), grown, rtol=1e-12)
    np.testing.assert_allclose(after.holdings.sum(1).numpy(), grown, rtol=1e-9)
    proceeds = ((after.supply - state.supply) * outcome.prices).sum(-1)
    received = after.accounts["issuer"] - state.accounts["issuer"]
    np.testing.assert_allclose(received.numpy(), proceeds.numpy(), rtol=1e-9)
    np.testing.assert_allclose(after.total_cash.numpy(), state.total_cash.numpy(), rtol=1e-12)
