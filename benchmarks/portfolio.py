"""Portfolios by gradient flow: speed, accuracy, and how often the machines find the best.

``python -m benchmarks.portfolio`` measures processor time of 256 problems of 12 assets, the error of the penalty and of
trajectories, how the primal-dual flow settles, and the share of trials and of instances in which the Ising machine and
simulated annealing (``dwave-samplers``, where that is installed) find the ground state that brute force finds. Writes
``benchmarks/results/portfolio.json``.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hmgym.portfolio import (
    IsingProblem,
    PortfolioProblem,
    box_machine,
    encode,
    integrate,
    ising_machine,
    penalty_flow,
    penalty_solution,
    solve,
)

RESULTS = Path(__file__).parent / "results" / "portfolio.json"
PARTS = ("speed", "accuracy", "settling", "ising", "box")
_REPEATS = 15
_BITS, _PENALTY, _TRIALS, _INSTANCES = 3, 4.0, 200, 24


def drawn(
    seed: int,
    problems: int,
    assets: int,
    *,
    groups: int = 1,
    limits: int = 0,
    bounds: bool = False,
    cost: str = "quadratic",
) -> PortfolioProblem:
    """Feasible problems with returns, covariances and costs of order one."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(problems, assets, assets + 2))
    inside = rng.random((problems, assets))
    inside /= inside.sum(-1, keepdims=True)
    rows = (rng.random((groups + limits, assets)) < 0.5).astype(np.float64)
    rows[:, 0] = rows[0] = 1.0
    sums = inside @ rows.T
    room = 0.1 * rng.random((problems, limits))
    return PortfolioProblem(
        expected_returns=rng.normal(size=(problems, assets)),
        covariance=root @ root.swapaxes(-1, -2) / assets,
        risk_aversion=1.5,
        cost_rates=0.3 * rng.random((problems, assets)),
        holdings=inside,
        groups=rows[:groups],
        group_totals=sums[:, :groups],
        cost_weight=0.8,
        cost=cost,  # type: ignore[arg-type]
        limit_groups=rows[groups:] if limits else None,
        group_limits=sums[:, groups:] + room if limits else None,
        lower=0.0 if bounds else None,
        upper=inside.max(-1, keepdims=True) + 0.1 if bounds else None,
    )


def milliseconds(call: Callable[[], object]) -> float:
    """Median of processor time of a call."""
    call()
    taken = []
    for _ in range(_REPEATS):
        start = time.process_time()
        call()
        taken.append(time.process_time() - start)
    return 1e3 * statistics.median(taken)


def speed() -> dict[str, float]:
    """Milliseconds of processor time of 256 problems of 12 assets, one thread."""
    plain, groups = drawn(0, 256, 12), drawn(0, 256, 12, groups=3)
    boxes = drawn(0, 256, 12, bounds=True)
    everything = drawn(0, 256, 12, groups=2, limits=2, bounds=True, cost="linear")
    arguments = {field.name: getattr(plain, field.name) for field in dataclasses.fields(plain)}
    leaf = plain.covariance.clone().requires_grad_()
    moving = dataclasses.replace(plain, covariance=leaf)
    times = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)

    def gradient(weights: Callable[[], Tensor]) -> object:
        return torch.autograd.grad(weights().square().sum(), leaf)

    return {
        "make the problem": milliseconds(lambda: PortfolioProblem(**arguments)),
        "solve": milliseconds(lambda: solve(plain)),
        "solve, 3 groups": milliseconds(lambda: solve(groups)),
        "solve and gradient": milliseconds(lambda: gradient(lambda: solve(moving).weights)),
        "penalty_solution": milliseconds(lambda: penalty_solution(plain, 10.0)),
        "penalty_flow, 3 times": milliseconds(lambda: penalty_flow(plain, 10.0, plain.holdings, times)),
        "penalty_flow and gradient": milliseconds(
            lambda: gradient(lambda: penalty_flow(moving, 10.0, plain.holdings, times))
        ),
        "solve with bounds": milliseconds(lambda: solve(boxes)),
        "solve with groups, limits, bounds, linear cost": milliseconds(lambda: solve(everything)),
    }


def accuracy() -> dict[str, Any]:
    """Largest errors over 256 problems, or 8 where they are integrated."""
    plain = drawn(1, 256, 12, groups=3)
    exact = solve(plain)
    some = drawn(1, 8, 12, groups=3)
    times = torch.linspace(0.0, 3.0, 16, dtype=torch.float64)
    followed, taken = {}, {}
    integrate(some, 1.0, some.holdings, times)  # imports scipy
    for penalty in (1.0, 100.0, 1e4):
        start = time.process_time()
        found = integrate(some, penalty, some.holdings, times).weights
        taken[f"{penalty:g}"] = 1e3 * (time.process_time() - start) / 8
        followed[f"{penalty:g}"] = float((found - penalty_flow(some, penalty, some.holdings, times)).abs().max())
    return {
        "residual of solve": float(exact.residual.max()),
        "error of the penalty by penalty": {
            f"{rho:g}": float((penalty_solution(plain, rho) - exact.weights).abs().max())
            for rho in (1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8)
        },
        "closed form less integrator by penalty": followed,
        "milliseconds to integrate a problem by penalty": taken,
    }


def settling() -> dict[str, Any]:
    """How many of 256 problems have not settled after so many iterations, and the largest residual at the end."""
    found = {}
    for name, options in {
        "bounds": {"bounds": True},
        "groups, limits, bounds": {"groups": 2, "limits": 2, "bounds": True},
        "the same, linear cost": {"groups": 2, "limits": 2, "bounds": True, "cost": "linear"},
    }.items():
        problem = drawn(2, 256, 12, **options)  # type: ignore[arg-type]
        counts = {}
        for most in (25, 225, 250, 20_000):
            solution = solve(problem, max_iterations=most)
            counts[str(most)] = int((~solution.converged).sum())
        found[name] = {"unsettled by iterations": counts, "residual": float(solution.residual.max())}
    return found


def ising() -> dict[str, Any]:
    """Share of trials and instances that reach the ground state: 5 assets of 3 bits."""
    problem = drawn(3, _INSTANCES, 5)
    coded = encode(problem, _PENALTY, _BITS)
    least = ground_energies(coded)
    start = time.process_time()
    machine = ising_machine(coded, trials=_TRIALS).energies
    result = {"instances": _INSTANCES, "spins": coded.fields.shape[-1], "trials": _TRIALS}
    result["machine"] = rates(machine, least, time.process_time() - start)
    try:
        from dwave.samplers import SimulatedAnnealingSampler
    except ImportError:
        return result | {"annealing": "dwave-samplers is not installed"}
    for sweeps in (100, 1000):
        start, rows = time.process_time(), []
        for i in range(_INSTANCES):
            h, J = -coded.fields[i].numpy(), -coded.couplings[i].numpy()
            pairs = {(a, b): J[a, b] for a, b in itertools.combinations(range(len(h)), 2)}
            sampled = SimulatedAnnealingSampler().sample_ising(
                dict(enumerate(h)), pairs, num_reads=_TRIALS, num_sweeps=sweeps, seed=0
            )
            rows.append(sampled.record.energy + float(coded.constant[i]))
        taken = time.process_time() - start
        result[f"simulated annealing, {sweeps} sweeps"] = rates(torch.tensor(np.array(rows)).T, least, taken)
    return result


def ground_energies(coded: IsingProblem) -> Tensor:
    """(instances,) by trying all spins."""
    count = coded.fields.shape[-1]
    spins = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=count)), dtype=torch.float64)
    return torch.stack([
        (c - (spins * (0.5 * spins @ J + h)).sum(-1)).min()
        for J, h, c in zip(coded.couplings, coded.fields, coded.constant, strict=True)
    ])  # fmt: skip


def rates(energies: Tensor, least: Tensor, seconds: float) -> dict[str, Any]:
    """Of energies (trials, instances)."""
    hit = energies <= least + 1e-9
    each = hit.double().mean(0)
    return {
        "instances solved": int(hit.any(0).sum()),
        "share of trials": float(each.mean()),
        "share of trials, standard error over instances": float(each.std()) / math.sqrt(len(least)),
        "lowest share of an instance": float(each.min()),
        "processor milliseconds a trial": 1e3 * seconds / energies.numel(),
    }


def box() -> dict[str, Any]:
    """Share of trials within 1e-6 of the best that trying all pieces finds: 24 programs of 6 weights a kind."""
    rng = np.random.default_rng(4)
    root, linear = rng.normal(size=(_INSTANCES, 6, 6)), torch.tensor(rng.normal(size=(_INSTANCES, 6)))
    found = {}
    for name, matrix in (("not convex", root + root.swapaxes(-1, -2)), ("convex", root @ root.swapaxes(-1, -2) / 6)):
        quadratic = torch.tensor(matrix)
        least = torch.stack([best_in_box(Q, q) for Q, q in zip(quadratic, linear, strict=True)])
        start = time.process_time()
        result = box_machine(quadratic, linear, 0.0, 1.0, trials=_TRIALS)
        taken = time.process_time() - start
        found[name] = rates(result.objectives - 1e-6, least, taken)
        found[name]["largest gap of the best"] = float((result.best_objective - least).max())
    return found


def best_in_box(quadratic: Tensor, linear: Tensor) -> Tensor:
    """The least of ½w'Qw + q'w over [0, 1]^N, over all choices of what is at which bound."""
    least = torch.tensor(torch.inf, dtype=torch.float64)
    for state in itertools.product((0, 1, 2), repeat=len(linear)):
        at = torch.tensor(state)
        w, free = (at == 1).double(), at == 2
        if free.any():
            w[free] = torch.linalg.solve(quadratic[free][:, free], -linear[free] - quadratic[free][:, ~free] @ w[~free])
        if bool(((w >= 0.0) & (w <= 1.0)).all()):
            least = torch.minimum(least, 0.5 * w @ quadratic @ w + linear @ w)
    return least


def main() -> None:
    """Run the parts and write the figures; parts that are not run keep the figures of the last run."""
    parser = argparse.ArgumentParser(description="Measure portfolios by gradient flow.")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    report = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    report["machine"] = {
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "threads": 1,
    }
    for part in arguments.only:
        report[part] = {"speed": speed, "accuracy": accuracy, "settling": settling, "ising": ising, "box": box}[part]()
        print(json.dumps({part: report[part]}, indent=1))
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
