"""Follow the gradient flow of a portfolio problem from equal weights to rest; write the weights and a figure.

`hmgym portfolio flow` takes means and covariances of monthly returns from a CSV of prices (the packaged prices of 20
stocks without one). The penalty flow, or with bounds or linear cost the primal-dual flow, is integrated; beside it
stands the exact solution. Writes weights.csv, summary.txt and flow.png to the folder of --out.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from hmgym.analysis.figures import save
from hmgym.analysis.portfolio_panels import flow_figure
from hmgym.checks import check_number
from hmgym.commands.console import check_at_least, check_folder, counting_bar, parse, refusals, say
from hmgym.data import read_prices, sp500_monthly
from hmgym.portfolio import PortfolioProblem, Trajectory, integrate, solve

PROG = "hmgym portfolio flow"
ACTIONS = ("flow",)
_FIRST_TIME = 1e-4  # of the horizon


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options."""

    prices: Path | None = None
    """CSV of prices, a column an asset; default the packaged ones"""
    assets: int = 12
    """how many of its first assets"""
    risk_aversion: float = 5.0
    """gamma"""
    cost_rate: float = 0.002
    """nu of every asset, return a period; equal weights are held before"""
    cost: Literal["quadratic", "linear"] = "quadratic"
    """of trading"""
    lower: float | None = None
    """bound of every weight; default none"""
    upper: float | None = None
    """likewise"""
    penalty: float = 1.0
    """rho of the budget"""
    horizon: float = 5000.0
    """time that the flow is followed for"""
    points: int = 200
    """times at which weights are written"""
    stop_below: float = 1e-8
    """speed at which the flow counts as at rest"""
    out: Path | None = None
    """folder of what is written; default runs/portfolio-flow"""


def main(argv: Sequence[str]) -> int:
    """Follow, write, print the summary; returns the exit status."""
    with refusals("hmgym portfolio"):
        if not argv or argv[0] not in (*ACTIONS, "-h", "--help"):
            raise ValueError(f"the action must be one of {', '.join(ACTIONS)}, got {argv[0] if argv else 'none'}")
    arguments = parse(Arguments, argv[1:] if argv[0] in ACTIONS else argv, prog=PROG, description=__doc__)
    torch.set_num_threads(1)
    with refusals(PROG):
        check_at_least(arguments, assets=2, points=2)
        for name in ("horizon", "stop_below"):
            check_number(name, getattr(arguments, name), 0.0, strict=True)
        out = check_folder(arguments.out or Path("runs") / "portfolio-flow")
        names, problem = problem_of(arguments)
        exact = solve(problem)
        with counting_bar("problem") as progress:
            trajectory = followed(problem, arguments, progress)
        reached = trajectory.weights
        distance = (reached - exact.weights).abs().amax(-1)
        missed = (reached.sum(-1) - 1.0).abs()
        figure = flow_figure(
            trajectory.times, reached, names, rest=exact.weights, distance=distance, missed=missed
        )  # fmt: skip
        flow = "penalty flow" if problem.cost == "quadratic" and not problem.constrained else "primal-dual flow"
        end = (
            f"at rest at time {float(trajectory.stop_times):.4g}"
            if bool(trajectory.stopped)
            else f"not at rest by time {arguments.horizon:g} (a longer --horizon may do)"
        )
        lines = [
            f"{flow} of {len(names)} assets, penalty {arguments.penalty:g}: {end}",
            f"largest distance of a weight from the exact solution {float(distance[-1]):.2e}, of the budget from 1 "
            f"{float(missed[-1]):.2e}",
            "",
            *(
                f"{name:<12}{float(a):10.6f}{float(b):10.6f}"
                for name, a, b in zip(["", *names], [np.nan, *reached[-1]], [np.nan, *exact.weights], strict=True)
                if name
            ),
        ]
        lines.insert(3, f"{'':<12}{'flow':>10}{'exact':>10}")
        summary = "\n".join(lines)
    out.mkdir(parents=True, exist_ok=True)
    with (out / "weights.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["time", *names])
        writer.writerows([[t, *w] for t, w in zip(trajectory.times.tolist(), reached.tolist(), strict=True)])
    (out / "summary.txt").write_text(summary + "\n", encoding="utf-8")
    save(figure, out / "flow.png")
    say(f"{summary}\n\nwrote {out}/weights.csv, summary.txt and flow.png")
    return 0


def problem_of(arguments: Arguments) -> tuple[list[str], PortfolioProblem]:
    """Names of the assets, and the problem.

    Raises:
        ValueError: an option is out of range, or the prices cannot be read.
    """
    history = sp500_monthly() if arguments.prices is None else read_prices(arguments.prices)
    found = len(history.assets)
    if arguments.assets > found:
        raise ValueError(f"`assets` must be <= {found}, what the prices have, got {arguments.assets}")
    n = arguments.assets
    returns = np.diff(history.prices[:, :n], axis=0) / history.prices[:-1, :n]

    def of(value: ArrayLike) -> Tensor:
        return torch.as_tensor(np.asarray(value, np.float64))

    problem = PortfolioProblem(
        expected_returns=of(returns.mean(0)),
        covariance=of(np.cov(returns.T)),
        risk_aversion=of(arguments.risk_aversion),
        cost_rates=of([arguments.cost_rate] * n),
        holdings=of([1.0 / n] * n),
        groups=of(np.ones((1, n))),
        group_totals=of([1.0]),
        cost=arguments.cost,
        lower=None if arguments.lower is None else of(arguments.lower),
        upper=None if arguments.upper is None else of(arguments.upper),
    )
    return list(history.assets[:n]), problem


def followed(problem: PortfolioProblem, arguments: Arguments, progress: Callable[[int, int], None]) -> Trajectory:
    """The flow from equal weights at times that are equally far apart in logarithm."""
    n = problem.assets
    start: Tensor = torch.full((n,), 1.0 / n, dtype=torch.float64)
    later = np.geomspace(_FIRST_TIME * arguments.horizon, arguments.horizon, arguments.points - 1)
    return integrate(
        problem, arguments.penalty, start, np.concatenate([[0.0], later]), stop_below=arguments.stop_below,
        progress=progress,
    )  # fmt: skip
