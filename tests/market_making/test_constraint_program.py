"""The constraint program against dynamic programming, all tables of a tiny case, and the law of its own policy."""

from __future__ import annotations

import itertools
import math
import sys

import numpy as np
import pytest

from hmgym.market_making import ConstraintProgram


def value_at_risk(wealth: np.ndarray, probability: np.ndarray, level: float) -> float:
    order = np.argsort(wealth)
    reached = np.cumsum(probability[order]) >= 1.0 - level - 1e-12
    return -float(wealth[order][np.argmax(reached)])


def all_tables(program: ConstraintProgram):
    """Every table of one period, at the inventory that it starts with."""
    shape = (1, 2 * program.max_inventory + 1)
    for quotes in itertools.product(range(len(program.depth_weights) + 1), repeat=2):
        tables = np.zeros((2, *shape), np.int64)
        tables[:, 0, program.max_inventory] = quotes
        yield tables


@pytest.mark.parametrize(
    "program",
    [
        ConstraintProgram(),
        ConstraintProgram(terminal_penalty=0),
        ConstraintProgram(depth_weights=(1, 2), periods=3, max_inventory=1, terminal_penalty=2),
        ConstraintProgram(depth_weights=(5,), periods=2, max_inventory=1),
    ],
)
def test_it_equals_dynamic_programming(program: ConstraintProgram) -> None:
    pytest.importorskip("ortools")
    solved, planned = program.solve(), program.dynamic_program()
    assert solved.status == planned.status == "optimal"
    assert solved.objective == pytest.approx(planned.objective, abs=1e-12)
    for table in (solved, planned):
        wealth, _, probability = program.law(table.bid, table.ask)
        assert probability.sum() == pytest.approx(1.0, abs=1e-14)
        assert wealth @ probability == pytest.approx(table.objective, abs=1e-12)
        assert (table.bid[:, -1] == 0).all()
        assert (table.ask[:, 0] == 0).all()


def test_one_period_by_hand() -> None:
    """Depths 1, 2, 3 and 4 are filled with probability 1, .6, .3 and .1."""
    table = ConstraintProgram(periods=1, terminal_penalty=0).dynamic_program()
    assert table.bid[0, 2] == table.ask[0, 2] == 2
    assert table.objective == pytest.approx(2.0 * 2 * 0.6)


@pytest.mark.parametrize(("limit", "drawdown"), [(0, None), (1, None), (None, 0), (None, 1), (1, 2)])
@pytest.mark.parametrize("level", [0.95, 0.8])
def test_limits_hold_in_the_law_of_the_policy(limit: int | None, drawdown: int | None, level: float) -> None:
    pytest.importorskip("ortools")
    names = {"depth_weights": (2, 1), "terminal_penalty": 3, "level": level}
    program = ConstraintProgram(**names, value_at_risk_limit=limit, drawdown_limit=drawdown)
    table = program.solve()
    wealth, fallen, probability = program.law(table.bid, table.ask)
    assert table.status == "optimal"
    assert wealth @ probability == pytest.approx(table.objective, abs=1e-12)
    assert table.objective <= ConstraintProgram(**names).dynamic_program().objective + 1e-12
    if limit is not None:
        assert value_at_risk(wealth, probability, level) <= limit
    if drawdown is not None:
        assert fallen.max() <= drawdown


@pytest.mark.parametrize("limits", [{"value_at_risk_limit": 0}, {"drawdown_limit": 1}, {"value_at_risk_limit": 2}])
def test_limits_cost_no_more_than_they_must(limits: dict[str, int]) -> None:
    pytest.importorskip("ortools")
    program = ConstraintProgram(periods=1, terminal_penalty=3, level=0.7, **limits)
    best = -math.inf
    for bid, ask in all_tables(program):
        wealth, fallen, probability = program.law(bid, ask)
        kept = fallen.max() <= limits.get("drawdown_limit", math.inf)
        kept &= value_at_risk(wealth, probability, 0.7) <= limits.get("value_at_risk_limit", math.inf)
        best = max(best, float(wealth @ probability)) if kept else best
    assert program.solve().objective == pytest.approx(best, abs=1e-12)


def test_bad_input_is_named() -> None:
    for name, value in (
        ("depth_weights", ()),
        ("depth_weights", (1, 0)),
        ("depth_weights", 3),
        ("periods", 0),
        ("max_inventory", 0),
        ("terminal_penalty", -1),
        ("terminal_penalty", 0.5),
        ("value_at_risk_limit", -1),
        ("drawdown_limit", math.nan),
        ("level", 1.0),
    ):
        with pytest.raises(ValueError, match=f"`{name}` must be"):
            ConstraintProgram(**{name: value})
    with pytest.raises(ValueError, match="`drawdown_limit` must be None"):
        ConstraintProgram(drawdown_limit=1).dynamic_program()
    with pytest.raises(ValueError, match="`time_limit` must be"):
        ConstraintProgram().solve(time_limit=0)
    with pytest.raises(ValueError, match="`workers` must be"):
        ConstraintProgram().solve(workers=0)


def test_without_or_tools_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ortools.sat.python.cp_model", None)
    with pytest.raises(ImportError, match=r"hmgym\[quoting\]"):
        ConstraintProgram().solve()
