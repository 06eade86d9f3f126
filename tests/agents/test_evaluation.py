from __future__ import annotations

from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from scipy import stats

from hmgym.agents import (
    ConstantPolicy,
    RandomPolicy,
    choose_best_constant,
    constant_grid,
    estimate,
    evaluate,
    evaluate_baselines,
    no_leverage,
    paired_difference,
)
from hmgym.agents.report import record_episode
from hmgym.envs import ActionMap, make_markets
from hmgym.market import MarketConfig

SMALL: dict[str, Any] = {"n_assets": 2, "n_investors": 8, "max_episode_steps": 10}
TWO_AXES: dict[str, Any] = {**SMALL, "leverage_axes": 2}
LEVERAGE = "hmgym/Leverage-v0"


def test_an_episode_is_that_of_the_single_environment() -> None:
    policy = ConstantPolicy([-0.5, 0.25])
    run = evaluate(policy, LEVERAGE, episodes=5, first_seed=40, batch=2, env_kwargs=TWO_AXES)
    for row in range(5):
        env = gym.make(LEVERAGE, **TWO_AXES)
        env.reset(seed=40 + row)
        total = sum(env.step(policy.action)[1] for _ in range(10))
        assert run.returns[row] == pytest.approx(total, abs=1e-12)
    np.testing.assert_array_equal(run.lengths, np.full(5, 10))


def test_batch_does_not_change_the_result() -> None:
    runs = [evaluate(ConstantPolicy([0.0, 0.0]), LEVERAGE, episodes=7, batch=b, env_kwargs=TWO_AXES) for b in (1, 3, 7)]
    np.testing.assert_array_equal(runs[0].returns, runs[1].returns)
    np.testing.assert_array_equal(runs[0].returns, runs[2].returns)


def test_ruin_ends_an_episode() -> None:
    fragile = MarketConfig(n_assets=2, n_investors=8, ruin_fraction=0.95)
    run = evaluate(
        ConstantPolicy([1.0, 1.0]),
        LEVERAGE,
        episodes=16,
        env_kwargs={"config": fragile, "max_episode_steps": 60, "leverage_axes": 2},
    )
    assert run.terminated.any()
    assert (run.lengths[run.terminated] <= 60).all()
    np.testing.assert_allclose(run.returns[run.terminated], np.log(0.95), atol=1e-12)


def test_pairing_removes_what_both_share() -> None:
    first = evaluate(ConstantPolicy([-1.0, -0.5]), LEVERAGE, episodes=24, env_kwargs=TWO_AXES)
    second = evaluate(ConstantPolicy([-1.0, -0.6]), LEVERAGE, episodes=24, env_kwargs=TWO_AXES)
    paired = paired_difference(first, second)
    assert paired.mean == pytest.approx(first.result.mean - second.result.mean)
    assert paired.high - paired.low < 0.5 * (first.result.high - first.result.low)
    other = evaluate(ConstantPolicy([-1.0, -0.6]), LEVERAGE, episodes=24, first_seed=0, env_kwargs=TWO_AXES)
    with pytest.raises(ValueError, match="must have the same seeds"):
        paired_difference(first, other)


@pytest.mark.parametrize("count", [2, 3, 5, 30, 2000])
def test_interval_is_students(count: int) -> None:
    sample = np.random.default_rng(0).normal(1.0, 2.0, count)
    low, _ = stats.t.interval(0.95, count - 1, sample.mean(), stats.sem(sample))
    found = estimate(sample)
    assert found.mean == pytest.approx(sample.mean())
    assert (found.low - found.mean) == pytest.approx(low - sample.mean(), rel=2e-3)
    assert found.ci95 == [found.low, found.high]


@pytest.mark.parametrize("values", [[1.0], [[1.0, 2.0]], [1.0, np.nan]])
def test_estimate_refuses(values: Any) -> None:
    with pytest.raises(ValueError, match="`values` must be"):
        estimate(values)


def test_grids() -> None:
    assert len(constant_grid(ActionMap(n_assets=3, leverage=True))) == 21
    leverage = constant_grid(ActionMap(n_assets=3, leverage=True, leverage_axes=2))
    assert len(leverage) == 49
    assert {tuple(policy.action) for policy in leverage} >= {(-1.0, -1.0), (1.0, 1.0), (0.0, 0.0)}
    beliefs = constant_grid(ActionMap(n_assets=3, beliefs=True, confidence=True))
    assert len(beliefs) == 21
    assert all(np.ptp(policy.action[:3]) == 0.0 and policy.action[3] == 0.0 for policy in beliefs)
    both = constant_grid(ActionMap(n_assets=3, leverage=True, beliefs=True))
    assert len({tuple(policy.action) for policy in both}) == len(both)
    assert len(both) > 21


def test_no_leverage_is_neither_borrowing_nor_short() -> None:
    markets = make_markets(LEVERAGE, 3, **TWO_AXES)
    observation, _ = markets.reset(seed=0)
    policy = no_leverage(markets.action_map)
    for _ in range(5):
        markets.advance(policy(observation))
        weights = markets._batch._outcome.weights[:, 0]
        assert (weights >= -1e-9).all()
        assert (weights <= 1.0 + 1e-6).all()


def test_best_constant_is_the_best_of_the_grid_on_its_own_seeds() -> None:
    seen: list[tuple[int, int]] = []
    choice = choose_best_constant(
        "hmgym/Beliefs-v0",
        screening_episodes=4,
        episodes=6,
        env_kwargs=SMALL,
        progress=lambda a, b: seen.append((a, b)),
    )
    assert seen[-1] == (23, 23)
    assert len(choice.names) == choice.screening.size == 21
    finalists = np.argsort(-choice.screening, kind="stable")[:2]
    assert choice.policy.name in {choice.names[index] for index in finalists}
    alone = choose_best_constant("hmgym/Beliefs-v0", screening_episodes=4, episodes=0, env_kwargs=SMALL)
    assert alone.policy.name == choice.names[int(choice.screening.argmax())]


@pytest.mark.parametrize("env_id", ["hmgym/Leverage-v0", "hmgym/Beliefs-v0"])
def test_baselines_share_the_seeds(env_id: str) -> None:
    choice = choose_best_constant(env_id, screening_episodes=2, episodes=0, env_kwargs=SMALL)
    runs = evaluate_baselines(env_id, episodes=4, env_kwargs=SMALL, choice=choice)
    assert list(runs) == ["random", "no_leverage", "best_constant"]
    assert len({run.first_seed for run in runs.values()}) == 1
    assert choice.first_seed not in {run.first_seed for run in runs.values()}


def test_policies_refuse() -> None:
    with pytest.raises(ValueError, match="`action` must be one row of numbers"):
        ConstantPolicy([2.0])
    with pytest.raises(ValueError, match="`episodes` must be an integer >= 1"):
        evaluate(RandomPolicy(2), LEVERAGE, episodes=0)
    with pytest.raises(ValueError, match="`max_episode_steps` must be a number"):
        evaluate(RandomPolicy(2), LEVERAGE, env_kwargs={"max_episode_steps": None})


def test_random_policy_is_repeatable() -> None:
    observation = np.zeros((3, 5), np.float32)
    np.testing.assert_array_equal(RandomPolicy(2, seed=1)(observation), RandomPolicy(2, seed=1)(observation))


class Recurrent:
    """A policy with the `predict` of sb3-contrib's recurrent ones: its memory is the episode's period."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> Any:
        assert deterministic
        if state is None:
            state = (np.zeros((1, len(observation), 1)),)
        if episode_start is None:
            episode_start = np.zeros(len(observation), np.bool_)
        months = np.where(episode_start[:, None], 0.0, state[0][0])
        actions = np.concatenate([np.sin(months), np.cos(3.0 * months)], axis=1)
        return actions.astype(np.float32), ((months + 1.0)[None],)


def test_the_memory_of_a_recurrent_policy_is_carried() -> None:
    run = evaluate(Recurrent(), LEVERAGE, episodes=5, first_seed=3, batch=2, env_kwargs=TWO_AXES)
    for row in range(5):
        env = gym.make(LEVERAGE, **TWO_AXES)
        env.reset(seed=3 + row)
        actions = [np.array([np.sin(month), np.cos(3.0 * month)], np.float32) for month in range(10)]
        assert run.returns[row] == pytest.approx(sum(env.step(action)[1] for action in actions), abs=1e-12)


def test_the_memory_begins_anew_with_the_episode() -> None:
    """Learners that are ruined take their seats again in a market that goes on, each with a memory of its own."""
    seen: list[Any] = []
    random = np.random.default_rng(0)

    class Recording(Recurrent):
        def predict(self, observation: Any, state: Any = None, episode_start: Any = None, **keywords: Any) -> Any:
            actions, state = super().predict(observation, state, episode_start, **keywords)
            seen.append((observation.copy(), episode_start.copy(), state[0][0, :, 0]))
            return random.uniform(-1.0, 1.0, actions.shape), state

    fragile = MarketConfig(n_assets=2, n_investors=9, n_learners=3, ruin_fraction=0.95)
    evaluate(
        Recording(), LEVERAGE, episodes=2, env_kwargs={"config": fragile, "max_episode_steps": 40, "leverage_axes": 2}
    )
    assert seen[0][1].all()
    unit_value = make_markets(LEVERAGE, 1, config=fragile).observation_map.names.index("log_unit_value")
    for (_, _, before), (observation, starting, after) in pairwise(seen):
        np.testing.assert_array_equal(after, np.where(starting, 1.0, before + 1.0))
        assert (observation[starting, unit_value] == 0.0).all()
    assert sum(int(starting.any() and not starting.all()) for _, starting, _ in seen) > 1


def test_a_recorded_episode_carries_the_memory_too() -> None:
    series = record_episode(Recurrent(), LEVERAGE, seed=4, env_kwargs=TWO_AXES)
    env = gym.make(LEVERAGE, render_mode="rgb_array", **TWO_AXES)
    env.reset(seed=4)
    for month in range(10):
        env.step(np.array([np.sin(month), np.cos(3.0 * month)], np.float32))
    np.testing.assert_array_equal(series.unit_value, env.unwrapped.episode().unit_value)  # type: ignore[attr-defined]
