"""``hmgym/Pool-v0``: the pool's own arithmetic; faces are in the contract."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from hmgym.agents import baselines_of, evaluate
from hmgym.agents.pool_rule import PowerChannelStrategy
from hmgym.agents.report import record_episode
from hmgym.envs import make_markets

ID = "hmgym/Pool-v0"


def test_value_follows_the_invariant_step_by_step() -> None:
    env = gym.make_vec(ID, 16, autoreset_mode="Disabled")
    _, before = env.reset(seed=2)
    env.action_space.seed(1)
    np.testing.assert_allclose(before["value"], 1.0, rtol=1e-12)
    total, first = np.zeros(16), before["reserves"]
    for step in range(60):
        _, reward, terminated, _, after = env.step(env.action_space.sample())
        change = after["weights"] - before["weights"]
        assert np.abs(change).max() <= 0.05 + 1e-12
        np.testing.assert_allclose(after["weights"].sum(-1), 1.0, rtol=1e-12)
        assert after["weights"].min() >= 0.1 / 3.0 - 1e-12
        ratio, w, v = after["prices"] / before["prices"], before["weights"], after["weights"]
        moved = np.exp((w * np.log(ratio)).sum(-1, keepdims=True)) / ratio
        turned = (v / w) / np.exp((v * np.log(v / w)).sum(-1, keepdims=True))
        np.testing.assert_allclose(after["reserves"], before["reserves"] * moved * turned, rtol=1e-10)
        held = after["reserves"] * after["prices"]
        np.testing.assert_allclose(held, after["weights"] * held.sum(-1, keepdims=True), rtol=1e-9)
        np.testing.assert_allclose(after["hold"], (first * after["prices"]).sum(-1), rtol=1e-12)
        total += reward
        assert terminated.all() == (step == 59)
        before = after
    np.testing.assert_allclose(total, np.log(before["value"]), atol=1e-10)


def test_a_reward_over_hold_a_fee_and_drawn_prices() -> None:
    plain, over = (make_markets(ID, 8, simulated=True, reward=name) for name in ("log_value", "over_hold"))
    paid = make_markets(ID, 8, simulated=True, fee=0.01)
    for env in (plain, over, paid):
        env.reset(seed=0)
    action = np.tile([0.5, -0.5, 0.0], (8, 1))
    difference = np.zeros(8)
    for _ in range(60):
        rewards = [env.step(action) for env in (plain, over, paid)]
        difference += rewards[0][1] - rewards[1][1]
    finals: Any = [step[4]["final_info"] if "final_info" in step[4] else step[4] for step in rewards]
    np.testing.assert_allclose(difference, np.log(finals[0]["hold"]), atol=1e-9)
    np.testing.assert_array_equal(finals[0]["prices"], finals[2]["prices"])
    assert (finals[2]["value"] != finals[0]["value"]).all()


def test_what_is_seen_does_not_look_ahead() -> None:
    one, other = (make_markets(ID, 1, autoreset_mode="Disabled") for _ in range(2))
    first, second = one.reset(seed=5)[0], other.reset(seed=5)[0]
    batch: Any = other._batch
    batch._paths[:, 13:] *= 3.0
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(batch.observe()[0], second)
    assert not np.array_equal(one.step(np.zeros((1, 3)))[0], other.step(np.zeros((1, 3)))[0])


def test_spans_are_those_of_the_packaged_history() -> None:
    prices = {}
    for span in ("training", "held-out", "all"):
        env: Any = make_markets(ID, 64, history=span)
        prices[span] = env.reset(seed=0)[1]["prices"]
    assert not np.isin(prices["training"][:, 0], prices["held-out"][:, 0]).any()
    baseline = baselines_of(ID)["rule_long"]
    run = evaluate(baseline.policy, ID, episodes=32)
    assert run.terminated.all()
    assert len(record_episode(PowerChannelStrategy(), ID, seed=0)) == 61


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_assets": 1}, "`n_assets` must be an integer >= 2, got 1"),
        ({"steps": 400}, "`steps` must be <= "),
        ({"reward": "sharpe"}, "`reward` must be one of"),
        ({"fee": 0.9}, r"`fee` must be in \[0, 0.5\], got 0.9"),
        ({"maximum_change": 0.0}, "`maximum_change` must be"),
        ({"minimum_weight": 0.5}, "`minimum_weight` must be"),
        ({"simulated": "yes"}, "`simulated` must be True or False"),
        ({"history": "future"}, "`history` must be"),
        ({"action": "rule"}, r"`action` must be one of \['weights', 'parameters'\], got 'rule'"),
        ({"action": None}, "`action` must be one of"),
        ({"action": "parameters", "per_asset": 1}, "`per_asset` must be True or False, got 1"),
        ({"per_asset": True}, '`per_asset` must be False where `action` is "weights"'),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_markets(ID, 2, **arguments)
