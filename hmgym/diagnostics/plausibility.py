"""Is the economy plausible? Runs it over many seeds and compares it with the real history.

``python -m hmgym.diagnostics.plausibility --seeds 50`` prints the table; ``--out FILE`` writes it as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hmgym.analysis.plausibility import LACKING, Fact, Simulation, format_table, plot, table
from hmgym.data import SPANS
from hmgym.market import Market, MarketConfig
from hmgym.market.config import FUNDAMENTALS
from hmgym.simulation import run

Array = NDArray[np.float64]

_LEAST_MONTHS = 120


def simulate(
    config: MarketConfig, *, seeds: Iterable[int], months: int | None = None, burn_in: int = 60, progress: bool = False
) -> Simulation:
    """Run one market a seed with learners that follow their own beliefs and limits.

    Args:
        config: the market.
        seeds: one generator each.
        months: recorded after `burn_in` months that are not; None takes the history's length, and ten years at least.
        progress: show a bar when tqdm is installed.
    """
    history = config.selected_history.log_returns.T
    months = max(history.shape[1], _LEAST_MONTHS) if months is None else months
    ran = run(
        Market(config),
        [np.random.default_rng(seed) for seed in seeds],
        months=burn_in + months,
        progress=progress,
        errors="mark",
    )

    def series(values: Array) -> Array:
        """Of the months after the burn-in, last."""
        return np.moveaxis(values[-months:], 0, -1)

    shares = ran.wealth_shares
    return Simulation(
        returns=series(ran.log_returns),
        news=series(ran.news),
        history=history,
        mispricing=series(ran.mispricing),
        turnover=series(ran.turnover),
        gross_leverage=series(ran.gross_leverage),
        largest_share=series(shares.max(-1)),
        learner_share=series(shares[..., 0]),
        ruins=series(ran.ruined.sum(-1).astype(np.float64)),
        residual=float(ran.residual.max()),
        not_cleared=int((~ran.converged).sum()),
        conservation=ran.conservation,
    )


def report(config: MarketConfig, simulation: Simulation, rows: list[Fact], *, seeds: int) -> dict[str, Any]:
    """The table and how it was made, ready for JSON."""
    return {
        "seeds": seeds,
        "months": simulation.returns.shape[-1],
        "history": config.history,
        "fundamentals": config.fundamentals,
        "lacking": LACKING.get(config.fundamentals),
        "n_assets": config.n_assets,
        "n_investors": config.n_investors,
        "not_cleared": simulation.not_cleared,
        "worst_residual": simulation.residual,
        "worst_conservation_error": simulation.conservation,
        "facts": [vars(row) for row in rows],
    }


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--months", type=int, help="recorded; the history's length unless given")
    parser.add_argument("--burn-in", type=int, default=60)
    parser.add_argument("--fundamentals", choices=FUNDAMENTALS, default=MarketConfig.fundamentals)
    parser.add_argument("--history", choices=SPANS, default=MarketConfig.history)
    parser.add_argument("--out", type=Path, help="write the table as JSON")
    parser.add_argument("--figure", type=Path, help="write the picture")
    options = parser.parse_args(arguments)
    for path in (options.out, options.figure):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
    config = MarketConfig(fundamentals=options.fundamentals, history=options.history)
    simulation = simulate(
        config, seeds=range(options.seeds), months=options.months, burn_in=options.burn_in, progress=True
    )
    rows = table(simulation)
    sys.stdout.write(format_table(rows) + "\n")
    sys.stdout.write(
        f"{options.seeds} seeds x {simulation.returns.shape[-1]} months: {simulation.not_cleared} markets not cleared, "
        f"worst residual {simulation.residual:.1e}, worst conservation error {simulation.conservation:.1e}\n"
    )
    if config.fundamentals in LACKING:
        sys.stdout.write(f'fundamentals "{config.fundamentals}" lack {LACKING[config.fundamentals]} by construction\n')
    if options.out:
        found = report(config, simulation, rows, seeds=options.seeds)
        options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if options.figure:
        plot(simulation, options.figure)
    return 0 if all(row.met is not False for row in rows) and simulation.not_cleared == 0 else 1


if __name__ == "__main__":
    raise SystemExit(main())
