"""The three facts are measured on the same seeds in every arm, and a run that was cut off goes on."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from hmgym.analysis.fund_facts import MEASURES
from hmgym.diagnostics import fund_facts
from hmgym.diagnostics.fund_facts import EXPERIMENTS, MECHANISMS, Job, arms_of, jobs_of, main, measured
from hmgym.market.funds import FundsConfig


def test_every_experiment_has_one_default_and_legal_arms() -> None:
    for experiment in EXPERIMENTS:
        assert sum(not parameters for parameters in experiment.arms.values()) == 1
        assert set(experiment.shown) <= set(MEASURES)
        for parameters in experiment.arms.values():
            FundsConfig(n_learners=0, **parameters)
    information = EXPERIMENTS[0]
    for part, parameters in information.arms.items():
        active, passive = FundsConfig(n_learners=0, **parameters).shares_of_supply
        assert passive / (active + passive) == pytest.approx(part)


def test_each_arm_is_run_once() -> None:
    jobs = jobs_of(EXPERIMENTS, seeds=7, months=30)
    keys = [job.key(seed) for job in jobs for seed in job.seeds]
    arms = sum(len(experiment.arms) for experiment in EXPERIMENTS) - len(EXPERIMENTS) + 1
    assert len(keys) == len(set(keys)) == 7 * len(MECHANISMS) * arms


def test_differences_are_paired() -> None:
    """Seeds differ by far more than arms; one market that did not clear is left out of all arms."""
    experiment, rng = EXPERIMENTS[1], np.random.default_rng(0)
    known: dict[str, dict[str, float] | None] = {}
    for seed in range(10):
        level = 100.0 * rng.standard_normal()
        for value, parameters in experiment.arms.items():
            job = Job(mechanism="clearing", parameters=parameters, months=30, seeds=())
            known[job.key(seed)] = dict.fromkeys(MEASURES, level + value) if (seed, value) != (3, 0.25) else None
    default = FundsConfig.learning_gain
    for arm in arms_of(experiment, "clearing", known, seeds=10, months=30):
        if arm.value == default:
            assert not arm.differences
            continue
        found = arm.differences["flows"]
        assert found.mean == pytest.approx(arm.value - default, abs=1e-9)
        assert found.high - found.low < 1e-9


def test_a_seed_is_the_same_alone_and_among_others() -> None:
    settings = {"mechanism": "impact", "parameters": {"n_retail": 10, "n_assets": 5}, "months": 25}
    _, several = measured(Job(**settings, seeds=(0, 1)))  # type: ignore[arg-type]
    _, one = measured(Job(**settings, seeds=(1,)))  # type: ignore[arg-type]
    assert several[1] is not None
    assert one[0] is not None
    assert list(several[1]) == list(MEASURES)
    assert several[1] == pytest.approx(one[0], rel=1e-9)
    assert all(np.isfinite(value) for value in one[0].values())


def test_the_command_goes_on_where_it_was_cut_off(tmp_path, capsys) -> None:
    jobs = jobs_of(EXPERIMENTS, seeds=3, months=25)
    rng = np.random.default_rng(0)
    known = {job.key(seed): {name: float(rng.random()) for name in MEASURES} for job in jobs for seed in job.seeds}
    out = tmp_path / "facts.json"
    out.write_text(json.dumps({"calibration": repr(FundsConfig(n_learners=0)), "measures": known}))
    settings = ["--seeds", "3", "--months", "25", "--out", str(out), "--figures", str(tmp_path)]
    assert main(settings) == 0  # nothing is left to run
    said = capsys.readouterr().out
    for experiment in EXPERIMENTS:
        for mechanism in MECHANISMS:
            assert f"{experiment.name}, {mechanism}" in said
        assert (tmp_path / f"fund_facts_{experiment.name}.png").stat().st_size > 10_000


def test_measures_of_another_calibration_are_not_mixed_in(tmp_path, capsys) -> None:
    out = tmp_path / "facts.json"
    out.write_text(json.dumps({"calibration": repr(FundsConfig(n_learners=0, signals_r2=0.1)), "measures": {}}))
    with pytest.raises(SystemExit):
        main(["--out", str(out)])
    assert "one of the same FundsConfig" in capsys.readouterr().err


def test_bad_options(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["--months", "24"])
    assert "--months must be at least 25" in capsys.readouterr().err


def test_the_command(tmp_path, capsys, monkeypatch) -> None:
    smallest = dataclasses.replace(EXPERIMENTS[2], arms={1.0: {}, 2.0: {"rationality": 2.0}})
    monkeypatch.setattr(fund_facts, "EXPERIMENTS", (smallest,))
    out = tmp_path / "facts.json"
    assert main(["--seeds", "2", "--months", "25", "--workers", "1", "--out", str(out)]) == 0
    assert len(json.loads(out.read_text())["measures"]) == 2 * 2 * 2
    said = capsys.readouterr().out
    assert "0 of 8 markets did not clear" in said
    assert "| 1, default |" in said
