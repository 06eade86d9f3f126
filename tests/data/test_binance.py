"""Recorded Binance streams: what is read, and what is refused with file and line."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from hmgym.data import read_binance
from tests.data.recordings import (
    excerpts,
    snapshot,
    spot_events,
    stream_lines,
    ticker,
    trade,
    update,
    usdm_events,
    write,
)


def read(tmp_path, events, *, lines=None, start=None, **options):
    stream = write(tmp_path / "stream.jsonl", lines or stream_lines(events))
    path = None if start is None else write(tmp_path / "snapshot.json", [json.dumps(start)])
    return read_binance(stream, path, **({"symbol": "BTCUSDT", "levels": 3} | options))


def test_spot(tmp_path):
    history = read(tmp_path, spot_events())
    assert history.time.tolist() == [1.1, 1.2, 1.3, 1.4]
    nan = np.nan
    np.testing.assert_array_equal(
        history.bid_price,
        [[100.0, 99.99, 99.97], [100.0, 99.99, 99.98], [99.98, 99.97, nan], [99.97, nan, nan]],
    )
    np.testing.assert_array_equal(history.bid_size, [[2.5, 2, 1], [2.5, 2, 4], [4, 1, 0], [1, 0, 0]])
    np.testing.assert_array_equal(
        history.ask_price,
        [[100.02, 100.05, nan], [100.02, 100.05, nan], [100.0, 100.02, 100.05], [100.0, 100.02, 100.05]],
    )
    np.testing.assert_array_equal(history.ask_size, [[2.5, 0.5, 0], [2, 0.5, 0], [1, 2, 0.5], [0.25, 2, 0.5]])
    # The trade at the millisecond of row 0 and the one before it have no book.
    assert history.trade_time.tolist() == [1.101, 1.35]
    assert history.trade_price.tolist() == [100.02, 99.98]
    assert history.trade_size.tolist() == [0.5, 4.0]
    assert history.trade_side.tolist() == [1, -1]
    assert history.trade_row.tolist() == [0, 2]
    assert history.tick == 0.01


def test_futures(tmp_path):
    history = read(tmp_path, usdm_events(), start=snapshot(), market="usdm")
    assert history.time.tolist() == [1.1, 1.2]
    np.testing.assert_array_equal(history.bid_size, [[2.5, 2, 1], [2.5, 2, 4]])
    assert history.trade_price.tolist() == [100.02, 100.0]
    assert history.trade_side.tolist() == [1, -1]
    assert history.trade_row.tolist() == [0, 1]


def test_a_trade_belongs_to_the_row_before_its_millisecond(tmp_path):
    events = spot_events()
    events.insert(-1, trade(11, 1400, "99.98", "1.0", seller=True))
    assert read(tmp_path, events).trade_row.tolist() == [0, 2, 2]


def test_lines_of_other_symbols_are_passed_over(tmp_path):
    events = spot_events()
    events.insert(2, update(1, 1, 1, [["1.0", "1.0"]], []) | {"s": "ETHUSDT"})
    assert read(tmp_path, events, symbol="btcusdt").time.shape == (4,)
    with pytest.raises(ValueError, match=r"stream.jsonl: has no depth updates of ADAUSDT"):
        read(tmp_path, events, symbol="ADAUSDT")


def test_a_folder(tmp_path):
    (tmp_path / "spot_BTCUSDT_day.jsonl.gz").write_bytes(gzip.compress("\n".join(stream_lines(spot_events())).encode()))
    write(tmp_path / "usdm_BTCUSDT_day.jsonl", stream_lines(usdm_events()))
    write(tmp_path / "usdm_BTCUSDT_rest_depth_snapshot.json", [json.dumps(snapshot(), indent=1)])
    assert read_binance(tmp_path, symbol="BTCUSDT").bid_price.shape == (4, 10)
    assert read_binance(tmp_path, symbol="BTCUSDT", market="usdm", levels=1).bid_price.shape == (2, 1)
    with pytest.raises(ValueError, match=r"expected one file spot_ETHUSDT\*.jsonl .*, got none"):
        read_binance(tmp_path, symbol="ETHUSDT")


def test_the_tick_is_that_of_a_large_snapshot_or_of_all_prices(tmp_path):
    events = [update(101, 101, 1, [["99.995", "1.0"]], [])]
    assert read(tmp_path, events, start=snapshot()).tick == 0.005
    many = snapshot() | {"bids": [[f"{100 - i / 100:.2f}", "1.0"] for i in range(200)]}
    with pytest.raises(
        ValueError, match=r"stream.jsonl, line 1: prices must be multiples of the tick 0.01 of the snap"
    ):
        read(tmp_path, events, start=many)
    assert read(tmp_path, events, start=many, tick=0.001).tick == 0.001
    with pytest.raises(
        ValueError, match=r"snapshot.json, line 1: prices must be multiples of the tick 0.02, got 99.99"
    ):
        read(tmp_path, events, start=snapshot(), tick=0.02)


def changed(index, **changes):
    def change(events):
        events[index] = events[index] | changes
        return index + 1

    return change


def without(index, line):
    def change(events):
        del events[index]
        return line

    return change


def lacking(index, key):
    def change(events):
        del events[index][key]
        return index + 1

    return change


FAULTS = {
    "update left out": (without(7, 8), "a gap in the sequence, expected the update after 103, got the one after 104"),
    "first update left out": (changed(2, U=102), "a gap in the sequence, expected the update after 97"),
    "trade left out": (without(6, 9), "a gap in the sequence, expected trade 9, got 10"),
    "update of no length": (changed(7, U=105), "`U` must be at most `u`, got 105 and 104"),
    "number that is text": (changed(7, u="104"), "`u` must be an integer >= 0, got '104'"),
    "no number": (lacking(7, "u"), "has no `u`"),
    "no side": (lacking(7, "a"), "has no `a`"),
    "negative size": (changed(7, b=[["99.98", "-4.0"]]), "a size that is not negative"),
    "negative price": (changed(7, b=[["-99.98", "4.0"]]), "expected a positive price"),
    "nan": (changed(7, b=[["99.98", "nan"]]), "a size that is not negative"),
    "word": (changed(7, b=[["99.98", "x"]]), "could not convert"),
    "level of three": (changed(7, b=[["99.98", "1", "2"]]), r"expected \[price, size\]"),
    "sides swapped": (
        changed(7, b=[["100.02", "2.0"]], a=[["99.98", "4.0"]]),
        "the best bid must be below the best ask",
    ),
    "price and size swapped": (changed(7, a=[["2.0", "100.02"]]), "the best bid must be below the best ask"),
    "price of another scale": (
        changed(7, b=[["0.009998", "4.0"]]),
        "prices must be of the scale of the snapshot's best",
    ),
    "futures as spot": (changed(7, pu=103), '`market` must be "usdm"'),
    "time that goes back": (changed(7, E=1099), "time must not be before"),
    "time in nanoseconds": (changed(7, E=10**18), "milliseconds since 1970"),
    "trade of no size": (changed(6, q="0.0"), "the price and the size of a trade must be positive"),
    "trade of negative size": (changed(6, q="-1.0"), "the price and the size of a trade must be positive"),
    "trade of another scale": (
        changed(6, p="10002"),
        "the price of a trade must lie between half the best bid and twice",
    ),
    "trade with price and size swapped": (changed(6, p="0.5", q="100.02"), "the price of a trade must lie between"),
    "trade in seconds": (changed(6, T=1), "time must not be before"),
    "trade of no side": (changed(6, m=1), "`m` must be true or false"),
    "ticker of another book": (changed(4, B="2.6"), "bookTicker has bid, size, ask, size"),
    "ticker with its sides swapped": (changed(4, b="100.02", a="100.00"), "the best bid must be below the best ask"),
    "unknown event": (
        changed(7, e="aggTrade"),
        "expected depthUpdate, trade, bookTicker or a snapshot, got 'aggTrade'",
    ),
    "negative size in the snapshot": (changed(3, bids=[["100.00", "-3.0"]]), "a size that is not negative"),
    "size 0 in the snapshot": (changed(3, bids=[["100.00", "0.0"]]), "bid sizes must be positive"),
    "snapshot with its sides swapped": (changed(3, bids=[["100.5", "1"]]), "the best bid must be below the best ask"),
    "snapshot out of order": (changed(3, asks=[["100.02", "1"], ["100.01", "1"]]), "ask prices must rise"),
    "snapshot without a side": (changed(3, asks=[]), "the best ask must be quoted"),
    "snapshot after the stream": (changed(3, lastUpdateId=111), "no update of .* is later than this snapshot"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_names_file_and_line(tmp_path, fault):
    change, message = FAULTS[fault]
    events = spot_events()
    line = change(events)
    with pytest.raises(ValueError, match=message) as refusal:
        read(tmp_path, events)
    assert str(refusal.value).startswith(f"{tmp_path / 'stream.jsonl'}, line {line}: ")


@pytest.mark.parametrize(
    ("changes", "line", "message"),
    [
        (
            {"lastUpdateId": 88},
            1,
            "a gap in the sequence, expected the update after 88 of the snapshot, got the one after 89",
        ),
        ({"bids": [["0.01", "1"]], "asks": [["0.02", "1"]]}, 3, "prices must be of the scale of the snapshot's best"),
        ({"bids": [["10000", "1"]], "asks": [["10001", "1"]]}, 8, "the best bid must be below the best ask"),
    ],
)
def test_a_snapshot_of_another_book_shows_at_an_update(tmp_path, changes, line, message):
    with pytest.raises(ValueError, match=rf"stream.jsonl, line {line}: {message}"):
        read(tmp_path, spot_events(), start=snapshot() | changes)


def test_a_gap_in_futures(tmp_path):
    events = usdm_events()
    events[4]["pu"] = 106
    with pytest.raises(ValueError, match=r"stream.jsonl, line 5: a gap in the sequence, expected the update after 105"):
        read(tmp_path, events, start=snapshot(), market="usdm")
    with pytest.raises(ValueError, match=r"stream.jsonl, line 1: a gap in the sequence, .* after 90 of the snapshot"):
        read(tmp_path, usdm_events()[1:], start=snapshot(90), market="usdm")
    with pytest.raises(ValueError, match=r"stream.jsonl, line 1: has no `pu`"):
        read(tmp_path, spot_events(), start=snapshot(), market="usdm")


@pytest.mark.parametrize("line", [1, 4, 11])
def test_a_cut_line(tmp_path, line):
    lines = stream_lines(spot_events())
    lines[line - 1] = lines[line - 1][:-9]
    with pytest.raises(ValueError, match=rf"stream.jsonl, line {line}: cannot be read as JSON"):
        read(tmp_path, [], lines=lines)
    lines[line - 1] = ""
    with pytest.raises(ValueError, match=rf"stream.jsonl, line {line}: cannot be read as JSON"):
        read(tmp_path, [], lines=lines)


def test_a_snapshot_file_that_is_cut_or_another_thing(tmp_path):
    stream = write(tmp_path / "stream.jsonl", stream_lines(usdm_events()))
    for text, message in (
        (json.dumps(snapshot())[:-5], "snapshot.json, line 1: cannot be read as JSON"),
        ('{"lastUpdateId": 100, "bids": []}', "snapshot.json, line 1: has no `asks`"),
        ("[]", "snapshot.json, line 1: expected a JSON object"),
    ):
        path = write(tmp_path / "snapshot.json", [text])
        with pytest.raises(ValueError, match=message):
            read_binance(stream, path, symbol="BTCUSDT", market="usdm")
    with pytest.raises(ValueError, match=r"none\.json: cannot be read as a Binance snapshot"):
        read_binance(stream, tmp_path / "none.json", symbol="BTCUSDT", market="usdm")
    with pytest.raises(
        ValueError, match=r"stream.jsonl: has no snapshot of the book; `snapshot` must be the path of one"
    ):
        read_binance(stream, symbol="BTCUSDT", market="usdm")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"market": "coinm"}, '`market` must be "spot" or "usdm", got \'coinm\''),
        ({"symbol": ""}, "`symbol` must be a name such as BTCUSDT"),
        ({"levels": 0}, "`levels` must be an integer >= 1"),
        ({"tick": -0.1}, "`tick` must be a number >= 1e-08 or None, got -0.1"),
    ],
)
def test_options(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, spot_events(), **options)


def test_a_ticker_that_is_newer_than_its_line_is_compared_with_its_own_row(tmp_path):
    events = spot_events()
    events.insert(7, ticker(110, "99.98", "4.0", "100.00", "1.0"))
    assert read(tmp_path, events).time.shape == (4,)


@pytest.mark.parametrize(("market", "rows", "trades", "tick"), [("spot", 1082, 2277, 0.01), ("usdm", 897, 1916, 0.1)])
def test_real_recordings(market, rows, trades, tick):
    history = read_binance(excerpts() / "binance", symbol="BTCUSDT", market=market)
    assert (history.bid_price.shape, history.trade_row.shape, history.tick) == ((rows, 10), (trades,), tick)
    assert np.isfinite(history.bid_price).all()
