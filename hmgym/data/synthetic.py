"""A small made-up recording, to try things out where there is no real one."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from hmgym.checks import check_number, integer
from hmgym.data.books import BookHistory, Floats

_REACH = 12
"""Ticks from the best opposite quote within which orders to rest arrive."""
_LIMIT, _MARKET, _CANCEL = 1.0, 4.0, 0.15
"""Rates: orders to rest, a tick and side; market orders, a side; cancellations, a lot."""
_MEAN_SIZE = 2.0
"""Lots of an order, geometric."""
_BURN_IN = 1_000
_RATE = 40.0
"""Of all of these together a second where the book is as it is on average; only the time stamps depend on it."""


@functools.lru_cache(maxsize=8)
def synthetic_book(
    seed: int = 0, *, events: int = 4_000, levels: int = 5, tick: float = 0.01, mid: float = 100.0
) -> BookHistory:
    """A book in which orders come and go at random, whatever was before: no recording and no claim about markets.

    Orders to rest arrive at the same rate on each of the 12 ticks behind the best opposite quote, market orders at one
    rate a side, and every resting lot is cancelled at one rate. Prices move because market orders eat the best level.
    As in LOBSTER every event makes a row; a market order makes a trade a level. Nobody knows anything, so nobody is
    worse off for having traded, which is not so in real books.

    Args:
        seed: of its random numbers.
        events: rows M.
        levels: K.
        tick: price.
        mid: where it starts, price, at least 1,000 ticks.

    Raises:
        ValueError: an argument is out of range.
    """
    seed, events, levels = integer("seed", seed, 0), integer("events", events, 2), integer("levels", levels, 1)
    check_number("tick", tick, 0.0, strict=True)
    check_number("mid", mid, 1_000.0 * tick)
    rng = np.random.default_rng(seed)
    start = round(mid / tick)
    book = _Ladder(start)
    for _ in range(_BURN_IN):
        book.change(rng)
    prices, sizes = np.empty((2, events, levels)), np.empty((2, events, levels))
    times = np.cumsum(rng.exponential(1.0 / _RATE, events))
    trades: list[tuple[int, int, int, int]] = []
    for row in range(events):
        done = book.change(rng) if row else []
        trades += [(row - 1, price, size, side) for price, size, side in done]
        for side in range(2):
            prices[side, row], sizes[side, row] = book.best(side, levels)
    rows, price, size, side_of = np.array(trades, np.int64).reshape(-1, 4).T
    prices, paid = prices * tick, np.asarray(price * tick, np.float64)
    sizes, traded = 100.0 * sizes, np.asarray(100.0 * size, np.float64)
    return BookHistory(
        time=times, bid_price=prices[0], bid_size=sizes[0], ask_price=prices[1], ask_size=sizes[1],
        trade_time=times[rows + 1], trade_price=paid, trade_size=traded, trade_side=side_of, trade_row=rows, tick=tick,
        source=f"synthetic book, seed {seed}",
    )  # fmt: skip


class _Ladder:
    """Lots at the ticks of a window that follows the best quotes; neither side is ever empty."""

    def __init__(self, mid: int) -> None:
        self._lots: tuple[dict[int, int], dict[int, int]] = ({}, {})
        for distance in range(1, _REACH):
            for side, sign in ((0, -1), (1, 1)):
                self._lots[side][mid + sign * distance] = round(_LIMIT * _MEAN_SIZE / _CANCEL)

    def _inside(self, side: int) -> int:
        return min(self._lots[1]) if side else max(self._lots[0])

    def change(self, rng: np.random.Generator) -> list[tuple[int, int, int]]:
        """One event; returns its trades: price, lots, and +1 where a buyer initiated it."""
        lots = sum(sum(side.values()) for side in self._lots)
        rates = np.array([2.0 * _REACH * _LIMIT, 2.0 * _MARKET, _CANCEL * lots])
        kind = int(np.searchsorted(np.cumsum(rates), rng.random() * rates.sum()))
        side, size = int(rng.integers(2)), int(rng.geometric(1.0 / _MEAN_SIZE))
        if kind == 0:
            price = self._inside(1 - side) + (1 if side else -1) * int(rng.integers(1, _REACH + 1))
            self._lots[side][price] = self._lots[side].get(price, 0) + size
            return []
        if kind == 1:
            return self._trade(side, min(size, sum(self._lots[side].values()) - 1))
        target = int(rng.integers(lots))
        for book in self._lots:
            for price, there in book.items():
                target -= there
                if target < 0:
                    self._take(book, price, 1)
                    return []
        return []

    def _trade(self, side: int, size: int) -> list[tuple[int, int, int]]:
        book, trades = self._lots[side], []
        while size > 0:
            price = self._inside(side)
            taken = min(size, book[price])
            trades.append((price, taken, 1 if side else -1))
            self._take(book, price, taken)
            size -= taken
        return trades

    @staticmethod
    def _take(book: dict[int, int], price: int, size: int) -> None:
        if sum(book.values()) == size:  # the last of its side stays
            return
        book[price] -= size
        if not book[price]:
            del book[price]

    def best(self, side: int, levels: int) -> tuple[Floats, Floats]:
        """Prices in ticks and lots of the best levels; nan and 0 where there are fewer."""
        book = self._lots[side]
        kept = sorted(book, reverse=not side)[:levels]
        price, size = np.full(levels, np.nan), np.zeros(levels)
        price[: len(kept)], size[: len(kept)] = kept, _sizes(book, kept)
        return price, size


def _sizes(book: dict[int, int], prices: list[int]) -> NDArray[np.int64]:
    return np.array([book[price] for price in prices], np.int64)
