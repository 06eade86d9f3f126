"""What a training run leaves behind: a table, `report.json`, and figures of the learning curve and of one episode."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hmgym.agents.evaluation import Evaluation, paired_difference
from hmgym.agents.policy import Actor, Policy
from hmgym.agents.rule_search import RuleChoice
from hmgym.agents.selection import ConstantChoice
from hmgym.analysis.figures import LEARNER, MUTED, SERIES, layout, log_scale, new_figure, plain
from hmgym.envs import Panel, Series, make_markets
from hmgym.envs.rendering import rows_of

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
    protocol: Mapping[str, Any] | None = None,
    rules: Mapping[str, RuleChoice] | None = None,
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
        protocol: how it was evaluated, :meth:`~hmgym.agents.evaluation.Protocol.described`.
        rules: how rules were chosen, by the name of their baseline.
    """
    compared: dict[str, Any] = {}
    for name, run in baselines.items():
        result, ahead = run.result, paired_difference(final, run)
        compared[name] = {
            "mean": result.mean,
            "ci95": result.ci95,
            **_endings(run),
            "policy_minus_baseline": {"mean": ahead.mean, "ci95": ahead.ci95},
        }
    if choice is not None and "best_constant" in compared:
        compared["best_constant"]["action"] = choice.policy.action.tolist()
        compared["best_constant"]["setting"] = choice.policy.name
        compared["best_constant"]["chosen_on_seeds_from"] = choice.first_seed
    for name, rule in (rules or {}).items():
        compared[name] |= {"setting": rule.policy.name, **rule.described()}
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
        "protocol": dict(protocol or {}),
        "final": {
            "mean": result.mean,
            "ci95": result.ci95,
            **_endings(final),
        },
        "baselines": compared,
        "settings": dict(settings or {}),
        "curve": [dict(point) for point in curve],
    }


def _endings(run: Evaluation) -> dict[str, Any]:
    """How a run's episodes ended, in the mean."""
    measures = {name: float(values.mean()) for name, values in run.measures.items()}
    return {"terminated": float(run.terminated.mean()), "measures": measures}


def write_report(report: Mapping[str, Any], path: Path) -> None:
    """Write a report as JSON."""
    path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def comparison_table(report: Mapping[str, Any]) -> str:
    """The comparison as text: a row a policy, mean with interval, and how far the trained one is ahead."""
    final = report["final"]
    measures = list(final["measures"])
    heading = [name.replace("_", " ") for name in measures]
    rows = [("policy", "mean", "95 % interval", "terminated", *heading, "trained minus it (95 %)")]

    def interval(ends: Sequence[float]) -> str:
        return f"[{ends[0]:+.4f}, {ends[1]:+.4f}]"

    def row(label: str, found: Mapping[str, Any], ahead: str) -> tuple[str, ...]:
        measured = (f"{found['measures'].get(name, 0.0):+.4f}" for name in measures)
        mean, terminated = f"{found['mean']:+.4f}", f"{found['terminated']:.1%}"
        return (label, mean, interval(found["ci95"]), terminated, *measured, ahead)

    rows.append(row(report["algo"], final, ""))
    for name, baseline in report["baselines"].items():
        label = name.replace("_", " ") + (f" ({baseline['setting']})" if "setting" in baseline else "")
        ahead = baseline["policy_minus_baseline"]
        rows.append(row(label, baseline, f"{ahead['mean']:+.4f} {interval(ahead['ci95'])}"))
    widths = [max(len(texts[column]) for texts in rows) for column in range(len(rows[0]))]
    lines = []
    for texts in rows:
        cells = [cell.rjust(width) for cell, width in zip(texts, widths, strict=True)]
        cells[0], cells[-1] = texts[0].ljust(widths[0]), texts[-1].ljust(widths[-1])
        lines.append("  ".join(cells))
    lines.insert(1, "  ".join("-" * width for width in widths))
    span = report.get("protocol", {}).get("span")
    where = "" if span is None else f", history: {span}"
    title = f"{report['env_id']}: sum of rewards an episode, {report['episodes']} episodes on the same shocks{where}"
    return "\n".join([title, *(line.rstrip() for line in lines)])


def record_episode(policy: Policy, env_id: str, *, seed: int, env_kwargs: Mapping[str, Any] | None = None) -> Any:
    """Run one whole episode of a policy, on all seats where there are several learners, and return its series.

    With several learners the episode ends with the market's: at its last month, or when none of them is left.
    """
    markets = make_markets(env_id, 1, autoreset_mode="SameStep", render_mode="rgb_array", **(env_kwargs or {}))
    actor = Actor(policy, markets)
    observation, _ = markets.reset(seed=seed)
    starting = np.ones(markets.num_envs, np.bool_)
    while markets.finished_episode(0) is None:
        period = markets.advance(actor(observation, starting))
        observation, starting = period.observation, period.terminated | period.truncated
    markets.close()
    return markets.finished_episode(0)


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


@layout()
def episode_figure(series: Series, title: str, beside: Mapping[str, Series] | None = None) -> Figure:
    """One episode: the panels of its series.

    Args:
        series: of a policy.
        title: one line.
        beside: by name, series of other policies on the same shocks, shown where panels may be compared.
    """
    panels = series.panels()
    others = {name: other.panels() for name, other in (beside or {}).items()}
    rows = rows_of(panels)
    figure: Figure = new_figure(0.3 + 2.3 * len(rows))
    parts = figure.subfigures(len(rows), 1, height_ratios=[1.4 if row[0].wide else 1.0 for row in rows], squeeze=False)
    for part, row in zip(parts[:, 0], rows, strict=True):
        for axes, panel in zip(part.subplots(1, len(row), squeeze=False)[0], row, strict=True):
            at = next(i for i, one in enumerate(panels) if one is panel)
            axes.set_xlabel(series.period)
            _draw(axes, panel, {name: other[at] for name, other in others.items()} if panel.compared else {})
    figure.suptitle(title)
    return figure


def _draw(axes: Any, panel: Panel, others: Mapping[str, Panel]) -> None:
    for style, (name, other) in zip(("--", ":", "-."), others.items(), strict=False):
        axes.plot(other.lines[0].values, color=MUTED, linestyle=style, label=name)
    solid = {line.colour for line in panel.lines if not line.dashed}
    for line in panel.lines:
        named = line.label and not (line.dashed and line.colour in solid)  # what goes with a line, the title says
        axes.plot(
            line.values, color=line.colour, linestyle="none" if line.points else "--" if line.dashed else "-",
            marker="o" if line.points else "none", alpha=0.6 if line.dashed else 1.0,
            label=line.label if named else "_nolegend_",
        )  # fmt: skip
    if panel.log:
        log_scale(axes, "y")
    if panel.floor is not None:
        axes.set_ylim(bottom=min(panel.floor, axes.get_ylim()[0]))
    axes.set(title=panel.title, ylabel=panel.unit)
    if len(others) + sum(bool(line.label) for line in panel.lines) > 1:
        axes.legend(ncols=3 if panel.wide else 1)
