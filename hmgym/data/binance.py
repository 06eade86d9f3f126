"""Recorded Binance streams, spot and USD-M futures: depth updates replayed from a snapshot, and trades.

Format: https://developers.binance.com/docs, "How to manage a local order book correctly". A line of the stream is a JSON
object, as it came (``{"stream": ..., "data": {...}}``) or its data alone, and may begin with the local time in
nanoseconds and a space. Read are ``depthUpdate`` (U, u, with futures pu; b and a of [price, new size]), ``trade`` (t, T,
p, q, m: the buyer was the maker), ``bookTicker`` (u, b, B, a, A) and the REST snapshot (lastUpdateId, bids, asks).
"""

from __future__ import annotations

import itertools
import json
import math
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hmgym.checks import integer, is_finite_number, shown
from hmgym.data.books import BookHistory, Fault, Flags, Floats, book_fault, first_fault, time_fault, trade_fault
from hmgym.data.files import FilePath, read_lines

Market = Literal["spot", "usdm"]
Levels = list[tuple[float, float]]

_UNITS = 10**8
"""Prices have at most 8 decimals, so in these units they are whole."""
_MANY = 100
"""So many prices of a snapshot show its tick; fewer may all lie on a coarser grid."""
_FAR = 1000.0
"""Resting orders are seen at 1/60 of the best price; sizes in place of prices, or another unit, are further away."""


class _Snapshot(NamedTuple):
    where: str
    last: int
    bids: Levels
    asks: Levels


class _Update(NamedTuple):
    line: int
    first: int
    last: int
    previous: int
    time: float
    bids: Levels
    asks: Levels


class _Trade(NamedTuple):
    line: int
    number: int
    time: float
    price: float
    size: float
    side: int
    market_order: bool


class _Best(NamedTuple):
    line: int
    quotes: tuple[float, float, float, float]


@dataclass
class _Stream:
    """What a stream file holds of one symbol, in the order of its lines; tickers by their update."""

    path: Path
    updates: list[_Update] = field(default_factory=list)
    trades: list[_Trade] = field(default_factory=list)
    tickers: dict[int, _Best] = field(default_factory=dict)
    snapshot: _Snapshot | None = None


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
        path, found = _in_folder(path, f"{market}_{symbol}")
        snapshot_path = snapshot_path or found
    recorded = _read_stream(path, symbol.upper(), market)
    start = recorded.snapshot if snapshot_path is None else _read_snapshot(snapshot_path)
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

    _check_trade_numbers(recorded)
    trades = [trade for trade in recorded.trades if trade.market_order and trade.time > time[0]]
    trade_time = np.array([trade.time for trade in trades])
    row = np.searchsorted(time, trade_time, side="left") - 1
    trade_lines = [trade.line for trade in trades]
    price, size = np.array([trade.price for trade in trades]), np.array([trade.size for trade in trades])
    _refuse(path, trade_lines, time_fault(trade_time))
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


def _in_folder(folder: Path, start: str) -> tuple[Path, Path | None]:
    """The stream and, where there is one, the snapshot in a folder whose names begin so."""
    files = sorted(path for path in folder.iterdir() if path.name.lower().startswith(start.lower()))
    streams = [path for path in files if path.name.endswith((".jsonl", ".jsonl.gz"))]
    snapshots = [path for path in files if path.name.endswith(("snapshot.json", "snapshot.json.gz"))]
    if len(streams) != 1 or len(snapshots) > 1:
        names = ", ".join(path.name for path in files) or "none"
        raise ValueError(
            f"{folder}: expected one file {start}*.jsonl (or .jsonl.gz) and at most one {start}*snapshot.json, got {names}"
        )
    return streams[0], snapshots[0] if snapshots else None


def _read_stream(path: Path, symbol: str, market: Market) -> _Stream:
    recorded = _Stream(path)
    for number, line in enumerate(read_lines(path, "a Binance stream"), start=1):
        where = f"{path}, line {number}"
        try:
            _take(recorded, number, where, _data(line), symbol, market)
        except KeyError as error:
            raise ValueError(f"{where}: has no `{error.args[0]}`") from error
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: {error}") from error
    if not recorded.updates:
        raise ValueError(f"{path}: has no depth updates of {symbol}")
    return recorded


def _data(line: str) -> dict[str, Any]:
    """The data of a line, whatever stands around them."""
    stamp, _, rest = line.strip().partition(" ")
    try:
        record = json.loads(rest if stamp.isdecimal() else line)
    except json.JSONDecodeError as error:
        raise ValueError(f"cannot be read as JSON: {error}, in {shown(line)}") from error
    data = record["data"] if isinstance(record, dict) and "stream" in record else record
    if not isinstance(data, dict):
        raise ValueError(f"expected a JSON object, got {shown(data)}")
    return data


def _take(recorded: _Stream, line: int, where: str, data: dict[str, Any], symbol: str, market: Market) -> None:
    if "lastUpdateId" in data:
        recorded.snapshot = recorded.snapshot or _snapshot(where, data)
        return
    event = data.get("e", "bookTicker" if "B" in data else None)
    if event not in ("depthUpdate", "trade", "bookTicker"):
        raise ValueError(f"expected depthUpdate, trade, bookTicker or a snapshot, got {event!r}")
    if str(data["s"]).upper() != symbol:
        return
    if event == "depthUpdate":
        recorded.updates.append(_update(line, data, market))
    elif event == "trade":
        recorded.trades.append(_trade(line, data))
    else:
        bid, ask = _levels([[data["b"], data["B"]]])[0], _levels([[data["a"], data["A"]]])[0]
        recorded.tickers[integer("u", data["u"], 0)] = _Best(line, (*bid, *ask))


def _read_snapshot(path: Path) -> _Snapshot:
    text = "".join(read_lines(path, "a Binance snapshot"))
    where = f"{path}, line 1"
    try:
        return _snapshot(where, json.loads(text))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: cannot be read as JSON: {error.msg}") from error
    except KeyError as error:
        raise ValueError(f"{where}: has no `{error.args[0]}`") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error


def _snapshot(where: str, data: dict[str, Any]) -> _Snapshot:
    return _Snapshot(
        where, integer("lastUpdateId", data["lastUpdateId"], 0), _levels(data["bids"]), _levels(data["asks"])
    )


def _update(line: int, data: dict[str, Any], market: Market) -> _Update:
    first, last = integer("U", data["U"], 0), integer("u", data["u"], 0)
    if first > last:
        raise ValueError(f"`U` must be at most `u`, got {first} and {last}")
    if market == "spot" and "pu" in data:
        raise ValueError('only futures have `pu`; `market` must be "usdm"')
    previous = first - 1 if market == "spot" else integer("pu", data["pu"], 0)
    time = _seconds(data, "E" if market == "spot" else "T")
    return _Update(line, first, last, previous, time, _levels(data["b"]), _levels(data["a"]))


def _trade(line: int, data: dict[str, Any]) -> _Trade:
    buyer_is_maker, market_order = data["m"], data.get("X", "MARKET") == "MARKET"
    if not isinstance(buyer_is_maker, bool):
        raise ValueError(f"`m` must be true or false, got {shown(buyer_is_maker)}")
    price, size = float(data["p"]), float(data["q"])
    if market_order and not (0.0 < price < math.inf and 0.0 < size < math.inf):
        raise ValueError(f"the price and the size of a trade must be positive, got {data['p']} and {data['q']}")
    number, time = integer("t", data["t"], 0), _seconds(data, "T")
    return _Trade(line, number, time, price, size, -1 if buyer_is_maker else 1, market_order)


def _seconds(data: dict[str, Any], key: str) -> float:
    milliseconds = integer(key, data[key], 0)
    if milliseconds >= 10**14:
        raise ValueError(f"`{key}` must be in milliseconds since 1970, got {milliseconds}")
    return milliseconds / 1000.0


def _levels(pairs: Iterable[Sequence[str]]) -> Levels:
    """Prices and sizes of a list of [price, size]."""
    levels = []
    for pair in pairs:
        if len(pair) != 2:
            raise ValueError(f"expected [price, size], got {shown(pair)}")
        price, size = float(pair[0]), float(pair[1])
        if not (0.0 < price < math.inf and 0.0 <= size < math.inf):
            raise ValueError(f"expected a positive price and a size that is not negative, got {pair}")
        levels.append((price, size))
    return levels


def _check_levels(start: _Snapshot) -> None:
    depth = max(len(start.bids), len(start.asks), 1)
    sides = [np.array([column]) for side in (start.bids, start.asks) for column in _columns(side, depth)]
    _refuse_snapshot(start, book_fault(*sides))


def _columns(levels: Levels, depth: int) -> tuple[list[float], list[float]]:
    """Prices and sizes of the first so many levels; nan and 0 where there are fewer."""
    kept = levels[:depth]
    missing = depth - len(kept)
    return [price for price, _ in kept] + [math.nan] * missing, [size for _, size in kept] + [0.0] * missing


def _following(recorded: _Stream, start: _Snapshot) -> list[_Update]:
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


def _check_trade_numbers(recorded: _Stream) -> None:
    for earlier, later in itertools.pairwise(recorded.trades):
        if later.number != earlier.number + 1:
            raise ValueError(
                f"{recorded.path}, line {later.line}: a gap in the sequence, expected trade {earlier.number + 1}, "
                f"got {later.number}"
            )


def _check_prices(recorded: _Stream, start: _Snapshot, updates: list[_Update], tick: float | None) -> float:
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


def _replay(start: _Snapshot, updates: list[_Update], depth: int) -> tuple[Floats, Floats, Floats, Floats]:
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


def _check_tickers(recorded: _Stream, updates: list[_Update], best: Floats) -> None:
    """Whether the best quotes, (M, 4), are those of the tickers that belong to the same updates."""
    tickers = list(recorded.tickers.values())
    quotes = np.array([ticker.quotes for ticker in tickers]).reshape(-1, 4)
    lines = [ticker.line for ticker in tickers]
    _refuse(recorded.path, lines, book_fault(*(quotes[:, [i]] for i in range(4))))
    for update, row in zip(updates, best, strict=True):
        ticker = recorded.tickers.get(update.last)
        if ticker is not None and ticker.quotes != tuple(row):
            raise ValueError(
                f"{recorded.path}, line {ticker.line}: the bookTicker has bid, size, ask, size {ticker.quotes}, the book "
                f"after the same update in line {update.line} has {tuple(row.tolist())}"
            )


def _refuse(path: Path, lines: Sequence[int], fault: Fault | None) -> None:
    if fault is not None:
        raise ValueError(f"{path}, line {lines[fault.row]}: {fault.text}")


def _refuse_snapshot(start: _Snapshot, fault: Fault | None) -> None:
    if fault is not None:
        raise ValueError(f"{start.where}: {fault.text}")
