"""The lines of a recorded Binance stream, spot or USD-M futures, read into updates, trades and best quotes.

Format: https://developers.binance.com/docs, "How to manage a local order book correctly". A line is a JSON object, as
it came (``{"stream": ..., "data": {...}}``) or its data alone, and may begin with the local time in nanoseconds and a
space. Read are ``depthUpdate`` (U, u, with futures pu; b and a of [price, new size]), ``trade`` (t, T, p, q, m: the
buyer was the maker), ``bookTicker`` (u, b, B, a, A) and the REST snapshot (lastUpdateId, bids, asks).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from hmgym.checks import integer, shown
from hmgym.data.files import read_lines

Market = Literal["spot", "usdm"]
Levels = list[tuple[float, float]]


class Snapshot(NamedTuple):
    """All levels after update `last`; `where` names the file and the line."""

    where: str
    last: int
    bids: Levels
    asks: Levels


class Update(NamedTuple):
    """New sizes at some prices: the updates after number `previous` up to `last`."""

    line: int
    previous: int
    last: int
    time: float
    bids: Levels
    asks: Levels


class Trade(NamedTuple):
    """A trade; `side` is 1 if a buyer initiated it, -1 if a seller did."""

    line: int
    number: int
    time: float
    price: float
    size: float
    side: int
    market_order: bool


class Ticker(NamedTuple):
    """The best bid and its size, the best ask and its size."""

    line: int
    quotes: tuple[float, float, float, float]


@dataclass
class Stream:
    """What a stream file holds of one symbol, in the order of its lines; tickers by their update."""

    path: Path
    updates: list[Update] = field(default_factory=list)
    trades: list[Trade] = field(default_factory=list)
    tickers: dict[int, Ticker] = field(default_factory=dict)
    snapshot: Snapshot | None = None


def find_recording(folder: Path, start: str) -> tuple[Path, Path | None]:
    """The stream and, where there is one, the snapshot in a folder whose names begin so."""
    files = sorted(path for path in folder.iterdir() if path.name.lower().startswith(start.lower()))
    streams = [path for path in files if path.name.endswith((".jsonl", ".jsonl.gz"))]
    snapshots = [path for path in files if path.name.endswith(("snapshot.json", "snapshot.json.gz"))]
    if len(streams) != 1 or len(snapshots) > 1:
        names = ", ".join(path.name for path in files) or "none"
        raise ValueError(
            f"{folder}: expected one file {start}*.jsonl (or .jsonl.gz) and at most one {start}*snapshot.json, "
            f"got {names}"
        )
    return streams[0], snapshots[0] if snapshots else None


def read_stream(path: Path, symbol: str, market: Market) -> Stream:
    """All lines of a symbol, each checked by itself.

    Raises:
        ValueError: a line that is none of those read here, or has a part that is missing or impossible.
    """
    recorded = Stream(path)
    for number, line in enumerate(read_lines(path, "a Binance stream"), start=1):
        where = f"{path}, line {number}"
        with _named(where):
            _take(recorded, number, where, _data(line), symbol, market)
    if not recorded.updates:
        raise ValueError(f"{path}: has no depth updates of {symbol}")
    return recorded


def read_snapshot(path: Path) -> Snapshot:
    """A REST snapshot: one JSON object, which begins in line 1.

    Raises:
        ValueError: as :func:`read_stream`.
    """
    where = f"{path}, line 1"
    text = "".join(read_lines(path, "a Binance snapshot"))
    with _named(where):
        return _snapshot(where, _data(text))


@contextmanager
def _named(where: str) -> Iterator[None]:
    try:
        yield
    except KeyError as error:
        raise ValueError(f"{where}: has no `{error.args[0]}`") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error


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


def _take(recorded: Stream, line: int, where: str, data: dict[str, Any], symbol: str, market: Market) -> None:
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
        recorded.tickers[integer("u", data["u"], 0)] = Ticker(line, (*bid, *ask))


def _snapshot(where: str, data: dict[str, Any]) -> Snapshot:
    last = integer("lastUpdateId", data["lastUpdateId"], 0)
    return Snapshot(where, last, _levels(data["bids"]), _levels(data["asks"]))


def _update(line: int, data: dict[str, Any], market: Market) -> Update:
    first, last = integer("U", data["U"], 0), integer("u", data["u"], 0)
    if first > last:
        raise ValueError(f"`U` must be at most `u`, got {first} and {last}")
    if market == "spot" and "pu" in data:
        raise ValueError('only futures have `pu`; `market` must be "usdm"')
    previous = first - 1 if market == "spot" else integer("pu", data["pu"], 0)
    time = _seconds(data, "T" if "T" in data else "E")
    return Update(line, previous, last, time, _levels(data["b"]), _levels(data["a"]))


def _trade(line: int, data: dict[str, Any]) -> Trade:
    buyer_is_maker, market_order = data["m"], data.get("X", "MARKET") == "MARKET"
    if not isinstance(buyer_is_maker, bool):
        raise ValueError(f"`m` must be true or false, got {shown(buyer_is_maker)}")
    price, size = float(data["p"]), float(data["q"])
    if market_order and not (0.0 < price < math.inf and 0.0 < size < math.inf):
        raise ValueError(f"the price and the size of a trade must be positive, got {data['p']} and {data['q']}")
    number, time = integer("t", data["t"], 0), _seconds(data, "T")
    return Trade(line, number, time, price, size, -1 if buyer_is_maker else 1, market_order)


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
