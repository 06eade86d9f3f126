"""Several learners in one market: one policy for all of them by PPO and by SHAC, and what one gains by deviating.

``python -m benchmarks.learners`` writes ``benchmarks/results/learners.json``. Learners share a policy; PPO sees each of
them as a row, SHAC ascends each one's own return. The gain is a best response found by gradient, so a lower bound.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import print_table
from hmgym.agents import evaluate
from hmgym.agents.best_response import best_response
from hmgym.agents.networks import SquashedGaussianPolicy
from hmgym.agents.training import TrainingPlan, train

ENVIRONMENTS = ("hmgym/Leverage-v0", "hmgym/Beliefs-v0")
SIZES = {"ppo": (1_000_000, 64), "shac": (100_000, 8)}  # periods over all learners, markets


def compare(
    env_id: str, n_learners: int, seed: int, runs: Path, episodes: int, timesteps: int | None
) -> dict[str, Any]:
    """Train both on one environment and let one learner deviate from SHAC's policy."""
    kwargs = {"n_learners": n_learners}
    found: dict[str, Any] = {}
    for algo in ("ppo", "shac"):
        out = runs / f"{algo}-{env_id.split('/')[-1].removesuffix('-v0').lower()}-{n_learners}-{seed}"
        default, num_envs = SIZES[algo]
        plan = TrainingPlan(
            algo=algo, env_id=env_id, seed=seed, out=out, resume=True, curve_episodes=0, env_kwargs=kwargs,
            num_envs=num_envs, timesteps=timesteps or default,
        )  # fmt: skip
        result = train(plan)
        final = evaluate(result.policy, env_id, name=algo, episodes=episodes, env_kwargs=kwargs).result
        found[algo] = {
            "mean": final.mean, "ci95": final.ci95, "env_steps": result.env_steps, "seconds": round(result.seconds, 1),
        }  # fmt: skip
    assert isinstance(result.policy, SquashedGaussianPolicy)
    settings = {"n_learners": n_learners, "episodes": episodes, "seed": seed + 100}
    if timesteps is not None:
        settings["timesteps"] = timesteps
    response = best_response(result.policy, env_id, **settings)
    found["best_response"] = {
        "before": response.before.mean, "gain": response.gain.mean, "ci95": response.gain.ci95,
        "env_steps": response.env_steps,
    }  # fmt: skip
    return found


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--n-learners", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=512)
    parser.add_argument("--timesteps", type=int, help="of every training; default: SIZES")
    parser.add_argument("--env", nargs="+", default=list(ENVIRONMENTS))
    parser.add_argument("--runs", type=Path, default=Path("runs") / "learners")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "learners.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = {
        env_id: compare(
            env_id,
            n_learners=arguments.n_learners,
            seed=arguments.seed,
            runs=arguments.runs,
            episodes=arguments.episodes,
            timesteps=arguments.timesteps,
        )
        for env_id in arguments.env
    }
    rows: list[tuple[str, ...]] = [("environment", "PPO", "SHAC", "gain of one that deviates from SHAC's", "95 %")]
    for env_id, found in results.items():
        low, high = found["best_response"]["ci95"]
        rows.append(
            (
                env_id, f"{found['ppo']['mean']:+.3f}", f"{found['shac']['mean']:+.3f}",
                f"{found['best_response']['gain']:+.4f}", f"[{low:+.4f}, {high:+.4f}]",
            )
        )  # fmt: skip
    print_table(f"{arguments.n_learners} learners of one market, mean sum of rewards an episode", rows)
    command = f"python -m benchmarks.learners --n-learners {arguments.n_learners} --seed {arguments.seed}"
    arguments.out.write_text(
        json.dumps({"command": command, "episodes": arguments.episodes, "environments": results}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
