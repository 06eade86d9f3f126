"""The filter of the hidden regime against Bayes' rule by enumeration, and against the regimes that were there."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy import stats

from hmgym.agents.probes import with_economy
from hmgym.agents.regime_filter import RegimeFilter
from hmgym.envs import make_markets

MONTHS = 5


def observed(kwargs: dict[str, Any], count: int, months: int) -> tuple[Any, list[Any], list[Any]]:
    """The filter, the observations and the states of some markets, month by month."""
    markets = make_markets("hmgym/Leverage-v0", count, hidden_regime=True, **kwargs)
    observation, _ = markets.reset(seed=11)
    seen, states = [observation], [markets.state]
    for _ in range(months - 1):
        seen.append(markets.advance(np.zeros((count, markets.action_map.size))).observation)
        states.append(markets.state)
    return RegimeFilter.of(markets), seen, states


def filtered(found: RegimeFilter, seen: list[Any]) -> np.ndarray:
    state, rows = None, []
    for month, observation in enumerate(seen):
        x, state = found.follow(observation, state, np.full(len(observation), month == 0))
        rows.append(x[:, 0])
    return np.array(rows)


@pytest.mark.parametrize("fundamentals", ["filtered", "gaussian"])
def test_the_posterior_is_that_of_all_paths(fundamentals: str) -> None:
    kwargs = with_economy(
        {"n_assets": 2, "n_investors": 6}, signal_r2=0.3, regime_switch=0.1, fundamentals=fundamentals
    )
    found, seen, states = observed(kwargs, 3, MONTHS)
    got = filtered(found, seen)
    rho, growth = 0.3**0.5, found.growth

    def coming(z: np.ndarray) -> float:
        """p(z | informative)."""
        if found.rows is None:
            covariance = 0.3 * found.correlation + 0.7 * np.eye(2)
            return float(stats.multivariate_normal(np.zeros(2), covariance).pdf(z))
        return float(np.mean([stats.norm.pdf(z, rho * row, 0.7**0.5).prod() for row in found.rows]))

    for market in range(3):
        z = [(s.signal / s.news_variance.sqrt())[market].numpy() for s in states]
        u = [
            ((after.news - growth) / before.news_variance.sqrt())[market].numpy()
            for before, after in itertools.pairwise(states)
        ]
        weights = np.zeros(2)
        for path in itertools.product((0, 1), repeat=MONTHS):
            weight = 0.5
            for month, regime in enumerate(path):
                if month:
                    weight *= 0.1 if regime != path[month - 1] else 0.9
                noise = stats.norm.pdf(z[month]).prod()
                if month < MONTHS - 1:
                    weight *= stats.norm.pdf(z[month], rho * u[month], 0.7**0.5).prod() if regime else noise
                else:
                    weight *= coming(z[month]) if regime else noise
            weights[path[-1]] += weight
        assert got[-1, market] == pytest.approx(weights[1] / weights.sum(), abs=1e-5)


def test_the_posterior_is_calibrated() -> None:
    kwargs = with_economy({"n_investors": 6}, signal_r2=0.5, regime_switch=0.05)
    found, seen, states = observed(kwargs, 256, 40)
    posterior = filtered(found, seen)[10:].ravel()
    regime = np.array([s.regime.numpy() for s in states])[10:].ravel()
    for low, high in ((0.0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.0)):
        chosen = (posterior >= low) & (posterior < high)
        assert chosen.sum() > 200
        assert regime[chosen].mean() == pytest.approx(posterior[chosen].mean(), abs=0.07)
    assert ((posterior - regime) ** 2).mean() < 0.2  # .25 for knowing nothing


def test_an_episode_begins_with_even_odds() -> None:
    found, seen, _ = observed({"n_assets": 2, "n_investors": 6}, 4, 3)
    _, state = found.follow(seen[0], None, np.ones(4, np.bool_))
    _, state = found.follow(seen[1], state, np.zeros(4, np.bool_))
    anew, _ = found.follow(seen[2], state, np.array([True, False, True, False]))
    fresh, _ = found.follow(seen[2], None, np.ones(4, np.bool_))
    assert (anew[::2] == fresh[::2]).all()
    assert (anew[1::2] != fresh[1::2]).all()
