"""What the signal tells of next month's news: the posterior against brute force, draws, and calibration."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from hmgym.market import Market, MarketConfig


def uniforms(market: Market, n: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random((n, market.news_posterior.draws)))


def months(market: Market, n_markets: int, n_months: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Signals, regimes and the news they were about, of many markets, all months in one row."""
    generators = [np.random.default_rng(seed + i) for i in range(n_markets)]
    state = market.initial(market.draw_initial_shocks(generators))
    f = market.fundamentals
    row, left, regime, news, signal = state.block_row, state.block_left, state.regime, state.next_news, state.signal
    seen: dict[str, list[torch.Tensor]] = {"signal": [], "regime": [], "news": [], "row": [], "left": []}
    for _ in range(n_months):
        for name, value in (("signal", signal), ("regime", regime), ("news", news), ("row", row), ("left", left)):
            seen[name].append(value)
        shocks = market.draw_shocks(generators)
        row, left = f.advance(row, left, shocks.block)
        news = f.news(row, shocks.news)
        regime = f.next_regime(regime, shocks.regime)
        signal = f.signal(regime, news, shocks.signal)
    return {name: torch.cat(values) for name, values in seen.items()}


def test_probabilities_are_those_of_bayes_rule():
    config = MarketConfig(signal_r2=0.4)
    market = Market(config)
    returns, deviation = config.fundamental_returns, market.fundamentals.deviation.numpy()
    signal = np.array([[0.05, -0.1, 0.02], [0.2, 0.0, 0.1]])
    found = market.news_posterior.probabilities(torch.from_numpy(signal), torch.tensor([1.0, 1.0], dtype=torch.float64))
    blocks = np.zeros(len(returns))
    for start in range(len(returns) - config.block_months + 1):
        blocks[start : start + config.block_months] += 1
    for market_row in range(2):
        weight = blocks.copy()
        for row, news in enumerate(returns):
            for asset in range(3):
                sd = np.sqrt(0.6) * deviation[asset]
                error = signal[market_row, asset] - np.sqrt(0.4) * (news[asset] - config.growth)
                weight[row] *= np.exp(-0.5 * (error / sd) ** 2) / sd
        np.testing.assert_allclose(found[market_row].numpy(), weight / weight.sum(), rtol=1e-10, atol=1e-300)


def test_prior_is_how_often_rows_come_up():
    """Rows, and the months left in their block, of an uninformed draw are distributed as the market's own."""
    market = Market(MarketConfig(n_investors=4))
    seen = months(market, 400, 120)
    n = len(seen["row"])
    state = market.initial(market.draw_initial_shocks([np.random.default_rng(i) for i in range(4)]))
    state = state.select(torch.arange(n) % 4)
    state = dataclasses.replace(state, regime=torch.zeros(n, dtype=torch.float64))
    imagined = market.imagine(state, uniforms(market, n))
    own, drawn = (np.bincount(x.numpy(), minlength=395) for x in (seen["row"], imagined.block_row))
    assert (np.abs(own - drawn) < 6.0 * np.sqrt(own + drawn)).all()
    np.testing.assert_allclose(np.bincount(imagined.block_left.numpy()) / n, 1.0 / 6.0, atol=0.012)
    start = imagined.block_row + imagined.block_left - 5
    assert start.min() >= 0
    assert start.max() <= 395 - 6
    assert torch.equal(imagined.next_news, market.fundamentals.returns[imagined.block_row])


@pytest.mark.parametrize("kind", ["bootstrap", "gaussian"])
@pytest.mark.parametrize("r2", [0.0, 0.25, 1.0])
def test_moments_are_those_of_the_draws(kind: str, r2: float):
    market = Market(MarketConfig(fundamentals=kind, signal_r2=r2))
    n = 20_000
    news = market.fundamentals.returns[17]
    signal = r2**0.5 * (news - 0.005) + (1.0 - r2) ** 0.5 * torch.tensor([0.03, -0.05, 0.02], dtype=torch.float64)
    for regime in (0.0, 1.0):
        regimes = torch.full((1,), regime, dtype=torch.float64)
        mean, covariance = (x[0].numpy() for x in market.news_posterior.moments(signal[None], regimes))
        drawn = market.news_posterior.draw(signal.expand(n, 3), regimes.expand(n), uniforms(market, n))[0].numpy()
        error = 4.5 * np.sqrt(np.diag(covariance) / n) + 1e-7
        assert (np.abs(drawn.mean(0) - mean) < error).all()
        np.testing.assert_allclose(np.cov(drawn.T), covariance, rtol=0.1, atol=0.06 * covariance.max() + 1e-12)
        if regime == 0.0 or r2 == 0.0:  # nothing is learned
            # But for the ends of the history, which fewer blocks hold.
            np.testing.assert_allclose(mean, 0.005, atol=5e-4)
            np.testing.assert_allclose(covariance, market.fundamentals.covariance, rtol=0.03, atol=3e-5)
        elif r2 == 1.0:  # everything is
            np.testing.assert_allclose(drawn, np.broadcast_to(news, drawn.shape), atol=1e-7)


def test_gaussian_posterior_agrees_with_weighted_draws_of_the_prior():
    market = Market(MarketConfig(fundamentals="gaussian", signal_r2=0.5))
    f = market.fundamentals
    normals = torch.from_numpy(np.random.default_rng(0).normal(size=(400_000, 3)))
    news = f.news(torch.zeros(len(normals), dtype=torch.int64), normals)
    signal = torch.tensor([[0.04, -0.06, 0.01]], dtype=torch.float64)
    error = (signal - 0.5**0.5 * (news - 0.005)) / (0.5**0.5 * f.deviation)
    weight = torch.softmax(-0.5 * (error**2).sum(-1), -1)
    mean = weight @ news
    covariance = (news - mean).T @ (weight[:, None] * (news - mean))
    found_mean, found_covariance = market.news_posterior.moments(signal, torch.ones(1, dtype=torch.float64))
    torch.testing.assert_close(found_mean[0], mean, atol=1e-3, rtol=0.0)
    torch.testing.assert_close(found_covariance[0], covariance, atol=1e-4, rtol=0.03)


@pytest.mark.parametrize("kind", ["bootstrap", "gaussian"])
@pytest.mark.parametrize("regime", [0.0, 1.0])
def test_calibration(kind: str, regime: float):
    """Posterior means are unbiased, also given the forecast, and 80 % intervals of the draws hold 80 % of the news."""
    market = Market(MarketConfig(fundamentals=kind, n_investors=4))
    seen = months(market, 1000, 8)
    chosen = seen["regime"] == regime
    news, signal, regimes = (seen[name][chosen] for name in ("news", "signal", "regime"))
    mean, covariance = market.news_posterior.moments(signal, regimes)
    error = (news - mean).numpy()
    n = len(error)
    spread = error.std(0) / np.sqrt(n)
    # Months of a block come together, which widens the error of the mean a little.
    assert (np.abs(error.mean(0)) < 5.0 * spread).all()
    if regime == 1.0:
        slope = (mean * news).sum(0) - mean.sum(0) * news.mean(0)
        slope = slope / ((mean - mean.mean(0)) ** 2).sum(0)
        np.testing.assert_allclose(slope.numpy(), 1.0, atol=0.12)
    np.testing.assert_allclose((error**2).mean(0), torch.diagonal(covariance, dim1=1, dim2=2).mean(0), rtol=0.1)
    n, samples = 1500, 9
    repeated = torch.arange(n).repeat_interleave(samples)
    drawn = market.news_posterior.draw(signal[repeated], regimes[repeated], uniforms(market, n * samples))[0]
    below = (drawn.reshape(n, samples, 3) < news[:n, None]).sum(1)  # uniform on 0 … 9
    inside = ((below >= 1) & (below < 9)).double().mean(0)
    np.testing.assert_allclose(inside, 0.8, atol=0.04)


@pytest.mark.parametrize("kind", ["bootstrap", "gaussian"])
def test_imagine_reads_nothing_hidden(kind: str, start, same):
    market, _, state = start(16, fundamentals=kind)
    other = dataclasses.replace(
        state,
        next_news=state.next_news + 1.0,
        block_row=(state.block_row + 7) % 100,
        block_left=(state.block_left + 1) % 6,
    )
    numbers = uniforms(market, 16)
    one = market.imagine(state, numbers)
    same(one, market.imagine(other, numbers))
    assert not torch.equal(one.next_news, state.next_news)
    same(
        dataclasses.replace(one, next_news=state.next_news, block_row=state.block_row, block_left=state.block_left),
        state,
    )


def test_larger_uniforms_draw_better_months(start):
    market, _, state = start(1)
    n = 50
    numbers = uniforms(market, n)
    numbers[:, 0] = torch.arange(n) / n
    imagined = market.imagine(state.select(torch.zeros(n, dtype=torch.int64)), numbers)
    assert bool((imagined.next_news.mean(-1).diff() >= 0.0).all())


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (torch.zeros(3, 5, dtype=torch.float64), r"`uniforms` must be a float64 tensor of shape \(4, 5\), got"),
        (torch.zeros(4, 5), "`uniforms` must be a float64 tensor"),
        (np.zeros((4, 5)), "`uniforms` must be a float64 tensor"),
        (torch.ones(4, 5, dtype=torch.float64), r"`uniforms` must lie in \[0, 1\), got values from 1 to 1"),
        (torch.full((4, 5), torch.nan, dtype=torch.float64), r"`uniforms` must lie in \[0, 1\), got"),
    ],
)
def test_bad_uniforms(numbers, message: str, start):
    market, _, state = start(4)
    with pytest.raises(ValueError, match=message):
        market.imagine(state, numbers)
