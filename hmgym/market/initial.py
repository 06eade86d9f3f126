"""The first state of a market, from its initial shocks."""

from __future__ import annotations

import torch
from torch import Tensor

from hmgym.investors import Population
from hmgym.market.config import MarketConfig
from hmgym.market.fundamentals import Fundamentals
from hmgym.market.shocks import InitialShocks
from hmgym.market.state import ACCOUNTS, MarketState


def initial_state(
    config: MarketConfig, population: Population, fundamentals: Fundamentals, shocks: InitialShocks
) -> MarketState:
    """E markets at the start: everybody holds the same portfolio, in proportion to its target wealth.

    Private errors and sentiment come from their stationary distributions, trends from the mean growth, and the first
    block of history is entered anywhere. Prices are fundamental values times exp(mispricing), whose mean is, unless
    configured, what `Population.required_discount` expects.
    """
    beliefs = config.population
    n_markets, n_learners = shocks.regime.shape[0], config.n_learners
    device = shocks.regime.device
    share = population.draw_target_shares(shocks.wealth)

    passed = fundamentals.phase(shocks.phase)
    row = fundamentals.block_start(shocks.block[:, 0]) + passed
    left = config.block_months - 1 - passed
    news = fundamentals.news(row, shocks.news[:, 0])
    row, left = fundamentals.advance(row, left, shocks.block[:, 1])
    next_news = fundamentals.news(row, shocks.news[:, 1])
    regime = fundamentals.first_regime(shocks.regime)

    mean: float | Tensor
    if config.initial_mispricing is None:
        mean = -population.required_discount(config.cash_ratio)
    else:
        mean = config.initial_mispricing
    prices = config.initial_value * torch.exp(mean + config.initial_mispricing_sd * shocks.mispricing)
    supply = torch.full_like(prices, config.shares)
    holdings = share.unsqueeze(-1) * supply.unsqueeze(1)
    cash = share * (config.cash_ratio * (supply * prices).sum(-1, keepdim=True))
    return MarketState(
        month=torch.zeros(n_markets, dtype=torch.int64, device=device),
        prices=prices,
        cash=cash,
        holdings=holdings,
        wealth=cash + (holdings * prices.unsqueeze(1)).sum(-1),
        unit_value=torch.ones(n_markets, n_learners, dtype=torch.float64, device=device),
        ruined=torch.zeros_like(cash, dtype=torch.bool),
        balances=torch.zeros(n_markets, len(ACCOUNTS), dtype=torch.float64, device=device),
        supply=supply,
        log_value=torch.log(torch.full_like(prices, config.initial_value)) + news,
        news=news,
        signal=fundamentals.signal(regime, next_news, shocks.signal),
        regime=regime,
        last_return=torch.zeros_like(prices),
        variance=(fundamentals.deviation * fundamentals.deviation).expand_as(prices).clone(),
        trend=torch.full_like(holdings, config.growth),
        error=population.error_innovation / (1.0 - beliefs.error_persistence**2) ** 0.5 * shocks.error,
        sentiment=population.sentiment_innovation / (1.0 - beliefs.sentiment_persistence**2) ** 0.5 * shocks.sentiment,
        target_share=share,
        traits=population.draw_traits(shocks.traits),
        next_news=next_news,
        block_row=row,
        block_left=left,
    )
