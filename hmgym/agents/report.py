"""What a training run leaves behind: a table, `report.json`, and figures of the learning curve and of one episode."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hmgym.agents.evaluation import ConstantChoice, Evaluation, paired_difference
from hmgym.agents.policy import Policy, actions_of
from hmgym.analysis import episode
from hmgym.analysis.figures import LEARNER, MUTED, SERIES, layout, new_figure, plain
from hmgym.envs import MAX_EPISODE_STEPS, make_markets
from hmgym.envs.history import EpisodeSeries

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def build_report(
    *,
    env_id: str,
    algo: str,
    seed: int,
    env_steps: int,
    seconds: float,
    curve: Sequence[Mapping[str, Any]],
    final: Evaluation,
    baselines: Mapping[str, Evaluation],
    choice: ConstantChoice | None = None,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The contents of ``report.json``; every mean is the sum of rewards an episode.

    Args:
        env_id: a registered id.
        algo: name of the algorithm.
        seed: of the training run.
        env_steps: periods of training, over all learners of all markets.
        seconds: of training.
        curve: points of the learning curve.
        final: the trained policy.
        baselines: what it is compared with, on the same seeds.
        choice: how the best constant was chosen.
        settings: what else the run was made with.
    """
    compared: dict[str, Any] = {}
    for name, run in baselines.items():
        result, ahead = run.result, paired_difference(final, run)
        compared[name] = {
            "mean": result.mean,
            "ci95": result.ci95,
            "ruined": float(run.ruined.mean()),
            "terminal_mark_gain": float(run.mark_gain.mean()),
            "policy_minus_baseline": {"mean": ahead.mean, "ci95": ahead.ci95},
        }
    if choice is not None and "best_constant" in compared:
        compared["best_constant"]["action"] = choice.policy.action.tolist()
        compared["best_constant"]["setting"] = choice.policy.name
        compared["best_constant"]["chosen_on_seeds_from"] = choice.first_seed
    result = final.result
    return {
        "env_id": env_id,
        "algo": algo,
        "seed": seed,
        "env_steps": env_steps,
        "seconds": round(seconds, 3),
        "frames_per_second": round(env_steps / max(seconds, 1e-9), 1),
        "unit": "sum of rewards an episode",
        "episodes": int(final.returns.size),
        "evaluation_seeds_from": final.first_seed,
        "final": {
            "mean": result.mean,
            "ci95": result.ci95,
            "ruined": float(final.ruined.mean()),
            "terminal_mark_gain": float(final.mark_gain.mean()),
        },
        "baselines": compared,
        "settings": dict(settings or {}),
        "curve": [dict(point) for point in curve],
    }


def write_report(report: Mapping[str, Any], path: Path) -> None:
    """Write a report as JSON."""
    path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def comparison_table(report: Mapping[str, Any]) -> str:
    """The comparison as text: a row a policy, mean with interval, and how far the trained one is ahead."""
    rows = [("policy", "mean", "95 % interval", "ruined", "last mark", "trained minus it (95 %)")]

    def interval(ends: Sequence[float]) -> str:
        return f"[{ends[0]:+.4f}, {ends[1]:+.4f}]"

    final = report["final"]
    mark = f"{final['terminal_mark_gain']:+.4f}"
    rows.append((report["algo"], f"{final['mean']:+.4f}", interval(final["ci95"]), f"{final['ruined']:.1%}", mark, ""))
    for name, baseline in report["baselines"].items():
        label = name.replace("_", " ") + (f" ({baseline['setting']})" if "setting" in baseline else "")
        ahead = baseline["policy_minus_baseline"]
        rows.append(
            (
                label,
                f"{baseline['mean']:+.4f}",
                interval(baseline["ci95"]),
                f"{baseline['ruined']:.1%}",
                f"{baseline['terminal_mark_gain']:+.4f}",
                f"{ahead['mean']:+.4f} {interval(ahead['ci95'])}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        cells[0], cells[-1] = row[0].ljust(widths[0]), row[-1].ljust(widths[-1])
        lines.append("  ".join(cells))
    lines.insert(1, "  ".join("-" * width for width in widths))
    heading = f"{report['env_id']}: sum of rewards an episode, {report['episodes']} episodes on the same shocks"
    return "\n".join([heading, *(line.rstrip() for line in lines)])


def record_episode(
    policy: Policy, env_id: str, *, seed: int, env_kwargs: Mapping[str, Any] | None = None
) -> EpisodeSeries:
    """Run one whole episode of a policy, on all seats where there are several learners, and return its series."""
    arguments = {"max_episode_steps": MAX_EPISODE_STEPS, **(env_kwargs or {}), "render_mode": "rgb_array"}
    config = arguments.get("config")
    if (arguments.get("n_learners") or (1 if config is None else config.n_learners)) > 1:
        # Such a market resets itself, and its series, as its last month ends: so that month must not come.
        months = arguments.pop("max_episode_steps")
        markets = make_markets(env_id, 1, autoreset_mode="SameStep", max_episode_steps=months + 1, **arguments)
    else:
        months = math.inf
        markets = make_markets(env_id, 1, autoreset_mode="Disabled", **arguments)
    observation, _ = markets.reset(seed=seed)
    ended, month = False, 0
    while not ended:
        period = markets.advance(actions_of(policy, observation, markets))
        observation, month = period.observation, month + 1
        ended = month >= months or bool((period.terminated | period.truncated).all())
    series = markets.episode(0)
    markets.close()
    return series


def typical_seed(evaluation: Evaluation) -> int:
    """Seed of the episode whose return is the (lower) median of all."""
    order = np.argsort(evaluation.returns, kind="stable")
    return evaluation.first_seed + int(order[(len(order) - 1) // 2])


@layout()
def learning_curve_figure(report: Mapping[str, Any]) -> Figure:
    """Mean return of the deterministic policy in training against environment steps, gradient steps and seconds."""
    figure: Figure = new_figure(2.8)
    panels = figure.subplots(1, 3, sharey=True)
    curve = report["curve"]
    returns = [point["mean_return"] for point in curve]
    keys = ("env_steps", "gradient_steps", "seconds")
    for axes, key in zip(panels, keys, strict=True):
        axes.plot([point[key] for point in curve], returns, color=SERIES[0], label=f"{report['algo']}, in training")
        axes.axhline(report["final"]["mean"], color=LEARNER, label="trained, evaluated")
        for style, (name, baseline) in zip(("--", "-.", ":"), report["baselines"].items(), strict=False):
            axes.axhline(baseline["mean"], color=MUTED, ls=style, label=name.replace("_", " "))
        axes.set_xlabel(key.replace("env_", "environment ").replace("_", " "))
        axes.xaxis.set_major_formatter(lambda x, _: plain(x))
    panels[0].set_ylabel("sum of rewards an episode")
    panels[-1].legend(loc="best")
    figure.suptitle(f"{report['env_id']}: {report['algo']}")
    return figure


def episode_figure(
    series: EpisodeSeries,
    title: str,
    assets: Sequence[str] | None = None,
    beside: Mapping[str, EpisodeSeries] | None = None,
) -> Figure:
    """One episode: prices against fundamentals, the fund's unit value, everybody's leverage.

    Args:
        series: of a policy.
        title: one line.
        assets: names of the N assets.
        beside: by name, series of other policies on the same shocks, whose unit values are shown too.
    """
    figure: Figure = episode.episode_figure(
        title=title, prices=series.prices, fundamentals=series.fundamentals, unit_value=series.unit_value,
        learner_leverage=series.learner_leverage, crowd_leverage=series.crowd_leverage, assets=assets,
        beside={name: other.unit_value for name, other in (beside or {}).items()},
    )  # fmt: skip
    return figure
