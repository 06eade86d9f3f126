"""Is the economy plausible? Runs it over many seeds and compares it with the real history.

``python -m hmgym.diagnostics.plausibility --seeds 50`` prints the table; ``--out FILE`` writes it as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hmgym.analysis.plausibility import Fact, Simulation, format_table, plot, table
from hmgym.market import Market, MarketConfig

Array = NDArray[np.float64]


def simulate(
    config: MarketConfig, *, seeds: Iterable[int], months: int = 395, burn_in: int = 60, progress: bool = False
) -> Simulation:
    """Run one market a seed with learners that follow their own beliefs and limits.

    Args:
        config: the market.
        seeds: one generator each.
        months: recorded after `burn_in` months that are not.
        progress: show a bar when tqdm is installed.
    """
    market = Market(config)
    generators = [np.random.default_rng(seed) for seed in seeds]
    with torch.no_grad():
        state = market.initial(market.draw_initial_shocks(generators))
        cash_at_start = state.total_cash
        rows: list[tuple[Array, ...]] = []
        residual, not_cleared, conservation = 0.0, 0, 0.0
        for month in _progress(range(burn_in + months), progress):
            old = state
            state, outcome = market.transition(state, None, market.draw_shocks(generators), errors="mark")
            residual = max(residual, float(outcome.residual.max()))
            not_cleared += int((~outcome.converged).sum())
            market_value = (state.supply * state.prices).sum(-1)
            shares = (state.holdings.sum(1) / state.supply - 1.0).abs().max()
            conservation = max(
                conservation, float(((state.total_cash - cash_at_start).abs() / state.gross_money).max()), float(shares)
            )
            if month < burn_in:
                continue
            money = state.holdings * state.prices.unsqueeze(1)
            total = state.wealth.sum(-1)
            traded = ((state.holdings - old.holdings) * state.prices.unsqueeze(1)).abs().sum((-1, -2))
            rows.append(
                tuple(
                    tensor.numpy()
                    for tensor in (
                        state.last_return,
                        torch.log(state.prices) - state.log_value + state.news,
                        0.5 * traded / market_value,
                        money.abs().sum((-1, -2)) / total,
                        state.wealth.max(-1).values / total,
                        state.wealth[:, 0] / total,
                        state.ruined.sum(-1).double(),
                    )
                )
            )
    stacked = [np.stack(column, axis=-1) for column in zip(*rows, strict=True)]
    return Simulation(
        returns=stacked[0],
        mispricing=stacked[1],
        turnover=stacked[2],
        gross_leverage=stacked[3],
        largest_share=stacked[4],
        learner_share=stacked[5],
        ruins=stacked[6],
        residual=residual,
        not_cleared=not_cleared,
        conservation=conservation,
    )


def report(
    config: MarketConfig, simulation: Simulation, rows: list[Fact], *, seeds: int, months: int
) -> dict[str, Any]:
    """The table and how it was made, ready for JSON."""
    return {
        "seeds": seeds,
        "months": months,
        "fundamentals": config.fundamentals,
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
    parser.add_argument("--months", type=int, default=395, help="recorded; the length of the history")
    parser.add_argument("--burn-in", type=int, default=60)
    parser.add_argument("--fundamentals", choices=("bootstrap", "gaussian"), default="bootstrap")
    parser.add_argument("--out", type=Path, help="write the table as JSON")
    parser.add_argument("--figure", type=Path, help="write the picture")
    options = parser.parse_args(arguments)
    for path in (options.out, options.figure):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
    config = MarketConfig(fundamentals=options.fundamentals)
    simulation = simulate(
        config, seeds=range(options.seeds), months=options.months, burn_in=options.burn_in, progress=True
    )
    rows = table(simulation)
    sys.stdout.write(format_table(rows) + "\n")
    sys.stdout.write(
        f"{options.seeds} seeds x {options.months} months: {simulation.not_cleared} markets not cleared, "
        f"worst residual {simulation.residual:.1e}, worst conservation error {simulation.conservation:.1e}\n"
    )
    if options.out:
        found = report(config, simulation, rows, seeds=options.seeds, months=options.months)
        options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if options.figure:
        plot(simulation, options.figure)
    return 0 if all(row.met is not False for row in rows) and simulation.not_cleared == 0 else 1


def _progress(steps: range, wanted: bool) -> Iterator[int]:
    if wanted:
        try:
            from tqdm import tqdm
        except ImportError:
            pass
        else:
            yield from tqdm(steps, unit="month", file=sys.stderr)
            return
    yield from steps


if __name__ == "__main__":
    raise SystemExit(main())
