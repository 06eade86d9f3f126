"""A book's history: what it takes, what it gives, what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from hmgym.data import BookHistory


def history(**changes):
    fields = {
        "time": [0.0, 1.0, 1.0],
        "bid_price": [[9.9, 9.8], [9.9, np.nan], [9.8, 9.7]],
        "bid_size": [[5, 5], [5, 0], [5, 5]],
        "ask_price": [[10.0, 10.1], [10.0, 10.2], [10.0, 10.1]],
        "ask_size": [[5, 5], [5, 5], [5, 5]],
        "trade_time": [0.5, 1.5],
        "trade_price": [9.9, 10.0],
        "trade_size": [1, 2],
        "trade_side": [-1, 1],
        "trade_row": [0, 2],
        "tick": 0.1,
        "source": "a recording",
    }
    return BookHistory(**(fields | changes))


def test_arrays_are_typed_and_read_only():
    book = history()
    assert (book.levels, book.bid_price.shape) == (2, (3, 2))
    assert book.mid == pytest.approx([9.95, 9.95, 9.9])
    assert book.trade_side.dtype == book.trade_row.dtype == np.int64
    assert book.ask_size.dtype == np.float64
    for name in ("time", "bid_price", "trade_price", "trade_row"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(book, name)[0] = 1


def test_a_book_without_trades():
    none = {f"trade_{name}": [] for name in ("time", "price", "size", "side", "row")}
    assert history(**none).trade_row.shape == (0,)


def changed(name, row, value):
    rows = [list(levels) for levels in getattr(history(), name)]
    rows[row] = value
    return {name: rows}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time": [0.0, 2.0, 1.0]}, "row 2: time must not be before that of the row before, got 1.0"),
        ({"time": [0.0, np.nan, 1.0]}, "row 1: time must be a finite number"),
        ({"time": [0.0, 1.0]}, r"`bid_price` must have shape \(M, K\) with M = 2"),
        ({"time": [[0.0, 1.0, 1.0]]}, r"`time` must have shape \(M\), got \(1, 3\)"),
        ({"bid_size": [[5, 5], [5, 5]]}, r"`bid_size` must have the shape of `bid_price`, \(3, 2\), got \(2, 2\)"),
        ({"trade_size": [1.0]}, r"`trade_size` must have the shape of `trade_time`"),
        (changed("bid_price", 1, [10.0, np.nan]), "row 1: the best bid must be below the best ask"),
        (changed("bid_price", 1, [np.nan, np.nan]), "row 1: the best bid must be quoted"),
        (changed("bid_price", 0, [np.nan, 9.8]), "row 0: the best bid must be quoted"),
        (changed("bid_price", 2, [9.7, 9.8]), r"row 2: bid prices must fall from level to level, got \[9.7, 9.8\]"),
        (changed("ask_price", 2, [10.0, 10.0]), "row 2: ask prices must rise from level to level"),
        (changed("bid_price", 2, [9.8, -1.0]), "row 2: bid prices must be positive, got -1.0"),
        (changed("ask_price", 2, [10.0, np.inf]), "row 2: ask prices must be positive, got inf"),
        (changed("ask_size", 2, [5, -5]), "row 2: ask sizes must be positive, and 0 where there is no price, got -5.0"),
        (changed("bid_size", 1, [5, 5]), "row 1: bid sizes must be positive, and 0 where there is no price, got 5.0"),
        ({"trade_side": [1, 0]}, "trade 1: `trade_side` must be 1 or -1, got 0"),
        ({"trade_row": [0, 3]}, r"trade 1: `trade_row` must be in \[0, 3\), got 3"),
        ({"trade_row": [0, 1.5]}, "`trade_row` must be whole numbers"),
        ({"trade_price": [9.9, 1000.0]}, "trade 1: the price of a trade must lie between half the best bid and twice"),
        ({"trade_size": [0.0, 1.0]}, "trade 0: the size of a trade must be positive"),
        ({"trade_time": [1.0, 0.5]}, "trade 1: time must not be before"),
        ({"tick": 0.0}, "`tick` must be a positive number, got 0.0"),
    ],
)
def test_what_is_no_book_is_refused(changes, message):
    with pytest.raises(ValueError, match=message) as refusal:
        history(**changes)
    assert "a recording" in str(refusal.value)
