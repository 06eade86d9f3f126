"""Backtests: the same draws for all, figures against a recomputation by definition, means against exact laws."""

from __future__ import annotations

import dataclasses
import math
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hmgym.agents.quoting import ConstantSpread, InventoryAware, law_of
from hmgym.commands.quoting import STRATEGIES, simulated_market
from hmgym.envs.quoting.model import ModelQuoting
from hmgym.market_making import QuotingConfig, backtest
from hmgym.market_making.backtest import LEVELS

CONFIG = QuotingConfig(steps=20, horizon=0.1, max_inventory=3)
WIDE, NARROW = ConstantSpread(1.0), ConstantSpread(0.3)
AWARE = InventoryAware(0.6, 0.2)


def market(rows: int) -> ModelQuoting:
    return ModelQuoting(CONFIG, "pnl", rows)


def series(strategy: Any, seed: int) -> dict[str, np.ndarray]:
    """One run in a market of its own, by definition."""
    alone, generators = market(1), [np.random.default_rng(seed)]
    alone.reset(np.array([0]), generators)
    closes = [alone.infos()]
    for _ in range(CONFIG.steps):
        alone.step(strategy.act(alone.state)[:, None], generators)
        closes.append(alone.infos())
    return {name: np.array([close[name][0] for close in closes]) for name in closes[0]}


class Scripted:
    """Profits that are drawn whatever is quoted; mid tells the action of the step."""

    def __init__(self, rows: int) -> None:
        self.steps, self.max_inventory, self.rows = 12, 5, rows
        self.action_map = SimpleNamespace(check=lambda action, rows: np.asarray(action).reshape(rows, 1, 2))
        self.state = SimpleNamespace(rows=rows)

    def reset(self, rows: Any, generators: Any) -> None:
        assert len(rows) == len(generators) == self.rows
        self.profit, self.mid = np.zeros(self.rows), np.zeros(self.rows)

    def step(self, action: Any, generators: Any) -> None:
        self.mid = action[:, 0, 0]
        self.profit = self.profit + [generator.normal() for generator in generators]

    def infos(self) -> dict[str, np.ndarray]:
        none, nothing = np.full(self.rows, np.nan), np.zeros(self.rows, bool)
        return {
            "mid": self.mid, "bid": none, "ask": none, "bought": nothing, "sold": nothing,
            "inventory": np.zeros(self.rows, np.int64), "profit": self.profit,
        }  # fmt: skip


class Fixed:
    def __init__(self, action: float) -> None:
        self.action = action

    def act(self, state: Any) -> np.ndarray:
        return np.full((state.rows, 2), self.action)


def drawdown(profit: np.ndarray) -> float:
    return max(profit[i] - profit[j] for j in range(len(profit)) for i in range(j + 1))


def test_drawdown_and_draws_by_brute_force() -> None:
    found = backtest({"a": Fixed(0.1), "b": Fixed(-0.5)}, Scripted, runs=7, seed=3)
    paths = [np.cumsum([0.0, *np.random.default_rng(3 + run).normal(size=12)]) for run in range(7)]
    for result in found.results.values():
        np.testing.assert_allclose(result.profit, [path[-1] for path in paths], atol=1e-14)
        np.testing.assert_allclose(result.drawdown, [drawdown(path) for path in paths], atol=1e-14)
        np.testing.assert_allclose(result.profit_quantiles, np.quantile(paths, LEVELS, axis=0), atol=1e-14)
        assert math.isnan(result.spread)
        assert sorted(result.profit)[3] == result.profit[result.path.run]  # every strategy's median, as all are alike
    assert found.results["b"].path.mid[1:].tolist() == [-0.5] * 12


@pytest.fixture(scope="module")
def found() -> Any:
    return backtest({"wide": WIDE, "narrow": NARROW, "aware": AWARE, "wide again": WIDE}, market, runs=40, seed=5)


def test_results_are_those_of_runs_alone(found: Any) -> None:
    mids = {name: result.path.mid for name, result in found.results.items()}
    assert all((mid == mids["wide"]).all() for mid in mids.values())  # without impact, mid is what was drawn
    for name, strategy in (("wide", WIDE), ("narrow", NARROW), ("aware", AWARE)):
        runs = [series(strategy, 5 + run) for run in range(40)]
        result = found.results[name]
        assert (result.profit == [run["profit"][-1] for run in runs]).all()
        assert (result.inventory == [run["inventory"][-1] for run in runs]).all()
        assert (result.trades == [(run["bought"] | 0).sum() + run["sold"].sum() for run in runs]).all()
        np.testing.assert_allclose(result.drawdown, [drawdown(run["profit"]) for run in runs], rtol=1e-12)
        held = np.array([run["inventory"] for run in runs])
        np.testing.assert_array_equal(result.inventory_quantiles, np.quantile(held, LEVELS, axis=0))
        spreads = np.array([run["ask"] - run["bid"] for run in runs])[:, 1:][np.abs(held[:, :-1]) < 3]
        assert result.spread == pytest.approx(spreads.mean(), rel=1e-12)
        typical = runs[result.path.run]
        for field in ("mid", "bought", "sold", "inventory", "profit"):
            assert (getattr(result.path, field) == typical[field]).all()
        limit = np.append([False], np.abs(typical["inventory"][:-1]) == 3)
        for field in ("bid", "ask"):
            quoted = np.isfinite(getattr(result.path, field))
            assert (getattr(result.path, field)[quoted] == typical[field][quoted]).all()
            assert quoted[1:][~limit[1:]].all()
    assert np.isnan(found.results["narrow"].path.bid[1:]).sum() == (
        found.results["narrow"].path.inventory[:-1] == 3
    ).sum()  # fmt: skip


def test_equal_strategies_are_equal_and_batches_do_not_matter(found: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first, again = found.results["wide"], found.results["wide again"]
    for field in dataclasses.fields(first):
        if field.name != "path":
            np.testing.assert_array_equal(getattr(first, field.name), getattr(again, field.name))
    row = found.table()[3]
    assert (row["minus_first"], row["minus_first_low"], row["minus_first_high"]) == (0.0, 0.0, 0.0)
    monkeypatch.setattr(sys.modules["hmgym.market_making.backtest"], "_BATCH", 17)
    calls: list[tuple[int, int]] = []
    other = backtest({"aware": AWARE, "wide": WIDE}, market, runs=40, seed=5, progress=lambda *at: calls.append(at))
    for name, result in other.results.items():
        assert (result.profit == found.results[name].profit).all()
        assert (result.profit_quantiles == found.results[name].profit_quantiles).all()
        assert result.spread == pytest.approx(found.results[name].spread, rel=1e-12)
    assert calls[-1] == (2 * 40 * 20, 2 * 40 * 20)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_the_table(found: Any) -> None:
    laws = {"wide": law_of(WIDE, CONFIG), "aware": law_of(AWARE, CONFIG)}
    rows = {row["strategy"]: row for row in found.table(laws)}
    assert list(rows) == ["wide", "narrow", "aware", "wide again"]
    first = found.results["wide"].profit
    for name, row in rows.items():
        profit = found.results[name].profit
        half = 1.96 * profit.std(ddof=1) / math.sqrt(40)
        tail = np.sort(profit)
        assert row["mean"] == pytest.approx(profit.mean())
        assert row["high"] - row["mean"] == pytest.approx(half, rel=1e-4)
        assert row["mean"] - row["low"] == pytest.approx(half, rel=1e-4)
        assert row["sharpe"] == pytest.approx(profit.mean() / profit.std(ddof=1))
        assert row["value_at_risk"] == pytest.approx(-np.quantile(profit, 0.05))
        assert row["conditional_value_at_risk"] == pytest.approx(-tail[:2].mean(), rel=1e-12)  # two of forty are 5 %
        assert row["sd_inventory"] == pytest.approx(found.results[name].inventory.std(ddof=1))
        assert row["minus_first"] == pytest.approx((profit - first).mean())
        assert math.isnan(row["exact_mean"]) == (name not in laws)
    assert rows["aware"]["exact_sd"] == laws["aware"].std
    text = found.text(laws).splitlines()
    assert [line.split("  ")[0] for line in text if line and line[0] != "-"] == ["strategy", *rows] * 2
    assert text[0].split()[-6:] == ["exact", "reward", "minus", "wide", "(95", "%)"]
    assert max(map(len, text)) < 120
    assert "exact" not in str(found)


def test_means_agree_with_the_exact_law_of_every_strategy() -> None:
    config = CONFIG.replace(drift=2.0, impact=0.05, max_inventory=4, steps=30)
    given = {name: getattr(config, name) for name in ("steps", "horizon", "max_inventory", "drift", "impact")}
    made = simulated_market(given)
    result = backtest(made.strategies, made.make, runs=2000, seed=1)
    assert made.law is not None
    laws = {name: made.law(strategy) for name, strategy in made.strategies.items()}
    assert list(laws) == list(STRATEGIES)
    assert result.suspect(laws) == {}
    for name, law in laws.items():
        runs = result.results[name]
        assert runs.deviation == pytest.approx(law.std, rel=0.06)
        assert runs.spread == pytest.approx(law.mean_spread, rel=0.01)
        assert runs.trades.mean() == pytest.approx(law.mean_trades, rel=0.02)
    hjb = laws["hjb"]
    assert result.results["hjb"].value_at_risk == pytest.approx(hjb.value_at_risk(), abs=0.2 * hjb.std)
    assert hjb.expected_reward == max(law.expected_reward for law in laws.values())
    wrong = {"hjb": dataclasses.replace(hjb, mean=hjb.mean + hjb.std)}
    assert list(result.suspect(wrong)) == ["hjb"]


def test_what_is_never_filled_is_not_suspect() -> None:
    made = simulated_market({"arrival_rate": 1e-9, "steps": 3})
    assert made.law is not None
    result = backtest(made.strategies, made.make, runs=5)
    laws = {name: made.law(strategy) for name, strategy in made.strategies.items()}
    assert result.suspect(laws) == {}
    assert "-0.0" not in result.text(laws)
    assert "nan" in result.text(laws)  # no Sharpe ratio


def test_depths_in_the_law_are_those_of_actions() -> None:
    law, deepest = law_of(ConstantSpread(9.0), CONFIG), law_of(ConstantSpread(3.0 / CONFIG.depth_decay), CONFIG)
    assert (law.mean, law.mean_spread) == (deepest.mean, deepest.mean_spread)


def test_figures(found: Any) -> None:
    pytest.importorskip("matplotlib")
    figures = found.plot()
    assert list(figures) == ["profit", "inventory", "path", "distribution", "trade_off"]
    assert [len(figure.axes) for figure in figures.values()] == [6, 6, 4, 1, 2]
    backtest({"a": Fixed(0.0)}, Scripted, runs=2).plot()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"strategies": {}}, "`strategies` must be a mapping with at least one strategy"),
        ({"strategies": [WIDE]}, "`strategies` must be a mapping"),
        ({"strategies": {"a": 3}}, r"`strategies` must have `act\(state\)`, got 3 for 'a'"),
        ({"runs": 1}, "`runs` must be an integer >= 2, got 1"),
        ({"seed": -1}, "`seed` must be an integer >= 0, got -1"),
        ({"market": None}, "`market` must make a market from a number of market makers, got None"),
        ({"strategies": {"a": SimpleNamespace(act=lambda state: np.zeros((1, 2)))}}, "`action` must have shape"),
    ],
)
def test_what_is_no_backtest_is_refused(arguments: dict[str, Any], said: str) -> None:
    given = {"strategies": {"wide": WIDE}, "market": market, "runs": 3} | arguments
    with pytest.raises(ValueError, match=said):
        backtest(**given)
