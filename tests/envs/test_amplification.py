"""`info["gradient_amplification"]`: how strongly an action moves log prices, against central differences."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from hmgym.envs import make_markets, parallel_env
from hmgym.investors import LearnerTraits, PopulationConfig
from hmgym.market import MarketConfig

SMALL: dict[str, Any] = {"n_assets": 3, "n_investors": 10}
# A learner that stands at its limits moves no price by its beliefs: this one seldom does.
CAUTIOUS = PopulationConfig(learner=LearnerTraits(risk_aversion=60.0, short_leverage=1.0, long_leverage=3.0))
STEP = 1e-5


def by_differences(batch: Any, step: float) -> Any:
    """∂u/∂a of the batch's last period by central differences, shape (E, L, N, size)."""
    (state, _, shocks), (values, acting) = batch._last_period, batch._last_values
    jacobian = np.zeros((*values.shape[:2], batch.config.n_assets, values.shape[2]))

    def log_prices(moved: Any) -> Any:
        with torch.inference_mode():
            return batch._runs.log_prices(state, batch._market_action(moved, state, acting), shocks)

    for learner in range(values.shape[1]):
        for entry in range(values.shape[2]):
            high, low = values.copy(), values.copy()
            high[:, learner, entry] += step
            low[:, learner, entry] -= step
            jacobian[:, learner, :, entry] = (log_prices(high) - log_prices(low)) / (2.0 * step)
    return jacobian


@pytest.mark.parametrize("env_id", ["hmgym/Leverage-v0", "hmgym/Beliefs-v0", "hmgym/LeverageBeliefs-v0"])
@pytest.mark.parametrize("n_learners", [1, 3])
def test_against_central_differences(env_id: str, n_learners: int) -> None:
    confidence = {} if env_id == "hmgym/Leverage-v0" else {"confidence": True}
    population = CAUTIOUS if env_id == "hmgym/Beliefs-v0" else PopulationConfig()
    config = MarketConfig(n_learners=n_learners, population=population, ownership_limit=1.2, **SMALL)
    markets = make_markets(env_id, 6, config=config, autoreset_mode="SameStep", amplification=True, **confidence)
    markets.reset(seed=1)
    batch: Any = markets._batch
    rng = np.random.default_rng(0)
    reach = np.array([0.1 if name.startswith("belief") else 0.95 for name in markets.action_map.names])
    compared = 0
    for _ in range(6):
        _, _, terminated, _, infos = markets.step(reach * rng.uniform(-1.0, 1.0, markets.action_space.shape))
        found = infos["gradient_amplification"]
        assert found.shape == (markets.num_envs,)
        coarse, fine = (np.linalg.norm(by_differences(batch, h), axis=(2, 3)).ravel() for h in (STEP, STEP / 4.0))
        smooth = (np.abs(coarse - fine) <= 1e-5 * (coarse + 1e-3)) & ~terminated  # no kink within a step
        np.testing.assert_allclose(found[smooth], fine[smooth], rtol=1e-4, atol=1e-7)
        compared += int((smooth & (found > 1e-6)).sum())
    assert compared > 10 * n_learners, f"{compared} are too few in which the action moves prices"


def test_the_same_in_every_environment() -> None:
    arguments = {"amplification": True, "config": MarketConfig(population=CAUTIOUS, **SMALL)}
    single = gym.make("hmgym/Beliefs-v0", **arguments)
    vector = gym.make_vec("hmgym/Beliefs-v0", 3, **arguments)
    parallel = parallel_env(control="beliefs", **arguments)
    for env in (single, parallel):
        env.reset(seed=4)
    infos = vector.reset(seed=3)[1]
    assert infos["gradient_amplification"].tolist() == [0.0, 0.0, 0.0]
    vector.action_space.seed(0)
    for _ in range(5):
        actions = 0.1 * vector.action_space.sample()
        value = single.step(actions[1])[4]["gradient_amplification"]
        assert value > 0.0
        assert parallel.step({"learner_0": actions[1]})[4]["learner_0"]["gradient_amplification"] == value
        assert vector.step(actions)[4]["gradient_amplification"][1] == value


def test_values_do_not_depend_on_it() -> None:
    plain, with_gradients = (
        gym.make("hmgym/LeverageBeliefs-v0", amplification=flag, **SMALL) for flag in (False, True)
    )
    plain.reset(seed=0)
    assert "gradient_amplification" not in plain.reset(seed=0)[1]
    with_gradients.reset(seed=0)
    for _ in range(6):
        action = plain.action_space.sample()
        one, other = plain.step(action), with_gradients.step(action)
        np.testing.assert_array_equal(one[0], other[0])
        assert one[1] == other[1]
        assert set(other[4]) - set(one[4]) == {"gradient_amplification"}


def test_works_within_inference_mode_and_needs_a_step() -> None:
    env = gym.make("hmgym/Leverage-v0", amplification=True, **SMALL).unwrapped
    with pytest.raises(RuntimeError, match="call `step` of a batch made with `amplification=True`"):
        env._batch.gradient_amplification()
    with torch.inference_mode():
        env.reset(seed=0)
        assert np.isfinite(env.step(np.zeros(1, np.float32))[4]["gradient_amplification"])
