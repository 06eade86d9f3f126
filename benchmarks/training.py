"""What the benchmarks of agents have in common: train one, evaluate it in some economies, and say what it held.

Everything is reported as :data:`hmgym.agents.PROTOCOL` says: on the held-out span, on its own seeds.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.jobs import RESULTS, ROOT
from hmgym.agents import PROTOCOL, Evaluation, Policy, estimate, evaluate
from hmgym.agents.probes import with_economy
from hmgym.agents.training import TrainingPlan, hyperparameters_of, train
from hmgym.envs import BatchVectorEnv

Progress = Callable[..., None]
MONTHS_A_YEAR = 12


class Watch:
    """What the learners of some markets hold, month by month, and what prices are over values.

    Attributes:
        largest_share: that any learner ever held of an asset's supply, at the start of a month.
    """

    def __init__(self) -> None:
        self.largest_share = 0.0
        self._mispricing: list[npt.NDArray[np.float64]] = []  # sums over markets, an asset each
        self._months = 0

    def __call__(self, markets: BatchVectorEnv, running: npt.NDArray[np.bool_]) -> None:
        """Look at the markets that still run, after a period."""
        state = markets.state
        seats = running.reshape(markets.num_markets, markets.n_learners)
        held = (state.holdings[:, : markets.n_learners] / state.supply[:, None]).numpy()
        if seats.any():
            self.largest_share = max(self.largest_share, float(held[seats].max()))
        rows = seats.any(1)
        mispricing = (state.prices.log() - state.log_value).numpy()[rows]
        self._mispricing.append(mispricing.sum(0))
        self._months += int(rows.sum())

    @property
    def mispricing(self) -> list[float]:
        """Mean log(price / value) of each asset."""
        return [float(one) for one in np.sum(self._mispricing, 0) / max(self._months, 1)]


def train_and_test(
    out: Path,
    progress: Progress,
    *,
    env_id: str,
    algo: str,
    seed: int,
    training: Mapping[str, Any],
    tests: Mapping[str, Mapping[str, Any]],
    hyperparameters: Mapping[str, Any],
    episodes: int,
    timesteps: int | None = None,
    num_envs: int | None = None,
    curve_episodes: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Train an agent and evaluate it; a job of :mod:`benchmarks.jobs`.

    Args:
        out: folder of the run.
        progress: told how far it is.
        env_id: a registered id.
        algo: name of the algorithm.
        seed: of the training.
        training: markets to train in, see `environment_of`.
        tests: markets to evaluate in, by name.
        hyperparameters: changes to the algorithm's own.
        episodes: of each evaluation.
        timesteps: of the training; None takes the algorithm's.
        num_envs: markets side by side in training; None takes the algorithm's.
        curve_episodes: of each point of the learning curve; 0 keeps none.
        settings: that the result depends on besides; see `settings_of`.
    """
    plan = TrainingPlan(
        algo=algo, env_id=env_id, seed=seed, out=out, resume=True, timesteps=timesteps, num_envs=num_envs,
        curve_episodes=curve_episodes, env_kwargs=environment_of(training), hyperparameters=hyperparameters,
    )  # fmt: skip
    result = train(
        plan, lambda steps, mean: progress(0.9 * min(steps / plan.total_steps, 1.0), f"mean return {mean:+.3f}")
    )
    found = {}
    for at, (name, markets) in enumerate(tests.items()):
        progress(0.9 + 0.1 * at / len(tests), f"testing {name}")
        found[name] = test(result.policy, env_id, markets, episodes)
    return {
        "tests": found, "env_steps": result.env_steps, "seconds": round(result.seconds, 2),
        "curve": [vars(point) for point in result.curve], "hyperparameters": hyperparameters_of(plan),
        "num_envs": plan.num_markets,
    }  # fmt: skip


def test(policy: Policy, env_id: str, markets: Mapping[str, Any], episodes: int) -> dict[str, Any]:
    """A policy in some markets, as the protocol says, with what it held."""
    protocol = dataclasses.replace(PROTOCOL, episodes=episodes)
    watch = Watch()
    run = evaluate(policy, env_id, watch=watch, **protocol.report(env_id, environment_of(markets)))
    return {**summary(run), "largest_share": watch.largest_share, "log_price_over_value": watch.mispricing}


def summary(run: Evaluation) -> dict[str, Any]:
    """What a table says of an evaluation, and the return of every episode."""
    result = run.result
    return {
        "mean": result.mean, "ci95": result.ci95, "episodes": int(run.returns.size),
        "growth": float(run.returns.sum() / run.lengths.sum() * MONTHS_A_YEAR), "ruined": float(run.terminated.mean()),
        "measures": {name: float(values.mean()) for name, values in run.measures.items()},
        "returns": [round(float(one), 6) for one in run.returns],
    }  # fmt: skip


def environment_of(markets: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of an environment from what JSON can hold: `environment`, and changes to the `economy`."""
    unknown = sorted(set(markets) - {"environment", "economy"})
    if unknown:
        raise ValueError(f"`markets` must have `environment` and `economy` at most, got {unknown}")
    return with_economy(markets.get("environment"), **markets.get("economy", {}))


def settings_of(env_id: str, algo: str | None, markets: Mapping[str, Any], changes: Mapping[str, Any]) -> Any:
    """What a result depends on besides its arguments: defaults of the algorithm, of the id and of the economy.

    Part of a job's arguments, so that a result of older defaults is not taken for one of these.
    """
    from hmgym.envs import make_markets

    kwargs = environment_of(markets)
    made = make_markets(env_id, 1, **kwargs)
    plan = TrainingPlan(algo=algo or TrainingPlan.algo, env_id=env_id, env_kwargs={"config": made.config})
    described = plan.described()
    trained = None
    if algo is not None:
        own = dataclasses.replace(plan, hyperparameters=changes).described()
        trained = {name: own[name] for name in ("hyperparameters", "timesteps", "num_envs")}
    return {
        "economy": described["env_kwargs"]["config"], "observation": list(made.observation_map.names),
        "action": list(made.action_map.names), "trained": trained,
    }  # fmt: skip


def options_of(name: str, about: str | None, ids: Sequence[str], **defaults: int) -> argparse.ArgumentParser:
    """The options that benchmarks of agents share; `defaults` replace those of --seeds and --episodes."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes at a time")
    parser.add_argument("--ids", nargs="+", choices=ids, default=list(ids))
    parser.add_argument("--episodes", type=int, default=PROTOCOL.episodes)
    parser.add_argument(
        "--timesteps", type=int, help="of every training; default the algorithm's own, or the benchmark's"
    )
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / name)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.set_defaults(**defaults)
    return parser


def over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """Mean of values, one a training seed, with Student's 95 % interval where there are several."""
    if len(values) < 2:
        return {"mean": float(values[0]), "ci95": None, "seeds": 1, "values": list(values)}
    found = estimate(values)
    return {"mean": found.mean, "ci95": found.ci95, "seeds": len(values), "values": list(values)}


def short_name(env_id: str) -> str:
    """Of an id, for names of folders."""
    return env_id.split("/")[-1].removesuffix("-v0").lower()


def with_interval(found: Mapping[str, Any], form: str = ".3f") -> str:
    """``1.234 [1.200, 1.268]``; without an interval where there is none."""
    mean = format(found["mean"], form)
    if found.get("ci95") is None:
        return mean
    return f"{mean} [{found['ci95'][0]:{form}}, {found['ci95'][1]:{form}}]"
