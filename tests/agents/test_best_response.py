"""What a learner gains by deviating from what all play."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hmgym.agents import evaluate
from hmgym.agents.analytic_policy_gradient import WindowSettings
from hmgym.agents.best_response import OneDeviates, best_response
from hmgym.agents.networks import SquashedGaussianPolicy
from hmgym.envs import make_markets

BELIEFS = "hmgym/Beliefs-v0"
SMALL = {"n_assets": 2, "n_investors": 10, "max_episode_steps": 24}


def _untrained(n_learners: int) -> SquashedGaussianPolicy:
    torch.manual_seed(0)
    markets = make_markets(BELIEFS, 1, n_learners=n_learners, autoreset_mode="SameStep", **SMALL)
    return SquashedGaussianPolicy(markets.observation_map.size, markets.action_map.size)


def test_a_learner_gains_from_an_untrained_policy_and_nothing_without_training() -> None:
    policy = _untrained(3)
    settings = WindowSettings(horizon=8, learning_rate=5e-3)
    found = best_response(
        policy,
        BELIEFS,
        n_learners=3,
        timesteps=48_000,
        num_markets=32,
        episodes=128,
        settings=settings,
        env_kwargs=SMALL,
    )
    assert found.gain.low > 0.0
    none = best_response(policy, BELIEFS, n_learners=3, timesteps=0, episodes=8, env_kwargs=SMALL)
    assert none.gain.mean == 0.0
    assert none.env_steps == 0


def test_one_deviates() -> None:
    deviant, others = _untrained(2), _untrained(2)
    observation = np.random.default_rng(0).uniform(-1.0, 1.0, (6, 24)).astype(np.float32)
    size = deviant.normalizer.mean.shape[0]
    observation = np.resize(observation, (6, size))
    action, _ = OneDeviates(deviant, others, 2).predict(observation, deterministic=True)
    np.testing.assert_array_equal(action[::2], deviant.predict(observation[::2], deterministic=True)[0])
    np.testing.assert_allclose(action[1::2], others.predict(observation[1::2], deterministic=True)[0], atol=1e-7)


def test_seats_average_to_the_whole_evaluation() -> None:
    policy = _untrained(2)
    kwargs = {**SMALL, "n_learners": 2}
    whole = evaluate(policy, BELIEFS, episodes=6, env_kwargs=kwargs)
    seats = [evaluate(policy, BELIEFS, episodes=6, env_kwargs=kwargs, seat=seat) for seat in range(2)]
    np.testing.assert_allclose(0.5 * (seats[0].returns + seats[1].returns), whole.returns, rtol=1e-12)
    with pytest.raises(ValueError, match="`seat` must be one of 2 learners"):
        evaluate(policy, BELIEFS, episodes=2, env_kwargs=kwargs, seat=2)
    with pytest.raises(ValueError, match="`policy` must be for observations"):
        best_response(SquashedGaussianPolicy(4, 2), BELIEFS, n_learners=2, env_kwargs=SMALL)
