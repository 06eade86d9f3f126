"""Gradient agents on the law of a market maker's inventory."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from hmgym.agents.analytic_policy_gradient import AnalyticPolicyGradient, WindowSettings
from hmgym.agents.quoting import law_of
from hmgym.agents.training import TrainingPlan, train
from hmgym.envs.quoting.differentiable import DifferentiableQuoting
from hmgym.market_making import QuotingConfig, exact_law
from tests.extending import liquidation

ID = "hmgym/MarketMaking-v0"
LAW = WindowSettings(horizon=12, deviation=0.0, replay=1, epochs=4, learning_rate=1e-2)
SMALL = QuotingConfig(max_inventory=3, steps=12, horizon=0.06, running_penalty=2.0, terminal_penalty=0.3)


def test_apg_finds_the_best_quotes(tmp_path: Path) -> None:
    config = QuotingConfig()
    model = config.problem()
    plan = TrainingPlan(algo="apg", env_id=ID, timesteps=150_000, out=tmp_path / "run", curve_episodes=0)
    result = train(plan)
    solution = model.solve([config.dt * step for step in range(config.steps)])
    best = exact_law(model, solution.bid, solution.ask, dt=config.dt).expected_reward
    law = law_of(result.policy, config)
    assert 0.98 * best < law.expected_reward <= best * (1.0 + 1e-3)


def test_the_gradient_of_the_last_step_counts_where_the_episode_ends_with_it() -> None:
    agent = AnalyticPolicyGradient(DifferentiableQuoting(SMALL), LAW, seed=0)
    window, steps = agent.action_gradients()
    assert window.closed
    last = steps.observations[..., 1] < 1.5 / SMALL.steps
    assert int(last.sum()) == 7
    assert float(steps.gradients[last].abs().max()) > 0.0
    shorter = AnalyticPolicyGradient(DifferentiableQuoting(SMALL.replace(steps=24, horizon=0.12)), LAW, seed=0)
    window, steps = shorter.action_gradients()
    assert not window.closed
    assert steps.observations.shape[1] == 11 * 7


def test_a_run_goes_on_bit_for_bit() -> None:
    one, other = (AnalyticPolicyGradient(DifferentiableQuoting(SMALL), LAW, seed=seed) for seed in (0, 1))
    one.update(0.0)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    assert one.update(0.5) == other.update(0.5)
    for ours, theirs in zip(one.policy.parameters(), other.policy.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.0, atol=0.0)


def test_what_a_law_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`memory` must be 0 where rows are no paths of a market, got 4"):
        AnalyticPolicyGradient(DifferentiableQuoting(SMALL), WindowSettings(horizon=12, memory=4), seed=0)
    with pytest.raises(ValueError, match="`env_id` must name markets whose rows are paths"):
        train(TrainingPlan(algo="shac", env_id=ID, timesteps=100, out=tmp_path / "shac"))
    with pytest.raises(ValueError, match='`reward` must be "inventory_penalty" or "pnl"'):
        train(TrainingPlan(algo="apg", env_id=ID, env_kwargs={"reward": "sharpe"}, out=tmp_path / "apg"))
    assert not list(tmp_path.rglob("*.pt"))


def test_an_id_without_gradients_is_refused(tmp_path: Path) -> None:
    env_id = f"{liquidation.__name__}:extending/Liquidation-v0"
    with pytest.raises(ValueError, match="`env_id` must name a market to be differentiated"):
        train(TrainingPlan(algo="apg", env_id=env_id, timesteps=100, out=tmp_path / "run"))
