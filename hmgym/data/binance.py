"""Binance books: depth updates replayed from a snapshot, with the trades of the same recording."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hmgym.checks import integer, is_finite_number, shown
from hmgym.data.binance_stream import (
    Levels,
    Market,
    Snapshot,
    Stream,
    Trade,
    Update,
    find_recording,
    read_snapshot,
    read_stream,
)
from hmgym.data.books import BookHistory, Fault, Flags, Floats, book_fault, first_fault, time_fault, trade_fault
from hmgym.data.files import FilePath

_UNITS = 10**8
"""Prices have at most 8 decimals, so in these units they are whole."""
_MANY = 100
"""So many prices of a snapshot show its tick; fewer may all lie on a coarser grid."""
_FAR = 1000.0
"""Resting orders are seen at 1/60 of the best price; sizes in place of prices, or another unit, are further away."""


def read_binance(
    stream: FilePath,
    snapshot: FilePath | None = None,
    *,
    symbol: str,
    market: Market = "spot",
    levels: int = 10,
    tick: float | None = None,
) -> BookHistory:
    """Read a recorded stream and the snapshot that it is replayed from; either file may be gzipped.

    Row 0 is the book after the first update that reaches beyond the snapshot; each later update gives one row. Every
    update must follow the one before it (spot: U = previous u + 1; futures: pu = previous u), every trade number too.
    Where a ``bookTicker`` belongs to the same update as a row, both must have the same best prices and sizes. Times are
    the exchange's: T of a futures' update, E on spot, T of a trade. A trade belongs to the last row before its
    millisecond. Trades before row 0 have no book and are left out, and so are trades of futures that are no market
    orders (insurance fund). Levels further away than the snapshot reaches hold only what changed since.

    Args:
        stream: path of the stream; or of a folder with one file ``MARKET_SYMBOL*.jsonl`` or ``.jsonl.gz`` and at most
            one ``MARKET_SYMBOL*snapshot.json``.
        snapshot: path of the REST snapshot; None for the first one that stands in the stream.
        symbol: such as "BTCUSDT"; lines of other symbols are passed over.
        market: "spot" or "usdm", futures margined in US dollars.
        levels: how many to keep of each side.
        tick: that all prices are multiples of; None for the largest one that divides those of the snapshot and, where
            the snapshot has fewer than 100, those of all updates.

    Raises:
        ValueError: a cut line, a missing or negative number, a gap in a sequence, a row that is no book or not that of
            the ticker, prices of another scale; names the file and the line.
    """
    if market not in ("spot", "usdm"):
        raise ValueError(f'`market` must be "spot" or "usdm", got {market!r}')
    if not isinstance(symbol, str) or not symbol:
        raise ValueError(f"`symbol` must be a name such as BTCUSDT, got {symbol!r}")
    if tick is not None and (not is_finite_number(tick) or tick * _UNITS < 0.5):
        raise ValueError(f"`tick` must be a number >= {1 / _UNITS:g} or None, got {shown(tick)}")
    levels = integer("levels", levels, 1)
    path, snapshot_path = Path(stream), None if snapshot is None else Path(snapshot)
    if path.is_dir():
        path, found = find_recording(path, f"{market}_{symbol}")
        snapshot_path = snapshot_path or found
    recorded = read_stream(path, symbol.upper(), market)
    start = recorded.snapshot if snapshot_path is None else read_snapshot(snapshot_path)
    if start is None:
        raise ValueError(f"{path}: has no snapshot of the book; `snapshot` must be the path of one")
    _check_levels(start)
    updates = _following(recorded, start)
    lines = [update.line for update in updates]
    tick = _check_prices(recorded, start, updates, tick)

    bid_price, bid_size, ask_price, ask_size = _replay(start, updates, levels)
    _refuse(path, lines, book_fault(bid_price, bid_size, ask_price, ask_size))
    _check_tickers(recorded, updates, np.stack([side[:, 0] for side in (bid_price, bid_size, ask_price, ask_size)], 1))
    time = np.array([update.time for update in updates])
    _refuse(path, lines, time_fault(time))

    trades = _trades_after(recorded, float(time[0]))
    trade_lines = [trade.line for trade in trades]
    trade_time = np.array([trade.time for trade in trades])
    price, size = np.array([trade.price for trade in trades]), np.array([trade.size for trade in trades])
    row = np.searchsorted(time, trade_time, side="left") - 1
    _refuse(path, trade_lines, trade_fault(price, size, bid_price[row, 0], ask_price[row, 0]))
    return BookHistory(
        time=time,
        bid_price=bid_price,
        bid_size=bid_size,
        ask_price=ask_price,
        ask_size=ask_size,
        trade_time=trade_time,
        trade_price=price,
        trade_size=size,
        trade_side=np.array([trade.side for trade in trades], dtype=np.int64),
        trade_row=row,
        tick=tick,
        source=str(path),
    )


def _check_levels(start: Snapshot) -> None:
    depth = max(len(start.bids), len(start.asks), 1)
    sides = [np.array([column]) for side in (start.bids, start.asks) for column in _columns(side, depth)]
    _refuse_snapshot(start, book_fault(*sides))


def _columns(levels: Levels, depth: int) -> tuple[list[float], list[float]]:
    """Prices and sizes of the first so many levels; nan and 0 where there are fewer."""
    kept = levels[:depth]
    missing = depth - len(kept)
    return [price for price, _ in kept] + [math.nan] * missing, [size for _, size in kept] + [0.0] * missing


def _following(recorded: Stream, start: Snapshot) -> list[Update]:
    """The updates that come after the snapshot, each known to follow the one before."""
    for earlier, later in itertools.pairwise(recorded.updates):
        if later.previous != earlier.last:
            raise ValueError(
                f"{recorded.path}, line {later.line}: a gap in the sequence, expected the update after {earlier.last}, "
                f"got the one after {later.previous}"
            )
    after = [update for update in recorded.updates if update.last > start.last]
    if not after:
        raise ValueError(f"{start.where}: no update of {recorded.path} is later than this snapshot, {start.last}")
    if after[0].previous > start.last:
        raise ValueError(
            f"{recorded.path}, line {after[0].line}: a gap in the sequence, expected the update after {start.last} of "
            f"the snapshot, got the one after {after[0].previous}"
        )
    return after


def _trades_after(recorded: Stream, time: float) -> list[Trade]:
    """The market orders after a time; all trades are known to follow one another."""
    for earlier, later in itertools.pairwise(recorded.trades):
        if later.number != earlier.number + 1:
            raise ValueError(
                f"{recorded.path}, line {later.line}: a gap in the sequence, expected trade {earlier.number + 1}, "
                f"got {later.number}"
            )
    times = np.array([trade.time for trade in recorded.trades])
    _refuse(recorded.path, [trade.line for trade in recorded.trades], time_fault(times))
    return [trade for trade in recorded.trades if trade.market_order and trade.time > time]


def _check_prices(recorded: Stream, start: Snapshot, updates: list[Update], tick: float | None) -> float:
    """The tick; every price is a multiple of it and of the scale of the snapshot's best prices."""
    quoted = np.array([price for price, _ in (*start.bids, *start.asks)])
    changes = [(update.line, price) for update in updates for price, _ in (*update.bids, *update.asks)]
    lines, changed = [line for line, _ in changes], np.array([price for _, price in changes])
    low, high = start.bids[0][0] / _FAR, start.asks[0][0] * _FAR

    def check(text: str, broken: Callable[[Floats], Flags]) -> None:
        _refuse_snapshot(start, first_fault((text, broken(quoted), quoted)))
        _refuse(recorded.path, lines, first_fault((text, broken(changed), changed)))

    scale = f"prices must be of the scale of the snapshot's best, in [{low:g}, {high:g}]"
    check(scale, lambda price: (price < low) | (price > high))
    if tick is not None:
        units, whose = round(tick * _UNITS), ""
    else:
        grid = quoted if len(quoted) >= _MANY else np.concatenate([quoted, changed])
        units, whose = int(np.gcd.reduce(_in_units(grid))), " of the snapshot (`tick` sets another)"
    check(
        f"prices must be multiples of the tick {units / _UNITS:.8g}{whose}", lambda price: _in_units(price) % units != 0
    )
    return units / _UNITS


def _in_units(price: Floats) -> NDArray[np.int64]:
    return np.rint(price * _UNITS).astype(np.int64)


def _replay(start: Snapshot, updates: list[Update], depth: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Prices and sizes of bids, then of asks, (M, depth) each: the best levels after each update."""
    bids, asks = _Ladder(-1.0, start.bids), _Ladder(1.0, start.asks)
    rows: tuple[list[list[float]], ...] = ([], [], [], [])
    for update in updates:
        bids.change(update.bids)
        asks.change(update.asks)
        for column, row in zip(rows, (*bids.best(depth), *asks.best(depth)), strict=True):
            column.append(row)
    bid_price, bid_size, ask_price, ask_size = (np.array(column) for column in rows)
    return bid_price, bid_size, ask_price, ask_size


class _Ladder:
    """All levels of a side, best first."""

    def __init__(self, sign: float, levels: Levels) -> None:
        self._sign = sign
        self._size = {sign * price: size for price, size in levels}
        self._keys = sorted(self._size)

    def change(self, levels: Levels) -> None:
        """Set the sizes at some prices; 0 takes a level away, also one that is not there."""
        for price, size in levels:
            key = self._sign * price
            if size > 0.0:
                if key not in self._size:
                    insort(self._keys, key)
                self._size[key] = size
            elif key in self._size:
                del self._size[key]
                del self._keys[bisect_left(self._keys, key)]

    def best(self, depth: int) -> tuple[list[float], list[float]]:
        """Prices and sizes of the best so many levels."""
        return _columns([(self._sign * key, self._size[key]) for key in self._keys[:depth]], depth)


def _check_tickers(recorded: Stream, updates: list[Update], best: Floats) -> None:
    """Whether the best quotes, (M, 4), are those of the tickers that belong to the same updates."""
    tickers = list(recorded.tickers.values())
    quotes = np.array([ticker.quotes for ticker in tickers]).reshape(-1, 4)
    lines = [ticker.line for ticker in tickers]
    _refuse(recorded.path, lines, book_fault(*(quotes[:, [i]] for i in range(4))))
    for update, row in zip(updates, best, strict=True):
        ticker = recorded.tickers.get(update.last)
        if ticker is not None and ticker.quotes != tuple(row):
            raise ValueError(
                f"{recorded.path}, line {ticker.line}: bookTicker has bid, size, ask, size {ticker.quotes}, the book "
                f"after the same update, in line {update.line}, has {tuple(row.tolist())}"
            )


def _refuse(path: Path, lines: Sequence[int], fault: Fault | None) -> None:
    if fault is not None:
        raise ValueError(f"{path}, line {lines[fault.row]}: {fault.text}")


def _refuse_snapshot(start: Snapshot, fault: Fault | None) -> None:
    if fault is not None:
        raise ValueError(f"{start.where}: {fault.text}")
