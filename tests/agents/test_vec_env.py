"""The stable-baselines3 face: same-step resets, terminal observations, attributes, wrappers and training."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import A2C, PPO, SAC, TD3
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecCheckNan, VecMonitor, VecNormalize

from hmgym.agents import ConstantPolicy, evaluate
from hmgym.agents.report import episode_figure, record_episode
from hmgym.agents.sb3 import MarketVecEnv
from hmgym.envs import make_markets, parallel_env
from hmgym.market import MarketConfig
from tests.envs.faces import MARKET_IDS

# Ruin at a tenth below the start ends many episodes early, each in its own month.
FRAGILE = MarketConfig(n_assets=2, n_investors=8, ruin_fraction=0.9)
ROWS = 4


@pytest.mark.parametrize("env_id", MARKET_IDS)
def test_equals_a_dummy_vec_env_of_single_environments(env_id: str) -> None:
    ours = MarketVecEnv(env_id, ROWS, config=FRAGILE, max_episode_steps=20, full_info=True)
    theirs = DummyVecEnv([lambda: gym.make(env_id, config=FRAGILE, max_episode_steps=20)] * ROWS)
    ours.seed(5)
    theirs.seed(5)
    np.testing.assert_array_equal(ours.reset(), theirs.reset())
    ours.action_space.seed(0)
    kinds = set()
    for _ in range(60):
        actions = np.array([ours.action_space.sample() for _ in range(ROWS)])
        mine, other = ours.step(actions), theirs.step(actions)
        np.testing.assert_allclose(mine[0], other[0], atol=1.2e-7)
        np.testing.assert_allclose(mine[1], other[1], rtol=1e-6)
        assert mine[1].dtype == np.float32
        np.testing.assert_array_equal(mine[2], other[2])
        for done, a, b in zip(mine[2], mine[3], other[3], strict=True):
            assert set(a) == set(b)
            assert a["TimeLimit.truncated"] == b["TimeLimit.truncated"]
            np.testing.assert_allclose(a["wealth"], b["wealth"], rtol=1e-12)
            if done:
                np.testing.assert_allclose(a["terminal_observation"], b["terminal_observation"], atol=1.2e-7)
                kinds.add(a["TimeLimit.truncated"])
    assert kinds == {True, False}, "the comparison must span ruin and truncation"
    for mine_info, other_info in zip(ours.reset_infos, theirs.reset_infos, strict=True):
        np.testing.assert_allclose(mine_info["prices"], other_info["prices"], rtol=1e-12)


def test_infos_are_lean_by_default() -> None:
    sturdy = FRAGILE.replace(ruin_fraction=0.01)
    env = MarketVecEnv("hmgym/Leverage-v0", ROWS, config=sturdy, max_episode_steps=3)
    env.reset()
    steps = [env.step(np.zeros((ROWS, 1), np.float32))[3] for _ in range(3)]
    assert steps[0][0] == {"TimeLimit.truncated": False}
    assert {"terminal_observation", "unit_value", "wealth", "prices"} <= set(steps[2][0])


def test_attributes() -> None:
    env = MarketVecEnv("hmgym/Leverage-v0", ROWS, config=FRAGILE)
    assert env.get_attr("config") == [FRAGILE] * ROWS
    assert env.get_attr("render_mode") == [None] * ROWS
    assert env.get_attr("spec")[0].id == "hmgym/Leverage-v0"
    assert env.get_attr("action_space", [1]) == [env.action_space]
    assert not env.has_attr("wealth")
    env.seed(3)
    env.reset()
    assert env.get_attr("np_random_seed") == [3, 4, 5, 6]
    assert env.get_attr("wealth", 2) == [env.markets.infos()["wealth"][2]]
    env.set_attr("label", "a")
    env.set_attr("label", "b", indices=[1, 3])
    assert env.get_attr("label") == ["a", "b", "a", "b"]
    assert not env.has_attr("nothing")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        env.get_attr("nothing")
    with pytest.raises(AttributeError, match="`render_mode` belongs to the environment that all markets share"):
        env.set_attr("render_mode", "human")
    assert env.env_is_wrapped(Monitor) == [False] * ROWS


def test_methods() -> None:
    env = MarketVecEnv("hmgym/Leverage-v0", 2, config=FRAGILE, render_mode="rgb_array")
    env.seed(0)  # with others a learner may be ruined in the first month
    env.reset()
    env.step(np.zeros((2, 1), np.float32))
    frames = env.env_method("render")
    assert [frame.shape for frame in frames] == [(640, 960, 3)] * 2
    assert len(env.env_method("episode", indices=1)[0].unit_value) == 2
    env.env_method("set_wrapper_attr", "label", 7, indices=0)
    assert env.env_method("get_wrapper_attr", "label", indices=0) == [7]
    assert env.env_method("has_wrapper_attr", "label", indices=0) == [True]
    assert [image.shape for image in env.get_images()] == [(640, 960, 3)] * 2
    assert env.render().shape[2] == 3
    env.close()


def test_pickles() -> None:
    env = MarketVecEnv("hmgym/Beliefs-v0", 2, config=FRAGILE)
    env.seed(0)
    env.reset()
    clone = pickle.loads(pickle.dumps(env))
    actions = np.full((2, 2), 0.1, np.float32)
    np.testing.assert_array_equal(clone.step(actions)[0], env.step(actions)[0])


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="`env_id` must name a market"):
        MarketVecEnv("CartPole-v1", 2)
    with pytest.raises(ValueError, match="`autoreset_mode` is fixed"):
        MarketVecEnv("hmgym/Leverage-v0", 2, autoreset_mode="NextStep")


@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [
        (PPO, {"n_steps": 8, "batch_size": 16, "n_epochs": 2}),
        (A2C, {"n_steps": 4}),
        (SAC, {"learning_starts": 16, "batch_size": 16, "buffer_size": 1000}),
        (TD3, {"learning_starts": 16, "batch_size": 16, "buffer_size": 1000}),
    ],
)
def test_algorithms_learn_through_the_usual_wrappers(algorithm: Any, settings: dict[str, Any]) -> None:
    env = MarketVecEnv("hmgym/LeverageBeliefs-v0", ROWS, config=FRAGILE, max_episode_steps=5)
    wrapped = VecNormalize(VecMonitor(VecCheckNan(env, raise_exception=True)))
    model = algorithm("MlpPolicy", wrapped, seed=0, device="cpu", **settings)
    model.learn(128)
    assert len(model.ep_info_buffer) > 0
    mean, _ = evaluate_policy(model, VecMonitor(env), n_eval_episodes=4)
    assert np.isfinite(mean)


LEARNERS = 3
CROWDED = FRAGILE.replace(n_learners=LEARNERS, n_investors=10)


def test_rows_of_many_learners_are_those_of_the_vector_environment() -> None:
    ours = MarketVecEnv("hmgym/LeverageBeliefs-v0", 2, config=CROWDED, max_episode_steps=20, full_info=True)
    theirs = make_markets("hmgym/LeverageBeliefs-v0", 2, config=CROWDED, max_episode_steps=20)
    assert ours.num_envs == 6
    ours.seed(5)
    np.testing.assert_array_equal(ours.reset(), theirs.reset(seed=5)[0])
    theirs.action_space.seed(0)
    kinds = set()
    for _ in range(60):
        actions = theirs.action_space.sample()
        observation, reward, done, infos = ours.step(actions)
        expected = theirs.step(actions)
        np.testing.assert_array_equal(observation, expected[0])
        np.testing.assert_array_equal(reward, expected[1].astype(np.float32))
        np.testing.assert_array_equal(done, expected[2] | expected[3])
        for row in np.flatnonzero(done):
            np.testing.assert_array_equal(infos[row]["terminal_observation"], expected[4]["final_obs"][row])
            assert infos[row]["unit_value"] == expected[4]["final_info"]["unit_value"][row]
            assert ours.reset_infos[row]["unit_value"] == 1.0
            kinds.add(infos[row]["TimeLimit.truncated"])
    assert kinds == {True, False}, "the comparison must span ruin and truncation"


def test_attributes_and_methods_of_many_learners() -> None:
    env = MarketVecEnv("hmgym/Leverage-v0", 2, config=CROWDED, render_mode="rgb_array")
    env.seed(3)
    env.reset()
    assert env.get_attr("np_random_seed") == [3, 3, 3, 4, 4, 4]
    assert env.get_attr("wealth") == env.markets.infos()["wealth"].tolist()
    env.set_attr("label", "b", indices=[5])
    assert env.get_attr("label", 5) == ["b"]
    assert [frame.shape for frame in env.get_images()] == [(640, 960, 3)] * 2
    assert env.env_method("episode", indices=4)[0].unit_value.shape == (1, LEARNERS)
    assert env.render().shape[2] == 3
    with pytest.raises(AttributeError, match="would end the episodes of the other learners"):
        env.env_method("reset", indices=4)


def test_independent_learners_share_one_policy() -> None:
    env = MarketVecEnv("hmgym/Leverage-v0", 4, n_learners=LEARNERS, n_assets=2, n_investors=9, max_episode_steps=5)
    model = PPO("MlpPolicy", VecNormalize(VecMonitor(env)), n_steps=8, batch_size=16, n_epochs=2, seed=0, device="cpu")
    model.learn(192)
    assert model.num_timesteps == 192
    assert len(model.ep_info_buffer) >= 24
    run = evaluate(
        lambda observation: model.predict(observation, deterministic=True)[0], "hmgym/Leverage-v0", episodes=5,
        batch=2, env_kwargs={"n_learners": LEARNERS, "n_assets": 2, "n_investors": 9, "max_episode_steps": 5},
    )  # fmt: skip
    assert run.returns.shape == run.lengths.shape == (5,)
    assert np.isfinite(run.returns).all()


def test_an_evaluation_is_the_mean_over_the_learners_first_funds() -> None:
    arguments = {"config": CROWDED.replace(ruin_fraction=0.95), "max_episode_steps": 30}
    policy = ConstantPolicy([0.5])
    run = evaluate(policy, "hmgym/Leverage-v0", episodes=6, first_seed=9, batch=4, env_kwargs=arguments)
    env = parallel_env(control="leverage", **arguments)
    for episode in range(6):
        env.reset(seed=9 + episode)
        total, months, ruined = 0.0, 0, 0
        while env.agents:
            _, rewards, terminated, _, _ = env.step(dict.fromkeys(env.agents, policy.action))
            total, months = total + sum(rewards.values()), months + len(rewards)
            ruined += sum(terminated.values())
        # From the first ruin on the seat acts by the policy here and by itself there.
        if ruined == 0:
            assert run.returns[episode] == pytest.approx(total / LEARNERS, abs=1e-12)
            assert run.lengths[episode] == months / LEARNERS
        assert (run.terminated[episode] > 0.0) == (ruined > 0)
    assert 0.0 < run.terminated.mean() < 1.0


def test_a_recorded_episode_of_many_learners() -> None:
    arguments = {"n_learners": 3, "n_assets": 2, "n_investors": 9, "max_episode_steps": 12}
    series = record_episode(ConstantPolicy([-1.0]), "hmgym/Leverage-v0", seed=0, env_kwargs=arguments)
    assert series.unit_value.shape == series.learner_leverage.shape == (13, 3)
    assert series.prices.shape == (13, 2)
    assert episode_figure(series, "three learners") is not None


def test_env_method_resets_one_market() -> None:
    markets = MarketVecEnv("hmgym/Leverage-v0", 4)
    markets.seed(0)
    markets.reset()
    for _ in range(3):
        markets.step(np.zeros((4, 1), np.float32))
    markets.env_method("reset", indices=1)
    assert markets.markets.state.month.tolist() == [3, 0, 3, 3]
    with pytest.raises(AttributeError, match="acts on all markets"):
        markets.env_method("step", np.zeros(1))


@pytest.mark.timeout(240)
def test_script_trains_learners_that_share_a_policy(tmp_path: Path) -> None:
    command = [sys.executable, "train.py", "--n-learners", "3", "--timesteps", "600", "--num-envs", "4"]
    command += ["--episodes", "4", "--screening-episodes", "2", "--n-assets", "2", "--n-investors", "8"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["settings"]["n_learners"] == 3
    assert report["episodes"] == 4
    assert set(report["baselines"]) == {"random", "no_leverage", "best_constant"}
