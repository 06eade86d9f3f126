"""The benchmarks of agents: what a run is asked for, and the tables that are made of results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("stable_baselines3")

from benchmarks import corner, fund_learners, learners, shares
from benchmarks.jobs import Job
from benchmarks.leaderboard import __main__ as leaderboard
from benchmarks.leaderboard.agents import AGENTS, IDS, PLANNERS
from benchmarks.leaderboard.outside import rows_from
from benchmarks.training import environment_of, settings_of, train_and_test
from hmgym.agents.algorithms import find_algorithm
from hmgym.envs import make_markets

EPISODES = 8


def evaluated(mean: float, **more: Any) -> dict[str, Any]:
    returns = mean + np.linspace(-0.1, 0.1, EPISODES)
    return {
        "mean": mean, "ci95": [mean - 0.1, mean + 0.1], "episodes": EPISODES, "growth": mean / 10, "ruined": 0.0,
        "measures": {"terminal_mark_gain": 0.01}, "returns": returns.tolist(), "largest_share": 0.1,
        "log_price_over_value": [0.1, -0.2, 0.0], **more,
    }  # fmt: skip


def trained(job: Job) -> dict[str, Any]:
    """A result of a training job: better with more wealth, and with every seed."""
    seed = job.arguments["seed"]
    mean = 1.0 + 0.01 * seed
    curve = [
        {"env_steps": steps, "gradient_steps": steps // 10, "seconds": steps / 100, "mean_return": mean * steps / 900}
        for steps in (0, 100, 900)
    ]
    return {
        "tests": {name: evaluated(mean) for name in job.arguments["tests"]}, "env_steps": 900, "seconds": 9.0,
        "curve": curve, "hyperparameters": {"learning_rate": 0.1}, "num_envs": 4,
        "rounds": [{"gain": 0.2, "ci95": [0.1, 0.3], "after": 1.1}, {"gain": 0.0, "ci95": [-0.1, 0.1], "after": 1.1}],
    }  # fmt: skip


def untrained(job: Job) -> dict[str, Any]:
    names = {
        "constants": ("random", "no_leverage", "best_constant", "history_lookup"), "rules": ("best_rule",),
    }.get(job.kind, (job.kind,))  # fmt: skip
    rows = {name: evaluated(0.5, setting="ℓ 1", restarts=[0.5, 0.4], seconds=2.0) for name in names}
    if job.kind in PLANNERS:
        rows[job.kind]["returns"] = [0.5, 0.6]
    return {"rows": rows, "grid": {"settings": ["ℓ 0.3", "ℓ 1", "ℓ 3"], "means": [0.1, 0.5, 0.2]},
            "on_curve_episodes": 0.5}  # fmt: skip


def pretend(jobs: Sequence[Job], runs: Path, workers: int) -> list[Any]:
    """As `run_jobs`, with made-up results."""
    found = []
    for job in jobs:
        result = trained(job) if "tests" in job.arguments else untrained(job)
        job.folder(runs).mkdir(parents=True, exist_ok=True)
        (job.folder(runs) / "result.json").write_text(json.dumps(result))
        found.append(result)
    return found


def test_the_leaderboard_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaderboard, "run_jobs", pretend)
    rows = tmp_path / "rows"
    rows.mkdir()
    given = {
        "env_id": IDS[0], "agent": "mine", "sees": "observation", "version": "0.1.0", "means": [0.9, 1.1],
        "env_steps": 5, "source": "somewhere",
    }  # fmt: skip
    (rows / "mine.json").write_text(json.dumps(given))
    options = ["--seeds", "2", "--runs", str(tmp_path / "runs"), "--docs", str(tmp_path), "--results", str(tmp_path)]
    options += ["--rows", str(rows), "--ids", IDS[0], "--episodes", str(EPISODES)]
    assert leaderboard.main(options) == 0
    found = json.loads((tmp_path / "leaderboard.json").read_text())["environments"]
    assert list(found) == [IDS[0]]
    table = found[IDS[0]]["rows"]
    assert {*AGENTS, *PLANNERS, "random", "best_constant", "best_rule", "mine"} <= set(table)
    assert table["PPO"]["return"]["mean"] == pytest.approx(1.005)
    assert table["mine"]["minus_best_constant"]["mean"] == pytest.approx(0.5)
    assert found[IDS[0]]["gains"]["best_rule"] == pytest.approx(0.0)
    assert table["APG"]["to_target"] == {
        "reached": 1, "runs": 2, "env_steps": None, "gradient_steps": None, "seconds": None,
    }  # fmt: skip
    text = (tmp_path / "leaderboard.md").read_text()
    assert "| PPO | 2 | 1.005 [" in text
    assert "0.400 (ℓ 0.3) and 0.300 (ℓ 3) below the best constant" in text
    assert "observation, gradient through the market" in text
    assert (tmp_path / "images" / "learning_curves.png").stat().st_size > 10_000
    # A part is run; the rest stays.
    assert leaderboard.main([*options, "--only", "PPO"]) == 0
    assert json.loads((tmp_path / "leaderboard.json").read_text())["environments"] == found
    given["means"] = []
    (rows / "mine.json").write_text(json.dumps(given))
    with pytest.raises(ValueError, match="`means` must be numbers"):
        rows_from(rows, IDS[0])


def test_every_row_is_of_an_algorithm_with_these_hyperparameters() -> None:
    for agent in AGENTS.values():
        find_algorithm(agent.algo).hyperparameters_for(IDS[0], agent.hyperparameters)
        environment_of({"environment": agent.environment, "economy": agent.economy})


def test_shares_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Job] = []
    monkeypatch.setattr(shares, "run_jobs", lambda jobs, *rest: (asked.extend(jobs), pretend(jobs, *rest))[1])
    assert shares.main(["--seeds", "2", "--ids", IDS[1], "--runs", str(tmp_path), "--results", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "shares.json").read_text())["environments"][IDS[1]]
    assert set(found) == set(shares.LIMITS)
    assert found["without it"]["price_taker_loses"]["0.1"]["mean"] == 0.0
    assert "The price-taker's policy loses" in (tmp_path / "shares.md").read_text()
    trained_at = {environment_of(job.arguments["training"])["config"].learner_share for job in asked}
    assert trained_at == set(shares.SHARES)
    limits = {environment_of(job.arguments["training"])["config"].ownership_limit for job in asked}
    assert None in limits
    assert len(limits) == 2


def test_corners_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corner, "run_jobs", pretend)
    assert corner.main(["--seeds", "2", "--ids", IDS[1], "--runs", str(tmp_path), "--results", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "corner.json").read_text())["environments"][IDS[1]]
    assert len(rows) == len(corner.LEARNERS) * len(corner.SIZES)
    assert all(row["passes"] for row in rows)
    for size in corner.SIZES:
        markets = make_markets(IDS[1], 1, **environment_of(corner.markets_of(size)))
        assert (markets.config.signal_r2, markets.config.n_learners) == (0.0, 4 if size.startswith("four") else 1)


def test_fund_learners_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Job] = []

    def results(jobs: Sequence[Job], runs: Path, workers: int) -> list[Any]:
        asked.extend(jobs)
        row = {"setting": "ℓ 1", "tests": {name: evaluated(0.5) for name in tests}}
        return [trained(job) if "tests" in job.arguments else {"rows": {"best constant": row}} for job in jobs]

    tests = fund_learners.tests_of(fund_learners.MARKETS)
    monkeypatch.setattr(fund_learners, "run_jobs", results)
    assert fund_learners.main(["--seeds", "2", "--runs", str(tmp_path), "--results", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "fund_learners.json").read_text())["environments"][IDS[1]]
    assert rows["APG"]["tests"]["over the average active fund"]["mean"] == pytest.approx(1.005)
    assert set(rows) == {"best constant", *fund_learners.LEARNERS}
    noise = environment_of(tests["without information"])["config"]
    assert (noise.signals_r2, noise.n_retail) == (0.0, 24)
    assert {job.call for job in asked} == {"benchmarks.training:train_and_test", "benchmarks.fund_learners:untrained"}


def test_untrained_policies_in_a_market_of_funds(tmp_path: Path) -> None:
    sizes = {"n_assets": 2, "n_retail": 6, "n_active": 2, "n_passive": 1}
    markets = {"environment": {"scenario": "active-passive", "n_learners": 1, "max_episode_steps": 3}, "economy": sizes}
    budget = {"candidates": 2, "screening_episodes": 2, "families": 1, "restarts": 1, "population": 4,
              "generations": 1, "search_episodes": 2}  # fmt: skip
    found = fund_learners.untrained(
        tmp_path, lambda *_: None, env_id=IDS[0], markets=markets, episodes=2, screening=1, budget=budget, settings=None
    )
    assert {"best constant", "best rule", "no leverage", "random"} <= set(found["rows"])
    for row in found["rows"].values():
        means = [row["tests"][name]["mean"] for name in ("own", "over the average active fund")]
        assert means[0] != means[1]
        assert np.isfinite(means).all()


def test_learners_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learners, "run_jobs", pretend)
    assert learners.main(["--seeds", "2", "--runs", str(tmp_path), "--results", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "learners.json").read_text())["environments"][IDS[0]]
    assert found["settled"] == 2
    assert found["first_gain"]["mean"] == pytest.approx(0.2)


def test_a_run_is_trained_and_tested(tmp_path: Path) -> None:
    small = {"environment": {"n_assets": 2, "n_investors": 8, "max_episode_steps": 6}}
    taker = {**small, "economy": {"learner_share": 0.01}}
    told: list[float] = []
    found = train_and_test(
        tmp_path, lambda share, text="": told.append(share), env_id=IDS[1], algo="apg", seed=0, training=taker,
        tests={"own": small, "as price-taker": taker}, hyperparameters={"horizon": 4}, episodes=4, timesteps=32,
        num_envs=2, settings=settings_of(IDS[1], "apg", taker, {"horizon": 4}),
    )  # fmt: skip
    assert json.loads(json.dumps(found))["tests"] == found["tests"]
    assert told == sorted(told)
    own, small_share = found["tests"]["own"], found["tests"]["as price-taker"]
    assert len(own["returns"]) == 4
    assert own["largest_share"] > small_share["largest_share"] > 0.0
    assert own["growth"] == pytest.approx(2.0 * own["mean"])


def test_best_responses_go_on_until_nobody_gains(tmp_path: Path) -> None:
    markets = {"environment": {"n_assets": 2, "n_investors": 8, "max_episode_steps": 6, "n_learners": 2}}
    arguments: dict[str, Any] = {
        "env_id": IDS[1], "algo": "shac", "seed": 0, "training": markets, "tests": {"own": markets},
        "hyperparameters": {"horizon": 4}, "episodes": 4, "timesteps": 32, "num_envs": 2,
    }  # fmt: skip
    found = learners.train_and_deviate(tmp_path, lambda *told: None, rounds=2, response_steps=32, **arguments)
    assert 1 <= len(found["rounds"]) <= 2
    again = learners.train_and_deviate(tmp_path, lambda *told: None, rounds=2, response_steps=32, **arguments)
    assert again["rounds"] == found["rounds"]
