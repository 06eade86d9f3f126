"""Every agent on two environments: final return, and what it took to reach PPO's.

``python -m benchmarks.agents`` trains what is not trained yet (a run that was cut off goes on from its checkpoint) and
writes ``benchmarks/results/agents.json`` and ``docs/images/learning_curves.png``. The training seed is the unit:
interquartile mean over seeds, with a 95 % bootstrap interval. Policies that are not trained have the episode as unit.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.timing import print_table
from hmgym.agents import MyopicPolicy, PlannerPolicy, choose_best_constant, evaluate, evaluate_baselines
from hmgym.agents.constant import no_leverage
from hmgym.agents.evaluation import EVALUATION_SEED
from hmgym.agents.learning_curve import CURVE_SEED
from hmgym.agents.policy import Policy
from hmgym.agents.report import episode_figure, record_episode, typical_seed
from hmgym.agents.training import TrainingPlan, hyperparameters_of, train
from hmgym.analysis.figures import INK, SERIES, layout, log_scale, median_band, new_figure, save
from hmgym.envs import make_markets

ROOT = Path(__file__).parent.parent
ENVIRONMENTS = ("hmgym/Leverage-v0", "hmgym/Beliefs-v0")
TRAINED = ("ppo", "sac", "apg", "shac")
PLANNERS: dict[str, Callable[[str], Any]] = {"myopic": MyopicPolicy, "planner": PlannerPolicy}
PLANNED_EPISODES = 128  # a planner takes a second an episode; not the first, which its settings were chosen on
_RESAMPLES = 10_000


def train_one(env_id: str, algo: str, seed: int, out: Path, episodes: int) -> None:
    """Train one agent and evaluate it; ``run.json`` is written last."""
    import torch

    torch.set_num_threads(1)
    plan = TrainingPlan(algo=algo, env_id=env_id, seed=seed, out=out, resume=True)
    result = train(plan)
    final = evaluate(result.policy, env_id, episodes=episodes)
    if algo == "apg" and seed == 0 and env_id == ENVIRONMENTS[0]:
        draw_episode(result.policy, env_id, typical_seed(final), out / "episode.png")
    found = {
        "mean": float(final.returns.mean()),
        "ruined": float(final.terminated.mean()),
        "terminal_mark_gain": float(final.measures["terminal_mark_gain"].mean()),
        "env_steps": result.env_steps,
        "seconds": round(result.seconds, 2),
        "curve": [vars(point) for point in result.curve],
        "hyperparameters": hyperparameters_of(plan),
        "num_envs": plan.num_markets,
    }
    (out / "run.json").write_text(json.dumps(found))


def evaluate_untrained(env_id: str, name: str, out: Path, episodes: int) -> None:
    """Evaluate random actions and the best constant, or a planner."""
    if name in PLANNERS:
        policy, begin = PLANNERS[name](env_id), time.perf_counter()
        run = evaluate(
            policy, env_id, name=name, episodes=PLANNED_EPISODES, batch=PLANNED_EPISODES,
            first_seed=EVALUATION_SEED + PLANNED_EPISODES,
        )  # fmt: skip
        runs, extra = (
            {name: run},
            {
                "imagined_steps": policy.imagined_steps,
                "seconds": round(time.perf_counter() - begin, 1),
            },
        )
    else:
        choice = choose_best_constant(env_id)
        runs = evaluate_baselines(env_id, episodes=episodes, choice=choice)
        extra = {"setting": choice.policy.name}
        on_curve = evaluate(choice.policy, env_id, episodes=TrainingPlan.curve_episodes, first_seed=CURVE_SEED)
        extra["on_curve_episodes"] = float(on_curve.returns.mean())
    found = {
        key: {"mean": run.result.mean, "ci95": run.result.ci95, "episodes": run.returns.size,
              "ruined": float(run.terminated.mean())}
        for key, run in runs.items()
    }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    (out / "run.json").write_text(json.dumps({"policies": found, **extra}))


def run_all(runs: Path, seeds: range, workers: int, episodes: int) -> None:
    """Every job that has no ``run.json`` yet, ``workers`` processes at a time, a torch thread each."""
    jobs = [(env_id, "baselines", 0) for env_id in ENVIRONMENTS]
    jobs += [(env_id, algo, seed) for algo in TRAINED for seed in seeds for env_id in ENVIRONMENTS]
    jobs += [(env_id, name, 0) for name in PLANNERS for env_id in ENVIRONMENTS]

    def one(job: tuple[str, str, int]) -> None:
        out = folder(runs, *job)
        if (out / "run.json").exists():
            return
        out.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "benchmarks.agents", "--job", *map(str, job), "--runs", str(runs)]
        with (out / "log.txt").open("a") as log:
            subprocess.run(
                [*command, "--episodes", str(episodes)], check=True, cwd=ROOT,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                stdout=log, stderr=log,
            )  # fmt: skip
        found = json.loads((out / "run.json").read_text())
        means = {key: policy["mean"] for key, policy in found.get("policies", {job[1]: found}).items()}
        shown = ", ".join(f"{key} {mean:+.3f}" for key, mean in means.items())
        print(f"{job[0]} seed {job[2]}: {shown}", flush=True)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(one, jobs))


def folder(runs: Path, env_id: str, name: str, seed: int) -> Path:
    """Where a job writes."""
    return runs / f"{name}-{env_id.split('/')[-1].removesuffix('-v0').lower()}-{seed}"


def interquartile_mean(values: npt.ArrayLike) -> float:
    """Mean of the middle half; of five values the middle three."""
    ordered = np.sort(np.asarray(values, np.float64))
    cut = int(0.25 * ordered.size)
    return float(ordered[cut : ordered.size - cut].mean())


def bootstrap(values: Sequence[float], seed: int = 0) -> npt.NDArray[np.float64]:
    """Interquartile means of resampled values."""
    sample = np.asarray(values, np.float64)
    picked = np.random.default_rng(seed).integers(0, sample.size, (_RESAMPLES, sample.size))
    ordered = np.sort(sample[picked], axis=1)
    cut = int(0.25 * sample.size)
    means: npt.NDArray[np.float64] = ordered[:, cut : sample.size - cut].mean(1)
    return means


def interval(resampled: npt.NDArray[np.float64]) -> list[float]:
    """The middle 95 %."""
    return [float(end) for end in np.quantile(resampled, (0.025, 0.975))]


def gather(runs: Path, seeds: range) -> dict[str, Any]:
    """The table of every environment."""
    gathered: dict[str, Any] = {}
    for env_id in ENVIRONMENTS:
        trained = {
            algo: [json.loads((folder(runs, env_id, algo, seed) / "run.json").read_text()) for seed in seeds]
            for algo in TRAINED
        }
        for algo, found in trained.items():
            for seed, run in zip(seeds, found, strict=True):
                plan = TrainingPlan(algo=algo)
                wanted = json.loads(json.dumps(hyperparameters_of(plan)))
                same = run["hyperparameters"] == wanted and run["num_envs"] == plan.num_markets
                if not same or not 0 <= run["env_steps"] - plan.total_steps < 0.02 * plan.total_steps:
                    raise ValueError(f"{folder(runs, env_id, algo, seed)} was trained with other settings: remove it")
        target = float(np.mean([run["curve"][-1]["mean_return"] for run in trained["ppo"]]))
        against = bootstrap([run["mean"] for run in trained["ppo"]], seed=1)
        table: dict[str, Any] = {}
        for name in ("baselines", *PLANNERS):
            found = json.loads((folder(runs, env_id, name, 0) / "run.json").read_text())
            for key, policy in found["policies"].items():
                extras = {extra: found[extra] for extra in found if extra != "policies"}
                table[key] = {**policy, **(extras if key in ("best_constant", *PLANNERS) else {})}
        for algo, found in trained.items():
            means = [run["mean"] for run in found]
            resampled = bootstrap(means)
            reached = [_reached(run["curve"], target) for run in found]
            hits = [point for point in reached if point is not None]
            table[algo] = {
                "interquartile_mean": interquartile_mean(means),
                "ci95": interval(resampled),
                "minus_ppo_ci95": interval(resampled - against),
                "means": means,
                "env_steps": found[0]["env_steps"],
                "seconds": [run["seconds"] for run in found],
                "reached_target": len(hits),
                "env_steps_to_target": [point["env_steps"] for point in hits],
                "gradient_steps_to_target": [point["gradient_steps"] for point in hits],
                "seconds_to_target": [point["seconds"] for point in hits],
                "terminal_mark_gain": float(np.mean([run["terminal_mark_gain"] for run in found])),
                "curves": [
                    {key: [point[key] for point in run["curve"]] for key in run["curve"][0]} for run in found
                ],
                "hyperparameters": found[0]["hyperparameters"],
                "num_envs": found[0]["num_envs"],
            }  # fmt: skip
        gathered[env_id] = {"target": target, "seeds": len(seeds), "agents": table}
    return gathered


def _reached(curve: list[dict[str, float]], target: float) -> dict[str, float] | None:
    """The first point of a curve that is no lower than the target."""
    return next((point for point in curve if point["mean_return"] >= target), None)


def show(gathered: dict[str, Any]) -> None:
    """Print a table for every environment."""
    for env_id, found in gathered.items():
        rows: list[tuple[str, ...]] = [
            ("agent", "return", "95 %", "minus PPO, 95 %", "env steps", "reached", "steps to PPO's", "seconds to PPO's")
        ]
        for name, agent in found["agents"].items():
            low, high = agent["ci95"]
            if "means" not in agent:
                shown = f"{agent['episodes']} episodes"
                rows.append((name, f"{agent['mean']:.3f}", f"[{low:.3f}, {high:.3f}]", "", shown, "", "", ""))
                continue
            ahead = "[{:+.3f}, {:+.3f}]".format(*agent["minus_ppo_ci95"])
            steps, seconds = agent["env_steps_to_target"], agent["seconds_to_target"]
            rows.append(
                (
                    name, f"{agent['interquartile_mean']:.3f}", f"[{low:.3f}, {high:.3f}]",
                    "" if name == "ppo" else ahead, f"{agent['env_steps']:,}",
                    f"{agent['reached_target']}/{found['seeds']}", _median(steps, found["seeds"], ",.0f"),
                    _median(seconds, found["seeds"], ".1f"),
                )
            )  # fmt: skip
        print_table(f"{env_id}: PPO's final return is {found['target']:.3f} on the episodes of the curves", rows)


def _median(reached: list[float], seeds: int, form: str) -> str:
    """Median over all seeds, of which those that did not get there count as infinite."""
    median = float(np.median([*reached, *[np.inf] * (seeds - len(reached))]))
    return "never" if np.isinf(median) else format(median, form)


def draw_episode(policy: Policy, env_id: str, seed: int, path: Path) -> None:
    """One episode of a policy, with the unit value of no leverage on the same shocks."""
    markets = make_markets(env_id, 1)
    series = record_episode(policy, env_id, seed=seed)
    beside = {"no leverage": record_episode(no_leverage(markets.action_map), env_id, seed=seed)}
    save(episode_figure(series, f"{env_id}: a typical episode of a trained policy", beside), path)


@layout()
def draw(gathered: dict[str, Any], path: Path) -> None:
    """Returns in training against environment steps, gradient steps and seconds: medians and ranges over seeds."""
    keys = {"env_steps": "environment steps", "gradient_steps": "gradient steps", "seconds": "seconds"}
    figure = new_figure(2.3 * len(gathered) + 0.5)
    grid = figure.subplots(len(gathered), 3, sharey="row", squeeze=False)
    for row, (env_id, found) in zip(grid, gathered.items(), strict=True):
        constant = found["agents"]["best_constant"]["on_curve_episodes"]
        for axes, (key, label) in zip(row, keys.items(), strict=True):
            log_scale(axes, "x")
            for algo, colour in zip(TRAINED, SERIES, strict=False):
                curves = found["agents"][algo]["curves"]
                xs, ys = ([curve[part][1:] for curve in curves] for part in (key, "mean_return"))
                median_band(axes, xs, ys, colour=colour, label=algo.upper())
            axes.axhline(found["target"], color=INK, lw=1.0, label="PPO's final")
            axes.axhline(constant, color=INK, ls="--", lw=1.0, label="best constant")
            axes.set_xlabel(label)
        row[0].set_ylabel("sum of rewards an episode")
        row[0].set_title(env_id)
        returns = [curve["mean_return"] for algo in TRAINED for curve in found["agents"][algo]["curves"]]
        top, bottom = max(map(max, returns)), min(constant, min(min(curve[1:]) for curve in returns))
        row[0].set_ylim(max(bottom, top - 2.2) - 0.05, top + 0.05)
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=6)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(figure, path)


def main() -> None:
    """Run one job, or all of them, and gather."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "results")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=2048)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--job", nargs=3, metavar=("ENV", "AGENT", "SEED"), help="run this one only")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "agents.json")
    parser.add_argument("--images", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--redraw", action="store_true", help="draw the learning curves of --out, train nothing")
    arguments = parser.parse_args()
    if arguments.redraw:
        draw(json.loads(arguments.out.read_text())["environments"], arguments.images / "learning_curves.png")
        return
    if arguments.job:
        env_id, name, seed = arguments.job
        out = folder(arguments.runs, env_id, name, int(seed))
        if name in TRAINED:
            train_one(env_id, name, int(seed), out, arguments.episodes)
        else:
            evaluate_untrained(env_id, name, out, arguments.episodes)
        return
    seeds = range(arguments.seeds)
    run_all(arguments.runs, seeds, arguments.workers, arguments.episodes)
    gathered = gather(arguments.runs, seeds)
    show(gathered)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    command = f"python -m benchmarks.agents --seeds {arguments.seeds}"
    arguments.out.write_text(json.dumps({"command": command, "environments": gathered}, indent=1) + "\n")
    draw(gathered, arguments.images / "learning_curves.png")
    picture = folder(arguments.runs, ENVIRONMENTS[0], "apg", 0) / "episode.png"
    (arguments.images / "episode.png").write_bytes(picture.read_bytes())


if __name__ == "__main__":
    main()
