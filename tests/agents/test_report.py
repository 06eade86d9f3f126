"""Which episode a report shows, and the figures."""

from __future__ import annotations

import numpy as np
import pytest

from hmgym.agents import ConstantPolicy, evaluate
from hmgym.agents.report import episode_figure, learning_curve_figure, record_episode, typical_seed

SMALL = {"n_assets": 2, "n_investors": 8, "max_episode_steps": 6, "leverage_axes": 2}
LEVERAGE = "hmgym/Leverage-v0"


@pytest.mark.parametrize("episodes", [4, 5])
def test_the_typical_episode_is_the_median(episodes: int) -> None:
    policy = ConstantPolicy([0.5, 0.0])
    run = evaluate(policy, LEVERAGE, episodes=episodes, first_seed=70, env_kwargs=SMALL)
    series = record_episode(policy, LEVERAGE, seed=typical_seed(run), env_kwargs=SMALL)
    assert np.log(series.unit_value[-1]) == pytest.approx(np.sort(run.returns)[(episodes - 1) // 2], abs=1e-12)


def test_no_leverage_is_drawn_beside_it() -> None:
    pytest.importorskip("matplotlib")
    series = record_episode(ConstantPolicy([0.5, 0.0]), LEVERAGE, seed=1, env_kwargs=SMALL)
    other = record_episode(ConstantPolicy([-1.0, 0.0]), LEVERAGE, seed=1, env_kwargs=SMALL)
    axes = episode_figure(series, "title", {"no leverage": other}).axes[1]
    lines = {line.get_label(): line.get_ydata() for line in axes.lines}
    np.testing.assert_array_equal(lines["no leverage"], other.unit_value)
    np.testing.assert_array_equal(lines["learner"], series.unit_value)


def test_the_learning_curve_shows_every_baseline() -> None:
    pytest.importorskip("matplotlib")
    point = {"env_steps": 10, "gradient_steps": 1, "seconds": 0.1, "mean_return": 0.2}
    report = {
        "env_id": LEVERAGE, "algo": "ppo", "curve": [point, {**point, "env_steps": 50_000}], "final": {"mean": 0.3},
        "baselines": {"random": {"mean": 0.1}, "best_constant": {"mean": 0.2}},
    }  # fmt: skip
    figure = learning_curve_figure(report)
    names = {text.get_text() for text in figure.axes[-1].get_legend().get_texts()}
    assert names == {"ppo, in training", "trained, evaluated", "random", "best constant"}


def test_only_lines_of_their_own_are_in_the_legend() -> None:
    pytest.importorskip("matplotlib")
    series = record_episode(ConstantPolicy([0.5, 0.0]), LEVERAGE, seed=1, env_kwargs=SMALL)
    axes = episode_figure(series, "title").axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["MSFT", "JPM"]
    assert len(axes.lines) == 4
