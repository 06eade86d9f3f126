"""One version of hmgym at work: run as a script, it reads commands and answers, a line of JSON each.

The same file measures every version, so it uses public names alone, and makes its own problems.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch

import hmgym
from hmgym.clearing.threads import set_num_threads

ENV_ID = "hmgym/Leverage-v0"
BEFORE = 24  # months that a market runs before it is measured
LEAST_SECONDS = 0.15  # that a piece of work takes
NOT_CLEARING = ("active_limits",)  # functions of hmgym.clearing that only read a solution


class Work(NamedTuple):
    """What is timed: a call does ``size`` units of it and returns its seconds."""

    call: Callable[[], float]
    size: int


# What is measured


def clearing(n_assets: int, n_investors: int, n_markets: int) -> Work:
    """The clearings of a running economy whose learner acts at random."""
    step = _stepping(n_markets, n_assets=n_assets, n_investors=n_investors, max_episode_steps=10**9)

    def call() -> float:
        with _clock_on_clearing() as clock:
            step()
        if not clock[0]:
            raise RuntimeError("no function of hmgym.clearing was called from outside of it: nothing to time")
        return clock[0]

    return Work(call, n_markets)


def vector_steps(n_markets: int) -> Work:
    """Steps of the vector environment, random actions."""
    return Work(_timed(_stepping(n_markets)), n_markets)


def single_steps() -> Work:
    """Steps of ``gym.make``, random actions."""
    env = gym.make(ENV_ID)
    env.reset(seed=0)
    actions = itertools.cycle(np.random.default_rng(0).uniform(-1, 1, (64, *env.action_space.shape)).astype(np.float32))

    def step() -> None:
        *_, terminated, truncated, _ = env.step(next(actions))
        if terminated or truncated:
            env.reset()

    return Work(_timed(step), 1)


def portfolios(n_assets: int, n_problems: int = 1000) -> Work:
    """``optimize_portfolio`` on different problems at once: returns of volatility .003 to .3, limits of every kind."""
    rng = np.random.default_rng(n_assets)
    B, N = n_problems, n_assets
    prices, wealth = np.exp(rng.normal(3.0, 0.7, N)), 1.0 + rng.pareto(1.5, B)
    loadings = rng.normal(size=(B, N, N + 2)) * 10 ** rng.uniform(-2.5, -0.5, (B, 1, 1)) / np.sqrt(N + 2)
    risk = loadings @ loadings.mT * (rng.uniform(1.0, 4.0, B) / wealth)[:, None, None]
    arguments = {
        "Sigma": risk * prices[:, None] * prices,
        "expected_returns": prices * np.exp(rng.normal(0.02, 0.1, (B, N))),
        "commission": 0.0,
        "holdings": 0.0,
        "budget": wealth,
        "short_leverage": rng.uniform(0.0, 0.5, B) * rng.integers(0, 2, B),
        "long_leverage": rng.uniform(1.0 / (N + 1) + 0.05, 2.5, B),
        "prices": prices,
    }
    tensors = {name: torch.as_tensor(value, dtype=torch.float64) for name, value in arguments.items()}
    return Work(_timed(functools.partial(hmgym.optimize_portfolio, **tensors)), B)


def equilibria(n_assets: int, n_investors: int, n_markets: int) -> Work:
    """``find_equilibrium_prices`` on different markets at once, drawn as in the example of the seed library."""
    rng = np.random.default_rng(0)
    E, B, N = n_markets, n_investors, n_assets
    factors = rng.normal(size=(E, B, N + 1, N)) * np.sqrt(50.0 / (N + 1))
    arguments = {
        "Sigma": factors.swapaxes(-1, -2) @ factors,
        "expected_returns": 1.0 + np.sqrt(5.0) * rng.normal(size=(E, B, N)),
        "commission": 0.0,
        "holdings": 0.0,
        "budget": 130000.0 * (1.0 - rng.random((E, B))) ** -0.1,
        "short_leverage": rng.beta(1.0, 4.0, (E, B)),
        "long_leverage": rng.beta(2.0, 2.0, (E, B)) / N * (N - 1) + 1.0 / N,
        "supply": np.full((E, N), 10000.0),
    }
    tensors = {name: torch.as_tensor(value, dtype=torch.float64) for name, value in arguments.items()}
    return Work(_timed(functools.partial(hmgym.find_equilibrium_prices, **tensors, return_solution=True)), E)


MEASURES: dict[str, Callable[[], Work]] = {
    "clearing-3x20": functools.partial(clearing, 3, 20, 256),
    "clearing-10x100": functools.partial(clearing, 10, 100, 16),
    "steps-256": functools.partial(vector_steps, 256),
    "steps-single": single_steps,
    "portfolio-3": functools.partial(portfolios, 3),
    "portfolio-10": functools.partial(portfolios, 10),
    "portfolio-30": functools.partial(portfolios, 30),
    "equilibrium-64": functools.partial(equilibria, 3, 20, 64),
}


def _stepping(n_markets: int, **arguments: int) -> Callable[[], object]:
    """A vector environment some months on, as a function that steps it."""
    envs = gym.make_vec(ENV_ID, num_envs=n_markets, **arguments)
    envs.reset(seed=0)
    actions = itertools.cycle(
        np.random.default_rng(0).uniform(-1, 1, (64, *envs.action_space.shape)).astype(np.float32)
    )
    for _ in range(BEFORE):
        envs.step(next(actions))
    return lambda: envs.step(next(actions))


def _timed(function: Callable[[], object]) -> Callable[[], float]:
    def call() -> float:
        start = now()
        function()
        return now() - start

    return call


@contextmanager
def _clock_on_clearing() -> Iterator[list[float]]:
    """Seconds spent in functions of ``hmgym.clearing`` that other packages call, whatever they are in this version."""
    clock, depth = [0.0], [0]

    def clocked(function: FunctionType) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            depth[0] += 1
            start = now()
            try:
                return function(*args, **kwargs)
            finally:
                depth[0] -= 1
                if not depth[0]:
                    clock[0] += now() - start

        return call

    callers = [module for name, module in sys.modules.items() if name.startswith("hmgym.") and ".clearing" not in name]
    found = [
        (module, name, value)
        for module in callers
        for name, value in vars(module).items()
        if isinstance(value, FunctionType) and value.__module__.startswith("hmgym.clearing")
    ]
    found = [(module, name, value) for module, name, value in found if name not in NOT_CLEARING]
    for module, name, value in found:
        setattr(module, name, clocked(value))
    try:
        yield clock
    finally:
        for module, name, value in found:
            setattr(module, name, value)


# What is recorded


def runs() -> Iterator[tuple[str, str, dict[str, Any], int]]:
    """Name, id, arguments and number of learners (0: the single environment) of every recorded run."""
    ids = ("hmgym/Leverage-v0", "hmgym/Beliefs-v0", "hmgym/LeverageBeliefs-v0")
    rewards = ("log_unit_value", "excess_return", "differential_sharpe")
    for env_id, reward, economy in itertools.product(ids, rewards, ("bootstrap", "gaussian")):
        for learners in (1, 3, 0):
            config = hmgym.MarketConfig(fundamentals=economy, n_learners=max(1, learners))
            yield f"{env_id} {reward} {economy} {learners}", env_id, {"reward": reward, "config": config}, learners


def record(months: int, n_markets: int, first_months: int) -> dict[str, np.ndarray]:
    """Every run by "name|kind|field": "run" goes on for ``months``, "first" is the month after each of many resets."""
    arrays: dict[str, np.ndarray] = {}
    for name, env_id, arguments, learners in runs():
        single = learners == 0
        envs = gym.make(env_id, **arguments) if single else gym.make_vec(env_id, num_envs=n_markets, **arguments)
        rng = np.random.default_rng(0)
        draw = functools.partial(rng.uniform, -1.0, 1.0, envs.action_space.shape)
        steps = []
        envs.reset(seed=0)
        for _ in range(months):
            steps.append(_step(envs, draw()))
            if single and (steps[-1]["terminated"] or steps[-1]["truncated"]):
                envs.reset()
        firsts = []
        for seed in range(-(-first_months // (1 if single else n_markets))):
            envs.reset(seed=1000 * (seed + 1))
            firsts.append(_step(envs, draw()))
        for kind, rows in (("run", steps), ("first", firsts)):
            arrays |= {f"{name}|{kind}|{field}": np.stack([row[field] for row in rows]) for field in rows[0]}
        envs.close()
    return arrays


def _step(envs: Any, action: np.ndarray) -> dict[str, np.ndarray]:
    observation, reward, terminated, truncated, info = envs.step(action.astype(np.float32))
    fields = {"observation": observation, "reward": reward, "terminated": terminated, "truncated": truncated}
    fields |= {name: info[name] for name in ("prices", "holdings", "wealth", "unit_value")}
    return {name: np.array(value) for name, value in fields.items()}


# Commands

works: dict[str, Work] = {}
threads = int(sys.argv[1]) if __name__ == "__main__" else 1
now = time.process_time if threads == 1 else time.perf_counter  # other processes disturb the former less


def measures() -> list[str]:
    """Names of what can be measured."""
    return list(MEASURES)


def prepare(measure: str) -> int:
    """Compile and warm up; how many calls make a piece of work."""
    work = works[measure] = MEASURES[measure]()
    work.call()
    start = time.perf_counter()
    work.call()
    return max(1, round(LEAST_SECONDS / (time.perf_counter() - start)))


def seconds(measure: str, calls: int) -> float:
    """Seconds a unit of one piece of work."""
    work = works[measure]
    return sum(work.call() for _ in range(calls)) / calls / work.size


def record_into(file: str, **settings: int) -> int:
    """Record all runs into a file; the number of arrays."""
    arrays = record(**settings)
    np.savez(file, **arrays)
    return len(arrays)


def about() -> str:
    """Where this version was imported from."""
    return str(hmgym.__file__)


COMMANDS: dict[str, Callable[..., Any]] = {f.__name__: f for f in (about, measures, prepare, seconds, record_into)}


def main() -> None:
    """Serve until the pipe closes; whatever else is printed goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(threads)
    set_num_threads(threads)
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = {"result": COMMANDS[command.pop("do")](**command)}
        except Exception:  # noqa: BLE001 - the driver decides what an error means, whatever it is
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
