"""Is the economy plausible? Its stylised facts over many seeds beside those of the real history.

``python -m hmgym.analysis.plausibility --seeds 50`` prints the table; ``--out FILE`` writes it as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hmgym.analysis import stylised_facts as facts
from hmgym.data import sp500_monthly
from hmgym.market import Market, MarketConfig

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """What many markets did, after the burn-in."""

    returns: Array  # (E, N, T) monthly log returns of prices
    mispricing: Array  # (E, N, T) log(price/value)
    turnover: Array  # (E, T) half the money traded over market value
    gross_leverage: Array  # (E, T) sum of |positions| over wealth, all investors
    largest_share: Array  # (E, T) largest investor's share of all wealth
    learner_share: Array  # (E, T) share of the first investor
    ruins: Array  # (E, T) investors ruined in the month
    residual: float  # worst relative excess demand
    not_cleared: int  # markets times months that did not clear
    conservation: float  # worst relative error of cash and of shares


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One row of the table: median and spread over markets, the target, the history."""

    name: str
    median: float
    low: float
    """5 % quantile over seeds and assets"""
    high: float
    """95 % quantile"""
    target: str
    met: bool | None
    history: float | None


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


def table(simulation: Simulation, history: Array | None = None) -> list[Fact]:
    """The plausibility table; `history` (N, T) monthly log returns, the packaged stocks when None."""
    real = sp500_monthly().log_returns.T if history is None else history
    run = simulation

    def fact(name: str, values: Array, target: str, met: Any = None, beside: Array | None = None) -> Fact:
        median = float(np.median(values))
        return Fact(
            name=name,
            median=median,
            low=float(np.quantile(values, 0.05)),
            high=float(np.quantile(values, 0.95)),
            target=target,
            met=None if met is None else bool(met(median)),
            history=None if beside is None else float(np.median(beside)),
        )

    return [
        fact(
            "annual volatility",
            facts.annual_volatility(run.returns),
            "0.10 to 0.40",
            lambda x: 0.1 <= x <= 0.4,
            facts.annual_volatility(real),
        ),
        fact(
            "excess kurtosis",
            facts.excess_kurtosis(run.returns),
            "> 0.5",
            lambda x: x > 0.5,
            facts.excess_kurtosis(real),
        ),
        fact("skewness", facts.skewness(run.returns), "", None, facts.skewness(real)),
        fact(
            "autocorrelation of returns",
            facts.autocorrelation(run.returns),
            "within ± 0.1",
            lambda x: abs(x) < 0.1,
            facts.autocorrelation(real),
        ),
        fact(
            "autocorrelation of |returns|",
            facts.absolute_autocorrelation(run.returns),
            "> 0",
            lambda x: x > 0.0,
            facts.absolute_autocorrelation(real),
        ),
        fact("sd of log(price/value)", run.mispricing.std(axis=-1), "< 0.4", lambda x: x < 0.4),
        fact("pooled sd of log(price/value)", run.mispricing.std(keepdims=True), "< 0.4", lambda x: x < 0.4),
        fact("mean of log(price/value)", run.mispricing.mean(axis=-1), ""),
        fact("turnover a month", run.turnover.mean(axis=-1), ""),
        fact("gross leverage", run.gross_leverage.mean(axis=-1), ""),
        fact("largest wealth share", run.largest_share.mean(axis=-1), "< 0.5", lambda x: x < 0.5),
        fact("learner's wealth share", run.learner_share.mean(axis=-1), ""),
        fact("ruins a year", 12.0 * run.ruins.mean(axis=-1), ""),
    ]


def format_table(rows: list[Fact]) -> str:
    """The table as text."""
    lines = [f"{'':<30}{'median':>9}{'5 %':>9}{'95 %':>9}   {'target':<14}{'history':>8}"]
    for row in rows:
        mark = {None: " ", True: "✓", False: "✗"}[row.met]
        beside = "" if row.history is None else f"{row.history:8.3f}"
        lines.append(f"{row.name:<30}{row.median:9.3f}{row.low:9.3f}{row.high:9.3f} {mark} {row.target:<14}{beside:>8}")
    return "\n".join(lines)


def plot(simulation: Simulation, path: str | Path, history: Array | None = None) -> None:
    """One picture: return distribution, clustering of volatility, prices against value, beside the history.

    Raises:
        ImportError: matplotlib is missing (`pip install hmgym[train]`).
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'hmgym[train]'") from error
    real = sp500_monthly().log_returns.T if history is None else history
    model = simulation.returns.reshape(-1, simulation.returns.shape[-1])
    figure = Figure(figsize=(12.0, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)

    def standardised(series: Array) -> Array:
        return np.asarray((series - series.mean(-1, keepdims=True)) / series.std(-1, keepdims=True)).ravel()

    bins = np.linspace(-6.0, 6.0, 61)
    left.hist(standardised(model), bins=bins, density=True, log=True, histtype="step", label="hmgym")
    left.hist(standardised(real), bins=bins, density=True, log=True, histtype="step", label="history")
    left.plot(bins, np.exp(-0.5 * bins**2) / np.sqrt(2.0 * np.pi), ":", color="grey", label="Gaussian")
    left.set(xlabel="monthly return, in standard deviations", ylabel="density", ylim=(1e-5, 1.0))
    left.legend()
    lags = np.arange(1, 13)
    for series, label in ((model, "hmgym"), (real, "history")):
        middle.plot(lags, [np.median(facts.absolute_autocorrelation(series, int(lag))) for lag in lags], label=label)
    middle.plot(lags, [np.median(facts.autocorrelation(model, int(lag))) for lag in lags], "--", label="hmgym, signed")
    middle.axhline(0.0, color="grey", lw=0.5)
    middle.set(xlabel="lag, months", ylabel="autocorrelation of |returns|")
    middle.legend()
    for asset in simulation.mispricing[0]:
        right.plot(asset, lw=0.8)
    right.axhline(0.0, color="grey", lw=0.5)
    right.set(xlabel="month", ylabel="log(price/value), one market")
    figure.savefig(path, dpi=150)


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
