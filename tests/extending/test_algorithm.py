"""The algorithm of docs/extending.md: one file and one line, and the command line trains, resumes and evaluates it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hmgym.agents.algorithms import ALGORITHMS, find_algorithm
from hmgym.agents.training import TrainingPlan, train
from hmgym.cli import main
from tests.extending import evolution

SMALL = {"n_assets": 2, "n_investors": 8, "max_episode_steps": 6}


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ALGORITHMS, "evolution", "tests.extending.evolution:EVOLUTION")


def plan(out: Path, **changes: Any) -> TrainingPlan:
    return TrainingPlan(
        algo="evolution", timesteps=192, num_envs=8, out=out, checkpoint_every=48, curve_episodes=0,
        env_kwargs=changes.pop("env_kwargs", SMALL), **changes,
    )  # fmt: skip


def test_the_page_shows_the_file() -> None:
    source = Path(evolution.__file__).read_text(encoding="utf-8")
    assert f"```python\n{source}```" in Path("docs/extending.md").read_text(encoding="utf-8")


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    whole = train(plan(tmp_path / "whole")).policy
    train(plan(tmp_path / "cut"))
    for later in ("144", "192"):
        shutil.rmtree(tmp_path / "cut" / "checkpoints" / later)
    resumed = train(plan(tmp_path / "cut", resume=True)).policy
    assert isinstance(whole, evolution.LinearPolicy)
    assert isinstance(resumed, evolution.LinearPolicy)
    assert np.array_equal(whole.weights, resumed.weights)
    assert np.abs(whole.weights).max() > 0.0


def test_its_options_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`hyperparameters` of evolution must be some of"):
        train(plan(tmp_path, hyperparameters={"horizon": 4}))
    with pytest.raises(ValueError, match="`deviation` must lie in"):
        train(plan(tmp_path, hyperparameters={"deviation": 0.0}))
    with pytest.raises(ValueError, match="`n_learners` must be 1"):
        train(plan(tmp_path / "none", env_kwargs={**SMALL, "n_learners": 2}))
    assert not (tmp_path / "none").exists()


def test_it_learns() -> None:
    learner = evolution.Evolution(
        TrainingPlan(algo="evolution", env_id="hmgym/Beliefs-v0", num_envs=32, env_kwargs=SMALL),
        find_algorithm("evolution").hyperparameters_for("hmgym/Beliefs-v0"),
    )
    returns = [learner.update(0.0)["rollout/mean_return"] for _ in range(60)]
    assert np.mean(returns[-15:]) > np.mean(returns[:15])


def test_the_command_line_knows_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(plan(tmp_path))
    assert main(["evaluate", str(tmp_path), "--episodes", "4", "--screening-episodes", "0"]) == 0
    assert "evolution" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        main(["train", "--algo", "evolution", "--help"])
    assert end.value.code == 0
    assert "--deviation FLOAT" in capsys.readouterr().out
