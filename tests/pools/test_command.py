"""hmgym pool: what it writes is what the functions return; what it refuses."""

from __future__ import annotations

import csv
import datetime
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hmgym.agents.pool_training import run_pool_in_market, train_pool_in_market, with_pool
from hmgym.cli import main
from hmgym.data import PriceHistory, sp500_monthly, write_prices
from hmgym.market import MarketConfig
from hmgym.market.pooled import PoolInvestor
from hmgym.pools import PoolConfig, PoolParameters, PowerChannelPool, performance
from tests.pools.markets import random_prices

pytest.importorskip("tyro")


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    path = tmp_path / "prices.csv"
    dates = tuple(datetime.date(2001, 1, 1) + datetime.timedelta(days=day) for day in range(300))
    values = random_prices(300, 3, volatility=0.01).numpy()
    write_prices(PriceHistory(dates=dates, assets=("A", "B", "C"), prices=values), path)
    return path


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    before = torch.get_num_threads()
    try:
        status = main(["pool", *arguments])
    except SystemExit as end:
        status = int(end.code or 0)
    torch.set_num_threads(before)
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_a_fit_and_a_run_with_what_it_found(prices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "fit"
    status, printed, _ = run(
        "fit", str(prices), "--epochs", "2", "--sets", "2", "--window-days", "30", "--windows", "2", "--out", str(out),
        capsys=capsys,
    )  # fmt: skip
    assert status == 0
    assert {path.name for path in out.iterdir()} == {
        "parameters.json", "series.csv", "summary.txt", "training.png", "panels.png",
    }  # fmt: skip
    assert all(name in printed for name in ("trained", "untrained", "equal weight", "hold", "held-out part"))
    assert (out / "summary.txt").read_text() in printed + "\n"
    written = json.loads((out / "parameters.json").read_text())
    config, parameters = PoolConfig(**written["config"]), PoolParameters.from_dict(written["parameters"])
    assert (config.row_minutes, config.fee) == (1440, 0.001)
    values = np.loadtxt(prices, delimiter=",", skiprows=1, usecols=(1, 2, 3))
    expected = PowerChannelPool(config).simulate(parameters, torch.from_numpy(values))
    with (out / "series.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "date", *(f"weight {n}" for n in "ABC"), *(f"reserve {n}" for n in "ABC"), "value", "hold"
    ]  # fmt: skip
    assert [float(row["value"]) for row in rows] == expected.value.tolist()
    again = tmp_path / "run"
    status, _, _ = run(
        "simulate",
        "--prices",
        str(prices),
        "--fitted",
        str(out / "parameters.json"),
        "--out",
        str(again),
        capsys=capsys,
    )
    assert status == 0
    assert (again / "series.csv").read_text() == (out / "series.csv").read_text()


@pytest.fixture
def minutes(tmp_path: Path) -> Path:
    """Ten days of minutes, with an hour without rows."""
    path = tmp_path / "minutes.csv"
    first = datetime.datetime(2024, 1, 1)
    times = [first + datetime.timedelta(minutes=row + 60 * (row >= 5000)) for row in range(14_400)]
    values = random_prices(14_400, 3, volatility=0.001).numpy()
    write_prices(PriceHistory(dates=tuple(times), assets=("A", "B", "C"), prices=values), path)
    return path


def test_a_run_over_minutes(minutes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    status, printed, _ = run("simulate", "--prices", str(minutes), "--out", str(out), capsys=capsys)
    assert status == 0
    year = 14_399 / (14_399 + 60) * 525_600
    assert f"14,400 rows, 1 min apart, {year:,.0f} a year; 1 gaps are longer, up to 61 min" in printed
    values = torch.from_numpy(np.loadtxt(minutes, delimiter=",", skiprows=1, usecols=(1, 2, 3)))
    config = PoolConfig(fee=0.001, maximum_change=0.01 / 1440)
    # The memory is in days whatever the rows are.
    parameters = PoolParameters.initial(3, config, memory=60.0, k_per_day=0.5, pre_scaling=5.0)
    assert float(parameters.decode(config).memory_days[0]) == pytest.approx(60.0)
    expected = PowerChannelPool(config).simulate(parameters, values)
    with (out / "series.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[5000]["date"] == "2024-01-04T12:20:00"
    assert [float(row["value"]) for row in rows] == expected.value.tolist()
    found = performance(expected, row_minutes=1, days_per_year=year / 1440)
    line = next(line for line in printed.splitlines() if line.startswith("pool "))
    assert line.split()[1] == f"{float(found.daily_log_sharpe):.2f}"


def test_a_fit_on_minutes_and_its_rule_on_days(
    minutes: Path, prices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "fit"
    status, printed, error = run(
        "fit", str(minutes), "--epochs", "1", "--sets", "1", "--windows", "1", "--out", str(out), capsys=capsys
    )  # fmt: skip
    assert status == 0, error
    assert "held out from 2024-01-0" in printed
    config = json.loads((out / "parameters.json").read_text())["config"]
    assert (config["row_minutes"], config["chunk_minutes"]) == (1, 1440)
    assert config["maximum_change"] == pytest.approx(0.01 / 1440)
    fitted = str(out / "parameters.json")
    arguments = ["simulate", "--prices", str(prices), "--fitted", fitted, "--row-minutes", "1440"]
    status, _, error = run(*arguments, "--out", str(tmp_path / "days"), capsys=capsys)
    assert status == 0, error
    status, _, error = run(
        "simulate", "--prices", str(minutes), "--row-minutes", "60", "--out", str(tmp_path / "no"), capsys=capsys
    )  # fmt: skip
    assert status == 2
    assert "`row_minutes` must be 1, as the times in" in error


def test_a_run_over_the_packaged_prices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, printed, _ = run("simulate", "--out", str(tmp_path / "out"), "--parameters", "fee=0.01", capsys=capsys)
    assert status == 0
    assert "4 assets, 1990-01-31 to 2022-12-28" in printed
    assert (tmp_path / "out" / "panels.png").stat().st_size > 5000
    assert len((tmp_path / "out" / "series.csv").read_text().splitlines()) == 1 + len(sp500_monthly().dates)


def test_training_in_a_market(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "market"
    small = ["--months", "4", "--window", "2", "--markets", "2", "--updates", "3", "--held-out-markets", "3"]
    status, printed, _ = run(
        "market", *small, "--seed", "4", "--out", str(out), "--parameters", "n_investors=8", "n_assets=2",
        capsys=capsys,
    )  # fmt: skip
    assert status == 0
    assert {path.name for path in out.iterdir()} == {"parameters.json", "training.csv", "summary.txt"}
    bounds = PoolInvestor()
    start = PoolParameters.initial(3, bounds.config, memory=90.0, k_per_day=0.1, pre_scaling=5.0)
    config = MarketConfig(
        n_investors=8, n_assets=2, price_mechanism="pools", pools=(PoolInvestor(parameters=start),)
    )  # fmt: skip
    expected = train_pool_in_market(config, window=2, months=4, markets=2, updates=3, seed=4)
    written = PoolParameters.from_dict(json.loads((out / "parameters.json").read_text())["parameters"])
    for name, each in written.to_dict().items():
        torch.testing.assert_close(each, expected.parameters.to_dict()[name], rtol=0.0, atol=0.0)
    with (out / "training.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["objective a month"]) for row in rows] == expected.objective.tolist()
    shown = (out / "summary.txt").read_text()
    assert shown in printed + "\n"
    run_of_it = run_pool_in_market(
        with_pool(config, expected.pool).replace(history="held-out"), months=4, markets=3, seed=10_000
    )
    line = next(line for line in shown.splitlines() if line.startswith("trained"))
    assert line.split()[1] == f"{float(run_of_it.log_value.mean()):.3f}"
    assert "constant weights" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fit", "none.csv"], "none.csv"),
        (["fit", "PRICES", "--held-out", "1.5"], "`held_out` must be in (0, 1), got 1.5"),
        (["fit", "PRICES", "--objective", "luck"], "`objective` must be one of"),
        (["fit", "PRICES", "--assets", "A"], "`assets` must be at least two of the columns"),
        (["fit", "PRICES", "--epochs", "-1"], "`epochs` must be an integer >= 0, got -1"),
        (["simulate", "--parameters", "fees=1"], "`parameters` must be some of"),
        (["simulate", "--parameters", "fee=2"], "`fee` must be in [0, 1), got 2"),
        (["simulate", "--fitted", "PRICES"], "`fitted` must be parameters.json of a fit"),
        (["market", "--objective", "luck"], "`objective` must be one of log_value, over_hold, got 'luck'"),
        (["market", "--parameters", "history=all"], "`parameters` must be some of"),
        (["market", "--parameters", "n_assets=0"], "`n_assets` must be an integer >= 1, got 0"),
        (["market", "--held-out-markets", "1"], "`held_out_markets` must be an integer >= 2, got 1"),
        (["market", "--size", "0"], "`size` must be in"),
        (["market", "--k", "0"], "`k_per_day` must be"),
        (["market", "--seed", "-1"], "`seed` must be an integer >= 0, got -1"),
        (["mine"], "`action` must be one of fit, simulate, market, got 'mine'"),
    ],
)
def test_what_is_refused(
    arguments: list[str], said: str, prices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(prices) if each == "PRICES" else each for each in arguments]
    if given[0] != "mine":
        given += ["--out", str(tmp_path / "out")]
    status, printed, error = run(*given, capsys=capsys)
    assert status == 2
    assert error.startswith("hmgym pool")
    assert said in error
    assert printed == ""
    assert not (tmp_path / "out").exists()


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    status, printed, _ = run("--help", capsys=capsys)
    assert (status, "fit" in printed, "simulate" in printed, "market" in printed) == (0, True, True, True)
    for action in ("fit", "simulate", "market"):
        status, printed, _ = run(action, "--help", capsys=capsys)
        assert status == 0
        assert f"hmgym pool {action}" in printed
