"""Three facts of the active/passive fund market, each an experiment with the same seeds in every arm.

- information: as money moves from active to passive funds, those who pay for information are fewer, and should be paid
  more for it: Grossman and Stiglitz (1980), On the impossibility of informationally efficient markets. What moves is
  `active_share` at a constant `fund_share`: the money. The numbers of funds stay, because fewer managers would also be
  fewer opinions, whose errors average out less, and because the same draws then serve all arms.
- learning: the more weight clients give to a month of performance, the more flows follow performance, and the less of
  it should be left: Berk and Green (2004), Mutual fund flows and performance in rational markets. `learning_gain`
  varies.
- rationality: retail investors who are closer to rational (β, `rationality`) trade less at random: Halperin and
  Feldshteyn (2018), arXiv 1805.06126.

Everything else is as `FundsConfig` has it. Both price mechanisms, each arm beside the default one.

``python -m hmgym.diagnostics.fund_facts --seeds 50`` prints the tables. ``--out FILE`` writes every seed's measures as
they come; with the same file a run that was cut off goes on. ``--figures DIR`` writes a picture a fact.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hmgym.agents.estimates import estimate
from hmgym.analysis.figures import save
from hmgym.analysis.fund_facts import MEASURES, WINDOW, Arm, Interval, draw_fact, format_fact, fund_measures
from hmgym.clearing.threads import set_num_threads
from hmgym.fund_simulation import FundsResult
from hmgym.market import Market
from hmgym.market.funds import FundsConfig
from hmgym.simulation import run

MECHANISMS = ("clearing", "impact")
BURN_IN = 24
"""months that are not measured"""
TOGETHER = 5
"""seeds in a job"""
_FUND_SHARE = FundsConfig.fund_share
_PASSIVE_PARTS = (0.1, 1.0 / 3.0, 0.5, 0.7, 0.9)
"""of the money in funds; a third is the default"""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One fact: what is varied, and the measures that tell."""

    name: str
    varied: str
    arms: Mapping[float, Mapping[str, Any]]
    """parameters by the value that is shown; the default is the arm without any"""
    shown: tuple[str, ...]
    logarithmic: bool = True


EXPERIMENTS = (
    Experiment(
        name="information",
        varied="passive part of the money in funds",
        arms={
            part: {} if part == 1.0 / 3.0 else {"active_share": (1.0 - part) * _FUND_SHARE} for part in _PASSIVE_PARTS
        },
        shown=("index_alpha", "factor_alpha", "over_index", "mispricing", "relative_mispricing"),
        logarithmic=False,
    ),
    Experiment(
        name="learning",
        varied="weight of a month",
        arms={
            gain: {} if gain == FundsConfig.learning_gain else {"learning_gain": gain}
            for gain in (0.0, 1.0 / 120.0, 1.0 / 36.0, 1.0 / 12.0, 0.25)
        },
        shown=("flow_slope", "persistence", "index_alpha", "flows"),
    ),
    Experiment(
        name="rationality",
        varied="rationality",
        arms={
            beta: {} if beta == FundsConfig.rationality else {"rationality": beta}
            for beta in (0.25, 0.5, 1.0, 2.0, 4.0)
        },
        shown=("volatility", "mispricing", "relative_mispricing", "flows"),
    ),
)


@dataclass(frozen=True, kw_only=True)
class Job:
    """Some seeds of one arm of one mechanism."""

    mechanism: str
    parameters: Mapping[str, Any]
    months: int
    seeds: tuple[int, ...]

    def key(self, seed: int) -> str:
        """Under which a seed's measures are kept."""
        return json.dumps([self.mechanism, self.parameters, self.months, seed], sort_keys=True)


def measured(job: Job) -> tuple[Job, list[dict[str, float] | None]]:
    """The job, and `MEASURES` of each of its seeds, None of a market that did not clear."""
    torch.set_num_threads(1)
    set_num_threads(1)
    config = FundsConfig(n_learners=0, price_mechanism=job.mechanism, **job.parameters)
    generators = [np.random.default_rng(seed) for seed in job.seeds]
    result = run(Market(config, arrays="numpy"), generators, months=BURN_IN + job.months, errors="mark")
    assert isinstance(result, FundsResult)
    good = np.flatnonzero(result.converged.all(0))
    last, managed = slice(-job.months, None), result.seats.managed
    found = fund_measures(
        fund_returns=result.fund_returns[last, good][..., :managed],
        flows=result.fund_flows[last, good][..., :managed],
        index_returns=result.index_returns[last, good],
        factors=result.factor_returns[last, good],
        interest=config.interest_rate,
        log_returns=result.log_returns[last, good],
        mispricing=result.mispricing[last, good],
    ) if len(good) else {}  # fmt: skip
    rows: list[dict[str, float] | None] = [None] * len(job.seeds)
    for place, row in enumerate(good):
        rows[row] = {name: float(values[place]) for name, values in found.items()}
    return job, rows


def jobs_of(experiments: Iterable[Experiment], *, seeds: int, months: int) -> list[Job]:
    """All jobs, each arm once, the same seeds of all arms one after the other."""
    arms = [parameters for experiment in experiments for parameters in experiment.arms.values()]
    different = {json.dumps(parameters, sort_keys=True): parameters for parameters in arms}.values()
    groups = [tuple(range(first, min(first + TOGETHER, seeds))) for first in range(0, seeds, TOGETHER)]
    return [
        Job(mechanism=mechanism, parameters=parameters, months=months, seeds=group)
        for group in groups
        for mechanism in MECHANISMS
        for parameters in different
    ]


def arms_of(
    experiment: Experiment, mechanism: str, known: Mapping[str, dict[str, float] | None], *, seeds: int, months: int
) -> list[Arm]:
    """What the seeds say that cleared in all arms; there must be two of them.

    Args:
        experiment: of which.
        mechanism: of prices.
        known: measures by `Job.key`.
        seeds: from 0 on; those that are not known are left out.
        months: of the runs.
    """
    rows = {
        value: [known.get(Job(mechanism=mechanism, parameters=parameters, months=months, seeds=()).key(seed))
                for seed in range(seeds)]
        for value, parameters in experiment.arms.items()
    }  # fmt: skip
    common = [seed for seed in range(seeds) if all(those[seed] for those in rows.values())]

    def of(value: float, name: str) -> np.ndarray:
        return np.array([(rows[value][seed] or {})[name] for seed in common])

    default = next(value for value, parameters in experiment.arms.items() if not parameters)
    return [
        Arm(
            value=value,
            measures={name: _interval(of(value, name)) for name in MEASURES},
            differences={}
            if value == default
            else {name: _interval(of(value, name) - of(default, name)) for name in MEASURES},
        )
        for value in experiment.arms
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns 0."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seeds", type=int, default=50, help="markets of every arm, at least 2")
    parser.add_argument("--months", type=int, default=120, help=f"measured of each, at least {2 * WINDOW + 1}")
    parser.add_argument("--only", nargs="+", choices=[one.name for one in EXPERIMENTS], help="facts; all unless given")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--out", type=Path, help="measures of every seed as JSON; what it has already is not run again")
    parser.add_argument("--figures", type=Path, help="folder of the pictures")
    options = parser.parse_args(arguments)
    for name, least in (("seeds", 2), ("months", 2 * WINDOW + 1), ("workers", 1)):
        if getattr(options, name) < least:
            parser.error(f"--{name} must be at least {least}, got {getattr(options, name)}")
    experiments = [one for one in EXPERIMENTS if not options.only or one.name in options.only]
    settings = {"seeds": options.seeds, "months": options.months}
    known: dict[str, dict[str, float] | None] = {}
    if options.out and options.out.exists():
        found = json.loads(options.out.read_text(encoding="utf-8"))
        if found["calibration"] != _calibration():
            parser.error(f"--out must be a new file or one of the same FundsConfig, got {options.out} of another")
        known = found["measures"]
    _fill(known, jobs_of(experiments, **settings), workers=options.workers, out=options.out)

    for experiment in experiments:
        arms = {mechanism: arms_of(experiment, mechanism, known, **settings) for mechanism in MECHANISMS}
        for mechanism, those in arms.items():
            sys.stdout.write(f"\n{experiment.name}, {mechanism}\n\n")
            sys.stdout.write(format_fact(experiment.varied, experiment.shown, those) + "\n")
        if options.figures:
            options.figures.mkdir(parents=True, exist_ok=True)
            figure = draw_fact(experiment.varied, experiment.shown, arms, logarithmic=experiment.logarithmic)
            save(figure, options.figures / f"fund_facts_{experiment.name}.png")
    failed = sum(row is None for row in known.values())
    sys.stdout.write(
        f"\n{options.seeds} seeds of {options.months} months after {BURN_IN}; in parentheses the difference to the "
        f"default and its 95 % interval, seed by seed; {failed} of {len(known)} markets did not clear and are left out"
        "\n"
    )
    return 0


def _fill(known: dict[str, dict[str, float] | None], jobs: Sequence[Job], *, workers: int, out: Path | None) -> None:
    """Run what is not known yet, in processes; write after each job."""
    waiting = [job for job in jobs if not all(job.key(seed) in known for seed in job.seeds)]
    if not waiting:
        return
    from tqdm import tqdm

    with multiprocessing.get_context("spawn").Pool(min(workers, len(waiting))) as pool:
        done = pool.imap_unordered(measured, waiting)
        for job, rows in tqdm(done, total=len(waiting), desc="fund facts", unit="job"):
            known |= {job.key(seed): row for seed, row in zip(job.seeds, rows, strict=True)}
            if out:
                out.parent.mkdir(parents=True, exist_ok=True)
                aside = out.with_suffix(".writing")
                aside.write_text(
                    json.dumps({"calibration": _calibration(), "measures": known}, indent=1) + "\n", encoding="utf-8"
                )
                aside.rename(out)


def _calibration() -> str:
    """All that is the same in every arm but what arms say, as text."""
    return repr(FundsConfig(n_learners=0))


def _interval(values: np.ndarray) -> Interval:
    found = estimate(values)
    return Interval(mean=found.mean, low=found.low, high=found.high)


if __name__ == "__main__":
    raise SystemExit(main())
