"""Jobs of the leaderboard that train nothing: baselines, rules, look-ups and planners."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

from benchmarks.leaderboard.agents import PLANNED_EPISODES
from benchmarks.training import Progress, summary
from hmgym.agents import (
    PROTOCOL,
    MyopicPolicy,
    PlannerPolicy,
    choose_best_constant,
    evaluate,
    evaluate_baselines,
)
from hmgym.agents.learning_curve import CURVE_SEED
from hmgym.agents.probes import choose_rules, lookups
from hmgym.agents.rule_search import RuleBudget
from hmgym.agents.training import TrainingPlan

PLANNER_TYPES = {"myopic": MyopicPolicy, "planner": PlannerPolicy}


def constants(out: Path, progress: Progress, *, env_id: str, episodes: int, settings: Any) -> dict[str, Any]:
    """The id's own baselines, the best constant with the whole grid, and look-ups in the history."""
    protocol = dataclasses.replace(PROTOCOL, episodes=episodes)
    choice = choose_best_constant(
        env_id, progress=lambda done, total: progress(0.8 * done / total, "constants"), **protocol.selection(env_id)
    )
    runs = evaluate_baselines(env_id, choice=choice, **protocol.report(env_id)) | lookups(env_id, protocol=protocol)
    found = {name: summary(run) for name, run in runs.items()}
    found["best_constant"]["setting"] = choice.policy.name
    on_curve = evaluate(choice.policy, env_id, episodes=TrainingPlan.curve_episodes, first_seed=CURVE_SEED)
    return {
        "rows": found, "on_curve_episodes": float(on_curve.returns.mean()),
        "grid": {"settings": choice.names, "means": choice.screening.tolist()},
    }  # fmt: skip


def rules(
    out: Path, progress: Progress, *, env_id: str, episodes: int, budget: dict[str, int], settings: Any
) -> dict[str, Any]:
    """The best one-line rule and, where the regime is hidden, the best filter rule."""
    protocol = dataclasses.replace(PROTOCOL, episodes=episodes)
    chosen = choose_rules(
        env_id, protocol=protocol, budget=RuleBudget(**budget),
        progress=lambda name, done, total: progress(done / total, name.replace("_", " ")),
    )  # fmt: skip
    rows = {}
    for name, rule in chosen.items():
        run = evaluate(rule.policy, env_id, name=name, **protocol.report(env_id))
        rows[name] = {**summary(run), **rule.described(), "setting": rule.policy.name}
    return {"rows": rows}


def planner(out: Path, progress: Progress, *, env_id: str, name: str, episodes: int, settings: Any) -> dict[str, Any]:
    """A planner, on the episodes after the first that its settings were chosen on."""
    protocol = dataclasses.replace(
        PROTOCOL, episodes=min(episodes, PLANNED_EPISODES), first_seed=PROTOCOL.first_seed + PLANNED_EPISODES
    )
    report = protocol.report(env_id)
    policy, begin = PLANNER_TYPES[name](env_id, **report["env_kwargs"]), time.perf_counter()
    found = summary(evaluate(policy, env_id, name=name, batch=PLANNED_EPISODES, **report))
    return {
        "rows": {name: {**found, "seconds": round(time.perf_counter() - begin, 1)}},
        "imagined_steps": policy.imagined_steps,
    }  # fmt: skip
