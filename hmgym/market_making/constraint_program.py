"""Quoting in ticks as a constraint program: a table of quotes, all scenarios of fills, limits on what may be lost.

In every period an order comes to each side and reaches as deep as its weight says: depth d ticks with probability
w_d / Σw, independently. A quote at δ ≥ 1 ticks is filled by an order that reaches δ or deeper; 0 is no quote. Mid
stands still. Wealth is what fills have earned less a q², the penalty for the inventory were it the last. The program
chooses the table of quotes by period and inventory with most expected wealth at the end, subject to

    VaR = −(least x with P(wealth ≤ x) ≥ 1 − level) ≤ its limit;   peak less wealth ≤ its limit, in every scenario.

Without these it is dynamic programming. With them it is not, as they couple all inventories: CP-SAT decides over the
tree of scenarios.
"""

from __future__ import annotations

import importlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hmgym.checks import check_interval, check_number, integer, is_finite_number, shown


@dataclass(frozen=True, kw_only=True, eq=False)
class PolicyTable:
    """Quotes in ticks.

    Attributes:
        bid: (periods, 2Q+1) ticks below mid at inventory −Q … Q, 0 where nothing is quoted.
        ask: (periods, 2Q+1) ticks above mid, likewise.
        objective: expected wealth at the end, ticks.
        status: ``"optimal"``, or ``"feasible"`` where time ran out before the proof.
    """

    bid: NDArray[np.int64]
    ask: NDArray[np.int64]
    objective: float
    status: str


@dataclass(frozen=True, kw_only=True)
class ConstraintProgram:
    """The problem at the head of this module. Its tree has (number of depths)^(2 · periods) leaves: keep it small.

    Attributes:
        depth_weights: (w_1, w_2, …), integers ≥ 1, of the depths that orders reach, in ticks.
        periods: ≥ 1.
        max_inventory: Q ≥ 1, shares; it starts at 0.
        terminal_penalty: a, an integer ≥ 0, ticks / share².
        value_at_risk_limit: ≥ 0, ticks; None is none.
        drawdown_limit: ≥ 0, ticks; None is none.
        level: of the value at risk, in (0, 1).

    Raises:
        ValueError: an argument is none of these.
    """

    depth_weights: tuple[int, ...] = (4, 3, 2, 1)
    periods: int = 2
    max_inventory: int = 2
    terminal_penalty: int = 1
    value_at_risk_limit: float | None = None
    drawdown_limit: float | None = None
    level: float = 0.95

    def __post_init__(self) -> None:
        weights = self.depth_weights
        if not isinstance(weights, (tuple, list)) or not weights:
            raise ValueError(f"`depth_weights` must be integers >= 1, a tuple of them, got {shown(weights)}")
        object.__setattr__(self, "depth_weights", tuple(integer("depth_weights", weight, 1) for weight in weights))
        for name, least in (("periods", 1), ("max_inventory", 1), ("terminal_penalty", 0)):
            object.__setattr__(self, name, integer(name, getattr(self, name), least))
        for name in ("value_at_risk_limit", "drawdown_limit"):
            limit = getattr(self, name)
            if limit is not None and (not is_finite_number(limit) or limit < 0.0):
                raise ValueError(f"`{name}` must be a number >= 0 or None, got {shown(limit)}")
        check_interval("level", self.level, 0.0, 1.0, open_interval=True)

    def dynamic_program(self) -> PolicyTable:
        """The best table by backward induction, with a quote at every inventory; of equal ones the least depths.

        Raises:
            ValueError: there is a limit on losses, which backward induction cannot keep.
        """
        for name in ("value_at_risk_limit", "drawdown_limit"):
            if getattr(self, name) is not None:
                raise ValueError(f"`{name}` must be None for dynamic programming, got {getattr(self, name)!r}")
        n, largest = 2 * self.max_inventory + 1, self.max_inventory
        tables = np.zeros((2, self.periods, n), np.int64)
        value = [Fraction(-self.terminal_penalty * q**2) for q in range(-largest, largest + 1)]
        for period in reversed(range(self.periods)):
            best = []
            for i in range(n):
                quotes = product(self._depths(i < n - 1), self._depths(i > 0))
                worth = {
                    (bid, ask): sum(
                        chance * (earned + value[i + moved]) for chance, moved, earned in self.fills(bid, ask)
                    )
                    for bid, ask in quotes
                }
                choice = max(worth, key=lambda quote: worth[quote])
                tables[:, period, i] = choice
                best.append(Fraction(worth[choice]))
            value = best
        return PolicyTable(bid=tables[0], ask=tables[1], objective=float(value[largest]), status="optimal")

    def solve(self, time_limit: float = 60.0, workers: int = 2) -> PolicyTable:
        """The best table by CP-SAT. Nothing is quoted at inventories that its own quotes never lead to.

        Args:
            time_limit: > 0, seconds.
            workers: ≥ 1, threads.

        Raises:
            ValueError: an argument is none of these.
            ImportError: OR-Tools is missing (`pip install hmgym[quoting]`).
            RuntimeError: time ran out before any table was found.
        """
        check_number("time_limit", time_limit, 0.0, strict=True)
        workers = integer("workers", workers, 1)
        try:
            cp_model = importlib.import_module("ortools.sat.python.cp_model")
        except ImportError as error:
            raise ImportError('constraint programs need OR-Tools: pip install "hmgym[quoting]"') from error
        model = cp_model.CpModel()
        tables = _Tree(self, model).build()
        solver = cp_model.CpSolver()
        solver.parameters.max_time_in_seconds = float(time_limit)
        solver.parameters.num_workers = workers
        status = solver.solve(model)
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            raise RuntimeError(
                f"no table of quotes was found in {time_limit:g} seconds: allow more time or fewer periods"
            )
        bid, ask = (
            np.array([[solver.value(quote) for quote in row] for row in table], dtype=np.int64) for table in tables
        )
        for period, reached in enumerate(self._reached(bid, ask)):
            bid[period, ~reached] = ask[period, ~reached] = 0
        return PolicyTable(
            bid=bid,
            ask=ask,
            objective=solver.objective_value / sum(self.depth_weights) ** (2 * self.periods),
            status="optimal" if status == cp_model.OPTIMAL else "feasible",
        )

    def law(self, bid: NDArray[np.int64], ask: NDArray[np.int64]) -> tuple[NDArray[np.float64], ...]:
        """Wealth at the end, largest drawdown and probability (J,) of all that a table of quotes can lead to."""
        states = {(0, 0, 0, 0): Fraction(1)}  # inventory, earned, peak, drawdown
        for period in range(self.periods):
            after: defaultdict[tuple[int, int, int, int], Fraction] = defaultdict(Fraction)
            for (q, cash, peak, drawdown), probability in states.items():
                i = q + self.max_inventory
                for chance, moved, earned in self.fills(int(bid[period, i]), int(ask[period, i])):
                    wealth = cash + earned - self.terminal_penalty * (q + moved) ** 2
                    fallen = max(drawdown, peak - wealth)
                    after[q + moved, cash + earned, max(peak, wealth), fallen] += probability * chance
            states = dict(after)
        rows = [
            (cash - self.terminal_penalty * q**2, drawdown, float(probability))
            for (q, cash, _, drawdown), probability in states.items()
        ]
        wealth, drawdown, probability = np.array(rows, dtype=np.float64).T
        return wealth, drawdown, probability

    def _depths(self, allowed: bool) -> range:
        return range(len(self.depth_weights) + 1 if allowed else 1)

    def fills(self, bid: int, ask: int) -> Iterator[tuple[Fraction, int, int]]:
        """Probability, change of inventory and earnings of what may happen to two quotes."""
        total = sum(self.depth_weights)
        chances = [Fraction(sum(self.depth_weights[depth - 1 :]) if depth else 0, total) for depth in (bid, ask)]
        for bought, sold in product((0, 1), repeat=2):
            chance = Fraction(1)
            for filled, probability in zip((bought, sold), chances, strict=True):
                chance *= probability if filled else 1 - probability
            if chance:
                yield chance, bought - sold, bought * bid + sold * ask

    def _reached(self, bid: NDArray[np.int64], ask: NDArray[np.int64]) -> Iterator[NDArray[np.bool_]]:
        """Which inventories (2Q+1,) a table can lead to, at the start of each period."""
        reached = np.arange(2 * self.max_inventory + 1) == self.max_inventory
        for period in range(self.periods):
            yield reached
            after = np.zeros_like(reached)
            for i in np.flatnonzero(reached):
                for _, moved, _ in self.fills(int(bid[period, i]), int(ask[period, i])):
                    after[i + moved] = True
            reached = after


class _Tree:
    """The program in the solver's terms: quotes by period and inventory, and every scenario's inventory and wealth."""

    def __init__(self, program: ConstraintProgram, model: Any) -> None:
        self.program, self.model = program, model
        self.deepest = len(program.depth_weights)
        self.n = 2 * program.max_inventory + 1
        self.most = 2 * self.deepest * program.periods  # that can be earned
        self.total = sum(program.depth_weights)
        self.squares = [program.terminal_penalty * (i - program.max_inventory) ** 2 for i in range(self.n)]
        largest = self.total**2 * (2 * self.deepest + max(self.squares))
        self.bounds = (-largest, largest)  # of an expected gain

    def build(self) -> tuple[list[list[Any]], list[list[Any]]]:
        """Adds all variables, constraints and the objective; the variables of bid and ask, by period and inventory."""
        program, model = self.program, self.model
        quotes: tuple[list[list[Any]], list[list[Any]]] = ([], [])
        place, cash = model.new_constant(program.max_inventory), model.new_constant(0)
        nodes = [(1, place, cash, [model.new_constant(0)])]  # weight, index of inventory, earned, wealth so far
        limited = program.value_at_risk_limit is not None or program.drawdown_limit is not None
        expected: list[Any] = []
        for left in reversed(range(program.periods)):
            sides = []
            for table, closed in zip(quotes, (self.n - 1, 0), strict=True):
                row = [model.new_int_var(0, 0 if i == closed else self.deepest, "") for i in range(self.n)]
                table.append(row)
                sides.append([self._outcome(row, reach) for reach in range(1, self.deepest + 1)])
            # Expected wealth is the sum of what each node expects to be added to it.
            gains = [self._expected(i, quotes[0][-1][i], quotes[1][-1][i]) for i in range(self.n)]
            scale = self.total ** (2 * left)
            expected += [weight * scale * self._at(place, gains, self.bounds) for weight, place, _, _ in nodes]
            if left or limited:
                nodes = [child for node in nodes for child in self._children(node, sides)]
        self._limit(nodes)
        model.maximize(sum(expected))
        for table in quotes:
            for quote in (quote for row in table for quote in row):
                model.add_hint(quote, 0)  # no quotes at all keep every limit
        return quotes

    def _outcome(self, row: list[Any], reach: int) -> tuple[list[Any], list[Any]]:
        """By inventory: whether an order that reaches so deep fills the quote, and what that earns."""
        fills = [self.model.new_bool_var("") for _ in row]
        earned = [self.model.new_int_var(0, self.deepest, "") for _ in row]
        outcomes = [(depth, int(1 <= depth <= reach), depth * (depth <= reach)) for depth in range(self.deepest + 1)]
        for variables in zip(row, fills, earned, strict=True):
            self.model.add_allowed_assignments(variables, outcomes)
        return fills, earned

    def _expected(self, i: int, bid: Any, ask: Any) -> Any:
        """Expected gain in wealth from two quotes at an inventory, in units of 1 / (Σw)²."""
        choices = []
        for pair in product(range(self.deepest + 1), repeat=2):
            if (i < self.n - 1 or not pair[0]) and (i > 0 or not pair[1]):
                gain = sum(
                    chance * (earned + self.squares[i] - self.squares[i + moved])
                    for chance, moved, earned in self.program.fills(*pair)
                )
                choices.append((*pair, int(gain * self.total**2)))
        found = self.model.new_int_var(min(gain for _, _, gain in choices), max(gain for _, _, gain in choices), "")
        self.model.add_allowed_assignments([bid, ask, found], choices)
        return found

    def _children(
        self, node: tuple[int, Any, Any, list[Any]], sides: list[Any]
    ) -> Iterator[tuple[int, Any, Any, list[Any]]]:
        weight, place, cash, wealth = node
        model, weights = self.model, self.program.depth_weights
        chosen = [
            [[self._at(place, values, (0, self.deepest)) for values in outcome] for outcome in side] for side in sides
        ]
        for (i, bid), (j, ask) in product(enumerate(chosen[0]), enumerate(chosen[1])):
            to, held = model.new_int_var(0, self.n - 1, ""), model.new_int_var(0, self.most, "")
            model.add(to == place + bid[0] - ask[0])
            model.add(held == cash + bid[1] + ask[1])
            penalty = self._at(to, self.squares, (0, max(self.squares)))
            yield weight * weights[i] * weights[j], to, held, [*wealth, held - penalty]

    def _at(self, place: Any, values: list[Any], bounds: tuple[int, int]) -> Any:
        found = self.model.new_int_var(*bounds, "")
        self.model.add_element(place, values, found)
        return found

    def _limit(self, leaves: list[tuple[int, Any, Any, list[Any]]]) -> None:
        program, model = self.program, self.model
        if program.drawdown_limit is not None:
            deepest = int(program.drawdown_limit)  # wealth is in whole ticks
            for _, _, _, wealth in leaves:
                for later in range(1, len(wealth)):
                    for earlier in range(later):
                        model.add(wealth[earlier] - wealth[later] <= deepest)
        if program.value_at_risk_limit is not None:
            total = self.total ** (2 * program.periods)
            # VaR ≤ L is P(wealth < −L) < 1 − level, in whole weights.
            allowed = ceil((1 - Fraction(str(program.level))) * total) - 1
            lost = []
            for weight, _, _, wealth in leaves:
                beyond = model.new_bool_var("")
                model.add(wealth[-1] >= ceil(-program.value_at_risk_limit)).only_enforce_if(~beyond)
                lost.append(weight * beyond)
            model.add(sum(lost) <= allowed)
