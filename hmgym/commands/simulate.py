"""Run a market without a learner; write its series, a summary and a figure.

Writes series.csv, summary.txt and panels.png to the folder of --out. Besides the scenarios of `hmgym.simulate` there is
market-making: a market maker in the simulated market, who quotes by one of the strategies of `hmgym backtest`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import tyro

from hmgym.analysis.figures import save
from hmgym.commands.console import check_at_least, check_folder, counting_bar, named_values, parse, refusals, say
from hmgym.market import SCENARIOS
from hmgym.simulation import simulate

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

PROG = "hmgym simulate"
MONTHS, STRATEGY = 60, "hjb"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options."""

    scenario: Annotated[str, tyro.conf.Positional] = "crowd"
    """name of the scenario, or market-making"""
    months: int | None = None
    """length of the simulation, default 60; market-making has steps instead: --parameters steps=400 horizon=2"""
    strategy: str | None = None
    """of market-making alone, default hjb, the best; `hmgym backtest --help` names the others"""
    seed: int = 0
    """of all random draws"""
    markets: int = 1
    """markets side by side, independent of each other"""
    parameters: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE")] = ()
    """parameters of the scenario that differ from its own"""
    out: Path | None = None
    """folder of what is written; default runs/SCENARIO-SEED"""


class Simulated(Protocol):
    """What a simulation returns; its text is the summary."""

    def to_frame(self) -> pd.DataFrame:
        """Its series."""

    def plot(self) -> Figure:
        """The panels of its first market."""


def main(argv: Sequence[str]) -> int:
    """Simulate, write, print the summary; returns the exit status."""
    arguments = parse(Arguments, argv, prog=PROG, description=__doc__)
    with refusals(PROG):
        check_at_least(arguments, markets=1, seed=0)
        parameters = named_values(arguments.parameters)
        options = sorted({"scenario", "months", "strategy", "seed", "markets", "progress"} & set(parameters))
        if options:
            raise ValueError(
                f"`parameters` must be those of the scenario, got {options}, which are options of their own"
            )
        out = check_folder(arguments.out or Path("runs") / f"{arguments.scenario}-{arguments.seed}")
        known = sorted([*SCENARIOS, *OTHERS])
        if arguments.scenario not in known:
            raise ValueError(f"`scenario` must be one of {known}, got {arguments.scenario!r}")
        result = OTHERS.get(arguments.scenario, _scenario)(arguments, parameters)
        frame, figure, summary = result.to_frame(), result.plot(), str(result)
    out.mkdir(parents=True, exist_ok=True)
    frame.to_csv(out / "series.csv")
    (out / "summary.txt").write_text(summary + "\n", encoding="utf-8")
    save(figure, out / "panels.png")
    say(f"{summary}\n\nwrote {out}/series.csv, summary.txt and panels.png")
    return 0


def _scenario(arguments: Arguments, parameters: Mapping[str, Any]) -> Simulated:
    """Markets of a scenario of `hmgym.simulate`, months long."""
    if arguments.strategy is not None:
        raise ValueError(f"`strategy` must be left out but for market-making, got {arguments.strategy!r}")
    return simulate(
        arguments.scenario, months=MONTHS if arguments.months is None else arguments.months, seed=arguments.seed,
        markets=arguments.markets, progress=sys.stderr.isatty(), **parameters,
    )  # fmt: skip


def _market_making(arguments: Arguments, parameters: Mapping[str, Any]) -> Simulated:
    """A market maker in the simulated market."""
    if arguments.months is not None:
        expected = "must be left out for market-making, whose steps and horizon are among --parameters"
        raise ValueError(f"`months` {expected}, got {arguments.months}")
    from hmgym.commands.quoting import run_episodes, simulated_market

    market = simulated_market(parameters)
    with counting_bar("market") as progress:
        return run_episodes(
            market, arguments.strategy or STRATEGY, seed=arguments.seed, markets=arguments.markets, progress=progress
        )


OTHERS: dict[str, Callable[[Arguments, Mapping[str, Any]], Simulated]] = {"market-making": _market_making}
"""What is simulated besides the scenarios of `hmgym.simulate`, by name."""
