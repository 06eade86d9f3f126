"""Fit a pool's rule to past prices or in a market, or run one; write parameters, series and figures.

`hmgym pool fit prices.csv --out DIR` trains on the first part of the prices, chooses on a validation part and shows
what it earns on the last part, which it has not seen: parameters.json, series.csv, summary.txt, training.png and
panels.png. `hmgym pool simulate` runs a pool over all the prices, with given or fitted parameters: series.csv,
summary.txt and panels.png. `hmgym pool market` trains the rule inside markets that clear: parameters.json, training.csv
and summary.txt.
"""

from __future__ import annotations

import csv
import datetime
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from torch import Tensor

from hmgym.analysis.figures import save
from hmgym.analysis.pool_panels import pool_figure, training_figure
from hmgym.checks import check_interval, check_number
from hmgym.commands.console import check_at_least, check_folder, counting_bar, named_values, parse, refusals, say
from hmgym.data import PriceHistory, read_prices, sp500_monthly
from hmgym.pools import OBJECTIVES, PoolConfig, PoolParameters, PoolRun, PowerChannelPool, performance, train_pool
from hmgym.pools.parameters import MINUTES_A_DAY

PROG = "hmgym pool"
_MONTH, _TRADING_DAYS, _WINDOW = 21, 252.0, 504  # trading days: in a month, in a year, in a training window

ACTIONS = {
    "fit": "train the rule on past prices",
    "simulate": "run a pool over prices",
    "market": "train the rule inside markets that clear",
}


@dataclass(frozen=True, kw_only=True)
class Common:
    """Options of both."""

    assets: tuple[str, ...] = ()
    """columns of the prices; default all, of the packaged ones the first four"""
    row_minutes: int | None = None
    """minutes between rows of prices; default what times in the file say, a day where it has dates only, and of the
    packaged monthly prices 21 days"""
    memory: float = 60.0
    """days of 1440 minutes that the rule remembers, where training begins"""
    k: float = 0.5
    """weight a unit of signal and day of memory, where training begins"""
    scaling: float = 5.0
    """s, what twice of a trend is divided by, where training begins"""
    days_per_year: float | None = None
    """days of 1440 minutes of rows a year; default 252, trading days, or what a file of times has in a year"""
    parameters: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE")] = ()
    """of the pool's configuration that differ from its own, such as fee=0.003 minimum_weight=0.05; where none are
    given, a fee of .001 and weights that move by at most .01 a row of prices, a day where rows are shorter"""


@dataclass(frozen=True, kw_only=True)
class FitArguments(Common):
    """Options."""

    prices: Annotated[Path, tyro.conf.Positional]
    """CSV file of prices, dates or times in the first column"""
    held_out: float = 0.3
    """share of the rows, the last, that training does not see"""
    validation_share: float = 0.3
    """of the others, the last, on which sets and epochs are chosen"""
    objective: str = "daily_log_sharpe"
    """daily_log_sharpe, log_return, return_over_hold or drawdown"""
    window_days: int | None = None
    """length of a training window; default 504, or a third of the rows to train on where these are fewer"""
    windows: int = 8
    """an epoch"""
    sets: int = 4
    """parameter sets trained side by side"""
    epochs: int = 100
    """at most"""
    patience: int = 30
    """epochs without a better validation after which training ends"""
    seed: int = 0
    """of windows and of what sets differ by"""
    out: Path | None = None
    """folder of what is written; default runs/pool-fit-SEED"""


@dataclass(frozen=True, kw_only=True)
class SimulateArguments(Common):
    """Options."""

    prices: Path | None = None
    """CSV file of prices, dates or times in the first column; default the packaged monthly prices of S&P 500 stocks"""
    fitted: Path | None = None
    """parameters.json of a fit; its configuration is the pool's, where --parameters do not say otherwise"""
    out: Path | None = None
    """folder of what is written; default runs/pool"""


def main(argv: Sequence[str]) -> int:
    """Run one of `ACTIONS`; returns the exit status."""
    names = "\n".join(f"  {name.ljust(10)}{purpose}" for name, purpose in ACTIONS.items())
    given = list(argv)
    if not given or given[0] in ("-h", "--help"):
        say(f"usage: {PROG} ACTION ...\n\n{(__doc__ or '').strip()}\n\nactions:\n{names}")
        return 0 if given else 2
    action, rest = given[0], given[1:]
    torch.set_num_threads(1)
    if action == "fit":
        return _fit(parse(FitArguments, rest, prog=f"{PROG} fit", description=__doc__))
    if action == "simulate":
        return _simulate(parse(SimulateArguments, rest, prog=f"{PROG} simulate", description=__doc__))
    if action == "market":
        from hmgym.commands import pool_market

        own = parse(pool_market.MarketArguments, rest, prog=f"{PROG} market", description=pool_market.__doc__)
        return pool_market.train_in_market(own, f"{PROG} market")
    sys.stderr.write(f"{PROG}: error: `action` must be one of {', '.join(ACTIONS)}, got {action!r}\n")
    return 2


def _fit(arguments: FitArguments) -> int:
    with refusals(f"{PROG} fit"):
        check_at_least(arguments, sets=1, epochs=0, patience=1, windows=1, seed=0)
        if arguments.window_days is not None:
            check_at_least(arguments, window_days=3)
        check_interval("held_out", arguments.held_out, 0.0, 1.0, open_interval=True)
        if arguments.objective not in OBJECTIVES:
            raise ValueError(f"`objective` must be one of {', '.join(OBJECTIVES)}, got {arguments.objective!r}")
        out = check_folder(arguments.out or Path("runs") / f"pool-fit-{arguments.seed}")
        history = _selected(read_prices(arguments.prices, min_assets=2, times=True), arguments.assets)
        config = _config(arguments, named_values(arguments.parameters), history, MINUTES_A_DAY)
        year = _days_a_year(arguments, config, history)
        prices = torch.from_numpy(history.prices.copy())
        start = _start(arguments, len(history.assets), config)
        cut = int(len(prices) * (1.0 - arguments.held_out)) // config.chunk_rows * config.chunk_rows
        window = arguments.window_days or _window(cut * (1.0 - arguments.validation_share), config)
        with counting_bar("epoch") as progress:
            training = train_pool(
                start, prices[:cut], config, objective=arguments.objective, window_days=window,
                windows=arguments.windows, sets=arguments.sets, validation_share=arguments.validation_share,
                patience=arguments.patience, epochs=arguments.epochs, seed=arguments.seed,
                days_per_year=year, progress=progress,
            )  # fmt: skip
        pool = PowerChannelPool(config)
        # The last price of training is where the held-out part begins.
        first = max(cut - config.chunk_rows, 0) * config.row_minutes
        runs = {
            name: pool.simulate(one, prices, start=first)
            for name, one in (
                ("trained", training.parameters),
                ("untrained", start),
                ("equal weight", start.standing_still()),
            )
        }
        hold = runs["trained"].hold
        table = _table(year, config, {name: run.value for name, run in runs.items()} | {"hold": hold}, hold)
        whole = pool.simulate(training.parameters, prices)
        panels = pool_figure(
            whole, history.assets, _dates(history), title=f"{history.source}: trained before the dashed line",
            split=_dates(history)[cut],
        )  # fmt: skip
        curves = training_figure(training)
    summary = "\n".join(
        [
            f"{history.source}: {len(history.assets)} assets, {history.dates[0]} to {history.dates[-1]}, "
            f"held out from {history.dates[cut]} on{_rows_of(history, config, year)}",
            f"{len(training.trained)} epochs of {arguments.sets} sets; best on validation: set {training.best_set}, "
            f"epoch {training.best_epoch}, {arguments.objective} {training.objective:.3f}",
            "", "held-out part", *table,
        ]
    )  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    written = {"config": asdict(config), "assets": list(history.assets),
               "parameters": {name: each.tolist() for name, each in training.parameters.to_dict().items()}}  # fmt: skip
    (out / "parameters.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    _write(out, summary, history, whole, panels)
    save(curves, out / "training.png")
    say(f"{summary}\n\nwrote {out}/parameters.json, series.csv, summary.txt, training.png and panels.png")
    return 0


def _simulate(arguments: SimulateArguments) -> int:
    with refusals(f"{PROG} simulate"):
        out = check_folder(arguments.out or Path("runs") / "pool")
        packaged = arguments.prices is None
        history = (
            sp500_monthly() if arguments.prices is None else read_prices(arguments.prices, min_assets=2, times=True)
        )
        fitted = _read_fit(arguments.fitted) if arguments.fitted is not None else None
        names = arguments.assets or (tuple(fitted["assets"]) if fitted else ())
        history = _selected(history, names or (history.assets[:4] if packaged else ()))
        changes = named_values(arguments.parameters)
        if fitted:
            given = {} if arguments.parameters == Common.parameters else changes
            changes = {**fitted["config"], **given}
        config = _config(arguments, changes, history, MINUTES_A_DAY * (_MONTH if packaged else 1))
        year = _days_a_year(arguments, config, history)
        parameters = _start(arguments, len(history.assets), config)
        if fitted:
            parameters = PoolParameters.from_dict(fitted["parameters"])
        prices = torch.from_numpy(history.prices.copy())
        with counting_bar("pool") as progress:
            run = PowerChannelPool(config).simulate(parameters, prices)
            progress(1, 1)
        table = _table(year, config, {"pool": run.value, "hold": run.hold}, run.hold)
        panels = pool_figure(run, history.assets, _dates(history), title=history.source)
    head = f"{history.source}: {len(history.assets)} assets, {history.dates[0]} to {history.dates[-1]}"
    head += _rows_of(history, config, year)
    summary = "\n".join([head, "", *table])
    out.mkdir(parents=True, exist_ok=True)
    _write(out, summary, history, run, panels)
    say(f"{summary}\n\nwrote {out}/series.csv, summary.txt and panels.png")
    return 0


def _config(arguments: Common, changes: dict[str, Any], history: PriceHistory, row_minutes: int) -> PoolConfig:
    """The configuration that is asked for: a chunk is at least a row."""
    known = set(PoolConfig.__dataclass_fields__)
    if unknown := sorted(set(changes) - known):
        raise ValueError(f"`parameters` must be some of {sorted(known)}, got {unknown}")
    each, timed = arguments.row_minutes or changes.get("row_minutes") or row_minutes, history.row_minutes
    if timed is not None:
        if arguments.row_minutes not in (None, timed):
            raise ValueError(
                f"`row_minutes` must be {timed}, as the times in {history.source} are, got {arguments.row_minutes}"
            )
        each = timed  # also of a fit on other rows, whose rule is in chunks
    if not changes:
        changes = {"fee": 0.001, "maximum_change": 0.01 / max(MINUTES_A_DAY, each)}
    chunk = each * max(1, MINUTES_A_DAY // each)
    return PoolConfig(**{"chunk_minutes": chunk, **changes, "row_minutes": each})


def _days_a_year(arguments: Common, config: PoolConfig, history: PriceHistory) -> float:
    """Of what `performance` takes as days: 1440 minutes of rows, or a row where that is longer."""
    if arguments.days_per_year is not None:
        check_number("days_per_year", arguments.days_per_year, 0.0, strict=True)
    rows = max(1, MINUTES_A_DAY // config.row_minutes)
    if arguments.days_per_year is None and history.row_minutes is not None:
        return history.rows_a_year / rows
    year = _TRADING_DAYS if arguments.days_per_year is None else arguments.days_per_year
    return year / max(config.row_minutes / MINUTES_A_DAY, 1.0)


def _window(rows: float, config: PoolConfig) -> int:
    """Days of a training window of so many rows."""
    days = int(rows) // max(1, MINUTES_A_DAY // config.row_minutes)
    return _WINDOW if days >= _WINDOW else max(3, days // 3)


def _rows_of(history: PriceHistory, config: PoolConfig, year: float) -> str:
    """How far rows of times are apart, and what they miss, as more of a sentence."""
    if history.row_minutes is None:
        return ""
    gaps = np.diff(_dates(history)) / np.timedelta64(1, "m")
    longer = gaps > config.row_minutes
    rows = year * max(1, MINUTES_A_DAY // config.row_minutes)
    text = f"\n{len(history.dates):,} rows, {config.row_minutes} min apart, {rows:,.0f} a year"
    if longer.any():
        missing = int(longer.sum())
        text += f"; {missing:,} gaps are longer, up to {gaps.max():,.0f} min, and count as one row each"
    return text


def _start(arguments: Common, assets: int, config: PoolConfig) -> PoolParameters:
    for name in ("memory", "k", "scaling"):
        check_number(name, getattr(arguments, name), 0.0, strict=True)
    return PoolParameters.initial(
        assets, config, memory=arguments.memory, k_per_day=arguments.k, pre_scaling=arguments.scaling
    )


def _selected(history: PriceHistory, assets: Sequence[str]) -> PriceHistory:
    chosen = history.select(assets) if assets else history
    if len(chosen.assets) < 2:
        raise ValueError(f"`assets` must be at least two of the columns of {history.source}, got {list(chosen.assets)}")
    return chosen


def _read_fit(path: Path) -> dict[str, Any]:
    """What a fit wrote.

    Raises:
        ValueError: it cannot be read, or something is missing.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"`fitted` must be parameters.json of a fit, got {path}: {error}") from error
    if not isinstance(found, dict) or not {"config", "assets", "parameters"} <= set(found):
        raise ValueError(f"`fitted` must be parameters.json of a fit, got {path}")
    return found


def _dates(history: PriceHistory) -> Any:
    return np.array(history.dates, dtype="datetime64[D]" if history.row_minutes is None else "datetime64[s]")


def _table(year: float, config: PoolConfig, values: dict[str, Tensor], hold: Tensor) -> list[str]:
    """Lines of a table of performance with so many days a year."""
    lines = [f"{'':14}{'Sharpe':>8}{'return':>9}{'volatility':>12}{'drawdown':>10}{'over hold':>11}"]
    for name, value in values.items():
        one = performance(value.detach(), hold=hold.detach(), row_minutes=config.row_minutes, days_per_year=year)
        found = {key: float(each) for key, each in one.to_dict().items()}
        lines.append(
            f"{name:14}{found['daily_log_sharpe']:8.2f}{found['annual_log_return']:9.1%}"
            f"{found['annual_volatility']:12.1%}{found['maximum_drawdown']:10.1%}{found['return_over_hold']:11.1%}"
        )
    return lines


def _write(out: Path, summary: str, history: PriceHistory, run: PoolRun, panels: Any) -> None:
    """series.csv, summary.txt, panels.png."""
    columns = {"value": run.value[:, None], "hold": run.hold[:, None]}
    head = [
        "date",
        *(f"weight {name}" for name in history.assets),
        *(f"reserve {name}" for name in history.assets),
        *columns,
    ]
    body = torch.cat([run.weights, run.reserves, *columns.values()], -1).detach().numpy()
    with (out / "series.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(head)
        date: datetime.date
        for date, row in zip(history.dates, body.tolist(), strict=True):
            table.writerow([date.isoformat(), *row])
    (out / "summary.txt").write_text(summary + "\n", encoding="utf-8")
    save(panels, out / "panels.png")
