"""Price histories: the packaged one, files, frames, and what cannot be read."""

from __future__ import annotations

import datetime
import gzip
import re
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from hmgym.data import PriceHistory, read_prices, sp500_monthly, write_prices
from hmgym.data.build_sp500_monthly import main as build

GOOD = "Date,A,B\n2020-01-31,10,20\n2020-02-28,11,19\n2020-03-31,12,21\n2020-04-30,11.5,22\n"


def write(tmp_path, text, name="prices.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_the_packaged_history():
    history = sp500_monthly()
    assert history.prices.shape == (396, 20)
    assert history.dates[0] == datetime.date(1990, 1, 31)
    assert history.dates[-1] == datetime.date(2022, 12, 28)
    assert history == history.month_ends()
    annual = np.median(history.log_returns.std(axis=0, ddof=1)) * np.sqrt(12)
    assert annual == pytest.approx(0.255, abs=0.01)


def test_a_file_is_read_with_comments_blank_lines_and_a_byte_order_mark(tmp_path):
    history = read_prices(write(tmp_path, "\ufeff# where from\n\n" + GOOD + "\n"))
    assert history.assets == ("A", "B")
    assert history.prices[1].tolist() == [11.0, 19.0]
    assert history.log_returns.shape == (3, 2)


def test_a_gzipped_file_and_a_frame_read_alike(tmp_path):
    path = tmp_path / "prices.csv.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write(GOOD)
    frame = pd.read_csv(write(tmp_path, GOOD), index_col=0, parse_dates=True)
    assert read_prices(path) == read_prices(frame)
    assert hash(read_prices(path)) == hash(read_prices(frame))


def test_what_is_written_reads_back_exactly(tmp_path):
    history = sp500_monthly().select(("XOM", "AAPL"))
    write_prices(history, tmp_path / "out.csv", comments=["one", "two"])
    assert read_prices(tmp_path / "out.csv") == history


def history_named(*assets):
    days = tuple(datetime.date(2020, month, 28) for month in (1, 2, 3))
    prices = np.random.default_rng(0).uniform(1.0, 2.0, (3, len(assets)))
    return PriceHistory(dates=days, assets=assets, prices=prices)


@pytest.mark.parametrize("file", ["out.csv", "out.csv.gz"])
def test_names_with_commas_quotes_and_line_ends_read_back(tmp_path, file):
    history = history_named("Smith, Jones", 'the "good" one', "two\nlines", "two\r\nmore", "# no comment", "plain")
    write_prices(history, tmp_path / file, comments=["two\nlines"])
    assert read_prices(tmp_path / file) == history


def test_the_line_of_a_row_is_named_after_a_name_of_two_lines(tmp_path):
    text = GOOD.replace("A,B", '"A\nA",B').replace("19", "0")
    with pytest.raises(ValueError, match="line 4: the price of B"):
        read_prices(write(tmp_path, text))


def test_names_that_would_not_read_back_are_refused():
    with pytest.raises(ValueError, match="must not begin or end with white space, got ' A'"):
        history_named(" A")


def test_the_packaged_file_is_made_from_daily_prices(tmp_path, monkeypatch):
    days = [datetime.date(2020, 1, 1) + datetime.timedelta(days=i) for i in range(0, 150, 3)]
    daily = PriceHistory(dates=tuple(days), assets=("A",), prices=np.linspace(10, 20, len(days))[:, None])
    write_prices(daily, tmp_path / "daily.csv")
    monkeypatch.setattr("sys.argv", ["build", str(tmp_path / "daily.csv"), str(tmp_path / "monthly.csv")])
    build()
    monthly = read_prices(tmp_path / "monthly.csv")
    assert len(monthly.dates) == 5
    assert all(d.month != e.month for d, e in zip(monthly.dates, monthly.dates[1:], strict=False))
    assert monthly == daily.month_ends()


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (GOOD.replace("19", "0"), 3, "the price of B must be a positive number, got '0'"),
        (GOOD.replace("19", "-19"), 3, "must be a positive number, got '-19'"),
        (GOOD.replace("19", "nan"), 3, "must be a positive number, got 'nan'"),
        (GOOD.replace("19", "inf"), 3, "must be a positive number, got 'inf'"),
        (GOOD.replace("19", ""), 3, "must be a positive number, got ''"),
        (GOOD.replace("12,21", "12,abc"), 4, "the price of B must be a positive number, got 'abc'"),
        (GOOD.replace("12,21", "12"), 4, "expected 3 cells as in the header, got 2"),
        (GOOD.replace("12,21", "12,21,3"), 4, "expected 3 cells as in the header, got 4"),
        (GOOD.replace("2020-03-31", "2019-03-31"), 4, "dates must be strictly ascending, got 2019-03-31"),
        (GOOD.replace("2020-03-31", "2020-02-28"), 4, "dates must be strictly ascending"),
        (GOOD.replace("2020-03-31", "31/03/20"), 4, "expected a date YYYY-MM-DD"),
        (GOOD.replace("A,B", "A,A"), 1, "every price column needs a name of its own"),
        ("Date\n2020-01-31\n", 1, "at least one price column"),
        (GOOD.partition("\n")[2], 1, "expected a header that names the columns, got a row of 2020-01-31"),
        ("# where from\n" + GOOD.partition("\n")[2], 2, "expected a header that names the columns"),
        (GOOD.replace("12,21", '12,"21'), 4, "cannot be read as a row of a CSV file: unexpected end of data"),
    ],
)
def test_a_bad_line_is_named(tmp_path, text, line, says):
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match=f"line {line}: ") as caught:
        read_prices(path)
    assert f"prices.csv, line {line}: " in str(caught.value)
    assert says in str(caught.value)


def test_files_that_hold_too_little(tmp_path):
    with pytest.raises(ValueError, match="the file is empty"):
        read_prices(write(tmp_path, ""))
    with pytest.raises(ValueError, match="at least 3 price columns, got 2"):
        read_prices(write(tmp_path, GOOD), min_assets=3)
    with pytest.raises(ValueError, match="at least 10 dated rows, got 4"):
        read_prices(write(tmp_path, GOOD), min_rows=10)


def test_unreadable_sources(tmp_path):
    with pytest.raises(ValueError, match="cannot be read as a CSV"):
        read_prices(tmp_path / "missing.csv")
    with pytest.raises(ValueError, match="cannot be read"):
        read_prices(write(tmp_path, GOOD, "not_gzip.csv.gz"))
    (tmp_path / "latin.csv").write_bytes(b"Date,\xe9\n")
    with pytest.raises(ValueError, match="cannot be read"):
        read_prices(tmp_path / "latin.csv")
    with pytest.raises(ValueError, match="`source` must be a CSV path, a pandas frame or a PriceHistory, got int"):
        read_prices(3)


def test_bad_frames():
    frame = pd.DataFrame({"A": [1.0, 2.0, 3.0]}, index=pd.to_datetime(["2020-01-01", "2020-02-01", "2020-03-01"]))
    with pytest.raises(ValueError, match=r"positive and finite, got -2\.0 for A on 2020-02-01"):
        read_prices(frame.replace(2.0, -2.0))
    with pytest.raises(ValueError, match="strictly ascending"):
        read_prices(frame[::-1])
    with pytest.raises(ValueError, match="`A` must be a dense array of real numbers, got 'x'"):
        read_prices(frame.astype(object).replace(2.0, "x"))
    for labels in (["u", "v", "w"], [0, 1, 2], [pd.Timestamp("2020-01-01"), pd.NaT, pd.Timestamp("2020-03-01")]):
        with pytest.raises(ValueError, match="expected dates as the index, got"):
            read_prices(frame.set_axis(labels))
    assert read_prices(frame.set_axis(["2020-01-01", "2020-02-01", "2020-03-01"])) == read_prices(frame)


def test_history_checks_its_arguments():
    day = datetime.date(2020, 1, 1)
    with pytest.raises(ValueError, match=r"shape \(dates, assets\) = \(1, 1\), got \(2, 1\)"):
        PriceHistory(dates=(day,), assets=("A",), prices=np.ones((2, 1)))
    with pytest.raises(ValueError, match="`assets` must be among"):
        sp500_monthly().select(("XOM", "NOPE"))
    with pytest.raises(ValueError, match="read-only"):
        sp500_monthly().prices[0, 0] = 1.0


@pytest.mark.parametrize(
    ("prices", "got"),
    [
        (np.array([[1.0 + 0j], [2.0], [3.0]]), "complex128"),
        (np.array([["1"], ["2"], ["3"]]), "str32"),
        (np.array([[True], [True], [True]]), "bool"),
        (np.ma.masked_less(np.array([[1.0], [2.0], [3.0]]), 2.0), "masked values"),
        (scipy.sparse.csr_array(np.array([[1.0], [2.0], [3.0]])), "csr_array"),
        ([[1.0], [2.0], [10**400]], "one that is too large for a float"),
        ([[1.0], [2.0], ["3"]], "str"),
        ([[1.0], [2.0], [None]], "None"),
        ([[1.0], [2.0, 3.0], [4.0]], "list"),
    ],
    ids=["complex", "text", "truth", "masked", "sparse", "huge", "mixed", "none", "ragged"],
)
def test_prices_that_are_no_real_numbers(prices, got):
    days = tuple(datetime.date(2020, month, 28) for month in (1, 2, 3))
    with pytest.raises(ValueError, match=f"prices: `prices` must be a dense array of real numbers, got {got}"):
        PriceHistory(dates=days, assets=("A",), prices=prices)


@pytest.mark.parametrize(
    ("column", "got"),
    [
        ([1j, 2.0, 3.0], "complex128"),
        (["1", "2", "3"], "'1'"),
        ([True, True, True], "bool"),
        ([1.0, True, 3.0], "True"),
        ([1, 2, 10**400], "one that is too large for a float"),
    ],
    ids=["complex", "text", "truth", "mixed", "huge"],
)
def test_frames_that_hold_no_real_numbers(column, got):
    days = pd.to_datetime(["2020-01-01", "2020-02-01", "2020-03-01"])
    frame = pd.DataFrame({"A": [1.0, 2.0, 3.0], "B": pd.Series(column, index=days, dtype=None)}, index=days)
    with pytest.raises(ValueError, match="price frame: `B` must be a dense array of real numbers, got " + got):
        read_prices(frame.assign(A=1.0))


def test_integers_decimals_and_what_is_masked_nowhere_are_real_numbers():
    days = tuple(datetime.date(2020, month, 28) for month in (1, 2, 3))
    for prices in ([[1], [2], [3]], [[Decimal(1)], [2], [3.0]], np.ma.masked_less([[1.0], [2.0], [3.0]], 0.0)):
        history = PriceHistory(dates=days, assets=("A",), prices=prices)
        assert history.prices.dtype == np.float64
        assert history.prices.ravel().tolist() == [1.0, 2.0, 3.0]


MINUTES = (
    "Time,A,B\n"
    + "".join(f"2024-01-01 23:{58 + i}:00,{10 + i},{20 + i}\n" for i in range(2))
    + ("2024-01-02T00:00,12,22\n2024-01-02T00:01Z,13,23\n2024-01-02T01:31:00+01:00,14,24\n")
)


def test_times_are_kept_where_asked_for(tmp_path):
    history = read_prices(write(tmp_path, MINUTES), times=True)
    assert history.dates[0] == datetime.datetime(2024, 1, 1, 23, 58)
    assert history.dates[-1] == datetime.datetime(2024, 1, 2, 0, 31)  # half an hour without rows
    assert history.row_minutes == 1
    assert history.rows_a_year == pytest.approx(4 / 33 * 525_600)
    assert len(history.between("2024-01-02", "2024-01-02").dates) == 3
    write_prices(history, tmp_path / "out.csv")
    assert read_prices(tmp_path / "out.csv", times=True) == history
    with pytest.raises(ValueError, match=r"prices.csv, line 3: dates must be strictly ascending"):
        read_prices(tmp_path / "prices.csv")


@pytest.mark.parametrize("unit", [1, 1000])
def test_seconds_and_milliseconds_since_1970_are_times(tmp_path, unit):
    rows = "".join(f"{(1_704_067_200 + 300 * i) * unit},{10 + i}\n" for i in range(4))
    history = read_prices(write(tmp_path, "unix,A\n" + rows), times=True)
    assert history.dates[0] == datetime.datetime(2024, 1, 1)
    assert history.row_minutes == 5


def test_midnights_are_dates_and_a_frame_has_times_too(tmp_path):
    assert read_prices(write(tmp_path, GOOD), times=True) == read_prices(write(tmp_path, GOOD))
    assert read_prices(write(tmp_path, GOOD)).row_minutes is None
    midnight = re.sub(r"(?m)^(2020-\S{5}),", r"\1 00:00:00,", GOOD)
    assert read_prices(write(tmp_path, midnight), times=True) == read_prices(write(tmp_path, GOOD))
    frame = pd.read_csv(write(tmp_path, MINUTES), index_col=0)
    naive = pd.to_datetime(frame.index, format="ISO8601", utc=True)
    expected = read_prices(tmp_path / "prices.csv", times=True)
    assert read_prices(frame.set_axis(naive), times=True) == expected
    assert read_prices(frame, times=True) == expected


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("23:59:00", "23:58:00", "line 3: dates must be strictly ascending, got 2024-01-01 23:58:00 after"),
        ("23:59:00", "23:61:00", "line 3: expected a date YYYY-MM-DD, or with a time, or seconds"),
        ("T00:01Z", "T00:00:30", "line 5: rows must be at least 1 min apart, as most are, got 2024-01-02 00:00:30"),
        ("13,23", "13,-1", "line 5: the price of B must be a positive number, got '-1'"),
        ("13,23", "13", "line 5: expected 3 cells as in the header, got 2"),
        ("Time,A,B\n", "", "line 1: expected a header that names the columns"),
    ],
)
def test_bad_rows_with_times_are_named(tmp_path, before, after, said):
    with pytest.raises(ValueError, match=f"prices.csv, {said}"):
        read_prices(write(tmp_path, MINUTES.replace(before, after, 1)), times=True)


def test_rows_that_are_no_whole_minutes_apart_are_refused(tmp_path):
    rows = "".join(f"2024-01-01 00:00:{10 * i:02},{10 + i}\n" for i in range(4))
    with pytest.raises(ValueError, match=r"prices.csv: rows must be whole minutes apart, got 10 seconds"):
        read_prices(write(tmp_path, "Time,A\n" + rows), times=True)
    times = (datetime.datetime(2024, 1, 1, 1), datetime.date(2024, 1, 2))
    with pytest.raises(ValueError, match="`dates` must be all dates or all times"):
        PriceHistory(dates=times, assets=("A",), prices=np.ones((2, 1)))
