"""Does PPO beat the best constant policy? Several training seeds on each environment.

``python -m benchmarks.training`` trains what is not trained yet (a run that was cut off goes on from its checkpoint),
gathers the reports in ``benchmarks/results/training.json``, draws ``docs/images/learning_curves.png`` and copies an
episode beside it. The seed of training is the unit: the interval is that of the mean, over seeds, of the paired
difference to the best constant.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import print_table
from hmgym.agents.evaluation import over_training_seeds

ROOT = Path(__file__).parent.parent
ENVIRONMENTS = ("hmgym/Leverage-v0", "hmgym/Beliefs-v0")


def train_all(runs: Path, environments: Iterable[str], seeds: range, options: list[str], workers: int) -> None:
    """Run ``train.py`` for every environment and seed without a report, ``workers`` at a time, one thread each."""

    def train(job: tuple[str, int]) -> None:
        env_id, seed = job
        out = _folder(runs, env_id, seed)
        if (out / "report.json").exists():
            return
        out.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(ROOT / "train.py"), "--env", env_id, "--seed", str(seed), "--out", str(out)]
        with (out / "log.txt").open("a") as log:
            threads = {"OMP_NUM_THREADS": "1"}
            subprocess.run(
                [*command, "--resume", *options], check=True, env=os.environ | threads, stdout=log, stderr=log
            )
        print(
            f"{env_id} seed {seed}: {json.loads((out / 'report.json').read_text())['final']['mean']:+.3f}", flush=True
        )

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(train, [(env_id, seed) for env_id in environments for seed in seeds]))


def gather(runs: Path, environments: Iterable[str], seeds: range) -> dict[str, Any]:
    """One entry an environment: the final means, the baselines, the paired differences and their interval."""
    gathered: dict[str, Any] = {}
    for env_id in environments:
        reports = [json.loads((_folder(runs, env_id, seed) / "report.json").read_text()) for seed in seeds]
        for seed, report in zip(seeds, reports, strict=True):
            if report["settings"] != reports[0]["settings"]:
                raise ValueError(f"{_folder(runs, env_id, seed)} was trained with other settings: remove it")
        differences = [report["baselines"]["best_constant"]["policy_minus_baseline"]["mean"] for report in reports]
        interval = over_training_seeds(differences)
        gathered[env_id] = {
            "algo": reports[0]["algo"],
            "env_steps": reports[0]["env_steps"],
            "seconds": [report["seconds"] for report in reports],
            "unit": reports[0]["unit"],
            "final": [report["final"]["mean"] for report in reports],
            "baselines": {name: baseline["mean"] for name, baseline in reports[0]["baselines"].items()},
            "best_constant": reports[0]["baselines"]["best_constant"]["setting"],
            "minus_best_constant": differences,
            "minus_best_constant_mean": interval.mean,
            "minus_best_constant_ci95": interval.ci95,
            "curves": [
                {key: [point[key] for point in report["curve"]] for key in ("env_steps", "mean_return")}
                for report in reports
            ],
        }
    return gathered


def draw(gathered: dict[str, Any], path: Path) -> None:
    """Learning curves of all seeds, beside the baselines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout="constrained")
    for axes, (env_id, found) in zip(
        figure.subplots(1, len(gathered), squeeze=False)[0], gathered.items(), strict=True
    ):
        for curve in found["curves"]:
            steps, returns = np.array(curve["env_steps"]), np.array(curve["mean_return"])
            axes.plot(steps / 1e6, returns, color="tab:blue", alpha=0.5, lw=0.8)
        styles = {"best_constant": "-", "random": "--", "no_leverage": ":"}
        for name, style in styles.items():
            axes.axhline(found["baselines"][name], ls=style, color="black", lw=1, label=name.replace("_", " "))
        axes.axhline(np.mean(found["final"]), color="tab:red", label="trained, mean of seeds, evaluated")
        low = min(found["baselines"].values())
        axes.set(title=env_id, xlabel="million environment steps", ylabel=found["unit"])
        axes.set_ylim(low - 0.3, max(found["final"]) + 0.4)
        axes.legend(loc="lower right", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _folder(runs: Path, env_id: str, seed: int) -> Path:
    return runs / f"ppo-{env_id.split('/')[-1].removesuffix('-v0').lower()}-{seed}"


def main() -> None:
    """Train, gather, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "results")
    parser.add_argument("--env", nargs="+", default=list(ENVIRONMENTS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "training.json")
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "images" / "learning_curves.png")
    arguments, options = parser.parse_known_args()
    seeds = range(arguments.seeds)
    train_all(arguments.runs, arguments.env, seeds, options, arguments.workers)
    gathered = gather(arguments.runs, arguments.env, seeds)
    rows = [("environment", "best constant", "trained", "difference", "95 % interval over seeds")]
    for env_id, found in gathered.items():
        low, high = found["minus_best_constant_ci95"]
        final, constant = float(np.mean(found["final"])), found["baselines"]["best_constant"]
        difference = found["minus_best_constant_mean"]
        rows.append((env_id, f"{constant:+.3f}", f"{final:+.3f}", f"{difference:+.3f}", f"[{low:+.3f}, {high:+.3f}]"))
    print_table(f"PPO, {arguments.seeds} training seeds, sum of rewards an episode", rows)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    command = " ".join(["python -m benchmarks.training", f"--seeds {arguments.seeds}", *options])
    arguments.out.write_text(json.dumps({"command": command, "environments": gathered}, indent=1) + "\n")
    draw(gathered, arguments.figure)
    shutil.copy(_folder(arguments.runs, arguments.env[0], 0) / "episode.png", arguments.figure.parent / "episode.png")


if __name__ == "__main__":
    main()
