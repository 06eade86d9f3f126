"""News, blocks, regimes and the signal."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hmgym.market import Market, MarketConfig


def path(market, n_markets=64, months=120, seed=0):
    """News (E, T, N), signal about it (E, T, N), regime (E, T), history row (E, T) and months left in it (E, T)."""
    generators = [np.random.default_rng(seed + i) for i in range(n_markets)]
    state = market.initial(market.draw_initial_shocks(generators))
    f = market.fundamentals
    row, left, regime = state.block_row, state.block_left, state.regime
    news, signal = state.next_news, state.signal
    out = []
    for _ in range(months):
        out.append((news, signal, regime, row, left))
        shocks = market.draw_shocks(generators)
        row, left = f.advance(row, left, shocks.block)
        news = f.news(row, shocks.news)
        regime = f.next_regime(regime, shocks.regime)
        signal = f.signal(regime, news, shocks.signal)
    return tuple(torch.stack(column, 1).numpy() for column in zip(*out, strict=True))


@pytest.mark.parametrize("kind", ["bootstrap", "gaussian"])
def test_moments(kind):
    config = MarketConfig(fundamentals=kind)
    news = path(Market(config), 400)[0].reshape(-1, 3)
    history = config.fundamental_returns
    np.testing.assert_allclose(history.mean(0), 0.005, atol=1e-15)
    np.testing.assert_allclose(news.mean(0), 0.005, atol=0.0025)
    np.testing.assert_allclose(np.cov(news.T), np.cov(history.T), rtol=0.1, atol=3e-4)
    kurtosis = ((news - news.mean(0)) ** 4).mean(0) / news.var(0) ** 2 - 3.0
    assert (kurtosis > 1.0).all() if kind == "bootstrap" else (np.abs(kurtosis) < 0.15).all()


def test_blocks_are_consecutive_months_of_the_history():
    market = Market(MarketConfig())
    news, _, _, row, left = path(market, 32, 60)
    returns = market.fundamentals.returns.numpy()
    np.testing.assert_array_equal(news, returns[row])
    inside = left[:, :-1] > 0
    assert (row[:, 1:][inside] == row[:, :-1][inside] + 1).all()
    assert (left[:, 1:][inside] == left[:, :-1][inside] - 1).all()
    assert (left[:, 1:][~inside] == 5).all()
    assert row.min() >= 0
    assert (row + left).max() <= len(returns) - 1
    assert len(set(left[:, 0].tolist())) == 6  # markets start anywhere in their block


def test_every_month_of_the_history_comes_up():
    market = Market(MarketConfig(block_months=1))
    row = path(market, 256, 60)[3]
    assert set(np.unique(row)) == set(range(395))


def test_the_signal_explains_a_quarter_in_one_regime_and_nothing_in_the_other():
    market = Market(MarketConfig())
    news, signal, regime, _, _ = path(market, 500)
    for state, r2 in ((1.0, 0.25), (0.0, 0.0)):
        chosen = regime == state
        for asset in range(3):
            correlation = np.corrcoef(news[chosen][:, asset], signal[chosen][:, asset])[0, 1]
            assert correlation**2 == pytest.approx(r2, abs=0.03)
        ratio = signal[chosen].std(0) / market.fundamentals.deviation.numpy()
        np.testing.assert_allclose(ratio, 1.0, atol=0.05)  # its spread does not give the regime away


def test_regimes_last_nine_months():
    regime = path(Market(MarketConfig()), 500)[2]
    assert (regime[:, 1:] != regime[:, :-1]).mean() == pytest.approx(1.0 / 9.0, abs=0.005)
    assert regime[:, 0].mean() == pytest.approx(0.5, abs=0.06)
