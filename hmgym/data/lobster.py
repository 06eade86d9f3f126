"""LOBSTER files: messages and the book after each of them.

Format: https://lobsterdata.com/info/DataStructure.php. Both files are comma separated and have no header.
Messages: time (seconds after midnight), type, order id, size (shares), price (1/10000 dollar), direction (+1 a limit
order to buy, -1 to sell). Types: 1 new order, 2 part of one cancelled, 3 order deleted, 4 visible and 5 hidden order
executed, 6 cross trade, 7 halt. Book: ask price, ask size, bid price, bid size, level by level; a level that nobody
quotes has price 9999999999 (ask) or -9999999999 (bid) and size 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from hmgym.checks import integer_or_none, shown
from hmgym.data.books import BookHistory, Fault, Floats, book_fault, first_fault, time_fault, trade_fault
from hmgym.data.files import FilePath, read_lines

Whole = NDArray[np.int64]

_DOLLAR = 10_000
_CENT = 100
_EMPTY = 9_999_999_999
_VISIBLE_EXECUTION, _HIDDEN_EXECUTION, _HALT = 4, 5, 7
_SIZE_CHANGE = np.array([0, 1, -1, -1, -1, 0, 0, 0])
"""What a message of each type does to the visible size at its price, in multiples of its size."""


class _Messages(NamedTuple):
    path: Path
    time: Floats
    type: Whole
    size: Whole
    price: Whole
    direction: Whole


class _Side(NamedTuple):
    """Levels (M, K): price times the sign that makes the best the lowest, so that both sides ascend; empty is last."""

    key: Whole
    size: Whole


def read_lobster(messages: FilePath, book: FilePath, *, levels: int | None = None) -> BookHistory:
    """Read a message file and the order-book file that goes with it; either may be gzipped.

    Row i of the book follows from row i - 1 by message i, and this is checked on every level of the file. The message
    file may be that of more levels. Trades are executions of visible and of hidden orders (types 4 and 5); whoever
    met a buy order was a seller. Cross trades and halts trade with nobody's quote and are no trades here, and the
    first message has no row before it.

    Args:
        messages: path of the message file.
        book: path of the order-book file.
        levels: keep the best so many; None for all of the file.

    Raises:
        ValueError: a cut line, a cell that is no number, a row that is no book, a message that does not lead from one
            row to the next, prices of another scale; names the file and the line.
    """
    levels = integer_or_none("levels", levels, 1)
    events = _read_messages(Path(messages))
    path = Path(book)
    table = _read_table(path, "a LOBSTER order-book file", columns=None)
    in_file = table.shape[1] // 4
    if levels is not None and levels > in_file:
        raise ValueError(f"`levels` must be at most {in_file}, the levels of {path}, got {levels}")
    ask, bid = _sides(path, table)
    _check_transitions(events, path, ask, bid)
    if len(events.time) != len(table):
        both = min(len(events.time), len(table))
        longer, shorter = (path, events.path) if len(table) > both else (events.path, path)
        raise ValueError(f"{longer}, line {both + 1}: has no line in {shorter}, which ends after {both}")

    kept = slice(levels)
    prices = [np.where(side.key == _EMPTY, np.nan, np.abs(side.key) / _DOLLAR)[:, kept] for side in (bid, ask)]
    sizes = [side.size[:, kept].astype(np.float64) for side in (bid, ask)]
    trades = np.flatnonzero((events.type == _VISIBLE_EXECUTION) | (events.type == _HIDDEN_EXECUTION))
    trades = trades[trades > 0]
    price, size = events.price[trades] / _DOLLAR, events.size[trades].astype(np.float64)
    fault = trade_fault(price, size, prices[0][trades - 1, 0], prices[1][trades - 1, 0])
    if fault is not None:
        _refuse(events.path, fault._replace(row=int(trades[fault.row])))
    return BookHistory(
        time=events.time,
        bid_price=prices[0],
        bid_size=sizes[0],
        ask_price=prices[1],
        ask_size=sizes[1],
        trade_time=events.time[trades],
        trade_price=price,
        trade_size=size,
        trade_side=-events.direction[trades],
        trade_row=trades - 1,
        tick=_tick(ask, bid),
        source=str(path),
    )


def _read_messages(path: Path) -> _Messages:
    table = _read_table(path, "a LOBSTER message file", columns=6)
    time = table[:, 0]
    whole = _whole(path, table[:, 1:])
    kind, size, price, direction = whole[:, 0], whole[:, 2], whole[:, 3], whole[:, 4]
    order = (kind >= 1) & (kind <= _HIDDEN_EXECUTION)
    visible = (kind >= 1) & (kind <= _VISIBLE_EXECUTION)
    _refuse(path, time_fault(time))
    fault = first_fault(
        ("time must be in seconds after midnight, in [0, 86400]", (time < 0.0) | (time > 86_400.0), time),
        ("the type must be one of 1 to 7", (kind < 1) | (kind > _HALT), kind),
        ("the size must be positive", (order & (size <= 0)) | (size < 0), size),
        ("the price must be positive", (kind != _HALT) & (price <= 0), price),
        ("the direction must be 1 or -1", order & (np.abs(direction) != 1), direction),
        (_SCALE, visible & _off_grid(price), price),
    )
    _refuse(path, fault)
    return _Messages(path, time, kind, size, price, direction)


def _sides(path: Path, table: Floats) -> tuple[_Side, _Side]:
    whole = _whole(path, table)
    ask, bid = _Side(whole[:, 0::4], whole[:, 1::4]), _Side(-whole[:, 2::4], whole[:, 3::4])
    prices = [np.where(side.key == _EMPTY, np.nan, sign * side.key) for side, sign in ((bid, -1.0), (ask, 1.0))]
    sizes = [side.size.astype(np.float64) for side in (bid, ask)]
    _refuse(path, book_fault(prices[0], sizes[0], prices[1], sizes[1]))
    scale = [(_SCALE, (side.key != _EMPTY) & _off_grid(np.abs(side.key)), np.abs(side.key)) for side in (ask, bid)]
    _refuse(path, first_fault(*scale))
    return ask, bid


_SCALE = "prices are in 1/10000 dollar; from a dollar on they must be multiples of half a cent"


def _off_grid(price: Whole) -> NDArray[np.bool_]:
    """Prices that rule 612 of the SEC allows no quote at; half a cent is its smallest step from a dollar on."""
    off: NDArray[np.bool_] = (price >= _DOLLAR) & (price % (_CENT // 2) != 0)
    return off


def _tick(ask: _Side, bid: _Side) -> float:
    """Dollars: a cent, or what divides all quoted prices where they are on a finer grid."""
    quoted = np.concatenate([side.key[side.key != _EMPTY] for side in (ask, bid)])
    return int(np.gcd(np.gcd.reduce(quoted), _CENT)) / _DOLLAR


def _check_transitions(events: _Messages, path: Path, ask: _Side, bid: _Side) -> None:
    rows = min(len(events.time), len(ask.key))
    follows = np.ones(max(rows - 1, 0), dtype=np.bool_)
    change = (_SIZE_CHANGE[events.type] * events.size)[1:rows]
    for side, direction, sign in ((ask, -1, 1), (bid, 1, -1)):
        own = np.where(events.direction[1:rows] == direction, change, 0)
        follows &= _follows(_Side(side.key[:rows], side.size[:rows]), sign * events.price[1:rows], own)
    broken = np.flatnonzero(~follows)
    if broken.size:
        row = int(broken[0]) + 1
        raise ValueError(
            f"{events.path}, line {row + 1}: type {events.type[row]} of {events.size[row]} at {events.price[row]}, "
            f"direction {events.direction[row]}, does not lead from line {row} to line {row + 1} of {path}"
        )


def _follows(side: _Side, key: Whole, change: Whole) -> NDArray[np.bool_]:
    """Whether each row follows from the one before when the size at `key` (M-1,) changes by `change`."""
    before, after = _Side(side.key[:-1], side.size[:-1]), _Side(side.key[1:], side.size[1:])
    depth = before.key.shape[1]
    level = np.arange(depth)
    position = (before.key < key[:, None]).sum(axis=1)
    visible = position < depth
    at = np.minimum(position, depth - 1)[:, None]
    there = visible & (np.take_along_axis(before.key, at, 1)[:, 0] == key)
    left = np.where(there, np.take_along_axis(before.size, at, 1)[:, 0], 0) + change
    new, gone = visible & ~there & (change > 0), there & (left == 0)

    # Each level of a row comes from a level of the row before; behind one that is gone, the last was not visible.
    moved = gone[:, None] & (level >= position[:, None])
    origin = level - (new[:, None] & (level > position[:, None])) + moved
    unseen = origin == depth
    origin = np.minimum(origin, depth - 1)
    own = (level == position[:, None]) & (visible & ~gone)[:, None] & (there | new)[:, None]
    expected_key = np.where(own, key[:, None], np.take_along_axis(before.key, origin, 1))
    expected_size = np.where(own, left[:, None], np.take_along_axis(before.size, origin, 1))
    as_expected = (after.key == expected_key) & (after.size == expected_size)
    last = before.key[:, -1:]
    behind = np.where(last == _EMPTY, after.key == _EMPTY, after.key > last)
    follows: NDArray[np.bool_] = np.where(unseen, behind, as_expected).all(axis=1) & (~visible | (left >= 0))
    return follows


def _whole(path: Path, table: Floats) -> Whole:
    _refuse(path, first_fault(("sizes, prices and codes must be whole numbers", table % 1.0 != 0.0, table)))
    return table.astype(np.int64)


def _refuse(path: Path, fault: Fault | None) -> None:
    if fault is not None:
        raise ValueError(f"{path}, line {fault.row + 1}: {fault.text}")


def _read_table(path: Path, kind: str, *, columns: int | None) -> Floats:
    """All numbers of a file, a row a line; without `columns`, its first line says how many: a multiple of 4."""
    lines = list(read_lines(path, kind))
    if not lines:
        raise ValueError(f"{path}: cannot be read as {kind}: it is empty")
    width = columns or lines[0].count(",") + 1
    if columns is None and width % 4:
        raise ValueError(f"{path}, line 1: expected 4 numbers a level (ask, size, bid, size), got {width}")
    try:
        table = np.loadtxt(lines, delimiter=",", comments=None, ndmin=2)
    except ValueError:
        _name_bad_line(path, lines, width)
    # An empty line is passed over, and "inf" is a number.
    if table.shape != (len(lines), width) or not np.isfinite(table).all():
        _name_bad_line(path, lines, width)
    return table


def _name_bad_line(path: Path, lines: list[str], width: int) -> NoReturn:
    for number, line in enumerate(lines, start=1):
        cells = line.strip().split(",")
        if len(cells) != width:
            raise ValueError(f"{path}, line {number}: expected {width} cells, got {len(cells)}: {shown(line)}")
        for cell in cells:
            if not _is_number(cell):
                raise ValueError(f"{path}, line {number}: expected a number, got {cell!r}")
    raise ValueError(f"{path}: cannot be read as rows of {width} numbers")


def _is_number(cell: str) -> bool:
    try:
        return bool(np.isfinite(float(cell)))
    except ValueError:
        return False
