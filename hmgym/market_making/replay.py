"""A recorded book as a market that quotes meet: where they stand, what fills them, and what is known at a row.

A step begins at row i of the book and ends at row i + n. Quotes are posted at row i, one lot a side, behind what is
visible at their price, and taken back at the end of the step. They are on tick and never cross; in ticks,

    bid = min(floor(mid − depth), best ask − 1),     ask = max(ceil(mid + depth), best bid + 1).

Trades of the rows i … i + n − 1 fill them, by their price alone: trades may lie outside the book of their row. One that
a seller initiated fills the bid if it is below it; at the same price when more has traded there than the queue, the
size visible at that price in row i. Cancellations do not shorten the queue. It is 0 between the levels and inside the
spread, and behind the last visible level it is unknown, so that only trades beyond the price fill. Asks mirror this. A
fill is at the quote's price. The recording does not react: a lot is taken to be small.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hmgym.checks import integer, shown
from hmgym.data.books import BookHistory, Floats
from hmgym.market_making import kernels

Queue = Literal["back", "front"]
Whole = NDArray[np.int64]
Flags = NDArray[np.bool_]

BOOK_SPANS = ("training", "held-out", "all")
"""Rows of a recording by name: its first 70 %, the other 30 %, all of it."""
FEATURES = ("spread", "best_imbalance", "imbalance", "step_return", "long_return", "trade_flow")
"""What a row shows, see :attr:`BookReplay.features`."""
LONG = 5
"""Steps over which `long_return` is taken."""

_OFF_TICK = 1e-4
"""Ticks by which a price may miss one and be on it."""


@dataclass(frozen=True, kw_only=True)
class BookScales:
    """What is typical of a book, measured on its training rows.

    Attributes:
        spread: the median, price.
        volatility: standard deviation of mid's move in a step, price.
        depth: the larger of half the median spread and `volatility`, price: the unit of depths of quotes.
        volume: mean of |size bought − size sold| by those who initiated trades in a step, 1 where nothing was traded.
    """

    spread: float
    volatility: float
    depth: float
    volume: float


class BookReplay:
    """A book in steps of so many rows.

    Args:
        book: recorded.
        events_per_step: n, rows a step.
        queue: "back", behind what is visible at the price; "front", before it.

    Attributes:
        scales: what is typical of it.
        features: (M, 6), what is known at each row, `FEATURES`, in [-1, 1]: ln(spread / its median) by tanh; (bid size
            − ask size) / (bid size + ask size) at the best level and over all; mid's move over the last step and over
            the last five, divided by its standard deviation, by tanh; size bought less size sold in the last step,
            divided by its scale, by tanh. In the first rows a step is as long as there are rows.

    Raises:
        ValueError: an argument is none of these, the book's prices are not multiples of its tick, its trades are not in
            the order of their rows, or its training rows are too few for a step.
    """

    def __init__(self, book: BookHistory, events_per_step: int = 10, queue: str = "back") -> None:
        if not isinstance(book, BookHistory):
            raise ValueError(f"`book` must be a BookHistory, got {shown(book)}")
        if queue not in get_args(Queue):
            raise ValueError(f"`queue` must be one of {list(get_args(Queue))}, got {shown(queue)}")
        self.book, self.queue = book, queue
        self.events_per_step = integer("events_per_step", events_per_step, 1)
        training = self.rows_of("training")[1]
        if training <= self.events_per_step:
            raise ValueError(
                f"`events_per_step` must be < {training}, the training rows of {book.source}, got {events_per_step}"
            )
        self.tick = book.tick
        units = round(1.0 / book.tick)
        self._units = units if abs(units * book.tick - 1.0) < 1e-9 else 0
        self._bid, self._ask = self._levels("bid_price"), self._levels("ask_price")
        self.best_bid, self.best_ask = self._bid[:, 0].astype(np.int64), self._ask[:, 0].astype(np.int64)
        self.mid = book.mid
        if (np.diff(book.trade_row) < 0).any():
            trade = int(np.argmax(np.diff(book.trade_row) < 0)) + 1
            raise ValueError(f"{book.source}, trade {trade}: `trade_row` must not descend, got {book.trade_row[trade]}")
        self._trade_level = self._in_ticks(book.trade_price)
        self._first_trade = np.searchsorted(book.trade_row, np.arange(len(book.time) + 1))
        self._seller = book.trade_side < 0
        flow = self._flow()
        self.scales = self._measure(training, flow)
        self.features = self._features(flow)

    def rows_of(self, history: str) -> tuple[int, int]:
        """The first row of a span and the one after its last.

        Raises:
            ValueError: there is no such span.
        """
        if history not in BOOK_SPANS:
            raise ValueError(f"`history` must be one of {list(BOOK_SPANS)}, got {shown(history)}")
        rows = len(self.book.time)
        cut = 7 * rows // 10
        return (cut if history == "held-out" else 0), (cut if history == "training" else rows)

    def starts(self, history: str, steps: int) -> tuple[int, int]:
        """The first and the last row of a span at which an episode of so many steps may begin and still end in it.

        Raises:
            ValueError: there is no such span, or it is too short.
        """
        first, after = self.rows_of(history)
        last = after - 1 - steps * self.events_per_step
        if last < first:
            raise ValueError(
                f"`steps` × `events_per_step` must be < {after - first}, the rows of the span {history!r} of "
                f"{self.book.source}, got {steps} × {self.events_per_step}"
            )
        return first, last

    def after(self, rows: Whole) -> Whole:
        """The rows at which steps from `rows` end; there is none after the last of the book."""
        return np.minimum(rows + self.events_per_step, len(self.book.time) - 1)

    def quotes(self, rows: Whole, depths: Floats) -> tuple[Whole, Whole]:
        """Bid and ask, (E,) ticks, at depths (E, 2) from mid, bid first, at rows (E,)."""
        bid, ask, mid = self.best_bid[rows], self.best_ask[rows], 0.5 * (self.best_bid[rows] + self.best_ask[rows])
        depth = depths / self.tick
        # A depth that ends on a tick but for rounding ends there.
        wanted_bid = np.floor(mid - depth[:, 0] + 1e-6).astype(np.int64)
        wanted_ask = np.ceil(mid + depth[:, 1] - 1e-6).astype(np.int64)
        return np.minimum(wanted_bid, ask - 1), np.maximum(wanted_ask, bid + 1)

    def fills(self, rows: Whole, bid: Whole, ask: Whole) -> tuple[Flags, Flags]:
        """Whether bids and asks, (E,) ticks, posted at rows (E,), are filled within the step."""
        found: tuple[Flags, Flags] = kernels.book_fills(
            rows, self.after(rows), bid, ask, self.queue == "front", self._bid, self.book.bid_size, self._ask,
            self.book.ask_size, self._first_trade, self._trade_level, self.book.trade_size, self._seller,
        )  # fmt: skip
        return found

    def price(self, ticks: Whole) -> Floats:
        """Prices of whole ticks, to the last digit those of the recording where a unit of price has whole ticks."""
        return np.asarray(ticks / self._units if self._units else ticks * self.tick, np.float64)

    def _in_ticks(self, price: Floats) -> Floats:
        """Prices in ticks; whole ones exactly."""
        ticks = price / self.tick
        whole = np.rint(ticks)
        return np.where(np.abs(ticks - whole) < _OFF_TICK, whole, ticks)

    def _levels(self, name: str) -> Floats:
        ticks = self._in_ticks(getattr(self.book, name))
        off = ticks % 1.0 > 0.0  # NaN is not
        if off.any():
            row, level = np.argwhere(off)[0]
            raise ValueError(
                f"{self.book.source}, row {row}: `{name}` must be multiples of the tick {self.tick:g}, "
                f"got {getattr(self.book, name)[row, level]}"
            )
        return np.ascontiguousarray(ticks)

    def _flow(self) -> Floats:
        """Size bought less size sold from a step before each row to the row, (M,)."""
        signed = np.concatenate([[0.0], np.cumsum(self.book.trade_side * self.book.trade_size)])
        before = signed[self._first_trade[:-1]]
        recent: Floats = before - before[self._before(1)]
        return recent

    def _before(self, steps: int) -> Whole:
        """The rows so many steps before each."""
        return np.maximum(np.arange(len(self.book.time)) - steps * self.events_per_step, 0)

    def _spread(self) -> Floats:
        return np.asarray((self.best_ask - self.best_bid) * self.tick, np.float64)

    def _measure(self, training: int, flow: Floats) -> BookScales:
        n = self.events_per_step
        spread = float(np.median(self._spread()[:training]))
        volatility = float((self.mid[n:training] - self.mid[: training - n]).std())
        return BookScales(
            spread=spread, volatility=volatility, depth=max(0.5 * spread, volatility),
            volume=float(np.abs(flow[n:training]).mean()) or 1.0,
        )  # fmt: skip

    def _features(self, flow: Floats) -> Floats:
        book, scales = self.book, self.scales
        relative = (self._spread() / scales.spread) ** 2
        bids, asks = (np.stack([side[:, 0], side.sum(1)]) for side in (book.bid_size, book.ask_size))
        best, all_levels = (bids - asks) / (bids + asks)
        deviation = scales.volatility or self.tick

        def moved(steps: int) -> Any:
            return np.tanh((self.mid - self.mid[self._before(steps)]) / (deviation * np.sqrt(steps)))

        # tanh(ln x) = (x² − 1) / (x² + 1).
        columns = [(relative - 1.0) / (relative + 1.0), best, all_levels, moved(1), moved(LONG)]
        return np.stack([*columns, np.tanh(flow / scales.volume)], 1)


def fill_shares(replay: BookReplay, depths: ArrayLike, rows: Whole) -> Floats:
    """How often quotes at fixed depths are filled within a step, bids and asks, (D, 2).

    Args:
        replay: the book.
        depths: (D,) from mid, price.
        rows: (R,) at which quotes are posted.
    """
    shares = []
    for depth in np.asarray(depths, np.float64):
        bought, sold = replay.fills(rows, *replay.quotes(rows, np.full((rows.size, 2), depth)))
        shares.append([bought.mean(), sold.mean()])
    return np.array(shares)
