"""Small recordings in the formats of LOBSTER and of Binance, and the books that they hold."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest


def excerpts() -> Path:
    """The folder of real recordings, with `lobster` and `binance` in it; a test that needs it is skipped without."""
    folder = os.environ.get("HMGYM_BOOKS")
    if not folder:
        pytest.skip("HMGYM_BOOKS is not set to a folder of real recordings")
    return Path(folder)


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def best(levels: dict[int, float], sign: int, depth: int, empty: float) -> list[tuple[float, float]]:
    """The best levels of a side, prices in their own units; those that are missing have price `empty`."""
    ordered = sorted(levels, key=lambda price: sign * price)[:depth]
    return [(price, levels[price]) for price in ordered] + [(empty, 0)] * (depth - len(ordered))


def lobster(seed: int, *, events: int = 60, depth: int = 3, start: int = 8) -> tuple[list[str], list[str]]:
    """Lines of a message and of a book file: orders of all types at prices around 100 dollars, in cents."""
    rng = np.random.default_rng(seed)
    sides = {1: {10_000 - i: 100 for i in range(1, start + 1)}, -1: {10_000 + i: 100 for i in range(1, start + 1)}}
    messages, book = [], []
    for event in range(events):
        direction = int(rng.choice([1, -1]))
        side, other = sides[direction], sides[-direction]
        inside = max(side) if direction == 1 else min(side)
        kind = int(rng.choice([1, 1, 1, 2, 3, 4, 5])) if event and len(side) > 1 else 1
        price = int(rng.choice(sorted(side)))
        if kind == 1:
            price = inside + int(rng.integers(-6, 2)) * direction
            if direction * price >= direction * (min(other) if direction == 1 else max(other)):
                price = inside
            size = int(rng.integers(1, 100))
            side[price] = side.get(price, 0) + size
        elif kind == 5:
            price, size = inside, 7
        else:
            price = inside if kind == 4 else price
            size = side[price] if kind == 3 else int(rng.integers(1, side[price] + 1))
            side[price] -= size
            if not side[price]:
                del side[price]
        messages.append(f"{34_200 + event * 0.25:.9f},{kind},{event + 1},{size},{price * 100},{direction}")
        asks, bids = best(sides[-1], 1, depth, 99_999_999.99), best(sides[1], -1, depth, -99_999_999.99)
        cells = [cell for ask, bid in zip(asks, bids, strict=True) for cell in (*ask, *bid)]
        book.append(",".join(f"{round(cell * 100) if i % 2 == 0 else cell}" for i, cell in enumerate(cells)))
    return messages, book


BIDS = [["100.00", "3.0"], ["99.99", "2.0"], ["99.97", "1.0"]]
ASKS = [["100.01", "1.5"], ["100.02", "2.5"], ["100.05", "0.5"]]


def snapshot(last: int = 100) -> dict:
    return {"lastUpdateId": last, "bids": BIDS, "asks": ASKS}


def update(first: int, last: int, time: int, bids: list, asks: list, **more) -> dict:
    return {"e": "depthUpdate", "E": time, "s": "BTCUSDT", "U": first, "u": last, "b": bids, "a": asks} | more


def trade(number: int, time: int, price: str, size: str, *, seller: bool, **more) -> dict:
    return {"e": "trade", "s": "BTCUSDT", "t": number, "T": time, "p": price, "q": size, "m": seller} | more


def ticker(number: int, bid: str, bid_size: str, ask: str, ask_size: str) -> dict:
    return {"u": number, "s": "BTCUSDT", "b": bid, "B": bid_size, "a": ask, "A": ask_size}


def spot_events() -> list[dict]:
    """One that the snapshot has already, one that reaches beyond it, three more; trades before and between."""
    return [
        update(90, 97, 1000, [["99.99", "9.0"]], []),
        trade(7, 1050, "100.00", "0.5", seller=True),
        update(98, 103, 1100, [["100.00", "2.5"]], [["100.01", "0.0"]]),
        snapshot(),
        ticker(103, "100.00", "2.5", "100.02", "2.5"),
        trade(8, 1100, "100.02", "0.1", seller=False),
        trade(9, 1101, "100.02", "0.5", seller=False),
        update(104, 104, 1200, [["99.98", "4.0"]], [["100.02", "2.0"], ["120.00", "0.0"]]),
        update(105, 110, 1300, [["100.00", "0.00000000"], ["99.99", "0.0"]], [["100.00", "1.0"]]),
        trade(10, 1350, "99.98", "4.0", seller=True),
        update(111, 111, 1400, [["99.98", "0.0"]], [["100.00", "0.25"]]),
    ]


def usdm_events() -> list[dict]:
    """The same for futures, whose numbers leave some out; one trade is that of the insurance fund."""
    return [
        update(80, 97, 1001, [], [["100.05", "0.5"]], T=1000, pu=70),
        update(99, 105, 1101, [["100.00", "2.5"]], [["100.01", "0.0"]], T=1100, pu=97),
        trade(8, 1101, "100.02", "0.5", seller=False, X="MARKET"),
        trade(9, 1102, "0", "0", seller=False, X="INSURANCE_FUND"),
        update(120, 140, 1201, [["99.98", "4.0"]], [["100.02", "2.0"]], T=1200, pu=105),
        trade(10, 1203, "100.00", "0.5", seller=True, X="MARKET"),
    ]


def stream_lines(events: list[dict]) -> list[str]:
    """Every second as a recorder writes it, the others as they are."""
    return [
        f"17231612539370{i:05d} " + json.dumps({"stream": "btcusdt@any", "data": event}) if i % 2 else json.dumps(event)
        for i, event in enumerate(events)
    ]
