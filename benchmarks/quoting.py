"""Market making in its simulated market: learners against the best policy there is, and speed.

``python -m benchmarks.quoting`` trains PPO and APG with the package's defaults on ``hmgym/MarketMaking-v0``, five seeds
each, as ``hmgym train`` does, and takes the expected reward of what they learnt from the exact law of its quotes,
beside that of the best policy and of every baseline. It then measures environment steps a second, in processor time,
beside mbt_gym where that is installed (``--only speed`` does nothing else). Writes ``benchmarks/results/quoting.json``
and ``quoting.md``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from tqdm import tqdm

from benchmarks.jobs import RESULTS, command_of, markdown_table, write_tables
from benchmarks.training import over_seeds, with_interval
from hmgym.agents import baselines_of, choose_best_constant, evaluate
from hmgym.agents.quoting import law_of
from hmgym.agents.training import TrainingPlan, train
from hmgym.market_making import QuotingConfig, exact_law

ENV_ID = "hmgym/MarketMaking-v0"
LEARNERS = ("ppo", "apg")
BATCHES = (1, 100, 1000, 10_000)
_ROUNDS, _STEPS = 7, 400


def best_reward(config: QuotingConfig) -> float:
    """The expected reward of the solution of the continuous problem, quoted at the start of every step."""
    model = config.problem()
    solution = model.solve([config.dt * step for step in range(config.steps)])
    return exact_law(model, solution.bid, solution.ask, dt=config.dt).expected_reward


def learnt(algo: str, seed: int, config: QuotingConfig, timesteps: int | None) -> dict[str, float]:
    """Train once; expected reward of the deterministic policy, months and seconds of training."""
    with tempfile.TemporaryDirectory() as folder:
        plan = TrainingPlan(
            algo=algo, env_id=ENV_ID, seed=seed, out=Path(folder) / "run", curve_episodes=0, timesteps=timesteps
        )
        result = train(plan)
    law = law_of(result.policy, config)
    return {"expected_reward": law.expected_reward, "env_steps": result.env_steps, "seconds": result.seconds}


def steps_a_second(num_envs: int) -> float:
    """Median of steps a second of processor time through `step` of the vector environment, random actions."""
    markets = gym.make_vec(ENV_ID, num_envs)
    markets.reset(seed=0)
    markets.action_space.seed(0)
    action = markets.action_space.sample()
    rates = []
    for _ in range(_ROUNDS + 1):
        start = time.process_time()
        for _ in range(_STEPS):
            markets.step(action)
        rates.append(num_envs * _STEPS / (time.process_time() - start))
    markets.close()
    return statistics.median(rates[1:])


def mbt_steps_a_second(num_envs: int) -> float | None:
    """The same for mbt_gym (Jerome et al. 2022) on the same market; None where it is not installed.

    Its paths share one generator, and an episode that has ended is not reset.
    """
    try:
        from mbt_gym.gym.ModelDynamics import LimitOrderModelDynamics
        from mbt_gym.gym.TradingEnvironment import TradingEnvironment
        from mbt_gym.stochastic_processes.arrival_models import PoissonArrivalModel
        from mbt_gym.stochastic_processes.fill_probability_models import ExponentialFillFunction
        from mbt_gym.stochastic_processes.midprice_models import BrownianMotionMidpriceModel
    except ImportError:
        return None
    config = QuotingConfig()
    common = {"step_size": config.dt, "num_trajectories": num_envs}
    dynamics = LimitOrderModelDynamics(
        midprice_model=BrownianMotionMidpriceModel(
            volatility=config.volatility, terminal_time=config.horizon, **common
        ),
        arrival_model=PoissonArrivalModel(intensity=np.full(2, config.arrival_rate), **common),
        fill_probability_model=ExponentialFillFunction(fill_exponent=config.depth_decay, **common),
        num_trajectories=num_envs,
    )  # fmt: skip
    markets = TradingEnvironment(
        terminal_time=config.horizon, n_steps=config.steps, model_dynamics=dynamics, initial_inventory=0,
        max_inventory=config.max_inventory, num_trajectories=num_envs,
    )  # fmt: skip
    action, rates = np.full((num_envs, 2), 1.0 / config.depth_decay), []
    for _ in range(_ROUNDS + 1):
        markets.reset()
        start = time.process_time()
        for _ in range(config.steps):
            markets.step(action)
        rates.append(num_envs * config.steps / (time.process_time() - start))
    return statistics.median(rates[1:])


def speeds() -> dict[str, Any]:
    """Steps a second by number of market makers, and those of mbt_gym at 1,000."""
    own = {str(num_envs): steps_a_second(num_envs) for num_envs in BATCHES}
    other = mbt_steps_a_second(1000)
    return {"steps_a_second": own, "mbt_gym": other}


def gather(options: argparse.Namespace) -> dict[str, Any]:
    """All that is measured."""
    config = QuotingConfig()
    best = best_reward(config)
    rows: dict[str, Any] = {}
    for name, baseline in baselines_of(ENV_ID).items():
        if name != "random":
            rows[name] = {"expected_reward": law_of(baseline.policy, config).expected_reward}
    constant = choose_best_constant(ENV_ID).policy
    rows[f"best constant ({constant.name})"] = {"expected_reward": law_of(constant, config).expected_reward}
    jobs = [(algo, seed) for algo in LEARNERS for seed in range(options.seeds)]
    runs: dict[str, list[dict[str, float]]] = {algo: [] for algo in LEARNERS}
    for algo, seed in tqdm(jobs, unit="run", disable=None):
        runs[algo].append(learnt(algo, seed, config, options.timesteps))
    for algo, found in runs.items():
        shares = [run["expected_reward"] / best for run in found]
        rows[algo] = {
            "expected_reward": statistics.mean(run["expected_reward"] for run in found), "share": over_seeds(shares),
            "lowest": min(shares), "env_steps": found[0]["env_steps"],
            "seconds": statistics.median(run["seconds"] for run in found),
        }  # fmt: skip
    simulated = evaluate(baselines_of(ENV_ID)["hjb"].policy, ENV_ID, episodes=options.episodes).result
    return {
        "best": best, "rows": rows, "hjb_simulated": {"mean": simulated.mean, "ci95": simulated.ci95},
        **speeds(),
    }  # fmt: skip


def page(found: dict[str, Any], command: str) -> str:
    """The tables in Markdown."""
    rows = [("policy", "expected reward", "of the best", "lowest of seeds", "steps of training", "seconds")]
    for name, row in found["rows"].items():
        share = row.get("share")
        rows.append(
            (
                name.replace("_", " "), f"{row['expected_reward']:.3f}",
                f"{row['expected_reward'] / found['best']:.2%}" if share is None else with_interval(share, ".4f"),
                "" if share is None else f"{row['lowest']:.4f}", "" if share is None else f"{row['env_steps']:,}",
                "" if share is None else f"{row['seconds']:.0f}",
            )
        )  # fmt: skip
    speed = [("market makers", "steps a second")]
    speed += [(f"{int(count):,}", f"{rate:,.0f}") for count, rate in found["steps_a_second"].items()]
    if found["mbt_gym"] is not None:
        speed.append(("1,000, mbt_gym", f"{found['mbt_gym']:,.0f}"))
    low, high = found["hjb_simulated"]["ci95"]
    return (
        f"# Market making\n\n`{command}`: `{ENV_ID}`, reward inventory_penalty; expected rewards an episode from the "
        f"exact law of each policy's quotes. The solution of the continuous problem earns {found['best']:.4f}; "
        f"simulated, {found['hjb_simulated']['mean']:.3f} [{low:.3f}, {high:.3f}].\n\n{markdown_table(rows)}\n\n"
        f"Environment steps a second of processor time, through `step` of the vector environment:\n\n"
        f"{markdown_table(speed)}\n"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write; returns the exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks.quoting", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=20_000, help="of the best policy, simulated")
    parser.add_argument("--timesteps", type=int, default=None, help="of every training; default the algorithm's own")
    parser.add_argument("--only", choices=("speed",), help="measure speed, print it and write nothing")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    if options.only is not None:
        print(speeds())
        return 0
    found, command = gather(options), command_of("benchmarks.quoting", argv)
    write_tables(options.results, "quoting", command, found, page(found, command))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
