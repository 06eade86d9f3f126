"""``hmgym/Pool-v0`` where the action sets the rule; faces are in the contract."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from hmgym.agents import ConstantPolicy, baselines_of, evaluate
from hmgym.agents.pool_rule import PowerChannelStrategy
from hmgym.agents.report import record_episode
from hmgym.envs import make_markets
from hmgym.envs.pool_rule_box import RULE_RANGES, RuleBox, memory_of
from hmgym.pools import PoolConfig, PoolParameters, PowerChannelPool

ID = "hmgym/Pool-v0"
ROW = 1440  # minutes, so that days are rows


def made(num: int = 6, **arguments: Any) -> Any:
    return make_markets(ID, num, action="parameters", autoreset_mode="Disabled", **arguments)


@pytest.mark.parametrize("per_asset", [False, True])
def test_constant_parameters_are_the_pool_of_the_library(per_asset: bool) -> None:
    env = made(per_asset=per_asset, maximum_change=0.03)
    env.reset(seed=4)
    paths = torch.from_numpy(env._batch._paths.copy())
    rule: dict[str, Any] = {"memory": 9.0, "k": 6.0, "exponent": 1.3, "pre_scaling": 0.2}
    if per_asset:
        rule |= {"memory": [3.0, 9.0, 30.0], "k": [6.0, 1.0, 20.0]}
    action = np.tile(env.action_map.from_rule(**rule), (6, 1))
    steps = [env.step(action) for _ in range(60)]
    assert steps[-1][2].all()
    weights, value = (np.stack([step[4][name] for step in steps], 1) for name in ("weights", "value"))
    config = PoolConfig(row_minutes=ROW, chunk_minutes=ROW, maximum_change=0.03 / ROW, minimum_weight=0.1 / 3.0)
    pool = PowerChannelPool(config)
    each = [PoolParameters.initial(3, config, memory=m, k_per_day=k / m, exponent=1.3, pre_scaling=0.2)
            for m, k in np.broadcast(rule["memory"], rule["k"])]  # fmt: skip
    # Assets have parameters of their own: asset i takes entry i.
    parameters = each[0]
    if per_asset:
        one = {
            name: torch.stack([x.to_dict()[name][i] for i, x in enumerate(each)])
            for name in ("sp_k", "logit_lamb", "logit_delta_lamb", "sp_exponents", "sp_pre_exp_scaling")
        }
        parameters = PoolParameters(**one, initial_weights_logits=torch.zeros(3))
    for e in range(6):
        # A pool that opens at row 11 moves first on the price of row 12, which is where an episode begins.
        run = pool.simulate(parameters, paths[e], start=11 * ROW)
        np.testing.assert_allclose(weights[e], run.weights[2:], atol=1e-12)
        np.testing.assert_allclose(value[e], run.value[2:] / run.value[1], rtol=1e-10)
    assert np.abs(weights[:, -1] - 1.0 / 3.0).max() > 0.05


def test_what_an_action_stands_for() -> None:
    box = RuleBox(3)
    assert (box.names, box.size) == (("memory", "k", "exponent", "pre_scaling"), 4)
    for a, end in ((-1.0, 0), (1.0, 1)):
        for name, found in box.to_rule(np.full(4, a)).items():
            np.testing.assert_allclose(found, [RULE_RANGES[name][end]], rtol=1e-12)
    assert float(box.to_rule(np.full(4, -1.0))["k"][0]) == 0.0
    middle = box.to_rule(np.zeros(4))
    np.testing.assert_allclose(
        np.concatenate(list(middle.values())), [120.0**0.5, 0.1 * (1001.0**0.5 - 1.0), 2.0, 0.1], rtol=1e-12
    )
    each = RuleBox(2, per_asset=True)
    assert each.names == tuple(f"{name}_{i}" for name in RULE_RANGES for i in range(2))
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (20, 8))
    for action in actions:
        np.testing.assert_allclose(each.from_rule(**each.to_rule(action)), action, atol=1e-12)
    assert box.describe(np.zeros(4)) == "memory 11, k 3.1, exponent 2, pre_scaling 0.1"
    assert each.describe(np.zeros(8)).startswith("memory 11/11, k 3.1/3.1")
    for size, grid in ((4, box.grid()), (8, each.grid())):
        assert grid.shape == (51, size)
        assert np.abs(grid).max() <= 1.0
        assert (grid[:, size // 4] == -1.0).sum() == 1  # k = 0 once


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"memory": 1.0, "k": 1.0}, r"`memory` must be in \[2, 60\], got 1"),
        ({"memory": 5.0, "k": -1.0}, "`k` must be in"),
        ({"memory": 5.0, "k": 1.0, "exponent": 0.5}, "`exponent` must be in"),
        ({"memory": 5.0, "k": 1.0, "pre_scaling": float("nan")}, "`pre_scaling` must"),
        ({"memory": [5.0, 6.0, 7.0], "k": 1.0}, "`memory` must be a number, got"),
    ],
)
def test_a_bad_rule_is_named(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RuleBox(3).from_rule(**rule)
    with pytest.raises(ValueError, match="`n_assets` must be an integer >= 2, got 1"):
        RuleBox(1)


def test_a_bad_action_is_named() -> None:
    env = made(2)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"`action` must have shape \(2, 4\), got \(2, 3\)"):
        env.step(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="got nan for `k` of market 1"):
        env.step(np.array([[0.0] * 4, [0.0, np.nan, 0.0, 0.0]]))
    with pytest.raises(ValueError, match='`action` of the pool must be "weights" to ask for changes'):
        PowerChannelStrategy().act(env.state)


def test_shared_parameters_are_one_for_every_asset() -> None:
    shared, each = made(), made(per_asset=True)
    for env in (shared, each):
        env.reset(seed=2)
    random = np.random.default_rng(1)
    for _ in range(20):
        action = random.uniform(-1.0, 1.0, (6, 4))
        one, other = shared.step(action), each.step(np.repeat(action, 3, -1))
        np.testing.assert_allclose(one[0], other[0], atol=1e-6)
        np.testing.assert_allclose(one[1], other[1], atol=1e-12)


def test_the_rule_does_not_look_ahead_and_guards_hold() -> None:
    one, other = made(1), made(1)
    for env in (one, other):
        env.reset(seed=5)
    random = np.random.default_rng(0)
    before = np.full((1, 3), 1.0 / 3.0)
    for step in range(12):
        other._batch._paths[:, 13 + step :] *= random.uniform(0.5, 2.0, (1, 60 - step, 3))
        action = random.uniform(-1.0, 1.0, (1, 4))
        ours = one.step(action)[4]["weights"]
        # What is to come was another, what the rule knew was not.
        np.testing.assert_array_equal(ours, other.step(action)[4]["weights"])
        other._batch._paths[:] = one._batch._paths
        assert np.abs(ours - before).max() <= 0.05 + 1e-12
        assert ours.min() >= 0.1 / 3.0 - 1e-12
        before = ours
    assert np.abs(before - 1.0 / 3.0).max() > 1e-3


def test_parameters_of_a_step_act_in_that_step_alone() -> None:
    env, still = made(), made()
    for each in (env, still):
        each.reset(seed=8)
    off, on = (np.tile(env.action_map.from_rule(memory=12.0, k=k), (6, 1)) for k in (0.0, 10.0))
    for _ in range(5):
        env.step(on)
        assert np.ptp(still.step(off)[4]["weights"]) < 1e-12
    moved = env.step(off)[4]["weights"]
    np.testing.assert_allclose(env.step(off)[4]["weights"], moved, atol=1e-12)
    # The trend is that of all prices, whatever the parameters were before.
    change = env.step(on)[4]["weights"] - moved
    assert np.abs(change).max() > 1e-4


def test_information_has_the_rule_and_pictures_show_it() -> None:
    env = made(per_asset=True)
    _, info = env.reset(seed=0)
    assert np.isnan(info["memory"]).all()
    action = env.action_map.from_rule(memory=[5.0, 6.0, 7.0], k=2.0, exponent=1.5, pre_scaling=0.3)
    info = env.step(np.tile(action, (6, 1)))[4]
    np.testing.assert_allclose(info["memory"], np.tile([5.0, 6.0, 7.0], (6, 1)))
    np.testing.assert_allclose(info["k"], 2.0)
    assert "memory" not in make_markets(ID, 1).reset(seed=0)[1]
    policy = baselines_of(ID, {"action": "parameters"})["rule_long"].policy
    series: Any = record_episode(policy, ID, seed=0, env_kwargs={"action": "parameters"})
    rule = next(panel for panel in series.panels() if panel.title == "Rule")
    assert [line.label for line in rule.lines] == ["memory", "k", "exponent", "pre scaling"]
    assert len(series) == 61
    values = np.stack([line.values for line in rule.lines], -1)
    assert np.isnan(values[0]).all()
    np.testing.assert_allclose(values[1:], np.tile(values[1], (60, 1)))
    plain: Any = record_episode(PowerChannelStrategy(), ID, seed=0)
    assert all(panel.title != "Rule" for panel in plain.panels())


def test_the_strategy_and_constant_parameters_ask_for_the_same() -> None:
    # A memory of six rows has forgotten all but 13 of them; k is small enough that no change is cut.
    constant = ConstantPolicy(RuleBox(3).from_rule(memory=memory_of(0.5), k=0.5))
    ours = evaluate(constant, ID, episodes=16, env_kwargs={"action": "parameters"})
    theirs = evaluate(PowerChannelStrategy(decay=0.5, k=0.5), ID, episodes=16)
    still = evaluate(ConstantPolicy(np.zeros(3)), ID, episodes=16)
    np.testing.assert_allclose(ours.returns, theirs.returns, atol=1e-3)
    assert np.abs(ours.returns - still.returns).mean() > 1e-2


def test_baselines_of_either_action_have_the_same_names() -> None:
    returns: dict[str, Any] = {}
    for kind in ("weights", "parameters"):
        for name, one in baselines_of(ID, {"action": kind}).items():
            run = evaluate(one.policy, one.env_id, episodes=16, env_kwargs=dict(one.env_kwargs))
            returns.setdefault(name, []).append(run.returns)
    assert set(returns) == {"random", "equal_weights", "rule_short", "rule_long"}
    np.testing.assert_allclose(returns["equal_weights"][1], returns["equal_weights"][0], atol=1e-12)
    assert (returns["rule_long"][1] != returns["equal_weights"][1]).all()
    assert memory_of(0.5) == pytest.approx(2.0 * 3.0 ** (1.0 / 3.0) / 0.5)
