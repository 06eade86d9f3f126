"""LOBSTER files: what is read, and what is refused with file and line."""

from __future__ import annotations

import gzip
import re

import numpy as np
import pytest

from hmgym.data import read_lobster
from tests.data.recordings import excerpts, lobster, write


def files(tmp_path, messages, book):
    return write(tmp_path / "messages.csv", messages), write(tmp_path / "book.csv", book)


def test_rows_trades_units_and_sides(tmp_path):
    messages = [
        "34200.1,1,11,18,1000000,1",
        "34200.2,4,12,5,1000100,-1",
        "34200.2,5,0,3,1000050,1",
        "34200.3,6,-1,900,1000000,-1",
        "34200.4,7,0,0,-1,-1",
        "34200.5,4,11,18,1000000,1",
    ]
    empty = "9999999999,0,-9999999999,0"
    book = [
        "1000100,20,1000000,18,1000300,7,999900,2",
        "1000100,15,1000000,18,1000300,7,999900,2",
        "1000100,15,1000000,18,1000300,7,999900,2",
        "1000100,15,1000000,18,1000300,7,999900,2",
        "1000100,15,1000000,18,1000300,7,999900,2",
        "1000100,15,999900,2,1000300,7," + empty.split(",", 2)[2],
    ]
    history = read_lobster(*files(tmp_path, messages, book))
    assert history.time.tolist() == [34200.1, 34200.2, 34200.2, 34200.3, 34200.4, 34200.5]
    assert history.bid_price[0].tolist() == [100.0, 99.99]
    assert history.ask_price[1].tolist() == [100.01, 100.03]
    assert history.ask_size[:2].tolist() == [[20, 7], [15, 7]]
    np.testing.assert_array_equal(history.bid_price[5], [99.99, np.nan])
    assert history.bid_size[5].tolist() == [2, 0]
    assert history.trade_price.tolist() == [100.01, 100.005, 100.0]
    assert history.trade_size.tolist() == [5, 3, 18]
    assert history.trade_side.tolist() == [1, -1, -1]
    assert history.trade_row.tolist() == [0, 1, 4]
    assert history.trade_time.tolist() == [34200.2, 34200.2, 34200.5]
    assert history.tick == 0.01


@pytest.mark.parametrize("seed", range(8))
def test_random_days_are_consistent_at_every_depth(tmp_path, seed):
    deep = read_lobster(*files(tmp_path, *lobster(seed, depth=30, events=300, start=3)))
    for depth in (1, 4):
        shallow = read_lobster(*files(tmp_path, *lobster(seed, depth=depth, events=300, start=3)))
        for name in ("bid_price", "bid_size", "ask_price", "ask_size"):
            np.testing.assert_array_equal(getattr(shallow, name), getattr(deep, name)[:, :depth])
        np.testing.assert_array_equal(shallow.trade_price, deep.trade_price)
    first = read_lobster(*files(tmp_path, *lobster(seed, depth=30, events=300, start=3)), levels=1)
    np.testing.assert_array_equal(first.bid_price, deep.bid_price[:, :1])


def test_gzipped_files_windows_line_ends_and_no_last_line_end(tmp_path):
    messages, book = lobster(0)
    plain = read_lobster(*files(tmp_path, messages, book))
    (tmp_path / "messages.csv.gz").write_bytes(gzip.compress("\r\n".join(messages).encode()))
    (tmp_path / "book.csv.gz").write_bytes(gzip.compress("\n".join(book).encode()))
    packed = read_lobster(tmp_path / "messages.csv.gz", tmp_path / "book.csv.gz")
    np.testing.assert_array_equal(plain.bid_size, packed.bid_size)
    np.testing.assert_array_equal(plain.time, packed.time)


def test_one_row_is_a_book(tmp_path):
    history = read_lobster(*files(tmp_path, *lobster(0, events=1)))
    assert history.time.shape == (1,)
    assert history.trade_time.shape == (0,)


def cells(line, **changes):
    """The line with some cells, named by their place, replaced by what a function makes of them."""
    parts = line.split(",")
    for place, change in changes.items():
        index = int(place[1:])
        parts[index] = str(change(parts[index]))
    return ",".join(parts)


def swapped(line, first, second):
    parts = line.split(",")
    parts[first], parts[second] = parts[second], parts[first]
    return ",".join(parts)


def negative(cell):
    return -abs(int(cell))


SEED = 5
"""Its message 20 is a new order that the book of three levels shows."""

FAULTS = {
    "message cut between cells": ("messages", 20, lambda line: line.rsplit(",", 1)[0], "expected 6 cells, got 5"),
    "message with a cell more": ("messages", 20, lambda line: line + ",1", "expected 6 cells, got 7"),
    "first message cut": ("messages", 1, lambda line: line.rsplit(",", 1)[0], "expected 6 cells, got 5"),
    "message without its last cell": ("messages", 20, lambda line: line.rsplit(",", 1)[0] + ",", "a number, got ''"),
    "message that is empty": ("messages", 20, lambda line: "", "expected 6 cells, got 1"),
    "message with a word": ("messages", 20, lambda line: cells(line, _3=lambda cell: "x"), "a number, got 'x'"),
    "message with a nan": ("messages", 20, lambda line: cells(line, _3=lambda cell: "nan"), "a number, got 'nan'"),
    "message with half a share": ("messages", 20, lambda line: cells(line, _3=lambda cell: 1.5), "whole numbers"),
    "negative size": ("messages", 20, lambda line: cells(line, _3=negative), "the size must be positive, got -"),
    "another direction": ("messages", 20, lambda line: cells(line, _5=lambda cell: 0), "direction must be 1 or -1"),
    "unknown type": ("messages", 20, lambda line: cells(line, _1=lambda cell: 8), "the type must be one of 1 to 7"),
    "size and price swapped": ("messages", 20, lambda line: swapped(line, 3, 4), "does not lead from line 19"),
    "type and time swapped": ("messages", 20, lambda line: swapped(line, 0, 1), "must be whole numbers"),
    "time in nanoseconds": ("messages", 60, lambda line: cells(line, _0=lambda cell: 10**9), "seconds after midnight"),
    "price in dollars": (
        "messages",
        20,
        lambda line: cells(line, _4=lambda cell: int(cell) / 10_000),
        "whole numbers|does not lead",
    ),
    "price ten times": ("messages", 20, lambda line: cells(line, _4=lambda cell: int(cell) * 10), "does not lead"),
    "size a hundred times": (
        "messages",
        20,
        lambda line: cells(line, _3=lambda cell: int(cell) * 100),
        "does not lead",
    ),
    "row cut": ("book", 20, lambda line: line.rsplit(",", 1)[0], "expected 12 cells, got 11"),
    "first row cut": ("book", 1, lambda line: line.rsplit(",", 1)[0], "expected 4 numbers a level"),
    "last row cut": ("book", 60, lambda line: line.rsplit(",", 4)[0], "expected 12 cells, got 8"),
    "negative size in the book": ("book", 20, lambda line: cells(line, _1=negative), "ask sizes must be positive"),
    "bid and ask swapped": ("book", 20, lambda line: swapped(line, 0, 2), "must be below|must rise|must fall"),
    "price and size swapped": ("book", 20, lambda line: swapped(line, 0, 1), "must be below|must rise"),
    "levels swapped": ("book", 20, lambda line: swapped(line, 0, 4), "ask prices must rise"),
    "book in dollars": ("book", 20, lambda line: cells(line, _0=lambda cell: int(cell) / 10_000), "whole|below"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_names_file_and_line(tmp_path, fault):
    name, line, change, message = FAULTS[fault]
    lines = dict(zip(("messages", "book"), lobster(SEED), strict=True))
    assert lines["messages"][19].split(",")[1] == "1"
    assert lines["book"][18] != lines["book"][19]
    lines[name][line - 1] = change(lines[name][line - 1])
    paths = files(tmp_path, lines["messages"], lines["book"])
    with pytest.raises(ValueError, match=message) as refusal:
        read_lobster(*paths)
    assert str(refusal.value).startswith(f"{tmp_path / name}.csv, line {line}: ")


def scaled(lines, columns, factor):
    def change(cell):
        return cell if cell.endswith("9999999999") else f"{int(cell) * factor:.10g}"

    return [cells(line, **{f"_{column}": change for column in columns}) for line in lines]


@pytest.mark.parametrize("factor", [1e-4, 1e-2])
def test_a_whole_recording_of_another_scale(tmp_path, factor):
    messages, book = lobster(0)
    columns = range(0, 12, 2)
    with pytest.raises(ValueError, match=r"messages.csv, line \d+: .*(whole numbers|1/10000 dollar)"):
        read_lobster(*files(tmp_path, scaled(messages, [4], factor), scaled(book, columns, factor)))
    with pytest.raises(ValueError, match=r"book.csv, line 1: .*(whole numbers|1/10000 dollar)"):
        read_lobster(*files(tmp_path, messages, scaled(book, columns, factor)))


def test_a_line_that_one_file_lacks(tmp_path):
    messages, book = lobster(0)
    for lines, other in (((messages[:30] + messages[31:]), book), (messages, book[:30] + book[31:])):
        with pytest.raises(ValueError, match=r"messages.csv, line 3\d: .*does not lead from line 3\d to line 3\d of"):
            read_lobster(*files(tmp_path, lines, other))
    with pytest.raises(ValueError, match=re.escape("messages.csv, line 60: has no line in")):
        read_lobster(*files(tmp_path, messages, book[:-1]))
    with pytest.raises(ValueError, match=re.escape("book.csv, line 60: has no line in")):
        read_lobster(*files(tmp_path, messages[:-1], book))


def test_a_gap_in_both_files(tmp_path):
    messages, book = lobster(0)
    with pytest.raises(ValueError, match=r"messages.csv, line 31: .*does not lead from line 30 to line 31"):
        read_lobster(*files(tmp_path, messages[:30] + messages[32:], book[:30] + book[32:]))


def test_files_and_levels_that_are_not_there(tmp_path):
    messages, book = files(tmp_path, *lobster(0))
    with pytest.raises(ValueError, match=r"none\.csv: cannot be read as a LOBSTER message file"):
        read_lobster(tmp_path / "none.csv", book)
    with pytest.raises(ValueError, match="cannot be read as a LOBSTER order-book file: it is empty"):
        read_lobster(messages, write(tmp_path / "empty.csv", []))
    with pytest.raises(ValueError, match="`levels` must be at most 3"):
        read_lobster(messages, book, levels=4)
    with pytest.raises(ValueError, match="`levels` must be an integer >= 1 or None, got 0"):
        read_lobster(messages, book, levels=0)


@pytest.mark.parametrize(
    ("messages", "book", "rows", "trades"),
    [
        ("AAPL_2012-06-21_34200000_57600000_message_10", "AAPL_2012-06-21_34200000_57600000_orderbook_10", 999, 159),
        (
            "MSFT_2012-06-21_34200000_37800000_message_50",
            "MSFT_2012-06-21_34200000_37800000_orderbook_50_first10levels",
            1000,
            115,
        ),
    ],
)
def test_real_recordings(messages, book, rows, trades):
    folder = excerpts() / "lobster"
    history = read_lobster(folder / f"{messages}.csv", folder / f"{book}.csv")
    assert (history.bid_price.shape, history.trade_row.shape, history.tick) == ((rows, 10), (trades,), 0.01)
    bid, ask = history.bid_price[history.trade_row, 0], history.ask_price[history.trade_row, 0]
    assert ((bid <= history.trade_price) & (history.trade_price <= ask)).all()
