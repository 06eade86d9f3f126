"""News, its variance, regimes and the signal."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hmgym.market import Market, MarketConfig
from hmgym.market.volatility import LARGEST_VARIANCE

KINDS = ["filtered", "bootstrap", "gaussian"]


def path(market: Market, n_markets: int, months: int = 120, seed: int = 0) -> dict[str, np.ndarray]:
    """What the states of fundamentals alone say, each (E, T, …); `u` is next month's news in standard deviations."""
    generators = [np.random.default_rng(seed + i) for i in range(n_markets)]
    state, f = market.initial(market.draw_initial_shocks(generators)), market.fundamentals
    names = ("news", "next_news", "news_variance", "signal", "regime")
    now = {name: getattr(state, name) for name in names}
    months_seen = []
    for _ in range(months):
        months_seen.append(now)
        state = type(state)(**{**vars(state), **now})
        now = f.move_on(state, market.draw_shocks(generators))
    found = {name: torch.stack([month[name] for month in months_seen], 1).numpy() for name in names}
    return found | {"u": (found["next_news"] - market.config.growth) / np.sqrt(found["news_variance"])}


@pytest.mark.parametrize("kind", KINDS)
def test_moments(kind):
    config = MarketConfig(fundamentals=kind)
    found = path(Market(config), 600)
    news, u = (found[name].reshape(-1, 3) for name in ("next_news", "u"))
    history = config.fundamental_returns
    np.testing.assert_allclose(history.mean(0), config.growth, atol=1e-15)
    np.testing.assert_allclose(news.mean(0), config.growth, atol=0.002)
    np.testing.assert_allclose(news.var(0), history.var(0, ddof=1), rtol=0.12 if kind == "filtered" else 0.04)
    np.testing.assert_allclose(u.mean(0), 0.0, atol=0.02)
    rows = config.volatility.residuals
    np.testing.assert_allclose(np.cov(u.T), np.corrcoef(rows.T), atol=0.06)
    kurtosis = ((news - news.mean(0)) ** 4).mean(0) / news.var(0) ** 2 - 3.0
    assert (np.abs(kurtosis) < 0.15).all() if kind == "gaussian" else (kurtosis > 0.5).all()


@pytest.mark.parametrize("kind", KINDS)
def test_variance_follows_the_news(kind):
    """h' = (1 − α − β) σ² + α e² + β h, at most the cap; constant where there is no GARCH."""
    config = MarketConfig(fundamentals=kind)
    model, found = config.volatility, path(Market(config), 50)
    h, error = found["news_variance"][:, :-1], found["next_news"][:, :-1] - config.growth
    if kind == "filtered":
        expected = (1.0 - model.alpha - model.beta) * model.variance + model.alpha * error**2 + model.beta * h
        expected = np.minimum(expected, LARGEST_VARIANCE * model.variance)
    else:
        expected = np.broadcast_to(model.variance, h.shape)
        assert not model.alpha.any()
        assert not model.beta.any()
    np.testing.assert_allclose(found["news_variance"][:, 1:], expected, rtol=1e-12)
    np.testing.assert_array_equal(found["news"][:, 1:], found["next_news"][:, :-1])


def test_variance_is_capped():
    market = Market(MarketConfig())
    f, cap = market.fundamentals, LARGEST_VARIANCE * market.fundamentals.deviation**2
    torch.testing.assert_close(f.next_variance(cap[None], torch.full((1, 3), -3.0, dtype=torch.float64)), cap[None])


def test_variance_is_stationary_from_the_start():
    h = path(Market(MarketConfig()), 1500, 61)["news_variance"] / MarketConfig().volatility.variance
    for level in (0.1, 0.5, 0.9):
        first, later = np.quantile(h[:, 0], level, axis=0), np.quantile(h[:, 60], level, axis=0)
        np.testing.assert_allclose(first, later, rtol=0.12)
    together = [np.corrcoef(np.log(h[:, month]).T)[np.triu_indices(3, 1)] for month in (0, 60)]
    np.testing.assert_allclose(*together, atol=0.12)


def test_months_are_independent():
    """Given their variance, rows follow each other as often as chance has it; no moment of one tells of the next."""
    market = Market(MarketConfig())
    u, rows = path(market, 400)["u"], market.fundamentals.residuals.numpy()
    row = ((u[:, :, None] - rows) ** 2).sum(-1).argmin(-1)
    np.testing.assert_allclose(rows[row], u, atol=1e-9)
    n, pairs = len(rows), row[:, 1:].size
    counts = np.bincount(row.ravel(), minlength=n)
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() == pytest.approx(n, abs=5.0 * np.sqrt(2.0 * n))
    for lag in (1, 2, 6):
        ahead = (row[:, lag:] - row[:, :-lag]) % n
        after = np.bincount(ahead.ravel(), minlength=n)
        assert after.max() < ahead.size / n + 5.5 * np.sqrt(ahead.size / n)
        for power in (1, 2, 3):
            one, other = (np.clip(x**power, -8.0, 8.0).reshape(-1, 3) for x in (u[:, :-lag], u[:, lag:]))
            assert np.abs(np.corrcoef(one.T, other.T)[:3, 3:]).max() < 4.5 / np.sqrt(pairs)


def test_volatility_clusters_in_the_filtered_kind_only():
    for kind, low, high in (("filtered", 0.05, 0.4), ("bootstrap", -0.02, 0.02), ("gaussian", -0.02, 0.02)):
        market = Market(MarketConfig(fundamentals=kind))
        size = np.abs(path(market, 400)["next_news"] - market.config.growth)
        size = size - size.mean((0, 1))
        correlation = (size[:, 1:] * size[:, :-1]).mean((0, 1)) / (size**2).mean((0, 1))
        assert low < correlation.mean() < high, kind


def test_a_market_of_arrays_has_the_same_news():
    one, other = Market(MarketConfig()), Market(MarketConfig(), arrays="numpy")
    streams = [[np.random.default_rng(seed) for seed in range(6)] for _ in range(2)]
    states = [m.initial(m.draw_initial_shocks(g)) for m, g in zip((one, other), streams, strict=True)]
    for _ in range(24):
        for name in ("news", "next_news", "news_variance", "signal", "regime"):
            np.testing.assert_allclose(getattr(states[1], name), getattr(states[0], name), rtol=0.0, atol=1e-15)
        states = [
            m.transition(s, None, m.draw_shocks(g))[0] for m, s, g in zip((one, other), states, streams, strict=True)
        ]


def test_every_row_of_the_history_comes_up():
    market = Market(MarketConfig(history="all", fundamentals="bootstrap"))
    u, rows = path(market, 256, 60)["u"], market.fundamentals.residuals.numpy()
    assert len(rows) == 395
    found = ((u.reshape(-1, 1, 3) - rows) ** 2).sum(-1).argmin(-1)
    assert set(found) == set(range(395))
    returns = market.config.fundamental_returns  # with constant volatility these are the history's months
    np.testing.assert_allclose(path(market, 1, 2)["next_news"][0, 0], returns[found[0]], atol=2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_signal_explains_its_share_in_one_regime_and_nothing_in_the_other(kind):
    market = Market(MarketConfig(fundamentals=kind, signal_r2=0.25))
    found = path(market, 500)
    deviation = np.sqrt(found["news_variance"])
    signal, u = found["signal"] / deviation, found["u"]
    for regime, r2 in ((1.0, 0.25), (0.0, 0.0)):
        chosen = found["regime"] == regime
        for asset in range(3):
            correlation = np.corrcoef(u[chosen][:, asset], signal[chosen][:, asset])[0, 1]
            assert correlation**2 == pytest.approx(r2, abs=0.03)
        np.testing.assert_allclose(signal[chosen].std(0), 1.0, atol=0.05)  # its spread does not give the regime away


def test_regimes_last_as_long_as_configured():
    regime = path(Market(MarketConfig(regime_switch=1.0 / 9.0)), 500)["regime"]
    assert (regime[:, 1:] != regime[:, :-1]).mean() == pytest.approx(1.0 / 9.0, abs=0.005)
    assert regime[:, 0].mean() == pytest.approx(0.5, abs=0.06)
