"""The command ``hmgym``. Each subcommand is a module of its own, imported only when it is asked for."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "train": ("hmgym.commands.train", "train an agent, compare it with constants, write a report"),
    "evaluate": (
        "hmgym.commands.evaluate",
        "compare a trained policy or a baseline with others on the same shocks",
    ),
    "simulate": ("hmgym.commands.simulate", "run a market without a learner; write its series and a figure"),
    "backtest": (
        "hmgym.commands.backtest",
        "run market-making strategies on the same draws; write a table and figures",
    ),
    "pool": (
        "hmgym.commands.pool",
        "fit a pool's rule to past prices or in a market, or run a pool; write series and figures",
    ),
    "portfolio": ("hmgym.commands.portfolio", "follow the gradient flow of a portfolio (`hmgym portfolio flow`)"),
    "dashboard": ("hmgym.commands.dashboard", "serve a page with sliders that runs markets and shows them"),
    "best-response": ("hmgym.commands.best_response", "what one of several learners gains by deviating"),
}
"""Module and purpose of every subcommand; the module has ``main(argv) -> exit status``."""

_OF_THE_EXTRA = ("tyro", "tqdm")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit status, 2 where an argument was refused."""
    given = list(sys.argv[1:] if argv is None else argv)
    width = max(map(len, COMMANDS))
    parser = argparse.ArgumentParser(
        prog="hmgym", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Markets whose prices are outcomes: train in them, evaluate, simulate.",
        epilog="commands:\n" + "\n".join(f"  {name.ljust(width)}  {purpose}" for name, (_, purpose) in COMMANDS.items())
        + "\n\n`hmgym COMMAND --help` lists the options of a command.",
    )  # fmt: skip
    parser.add_argument("command", choices=list(COMMANDS), metavar="COMMAND", help="one of those below")
    name = str(parser.parse_args(given[:1]).command)
    try:
        command = importlib.import_module(COMMANDS[name][0])
    except ModuleNotFoundError as error:
        if error.name not in _OF_THE_EXTRA:
            raise
        parser.exit(2, f'hmgym {name}: error: the command line needs {error.name}: pip install "hmgym[train]"\n')
    status: int = command.main(given[1:])
    return status


if __name__ == "__main__":
    sys.exit(main())
