"""What the signal tells of next month's news: the posterior against brute force, draws, and calibration."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from hmgym.market import Market, MarketConfig


def uniforms(market: Market, n: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random((n, market.news_posterior.draws)))


KINDS = ["filtered", "bootstrap", "gaussian"]
GROWTH = MarketConfig().growth


def months(market: Market, n_markets: int, n_months: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Signals, regimes, variances and the news they were about, of many markets, all months in one row."""
    generators = [np.random.default_rng(seed + i) for i in range(n_markets)]
    state = market.initial(market.draw_initial_shocks(generators))
    seen: dict[str, list[torch.Tensor]] = {"signal": [], "regime": [], "next_news": [], "news_variance": []}
    for _ in range(n_months):
        for name, values in seen.items():
            values.append(getattr(state, name))
        state = dataclasses.replace(state, **market.fundamentals.move_on(state, market.draw_shocks(generators)))
    return {name: torch.cat(values) for name, values in seen.items()}


@pytest.mark.parametrize("kind", ["filtered", "bootstrap"])
def test_probabilities_are_those_of_bayes_rule(kind: str):
    """In units of money, row by row: each row would be other news in each market."""
    market = Market(MarketConfig(signal_r2=0.4, fundamentals=kind))
    rows = market.fundamentals.residuals.numpy()
    signal = np.array([[0.05, -0.1, 0.02], [0.2, 0.0, 0.1], [0.05, -0.1, 0.02]])
    variance = np.array([[0.01, 0.02, 0.002], [0.004, 0.03, 0.01], [0.02, GROWTH, 0.001]])
    regime = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    given = torch.from_numpy(signal), regime, torch.from_numpy(variance)
    found = market.news_posterior.probabilities(*given)
    mean = market.news_posterior.mean(*given)
    for place in range(3):
        weight, news = np.ones(len(rows)), GROWTH + np.sqrt(variance[place]) * rows
        for row in range(len(rows)):
            for asset in range(3):
                sd = np.sqrt(0.6 * variance[place, asset])
                error = signal[place, asset] - np.sqrt(0.4) * (news[row, asset] - GROWTH)
                weight[row] *= np.exp(-0.5 * (error / sd) ** 2) if place < 2 else 1.0
        weight /= weight.sum()
        np.testing.assert_allclose(found[place].numpy(), weight, rtol=1e-9, atol=1e-300)
        np.testing.assert_allclose(mean[place].numpy(), weight @ news, rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("r2", [0.0, 0.25, 1.0])
def test_moments_are_those_of_the_draws(kind: str, r2: float):
    market = Market(MarketConfig(fundamentals=kind, signal_r2=r2))
    n = 20_000
    deviation = torch.tensor([0.06, 0.15, 0.04], dtype=torch.float64)
    u = market.fundamentals.residuals[17]
    noise = torch.tensor([0.3, -0.5, 0.2], dtype=torch.float64)
    signal = deviation * (r2**0.5 * u + (1.0 - r2) ** 0.5 * noise)
    variance = deviation**2
    rows = (
        market.fundamentals.correlation
        if kind == "gaussian"
        else torch.cov(market.fundamentals.residuals.T, correction=0)
    )
    prior = deviation[:, None] * deviation * rows
    for regime in (0.0, 1.0):
        given = signal[None], torch.full((1,), regime, dtype=torch.float64), variance[None]
        mean, covariance = (x[0].numpy() for x in market.news_posterior.moments(*given))
        many = signal.expand(n, 3), given[1].expand(n), variance.expand(n, 3)
        drawn = market.news_posterior.draw(*many, uniforms(market, n)).numpy()
        error = 4.5 * np.sqrt(np.diag(covariance) / n) + 1e-7
        assert (np.abs(drawn.mean(0) - mean) < error).all()
        np.testing.assert_allclose(np.cov(drawn.T), covariance, rtol=0.1, atol=0.06 * covariance.max() + 1e-12)
        if regime == 0.0 or r2 == 0.0:  # nothing is learned
            np.testing.assert_allclose(mean, GROWTH, atol=1e-12)
            np.testing.assert_allclose(covariance, prior, rtol=1e-9)
        elif r2 == 1.0:  # everything is
            np.testing.assert_allclose(drawn, np.broadcast_to(GROWTH + deviation * u, drawn.shape), atol=1e-7)


def test_gaussian_posterior_agrees_with_weighted_draws_of_the_prior():
    market = Market(MarketConfig(fundamentals="gaussian", signal_r2=0.5))
    normals = torch.from_numpy(np.random.default_rng(0).normal(size=(400_000, 3)))
    deviation = torch.tensor([0.06, 0.15, 0.04], dtype=torch.float64)
    news = GROWTH + deviation * market.fundamentals.residual(torch.zeros(len(normals)), normals)
    signal = torch.tensor([[0.04, -0.06, 0.01]], dtype=torch.float64)
    error = (signal - 0.5**0.5 * (news - GROWTH)) / (0.5**0.5 * deviation)
    weight = torch.softmax(-0.5 * (error**2).sum(-1), -1)
    mean = weight @ news
    covariance = (news - mean).T @ (weight[:, None] * (news - mean))
    regime = torch.ones(1, dtype=torch.float64)
    found_mean, found_covariance = market.news_posterior.moments(signal, regime, deviation[None] ** 2)
    torch.testing.assert_close(found_mean[0], mean, atol=1e-3, rtol=0.0)
    torch.testing.assert_close(found_covariance[0], covariance, atol=1e-4, rtol=0.03)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("regime", [0.0, 1.0])
def test_calibration(kind: str, regime: float):
    """Posterior means are unbiased, also given the forecast, and 80 % intervals of the draws hold 80 % of the news."""
    market = Market(MarketConfig(fundamentals=kind, n_investors=4, signal_r2=0.25))
    seen = months(market, 1000, 8)
    chosen = seen["regime"] == regime
    news, *given = (seen[name][chosen] for name in ("next_news", "signal", "regime", "news_variance"))
    deviation = torch.sqrt(given[2])
    mean, covariance = market.news_posterior.moments(*given)
    error, forecast = ((news - mean) / deviation).numpy(), ((mean - GROWTH) / deviation).numpy()
    n = len(error)
    assert (np.abs(error.mean(0)) < 4.5 * error.std(0) / np.sqrt(n)).all()
    if regime == 1.0:
        slope = (forecast * (error + forecast)).sum(0) / (forecast**2).sum(0)
        np.testing.assert_allclose(slope, 1.0, atol=0.12)
    spread = torch.diagonal(covariance, dim1=1, dim2=2) / deviation**2
    np.testing.assert_allclose((error**2).mean(0), spread.mean(0), rtol=0.1)
    n, samples = 1500, 9
    repeated = torch.arange(n).repeat_interleave(samples)
    drawn = market.news_posterior.draw(*(x[repeated] for x in given), uniforms(market, n * samples))
    below = (drawn.reshape(n, samples, 3) < news[:n, None]).sum(1)  # uniform on 0 … 9
    inside = ((below >= 1) & (below < 9)).double().mean(0)
    np.testing.assert_allclose(inside, 0.8, atol=0.04)


@pytest.mark.parametrize("kind", KINDS)
def test_imagine_reads_nothing_hidden(kind: str, start, same):
    market, _, state = start(16, fundamentals=kind)
    other = dataclasses.replace(state, next_news=state.next_news + 1.0)
    numbers = uniforms(market, 16)
    one = market.imagine(state, numbers)
    same(one, market.imagine(other, numbers))
    assert not torch.equal(one.next_news, state.next_news)
    same(dataclasses.replace(one, next_news=state.next_news), state)


def test_larger_uniforms_draw_better_months(start):
    """By the mean at average volatility, which every month has where it is constant."""
    market, _, state = start(1, fundamentals="bootstrap")
    n = 50
    numbers = uniforms(market, n)
    numbers[:, 0] = torch.arange(n) / n
    imagined = market.imagine(state.select(torch.zeros(n, dtype=torch.int64)), numbers)
    assert bool((imagined.next_news.mean(-1).diff() >= 0.0).all())


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (torch.zeros(3, 4, dtype=torch.float64), r"`uniforms` must be a float64 tensor of shape \(4, 4\), got"),
        (torch.zeros(4, 4), "`uniforms` must be a float64 tensor"),
        (np.zeros((4, 4)), "`uniforms` must be a float64 tensor"),
        (torch.ones(4, 4, dtype=torch.float64), r"`uniforms` must lie in \[0, 1\), got values from 1 to 1"),
        (torch.full((4, 4), torch.nan, dtype=torch.float64), r"`uniforms` must lie in \[0, 1\), got"),
    ],
)
def test_bad_uniforms(numbers, message: str, start):
    market, _, state = start(4)
    with pytest.raises(ValueError, match=message):
        market.imagine(state, numbers)
