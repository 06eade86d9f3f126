"""Market makers on a recorded book: the rules of `hmgym.market_making.replay`, episode by episode."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hmgym.checks import check_number, integer
from hmgym.data import BookHistory, BookSource, read_book, synthetic_book
from hmgym.envs.boxes import ObservationBox
from hmgym.envs.protocol import Flags, FloatArray
from hmgym.envs.quoting.depths import DepthBox
from hmgym.envs.quoting.rewards import make_reward
from hmgym.envs.quoting.simulator import QuotingSimulator, Trade
from hmgym.market_making.replay import FEATURES, BookReplay

OBSERVATIONS = ObservationBox(("inventory", "time_left", *FEATURES))
"""Inventory over its limit, the share of steps that is left, and what the row shows."""
REACH = 4.0
"""The deepest quote, in the book's scale of depths."""


def depth_box(replay: BookReplay) -> DepthBox:
    """Depths from 0 to four times the book's scale: the touch, half a spread from mid, is at a quarter or nearer."""
    return DepthBox(0.5 * REACH * replay.scales.depth, 0.5 * REACH * replay.scales.depth)


def default_penalty(replay: BookReplay, max_inventory: int) -> float:
    """φ = σ / 2Q, money / lot² a step, σ the standard deviation of mid's move in one.

    It is ½γσ² with a risk aversion γ = 1 / Qσ: a step at the limit Q costs half the standard deviation of what the
    inventory makes in it.
    """
    return 0.5 * replay.scales.volatility / max_inventory


class BookQuoting(QuotingSimulator):
    """E market makers on one recorded book, each from a row that its own generator draws.

    Args:
        book: recorded, or a description that :func:`~hmgym.data.read_book` reads; None is a synthetic one.
        events_per_step: rows of the book a step.
        steps: of an episode.
        queue: "back" or "front" of what is visible at a quote's price.
        reward: "inventory_penalty", "pnl" or "sharpe".
        max_inventory: Q, lots.
        history: rows that episodes lie in: "training", the first 70 %, "held-out", the other 30 %, or "all".
        running_penalty: φ of the first reward, money / lot² a step; None is :func:`default_penalty`.
        terminal_penalty: a likewise, money / lot².
        num_markets: E.
        record: whether to keep the history that a frame shows.

    Attributes:
        replay: the book and its rules.
        running_penalty: φ.
        terminal_penalty: a.
        starts: the first and the last row at which an episode may begin.

    Raises:
        ValueError: an argument is none of these, or the span is too short for an episode.
    """

    def __init__(
        self,
        book: BookSource | None = None,
        events_per_step: int = 10,
        steps: int = 50,
        queue: str = "back",
        reward: str = "inventory_penalty",
        max_inventory: int = 10,
        history: str = "training",
        running_penalty: float | None = None,
        terminal_penalty: float = 0.0,
        *,
        num_markets: int = 1,
        record: bool = False,
    ) -> None:
        recorded = synthetic_book() if book is None else read_book(book)
        self.replay = BookReplay(recorded, events_per_step, queue)
        steps, max_inventory = integer("steps", steps, 1), integer("max_inventory", max_inventory, 1)
        if running_penalty is None:
            running_penalty = default_penalty(self.replay, max_inventory)
        check_number("running_penalty", running_penalty, 0.0)
        check_number("terminal_penalty", terminal_penalty, 0.0)
        self.running_penalty, self.terminal_penalty = float(running_penalty), float(terminal_penalty)
        self.starts = self.replay.starts(history, steps)
        super().__init__(
            integer("num_envs", num_markets, 1), depths=depth_box(self.replay), observation_map=OBSERVATIONS,
            steps=steps, step_time=1.0, max_inventory=max_inventory, record=record,
            # The Sharpe ratio starts from no profit and a deviation of one scale of depths.
            reward=make_reward(
                reward, running_penalty=self.running_penalty, terminal_penalty=self.terminal_penalty, mean=0.0,
                deviation=self.replay.scales.depth,
            ),
        )  # fmt: skip
        self._row = np.zeros(self.num_markets, np.int64)

    @property
    def book(self) -> BookHistory:
        """The book that runs."""
        return self.replay.book

    def _begin(self, rows: npt.NDArray[np.int64], generators: list[np.random.Generator]) -> FloatArray:
        first, last = self.starts
        self._row[rows] = [generators[row].integers(first, last + 1) for row in rows]
        mid: FloatArray = self.replay.mid[self._row[rows]]
        return mid

    def _trade(self, depths: FloatArray, generators: list[np.random.Generator], frozen: Flags | None) -> Trade:
        replay, rows = self.replay, self._row
        bid, ask = replay.quotes(rows, depths)
        bought, sold = self._within(*replay.fills(rows, bid, ask))
        return Trade(replay.price(bid), replay.price(ask), bought, sold, replay.mid[replay.after(rows)])

    def _advance(self, frozen: Flags | None) -> None:
        after = self.replay.after(self._row)
        self._row = after if frozen is None else np.where(frozen, self._row, after)

    def _see(self) -> tuple[FloatArray, ...]:
        return tuple(self.replay.features[self._row].T)
