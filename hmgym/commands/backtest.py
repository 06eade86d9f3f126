"""Run market-making strategies side by side on the same random draws; write a table and five figures.

Writes table.csv, summary.txt, profit.png, inventory.png, path.png, distribution.png and trade_off.png to the folder of
--out. Beside what was simulated stands the exact law of each strategy, where the market has one.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from hmgym.analysis.figures import save
from hmgym.commands.books import BookOptions, book_arguments
from hmgym.commands.console import check_at_least, check_folder, counting_bar, named_values, parse, refusals, say
from hmgym.commands.quoting import STRATEGIES, QuotingMarket, recorded_market, simulated_market
from hmgym.market_making import Backtest, PolicyLaw, backtest

PROG = "hmgym backtest"


@dataclass(frozen=True, kw_only=True)
class Arguments(BookOptions):
    """Options."""

    strategies: tuple[str, ...] = STRATEGIES
    """names: hjb (best for profit less penalties), avellaneda-stoikov, symmetric, inventory-aware, constant; the others
    are compared with the first"""
    runs: int = 1000
    """of every strategy"""
    seed: int = 0
    """of the first run; the others count up from it"""
    parameters: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE")] = ()
    """parameters of the market that differ from its own, such as volatility=3"""
    out: Path | None = None
    """folder of what is written; default runs/backtest-SEED"""


def main(argv: Sequence[str]) -> int:
    """Run, write, print the table; returns the exit status."""
    arguments = parse(Arguments, argv, prog=PROG, description=__doc__)
    torch.set_num_threads(1)
    with refusals(PROG):
        check_at_least(arguments, runs=2, seed=0)
        out = check_folder(arguments.out or Path("runs") / f"backtest-{arguments.seed}")
        market = market_of(arguments)
        strategies = market.choose(arguments.strategies)
        with counting_bar("step") as progress:
            result = backtest(
                strategies, market.make, runs=arguments.runs, seed=arguments.seed, progress=progress
            )  # fmt: skip
        laws = None if market.law is None else {name: market.law(one) for name, one in strategies.items()}
        figures = result.plot()
    summary = summary_of(market, result, laws)
    out.mkdir(parents=True, exist_ok=True)
    rows = result.table(laws)
    with (out / "table.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (out / "summary.txt").write_text(summary + "\n", encoding="utf-8")
    for name, figure in figures.items():
        save(figure, out / f"{name}.png")
    pictures = [f"{name}.png" for name in figures]
    say(f"{summary}\n\nwrote {out}/table.csv, summary.txt, {', '.join(pictures[:-1])} and {pictures[-1]}")
    return 0


def market_of(arguments: Arguments) -> QuotingMarket:
    """The market that is asked for; another one is another function that makes a `QuotingMarket`.

    Raises:
        ValueError: a parameter is unknown or out of range, or a book cannot be read.
    """
    parameters = named_values(arguments.parameters)
    recorded = book_arguments(arguments, "hmgym/LOBMarketMaking-v0")
    return recorded_market(recorded["book"], parameters) if recorded else simulated_market(parameters)


def summary_of(market: QuotingMarket, result: Backtest, laws: dict[str, PolicyLaw] | None) -> str:
    """What was run, the table, and a warning where it departs from the exact laws."""
    last = result.seed + result.runs - 1
    title = f"{market.title}\n{result.runs:,} runs of {result.steps} steps, seeds {result.seed} to {last}"
    parts = [title, result.text(laws)]
    for name, gap in result.suspect(laws or {}).items():
        found, exact = result.results[name].mean, (laws or {})[name].mean
        parts.append(
            f"warning: the mean profit of {name}, {found:.4g}, is {gap:.1f} standard errors from the exact {exact:.4g}"
        )
    return "\n\n".join(parts)
