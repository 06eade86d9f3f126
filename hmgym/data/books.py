"""A recorded limit order book and its trades, checked on construction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hmgym.checks import is_finite_number, shown
from hmgym.data.history import real_numbers

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Fault(NamedTuple):
    """The first row that breaks a rule, counted from 0, and what is wrong with it."""

    row: int
    text: str


@dataclass(frozen=True, kw_only=True, eq=False)
class BookHistory:
    """The best K levels of a limit order book after each of M events, and the trades between them.

    Level 0 is the best. A level that nobody quotes has price nan and size 0; levels behind it have too. The best
    levels of both sides are always quoted. Arrays are read-only.

    Units: time in seconds, since midnight (LOBSTER) or since 1970 in UTC (Binance); prices in the currency of the
    quote; sizes in shares or in units of the base asset.

    Args:
        time: (M,) when each row began to hold, not descending.
        bid_price: (M, K) prices of buyers, falling from level to level.
        bid_size: (M, K) what they quote.
        ask_price: (M, K) prices of sellers, rising.
        ask_size: (M, K) what they quote.
        trade_time: (J,) not descending.
        trade_price: (J,) from half the best bid to twice the best ask of the row before.
        trade_size: (J,) positive.
        trade_side: (J,) +1 if a buyer initiated the trade, -1 if a seller did.
        trade_row: (J,) the last row of the book before the trade.
        tick: the smallest difference of two prices.
        source: where they came from, one line, used in error messages and reports.

    Raises:
        ValueError: a shape or a row that cannot be used; names the first such row.
    """

    time: Floats
    bid_price: Floats
    bid_size: Floats
    ask_price: Floats
    ask_size: Floats
    trade_time: Floats
    trade_price: Floats
    trade_size: Floats
    trade_side: NDArray[np.int64]
    trade_row: NDArray[np.int64]
    tick: float
    source: str = "book"

    def __post_init__(self) -> None:
        self._take("time", ("M",), np.float64)
        self._take("bid_price", ("M", "K"), np.float64)
        for name in ("bid_size", "ask_price", "ask_size"):
            self._take(name, ("M", "K"), np.float64)
            self._check_shape(name, "bid_price")
        if self.bid_price.shape[0] != len(self.time) or not self.bid_price.size:
            raise ValueError(
                f"{self.source}: `bid_price` must have shape (M, K) with M = {len(self.time)} >= 1 and K >= 1, "
                f"got {self.bid_price.shape}"
            )
        for name in ("trade_time", "trade_price", "trade_size"):
            self._take(name, ("J",), np.float64)
            self._check_shape(name, "trade_time")
        for name in ("trade_side", "trade_row"):
            self._take(name, ("J",), np.int64)
            self._check_shape(name, "trade_time")
        if not is_finite_number(self.tick) or self.tick <= 0.0:
            raise ValueError(f"{self.source}: `tick` must be a positive number, got {shown(self.tick)}")
        self._refuse("row", time_fault(self.time))
        self._refuse("row", book_fault(self.bid_price, self.bid_size, self.ask_price, self.ask_size))
        self._refuse("trade", time_fault(self.trade_time))
        rows = self.trade_row
        outside = (rows < 0) | (rows >= len(self.time))
        self._refuse("trade", first_fault((f"`trade_row` must be in [0, {len(self.time)})", outside, rows)))
        sides = np.abs(self.trade_side) != 1
        self._refuse("trade", first_fault(("`trade_side` must be 1 or -1", sides, self.trade_side)))
        best = self.bid_price[rows, 0], self.ask_price[rows, 0]
        self._refuse("trade", trade_fault(self.trade_price, self.trade_size, *best))

    @property
    def levels(self) -> int:
        """Levels of a side, K."""
        return int(self.bid_price.shape[1])

    @property
    def mid(self) -> Floats:
        """Mean of the best bid and the best ask, (M,)."""
        return 0.5 * (self.bid_price[:, 0] + self.ask_price[:, 0])

    def _take(self, name: str, axes: tuple[str, ...], kind: type[np.float64] | type[np.int64]) -> None:
        numbers = real_numbers(name, getattr(self, name), self.source)
        if numbers.ndim != len(axes):
            raise ValueError(f"{self.source}: `{name}` must have shape ({', '.join(axes)}), got {numbers.shape}")
        array = numbers.astype(kind)
        if kind is np.int64 and not np.array_equal(array, numbers):
            raise ValueError(f"{self.source}: `{name}` must be whole numbers")
        array.setflags(write=False)
        object.__setattr__(self, name, array)

    def _check_shape(self, name: str, like: str) -> None:
        shape, expected = getattr(self, name).shape, getattr(self, like).shape
        if shape != expected:
            raise ValueError(f"{self.source}: `{name}` must have the shape of `{like}`, {expected}, got {shape}")

    def _refuse(self, what: str, fault: Fault | None) -> None:
        if fault is not None:
            raise ValueError(f"{self.source}, {what} {fault.row}: {fault.text}")


def first_fault(*rules: tuple[str, Flags, NDArray[np.generic]]) -> Fault | None:
    """The first row that breaks one of the rules.

    Args:
        rules: each what must hold, where it does not, and the values to show: those of the row where it is told by
            row, (M,), else the one of its columns (M, K), or the neighbours where there is a column less.
    """
    found: Fault | None = None
    for text, broken, values in rules:
        rows = np.flatnonzero(broken if broken.ndim == 1 else broken.any(axis=1))
        if not rows.size or (found is not None and rows[0] >= found.row):
            continue
        row = int(rows[0])
        shown_values = values[row].tolist()
        if broken.ndim == 2:
            column = int(np.argmax(broken[row]))
            shown_values = shown_values[column : column + 1 + values.shape[1] - broken.shape[1]]
            shown_values = shown_values[0] if len(shown_values) == 1 else shown_values
        found = Fault(row, f"{text}, got {shown(shown_values)}")
    return found


def time_fault(time: Floats) -> Fault | None:
    """The first time that is no number or before the one that it follows."""
    earlier = np.concatenate([[False], time[1:] < time[:-1]])
    return first_fault(
        ("time must be a finite number", ~np.isfinite(time), time),
        ("time must not be before that of the row before", earlier, time),
    )


def book_fault(bid_price: Floats, bid_size: Floats, ask_price: Floats, ask_size: Floats) -> Fault | None:
    """The first row (of arrays (M, K)) that is no book: see `BookHistory` for what one is."""
    best = np.stack([bid_price[:, 0], ask_price[:, 0]], axis=1)
    return first_fault(
        *_side_rules("bid", "fall", -1.0, bid_price, bid_size),
        *_side_rules("ask", "rise", 1.0, ask_price, ask_size),
        ("the best bid must be below the best ask", best[:, 0] >= best[:, 1], best),
    )


def trade_fault(price: Floats, size: Floats, bid: Floats, ask: Floats) -> Fault | None:
    """The first trade whose size is not positive or whose price is of another scale than the best prices before it."""
    near = np.isfinite(price) & (price >= 0.5 * bid) & (price <= 2.0 * ask)
    return first_fault(
        ("the size of a trade must be positive", ~(np.isfinite(size) & (size > 0.0)), size),
        (
            "the price of a trade must lie between half the best bid and twice the best ask",
            ~near,
            np.stack([price, bid, ask], axis=1),
        ),
    )


def _side_rules(name: str, course: str, sign: float, price: Floats, size: Floats) -> list[tuple[str, Flags, Floats]]:
    quoted = ~np.isnan(price)
    # The comparison is false with a nan, so a level behind one that nobody quotes is caught as well.
    worse = sign * price[:, 1:] > sign * price[:, :-1]
    return [
        (f"the best {name} must be quoted", ~quoted[:, 0], price),
        (f"{name} prices must be positive", quoted & ~(np.isfinite(price) & (price > 0.0)), price),
        (f"{name} sizes must be positive, and 0 where there is no price", _wrong_size(quoted, size), size),
        (f"{name} prices must {course} from level to level", quoted[:, 1:] & ~worse, price),
    ]


def _wrong_size(quoted: Flags, size: Floats) -> Flags:
    return np.where(quoted, ~(np.isfinite(size) & (size > 0.0)), size != 0.0)
