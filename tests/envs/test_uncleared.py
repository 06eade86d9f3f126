"""A market that does not clear is truncated alone; a reward that raises leaves everything as it was."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from hmgym.agents import ConstantPolicy, evaluate
from hmgym.agents.sb3 import MarketVecEnv
from hmgym.envs import make_markets, parallel_env
from hmgym.envs.batch import MarketBatch
from hmgym.market import Market

SMALL: dict[str, Any] = {"n_assets": 2, "n_investors": 9}
WARNING = r"the market did not clear \(residual .*\)"
MARKETS, PERIOD, STUCK = 4, 5, 2


class NotCleared:
    """An outcome of which one market did not clear: NaN in its row, as the market marks it."""

    def __init__(self, outcome: Any, row: int) -> None:
        self._outcome = outcome
        self.converged = outcome.converged.copy()
        self.converged[row] = False
        self.reward = outcome.reward.copy()
        self.reward[row] = np.nan

    def __getattr__(self, name: str) -> Any:
        return getattr(self._outcome, name)


def stick(batch: MarketBatch, row: int, period: int) -> None:
    """From here on the market `row` of the batch does not clear in its period of this number, counted over all."""
    transition, calls = batch._runs.transition, 0

    def failing(*arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        state, outcome = transition(*arguments, **keywords)
        if calls != period:
            return state, outcome
        rows = np.array([row])
        lost = state.select(rows)
        lost = dataclasses.replace(lost, prices=lost.prices * np.nan, wealth=lost.wealth * np.nan)
        return state.with_rows(rows, lost), NotCleared(outcome, row)

    batch._runs.transition = failing  # type: ignore[method-assign]


@pytest.mark.parametrize(("mode", "n_learners"), [("NextStep", 1), ("SameStep", 1), ("Disabled", 1), ("SameStep", 3)])
def test_the_other_markets_do_not_notice(mode: str, n_learners: int) -> None:
    arguments: dict[str, Any] = {"autoreset_mode": mode, "n_learners": n_learners, "max_episode_steps": 33, **SMALL}
    env, twin = (make_markets("hmgym/Leverage-v0", MARKETS, **arguments) for _ in range(2))
    stick(env._batch, STUCK, PERIOD)  # type: ignore[arg-type]
    stuck = np.arange(env.num_envs) // n_learners == STUCK
    first = env.reset(seed=1)
    np.testing.assert_array_equal(first[0], twin.reset(seed=1)[0])
    before = first[0]
    twin.action_space.seed(0)
    for period in range(1, 60):  # over the refill of the shocks and the end of the others' episodes
        actions = twin.action_space.sample()
        if period == PERIOD:
            with pytest.warns(UserWarning, match=f"market {STUCK}: {WARNING}; its episode is truncated"):
                ours = env.step(actions)
            assert ours[3][stuck].all()
            assert not ours[2][stuck].any()
            np.testing.assert_array_equal(ours[1][stuck], np.zeros(n_learners))
            last, info = (
                (np.stack(ours[4]["final_obs"][stuck]), ours[4]["final_info"])
                if mode == "SameStep"
                else (ours[0][stuck], ours[4])
            )
            np.testing.assert_array_equal(last, before[stuck])
            np.testing.assert_array_equal(info["not_cleared"], stuck)
        else:
            ours = env.step(actions)
            assert "not_cleared" not in ours[4]
        theirs = twin.step(actions)
        for mine, other in zip(ours[:4], theirs[:4], strict=True):
            np.testing.assert_array_equal(mine[~stuck], other[~stuck])
        for name in ("prices", "holdings", "unit_value", "wealth", "residual", "active_limits"):
            np.testing.assert_array_equal(ours[4][name][~stuck], theirs[4][name][~stuck])
        assert np.isfinite(ours[0]).all()
        assert np.isfinite(ours[1]).all()
        before = ours[0]
        if mode == "Disabled" and period == PERIOD:
            before, _ = env.reset(options={"reset_mask": stuck})
        if period in (PERIOD, PERIOD + 1):
            begun = {"NextStep": PERIOD + 1, "SameStep": PERIOD, "Disabled": PERIOD}[mode]
            assert int(env.state.month[STUCK]) == (period - begun if period >= begun else PERIOD - 1)
        if mode == "Disabled" and ours[3].any() and period != PERIOD:
            assert period == 33  # the others; the stuck market began anew and goes on
            assert not ours[3][stuck].any()
            break


def test_the_single_environment_is_truncated() -> None:
    env = gym.make("hmgym/Leverage-v0", **SMALL)
    stick(env.unwrapped._batch, 0, 3)  # type: ignore[attr-defined]
    env.reset(seed=0)
    action = np.zeros(1, np.float32)
    env.step(action)
    last, *_ = env.step(action)
    with pytest.warns(UserWarning, match=f"{WARNING}: the episode is truncated"):
        observation, reward, terminated, truncated, info = env.step(action)
    np.testing.assert_array_equal(observation, last)
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert info["not_cleared"]
    _, info = env.reset()
    assert "not_cleared" not in info
    assert np.isfinite(env.step(action)[1])


def test_all_learners_of_a_parallel_environment_are_truncated() -> None:
    env = parallel_env(n_learners=2, **SMALL)
    stick(env._batch, 0, 2)
    env.reset(seed=0)
    actions = dict.fromkeys(env.agents, np.zeros(1, np.float32))
    last, *_ = env.step(actions)
    with pytest.warns(UserWarning, match=f"{WARNING}: the episode is truncated"):
        observations, rewards, terminated, truncated, infos = env.step(actions)
    for agent in env.possible_agents:
        np.testing.assert_array_equal(observations[agent], last[agent])
        assert (rewards[agent], terminated[agent], truncated[agent]) == (0.0, False, True)
        assert infos[agent]["not_cleared"]
    assert env.agents == []


def test_the_adapter_says_it_in_the_info_of_the_last_step() -> None:
    env = MarketVecEnv("hmgym/Leverage-v0", MARKETS, **SMALL)
    stick(env.markets._batch, STUCK, 2)  # type: ignore[arg-type]
    env.seed(0)
    env.reset()
    actions = np.zeros((MARKETS, 1), np.float32)
    last, *_ = env.step(actions)
    with pytest.warns(UserWarning, match=WARNING):
        _, _, done, infos = env.step(actions)
    assert done.tolist() == [row == STUCK for row in range(MARKETS)]
    assert infos[STUCK]["not_cleared"]
    assert infos[STUCK]["TimeLimit.truncated"]
    np.testing.assert_array_equal(infos[STUCK]["terminal_observation"], last[STUCK])
    assert not env.step(actions)[2].any()


def test_its_mark_is_not_measured() -> None:
    markets = make_markets("hmgym/Leverage-v0", MARKETS, autoreset_mode="Disabled", **SMALL)
    stick(markets._batch, STUCK, 2)  # type: ignore[arg-type]
    markets.reset(seed=0)
    actions = np.ones((MARKETS, 1), np.float32)
    markets.step(actions)
    with pytest.warns(UserWarning, match=WARNING):
        markets.step(actions)
    gain = markets.closing_measures()["terminal_mark_gain"]
    assert gain[STUCK] == 0.0
    assert (np.delete(gain, STUCK) != 0.0).all()


def test_a_new_recording_goes_on_over_a_market_that_does_not_clear() -> None:
    env = make_markets("hmgym/Leverage-v0", 2, render_mode="rgb_array", autoreset_mode="Disabled", **SMALL)
    stick(env._batch, 1, 2)  # type: ignore[arg-type]
    env.reset(seed=0)
    env.step(np.zeros((2, 1), np.float32))
    with pytest.warns(UserWarning, match=WARNING):
        env.step(np.zeros((2, 1), np.float32))
    prices = env.episode(1).prices
    np.testing.assert_array_equal(prices[2], prices[1])
    assert not np.array_equal(env.episode(0).prices[2], env.episode(0).prices[1])


class Capricious:
    """The change of log unit value, but in the periods that are named it raises."""

    def __init__(self, *periods: int) -> None:
        self.periods, self.calls = periods, 0

    def __call__(self, previous: Any, outcome: Any, state: Any) -> Any:
        self.calls += 1
        if self.calls in self.periods:
            raise ArithmeticError("not today")
        return outcome.reward[:, 0]


# The first, the middle and, after 30 periods of shocks drawn ahead, the first of the next draws.
@pytest.mark.parametrize("period", [1, 4, 31])
@pytest.mark.parametrize("name", ["single", "vector", "parallel"])
def test_a_reward_that_raises_leaves_the_market_where_it_was(name: str, period: int) -> None:
    def run(reward: Any, again: bool) -> list[Any]:
        arguments: dict[str, Any] = {"reward": reward, "render_mode": "rgb_array", **SMALL}
        env: Any
        if name == "single":
            env, action = gym.make("hmgym/Leverage-v0", **arguments), np.zeros(1, np.float32)
        elif name == "vector":
            env, action = make_markets("hmgym/Leverage-v0", 3, **arguments), np.zeros((3, 1), np.float32)
        else:
            env, action = parallel_env(n_learners=1, **arguments), {"learner_0": np.zeros(1, np.float32)}
        rows: list[Any] = [env.reset(seed=3)[0]]
        for count in range(1, 36):
            if again and count == period:
                with pytest.raises(ArithmeticError, match="not today"):
                    env.step(action)
            rows += [*env.step(action)[:2]]
        inner = env if name == "parallel" else env.unwrapped
        rows.append((inner.episode(0) if name == "vector" else inner.episode()).prices)
        return rows

    for mine, other in zip(run(Capricious(period), True), run(Capricious(), False), strict=True):
        if isinstance(mine, dict):
            mine, other = mine["learner_0"], other["learner_0"]
        # The clearing that came to nothing is where the next one starts, which moves results by rounding.
        np.testing.assert_allclose(
            mine, other, rtol=1e-12, atol=3e-7 if np.asarray(mine).dtype == np.float32 else 1e-12
        )


def test_a_reward_that_is_not_finite_leaves_the_market_where_it_was() -> None:
    values = iter([1.0, np.nan, 2.0])
    env = gym.make("hmgym/Leverage-v0", reward=lambda *_: np.full(1, next(values)), **SMALL).unwrapped
    env.reset(seed=0)
    action = np.zeros(1, np.float32)
    env.step(action)
    before = env.state
    with pytest.raises(ValueError, match="`reward` must be finite"):
        env.step(action)
    assert torch.equal(env.state.month, before.month)
    assert torch.equal(env.state.prices, before.prices)
    assert env.step(action)[1] == 2.0


def test_an_evaluation_takes_the_episode_as_it_was_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    transition, calls = Market.transition, 0

    def failing(market: Any, *arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        state, outcome = transition(market, *arguments, **keywords)
        return (state, NotCleared(outcome, 1)) if calls == 3 else (state, outcome)

    monkeypatch.setattr(Market, "transition", failing)
    with pytest.warns(UserWarning, match=f"market 1: {WARNING}"):
        run = evaluate(
            ConstantPolicy([0.0]), "hmgym/Leverage-v0", episodes=3, env_kwargs={"max_episode_steps": 6, **SMALL}
        )
    assert run.lengths.tolist() == [6, 3, 6]
    assert np.isfinite(run.returns).all()
    assert run.measures["terminal_mark_gain"][1] == 0.0
