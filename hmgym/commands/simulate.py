"""Run a market without a learner; write its series, a summary and a figure.

Writes series.csv, summary.txt and panels.png to the folder of --out.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from hmgym.analysis.figures import save
from hmgym.commands.console import check_at_least, named_values, parse, refusals, say
from hmgym.simulation import simulate

PROG = "hmgym simulate"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options."""

    scenario: Annotated[str, tyro.conf.Positional] = "crowd"
    """name of the scenario"""
    months: int = 60
    """length of the simulation"""
    seed: int = 0
    """of all random draws"""
    markets: int = 1
    """markets side by side, independent of each other"""
    parameters: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE")] = ()
    """parameters of the scenario that differ from its own"""
    out: Path | None = None
    """folder of what is written; default runs/SCENARIO-SEED"""


def main(argv: Sequence[str]) -> int:
    """Simulate, write, print the summary; returns the exit status."""
    arguments = parse(Arguments, argv, prog=PROG, description=__doc__)
    with refusals(PROG):
        check_at_least(arguments, months=1, markets=1, seed=0)
        parameters = named_values(arguments.parameters)
        options = sorted({"scenario", "months", "seed", "markets", "progress"} & set(parameters))
        if options:
            raise ValueError(
                f"`parameters` must be those of the scenario, got {options}, which are options of their own"
            )
        out = arguments.out or Path("runs") / f"{arguments.scenario}-{arguments.seed}"
        if out.exists() and not out.is_dir():
            raise ValueError(f"`out` must be a folder, got the file {out}")
        result = simulate(
            arguments.scenario, months=arguments.months, seed=arguments.seed, markets=arguments.markets,
            progress=sys.stderr.isatty(), **parameters,
        )  # fmt: skip
        frame, figure, summary = result.to_frame(), result.plot(), str(result)
    out.mkdir(parents=True, exist_ok=True)
    frame.to_csv(out / "series.csv")
    (out / "summary.txt").write_text(summary + "\n", encoding="utf-8")
    save(figure, out / "panels.png")
    say(f"{summary}\n\nwrote {out}/series.csv, summary.txt and panels.png")
    return 0
