"""From results of jobs to the tables of the leaderboard, one an id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.leaderboard.agents import AGENTS, MODEL, Agent
from benchmarks.training import over_seeds
from hmgym.agents import estimate

Results = Mapping[str, Any]


def table_of(
    probes: Sequence[Results], trained: Mapping[str, Sequence[Results]], outside: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that is shown of one id.

    Args:
        probes: results of the jobs that train nothing.
        trained: results by agent, one a seed.
        outside: rows from files.
    """
    merged = {name: row for found in probes for name, row in found["rows"].items()}
    constant = merged["best_constant"]
    rows = {name: _untrained(name, row, constant) for name, row in merged.items()}
    for name, runs in trained.items():
        rows[name] = _trained(AGENTS[name], runs, constant)
    for name, row in outside.items():
        ahead = over_seeds([mean - constant["mean"] for mean in row["return"]["values"]])
        rows[name] = {**row, "minus_best_constant": ahead}
    grid = next(found["grid"] for found in probes if "grid" in found)
    on_curve = next(found["on_curve_episodes"] for found in probes if "on_curve_episodes" in found)
    ppo = [run["curve"][-1]["mean_return"] for run in trained.get("PPO", []) if run["curve"]]
    found: dict[str, Any] = {"rows": rows, "grid": grid, "best_constant_on_curve_episodes": on_curve}
    if ppo:
        found["target"] = float(np.mean(ppo))
        for name, runs in trained.items():
            rows[name]["to_target"] = _to_target(runs, found["target"])
    found["gains"] = gains(rows)
    return found


def gains(rows: Mapping[str, Any]) -> dict[str, Any]:
    """Gains over the better of no leverage and the best constant, of rules and of gradient agents."""
    floor = max(rows[name]["return"]["mean"] for name in ("no_leverage", "best_constant"))
    names = ("APG", "APG with memory", "best_rule", "filter_rule")
    return {"floor": floor} | {name: rows[name]["return"]["mean"] - floor for name in names if name in rows}


def _untrained(name: str, row: Results, constant: Results) -> dict[str, Any]:
    ahead = None
    if name != "best_constant" and len(row["returns"]) == len(constant["returns"]):
        paired = estimate(np.array(row["returns"]) - np.array(constant["returns"]))
        ahead = {"mean": paired.mean, "ci95": paired.ci95}
    kept = {key: row[key] for key in row if key not in ("mean", "ci95", "returns", "screening", "parameters")}
    return {
        "return": {"mean": row["mean"], "ci95": row["ci95"], "episodes": row["episodes"]}, "minus_best_constant": ahead,
        "sees": MODEL if name in ("myopic", "planner") else "", "probe": name not in ("myopic", "planner"), **kept,
    }  # fmt: skip


def _trained(agent: Agent, runs: Sequence[Results], constant: Results) -> dict[str, Any]:
    own = [run["tests"]["own"] for run in runs]
    other = [run["tests"]["without information"]["mean"] for run in runs]
    return {
        "return": over_seeds([test["mean"] for test in own]),
        "minus_best_constant": over_seeds([test["mean"] - constant["mean"] for test in own]),
        "without_information": over_seeds(other),
        "growth": float(np.mean([test["growth"] for test in own])),
        "ruined": float(np.mean([test["ruined"] for test in own])),
        "measures": {key: float(np.mean([test["measures"][key] for test in own])) for key in own[0]["measures"]},
        "largest_share": max(test["largest_share"] for test in own),
        "env_steps": runs[0]["env_steps"], "seconds": float(np.median([run["seconds"] for run in runs])),
        "sees": agent.sees, "probe": agent.probe, "hyperparameters": runs[0]["hyperparameters"],
        "num_envs": runs[0]["num_envs"],
        "curves": [{key: [point[key] for point in run["curve"]] for key in run["curve"][0]} for run in runs
                   if run["curve"]],
    }  # fmt: skip


def _to_target(runs: Sequence[Results], target: float) -> dict[str, Any]:
    """Where curves first come to the target: medians over all runs, of which some may never get there."""
    points = [next((point for point in run["curve"] if point["mean_return"] >= target), None) for run in runs]
    reached = [point for point in points if point is not None]
    found: dict[str, Any] = {"reached": len(reached), "runs": len(runs)}
    for key in ("env_steps", "gradient_steps", "seconds"):
        values = [point[key] for point in reached] + [np.inf] * (len(runs) - len(reached))
        median = float(np.median(values))
        found[key] = median if np.isfinite(median) else None
    return found
