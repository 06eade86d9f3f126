"""The look-up of the history: it finds rows, reads nothing hidden, and earns nothing by it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hmgym.agents.evaluation import evaluate
from hmgym.agents.lookup import HistoryLookup
from hmgym.envs import make_markets

SMALL = {"n_assets": 2, "n_investors": 8}
IDS = ["hmgym/Leverage-v0", "hmgym/Beliefs-v0", "hmgym/LeverageBeliefs-v0"]


def states(count: int, months: int):
    markets = make_markets("hmgym/Beliefs-v0", count, **SMALL)
    markets.reset(seed=0)
    for _ in range(months):
        yield markets.state
        markets.advance(np.zeros(markets.action_space.shape, np.float32))
    markets.close()


def test_it_finds_the_row_and_expects_the_next():
    policy = HistoryLookup("hmgym/Beliefs-v0", **SMALL)
    volatility, hits, last = policy._config.volatility, [], None
    for state in states(16, 6):
        after = policy.expected(state)
        if last is not None:  # by now it knows the variance that this month's news had
            u = (np.asarray(last.next_news) - policy._config.growth) / np.sqrt(np.asarray(last.news_variance))
            row = ((u[:, None] - volatility.residuals) ** 2).sum(-1).argmin(-1)
            hits.append(after == np.roll(volatility.residuals, -1, axis=0)[row])
        last = state
    assert np.all(hits)


@pytest.mark.parametrize("env_id", IDS)
def test_actions(env_id):
    policy = HistoryLookup(env_id, **SMALL)
    size = make_markets(env_id, 1, **SMALL).action_map.size
    for state in states(8, 2):
        other = dataclasses.replace(state, next_news=state.next_news + 1.0, regime=1.0 - state.regime)
        forgetful = [HistoryLookup(env_id, **SMALL).act(seen) for seen in (state, other)]
        np.testing.assert_array_equal(*forgetful)
        action = policy.act(state)
        assert action.shape == (8, size)
        assert (np.abs(action) <= 1.0).all()


def test_a_permuted_table_gambles_too():
    policy = HistoryLookup("hmgym/Beliefs-v0", **SMALL)
    other = policy.permuted(1)
    assert sorted(other._after) == sorted(policy._after)
    assert (other._after != policy._after).mean() > 0.9
    state = next(states(8, 1))
    assert not np.array_equal(policy.act(state), other.act(state))
    np.testing.assert_array_equal(other.act(state), policy.permuted(1).act(state))
    found = evaluate(policy, "hmgym/Beliefs-v0", episodes=2, env_kwargs={**SMALL, "max_episode_steps": 3})
    assert np.isfinite(found.returns).all()
