"""Training leaves a report, figures and checkpoints, and goes on from where it stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hmgym.agents import evaluate
from hmgym.agents.algorithms import find_algorithm
from hmgym.agents.checkpoints import newest_checkpoint
from hmgym.agents.sb3.vec_env import MarketVecEnv
from hmgym.agents.training import TrainingPlan, train

SMALL = {"n_assets": 2, "n_investors": 8, "max_episode_steps": 12}
OFF_POLICY = {"learning_starts": 64, "batch_size": 32, "gradient_steps": 1, "buffer_size": 1000}
QUICK = {
    "ppo": {"n_steps": 8}, "a2c": {}, "sac": OFF_POLICY, "td3": OFF_POLICY, "tqc": OFF_POLICY,
    "recurrent_ppo": {"n_steps": 8},
}  # fmt: skip


@pytest.mark.parametrize("algo", sorted(QUICK))
def test_resume_goes_on_from_the_checkpoint(algo: str, tmp_path: Path) -> None:
    def plan(timesteps: int, resume: bool) -> TrainingPlan:
        return TrainingPlan(
            algo=algo, timesteps=timesteps, num_envs=8, out=tmp_path, resume=resume, checkpoint_every=128,
            curve_episodes=4, env_kwargs=SMALL, hyperparameters=QUICK[algo],
        )  # fmt: skip

    first = train(plan(256, False))
    assert first.env_steps == 256
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.env_steps == 256
    again = train(plan(256, True))
    assert again.env_steps == 256, "nothing is left to train"
    observation = np.zeros((3, first.policy._model.observation_space.shape[0]), np.float32)
    np.testing.assert_allclose(again.policy.predict(observation)[0], first.policy.predict(observation)[0], atol=1e-6)
    more = train(plan(512, True))
    assert more.env_steps == 512
    assert more.seconds > first.seconds
    assert [point.env_steps for point in more.curve] == sorted(point.env_steps for point in more.curve)
    if algo != "a2c":
        assert more.curve[-1].gradient_steps > 0
    loaded = find_algorithm(algo).load_policy(tmp_path / "checkpoints" / "512", plan(512, False))
    np.testing.assert_allclose(loaded.predict(observation)[0], more.policy.predict(observation)[0], atol=1e-6)
    run = evaluate(loaded, plan(512, False).env_id, episodes=4, env_kwargs=SMALL)
    assert np.isfinite(run.returns).all()
    assert len(list(tmp_path.glob("checkpoints/*/replay_buffer.pkl"))) == (algo in ("sac", "td3", "tqc"))


def test_plan_refuses() -> None:
    with pytest.raises(ValueError, match="`algo` must be one of"):
        TrainingPlan(algo="dqn")
    with pytest.raises(ValueError, match="`timesteps` must be an integer >= 1 or None, got 0"):
        TrainingPlan(timesteps=0)
    with pytest.raises(ValueError, match="`seed` must be an integer >= 0, got -1"):
        TrainingPlan(seed=-1)
    with pytest.raises(ValueError, match=r"`num_envs` must be an integer >= 1 or None, got 1\.5"):
        TrainingPlan(num_envs=1.5)
    with pytest.raises(ValueError, match=r"`seed` must be < 2\*\*32"):
        TrainingPlan(seed=2**32)
    with pytest.raises(ValueError, match="`resume` and `overwrite` must not both be set"):
        TrainingPlan(resume=True, overwrite=True)


@pytest.mark.timeout(240)
def test_script_writes_the_report(tmp_path: Path) -> None:
    command = [sys.executable, "train.py", "--env", "hmgym/Beliefs-v0", "--timesteps", "2048", "--num-envs", "16"]
    command += ["--episodes", "8", "--screening-episodes", "2", "--n-assets", "2", "--n-investors", "6"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert {"env_id", "algo", "env_steps", "seconds", "frames_per_second", "final", "baselines"} <= set(report)
    assert report["env_steps"] >= 2048
    low, high = report["final"]["ci95"]
    assert low < report["final"]["mean"] < high
    assert set(report["baselines"]) == {"random", "no_leverage", "best_constant"}
    assert "trained minus it" in done.stdout
    for figure in ("learning_curve.png", "episode.png", "plausibility.png"):
        assert (tmp_path / figure).stat().st_size > 5000
    assert list(tmp_path.glob("tensorboard/*/events*"))


def test_script_explains_a_wrong_option() -> None:
    done = subprocess.run(
        [sys.executable, "train.py", "--algo", "dqn"], capture_output=True, text=True,
        cwd=Path(__file__).parents[2], check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "invalid choice: 'dqn'" in done.stderr


def test_runs_of_neighbouring_seeds_share_no_market(tmp_path: Path) -> None:
    seeds = []
    for seed in (0, 1):
        plan = TrainingPlan(num_envs=8, seed=seed, out=tmp_path)
        markets = MarketVecEnv(plan.env_id, plan.num_markets)
        markets.seed(plan.market_seed)
        markets.reset()
        seeds.append({tuple(row) for row in markets.markets.state.prices.numpy()})
    assert len(seeds[0]) == 8
    assert not seeds[0] & seeds[1]
