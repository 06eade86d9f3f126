"""An environment of dynamics of its own, one file and one line of registry, has every face that the market has."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

from hmgym.agents import (
    ConstantPolicy,
    RandomPolicy,
    baselines_of,
    choose_best_constant,
    evaluate,
    evaluate_baselines,
)
from hmgym.agents.report import build_report, comparison_table, episode_figure, record_episode, write_report
from hmgym.agents.sb3 import MarketVecEnv
from hmgym.commands import train
from hmgym.envs import BatchEnv, BatchParallelEnv, BatchVectorEnv, make_markets
from tests.extending import liquidation  # registers the id

with warnings.catch_warnings():  # PettingZoo's tests import its games, by names that it has deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    from pettingzoo.test import parallel_api_test

ID = "extending/Liquidation-v0"
CALM: dict[str, Any] = {"volatility": 0.0}


def test_it_is_one_file_and_one_line() -> None:
    source = Path(liquidation.__file__).read_text(encoding="utf-8")
    assert source.count("register_environment(\n") == 1
    assert "hmgym.market" not in source


def test_what_the_documentation_shows_is_what_runs() -> None:
    source = Path(liquidation.__file__).read_text(encoding="utf-8")
    page = Path(__file__).parents[2] / "docs" / "extending.md"
    section = page.read_text(encoding="utf-8").split("## An environment\n")[1].split("\n## ")[0]
    shown = re.findall(r"^```py\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert len(shown) >= 5
    assert not [excerpt for excerpt in shown if excerpt not in source]


def test_single_and_vector_environment() -> None:
    single, batch = gym.make(ID), gym.make_vec(ID, 3)
    assert isinstance(single.unwrapped, BatchEnv)
    assert isinstance(batch, BatchVectorEnv)
    np.testing.assert_array_equal(single.reset(seed=6)[0], batch.reset(seed=5)[0][1])
    batch.action_space.seed(0)
    for _ in range(20):
        actions = batch.action_space.sample()
        ours, theirs = single.step(actions[1]), batch.step(actions)
        np.testing.assert_array_equal(ours[0], theirs[0][1])
        assert ours[1:3] == (theirs[1][1], theirs[2][1])
        assert ours[4]["mid"] == theirs[4]["mid"][1]
    assert ours[2]
    assert not ours[3]


def test_equal_parts_cost_what_the_formula_says_and_nothing_beats_them() -> None:
    schedule = baselines_of(ID)["equal_parts"].policy
    run = evaluate(schedule, ID, episodes=4, env_kwargs=CALM)
    np.testing.assert_allclose(run.returns, -0.1 / 20, rtol=1e-6)
    assert run.terminated.all()
    assert not run.measures
    np.testing.assert_array_equal(run.lengths, np.full(4, 20))
    best = choose_best_constant(ID, screening_episodes=2, episodes=2, env_kwargs=CALM)
    assert len(best.names) == 21
    assert evaluate(best.policy, ID, episodes=2, env_kwargs=CALM).returns[0] < run.returns[0]


def test_stable_baselines_learns_on_it() -> None:
    markets = MarketVecEnv(ID, 8)
    model = PPO("MlpPolicy", VecNormalize(VecMonitor(markets)), n_steps=20, batch_size=80, seed=0, device="cpu")
    model.learn(480)
    assert len(model.ep_info_buffer) == 24
    assert {episode["l"] for episode in model.ep_info_buffer} == {20}


def test_the_command_line_trains_on_it_by_the_name_of_its_module(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = [
        "--timesteps",
        "512",
        "--num-envs",
        "8",
        "--episodes",
        "4",
        "--screening-episodes",
        "2",
        "--curve-episodes",
        "2",
    ]
    status = train.main(["--env", f"{liquidation.__name__}:{ID}", *sizes, "--out", str(tmp_path / "run")])
    assert status == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert set(report["baselines"]) == {"random", "equal_parts", "best_constant"}
    assert not (tmp_path / "run" / "plausibility.png").exists()


def test_a_parallel_environment(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel_api_test(BatchParallelEnv(liquidation.Liquidation(1)), num_cycles=50)
    env, single = BatchParallelEnv(liquidation.Liquidation(1)), gym.make(ID)
    assert env.state_space.low.tolist() == [0.0, 0.0]
    np.testing.assert_array_equal(env.reset(seed=1)[0]["learner_0"], single.reset(seed=1)[0])
    while env.agents:
        ours, theirs = env.step({"learner_0": np.zeros(1)}), single.step(np.zeros(1, np.float32))
        assert ours[1]["learner_0"] == theirs[1]
    assert theirs[2]


def test_evaluation_baselines_and_report(tmp_path: Path) -> None:
    policy = ConstantPolicy([-0.8])
    choice = choose_best_constant(ID, screening_episodes=4, episodes=0)
    runs = evaluate_baselines(ID, episodes=16, choice=choice)
    assert list(runs) == ["random", "equal_parts", "best_constant"]
    assert runs["equal_parts"].result.mean > runs["random"].result.mean
    report = build_report(
        env_id=ID, algo="constant", seed=0, env_steps=1, seconds=1.0, curve=[], choice=choice,
        final=evaluate(policy, ID, episodes=16), baselines=runs,
    )  # fmt: skip
    write_report(report, tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["final"]["terminated"] == 1.0
    table = comparison_table(report)
    assert "equal parts" in table
    assert "terminal mark" not in table
    series = record_episode(policy, ID, seed=0)
    assert len(series) == 21
    assert series.inventory[-1] == 0.0
    episode_figure(series, "a day").savefig(tmp_path / "episode.png")
    assert (tmp_path / "episode.png").stat().st_size > 1000


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_frames_and_resets(mode: str) -> None:
    env = make_markets(ID, 2, render_mode="rgb_array", autoreset_mode=mode, periods=3)
    env.reset(seed=0)
    for _ in range(3):
        _, _, terminated, *_ = env.step(np.zeros((2, 1), np.float32))
    assert terminated.all()
    assert [frame.shape for frame in env.render()] == [(640, 960, 3)] * 2
    if mode == "Disabled":
        env.reset(options={"reset_mask": terminated})
    observation, *_ = env.step(np.zeros((2, 1), np.float32))
    np.testing.assert_array_equal(observation[:, 0], np.full(2, 1.0 if mode == "NextStep" else 0.5, np.float32))
    env.close()


def test_its_arguments_are_checked_by_name() -> None:
    with pytest.raises(TypeError, match="horizon"):
        gym.make(ID, horizon=3)
    with pytest.raises(ValueError, match=r"`periods` must be an integer >= 1, got 2\.5"):
        make_markets(ID, 2, periods=2.5)
    single = gym.make(ID).unwrapped
    single.reset(seed=0)
    with pytest.raises(ValueError, match="`action` must be finite, got nan for `share_of_inventory` of market 0"):
        single.step(np.array([np.nan]))
    assert np.isfinite(evaluate(RandomPolicy(1), ID, episodes=3, batch=2).returns).all()
