"""Price histories from files and frames, and back to files.

A history comes from a CSV file (plain or gzipped), a pandas frame, or the packaged file; whichever it was, every error
names the source and, for a file, the line.
"""

from __future__ import annotations

import csv
import datetime
import functools
import io
import itertools
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from hmgym.data.files import open_text, read_lines
from hmgym.data.history import PriceHistory, check_names, closer_rows, real_numbers, row_step

if TYPE_CHECKING:
    import pandas as pd

PriceSource: TypeAlias = "str | os.PathLike[str] | pd.DataFrame | PriceHistory"

_PACKAGED = "sp500_monthly.csv"
_FIRST, _EPOCH = datetime.datetime(1970, 1, 1), {10: 1, 13: 1000}  # digits of a time since then, units a second
SPANS = {
    "training": ("1990-01-01", "2009-12-31"),
    "held-out": ("2010-01-01", "2022-12-31"),
    "all": ("1990-01-01", "2022-12-31"),
}
"""Spans of the packaged prices by name: no month's return is in both of the first two."""


@functools.cache
def sp500_monthly() -> PriceHistory:
    """Monthly prices of 20 S&P 500 stocks (survivors), January 1990 to December 2022, 396 month ends.

    Adjusted closes, as distributed in the data sets of skfolio (BSD-3-Clause). Stocks that left the index are not in
    it, so its mean return is not an estimate of anything; the market de-means it.
    """
    text = resources.files(__package__).joinpath(_PACKAGED).read_text(encoding="utf-8")
    return _from_lines(io.StringIO(text), "monthly prices of 20 S&P 500 stocks (survivors)", min_assets=1, min_rows=3)


@functools.cache
def packaged_span(name: str) -> PriceHistory:
    """The packaged prices of a span of `SPANS`.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in SPANS:
        known = ", ".join(f'"{span}"' for span in SPANS)
        raise ValueError(f"`history` must be a PriceHistory or one of {known}, got {name!r}")
    return sp500_monthly().between(*SPANS[name])


def read_prices(source: PriceSource, *, min_assets: int = 1, min_rows: int = 3, times: bool = False) -> PriceHistory:
    """Read prices from a CSV file (``.gz`` allowed) or a pandas frame.

    The CSV has a header, ISO dates (YYYY-MM-DD) in the first column and one price column an asset; lines that start
    with ``#`` are comments. The frame has dates as its index and one column an asset.

    Args:
        source: path, frame, or a `PriceHistory`, which is returned as it is.
        min_assets: fewest price columns that will do.
        min_rows: fewest dates that will do.
        times: whether rows may be less than a day apart. The first column then has dates with times, ISO or seconds or
            milliseconds since 1970; those with a time zone become UTC. Most rows are a whole number of minutes apart
            and none are closer; longer gaps are kept as they are. Where all times are midnight, rows are dates.

    Raises:
        ValueError: unreadable file, ragged row, date out of order, price that is not a positive number, row that is
            closer to the one before than most are; the message names the file and the line.
    """
    if isinstance(source, PriceHistory):
        history = source
    elif isinstance(source, (str, os.PathLike)):
        path = Path(source)
        return _from_lines(
            read_lines(path, "a CSV file of prices"), str(path), min_assets=min_assets, min_rows=min_rows, times=times
        )
    elif hasattr(source, "columns") and hasattr(source, "index"):
        history = _from_frame(source, times)
    else:
        raise ValueError(f"`source` must be a CSV path, a pandas frame or a PriceHistory, got {type(source).__name__}")
    _check_size(len(history.assets), len(history.dates), history.source, min_assets, min_rows)
    return history


def write_prices(history: PriceHistory, path: str | os.PathLike[str], *, comments: Iterable[str] = ()) -> None:
    """Write a history in the form that `read_prices` reads, at full precision; gzipped where the name ends so."""
    with open_text(Path(path), "wt") as file:
        for line in "\n".join(comments).splitlines():
            file.write(f"# {line}\n")
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("Date", *history.assets))
        for date, row in zip(history.dates, history.prices, strict=True):
            table.writerow((date.isoformat(), *(repr(float(price)) for price in row)))


def _rows(lines: Iterable[str], source: str) -> Iterator[tuple[str, list[str]]]:
    """Where each row begins, and its cells; a cell in quotes may hold commas and go on in the next line."""
    numbered = enumerate(lines, start=1)
    for number, line in numbered:
        text = line.lstrip("\ufeff").lstrip()
        if not text or text.startswith("#"):
            continue
        where = f"{source}, line {number}"
        try:
            cells = next(csv.reader(itertools.chain([text], (more for _, more in numbered)), strict=True))
        except csv.Error as error:
            raise ValueError(f"{where}: cannot be read as a row of a CSV file: {error}") from error
        yield where, [cell.strip() for cell in cells]


def _from_lines(
    lines: Iterable[str], source: str, *, min_assets: int, min_rows: int, times: bool = False
) -> PriceHistory:
    assets: tuple[str, ...] | None = None
    dates: list[datetime.date] = []
    rows: list[list[float]] = []
    places: list[str] = []
    read = _time if times else _date
    for where, cells in _rows(lines, source):
        if assets is None:
            if _is_date(cells[0]):
                raise ValueError(f"{where}: expected a header that names the columns, got a row of {cells[0]}")
            assets = tuple(cells[1:])
            check_names(assets, where)
            if len(assets) < min_assets:
                raise ValueError(f"{where}: expected a date and at least {min_assets} price columns, got {len(assets)}")
            continue
        if len(cells) != len(assets) + 1:
            raise ValueError(f"{where}: expected {len(assets) + 1} cells as in the header, got {len(cells)}")
        date = read(cells[0], where)
        if dates and date <= dates[-1]:
            raise ValueError(f"{where}: dates must be strictly ascending, got {date} after {dates[-1]}")
        dates.append(date)
        places.append(where)
        rows.append([_price(cell, name, where) for cell, name in zip(cells[1:], assets, strict=True)])
    if assets is None:
        raise ValueError(f"{source}: expected a header and rows of prices, the file is empty")
    _check_size(len(assets), len(dates), source, min_assets, min_rows)
    if times:
        dates = _days_where_midnight(dates)
        if isinstance(dates[0], datetime.datetime):
            minutes, closer = row_step(dates, source)
            if closer is not None:
                raise ValueError(closer_rows(places[closer], minutes, dates, closer))
    return PriceHistory(dates=tuple(dates), assets=assets, prices=np.array(rows), source=source)


def _from_frame(frame: pd.DataFrame, times: bool) -> PriceHistory:
    source = "price frame"
    names = tuple(str(name).strip() for name in frame.columns)
    check_names(names, source)
    columns = [real_numbers(name, frame.iloc[:, i].to_numpy(), source) for i, name in enumerate(names)]
    if times:
        dates = _days_where_midnight([_label_time(label, source) for label in frame.index])
    else:
        dates = [_label_date(label, source) for label in frame.index]
    history = PriceHistory(dates=tuple(dates), assets=names, prices=np.stack(columns, axis=1), source=source)
    if len(dates) > 1:
        _ = history.row_minutes  # which checks the times
    return history


def _label_date(label: object, source: str) -> datetime.date:
    """The date of a frame's index label: a date, a time stamp or an ISO string."""
    try:
        if isinstance(label, str):
            return datetime.datetime.fromisoformat(label).date()
        if isinstance(label, datetime.datetime) and label == label:  # pandas' missing time stamp is one, not its equal
            return label.date()
        if not isinstance(label, datetime.datetime) and isinstance(label, datetime.date):
            return label
    except ValueError:
        pass
    raise ValueError(f"{source}: expected dates as the index, got {label!r}")


def _label_time(label: object, source: str) -> datetime.datetime:
    """The time of a frame's index label, without a time zone."""
    _label_date(label, source)
    if isinstance(label, str):
        label = datetime.datetime.fromisoformat(label)
    if isinstance(label, datetime.datetime):
        native = getattr(label, "to_pydatetime", None)  # of pandas
        return _without_zone(label if native is None else native())
    assert isinstance(label, datetime.date)
    return datetime.datetime.combine(label, datetime.time())


def _without_zone(time: datetime.datetime) -> datetime.datetime:
    return time if time.tzinfo is None else time.astimezone(datetime.UTC).replace(tzinfo=None)


def _days_where_midnight(times: Sequence[datetime.date]) -> list[datetime.date]:
    """Dates in place of times that are all midnight; others as they are."""
    found = [time for time in times if isinstance(time, datetime.datetime)]
    if all((time.hour, time.minute, time.second, time.microsecond) == (0, 0, 0, 0) for time in found):
        return [time.date() for time in found]
    return list(times)


def _time(cell: str, where: str) -> datetime.datetime:
    """A time of day without a time zone: ISO, or seconds (10 digits) or milliseconds (13) since 1970."""
    try:
        if len(cell) in _EPOCH and cell.isdecimal():
            return _FIRST + datetime.timedelta(seconds=int(cell) / _EPOCH[len(cell)])
        return _without_zone(datetime.datetime.fromisoformat(cell))
    except ValueError:
        expected = "a date YYYY-MM-DD, or with a time, or seconds or milliseconds since 1970"
        raise ValueError(f"{where}: expected {expected} in the first column, got {cell!r}") from None


def _date(cell: str, where: str) -> datetime.date:
    try:
        return datetime.datetime.fromisoformat(cell).date()
    except ValueError:
        raise ValueError(f"{where}: expected a date YYYY-MM-DD in the first column, got {cell!r}") from None


def _is_date(cell: str) -> bool:
    if len(cell) in _EPOCH and cell.isdecimal():
        return True
    try:
        datetime.datetime.fromisoformat(cell)
    except ValueError:
        return False
    return True


def _price(cell: str, name: str, where: str) -> float:
    try:
        price = float(cell)
    except ValueError:
        price = math.nan
    if not (price > 0.0 and math.isfinite(price)):
        raise ValueError(f"{where}: the price of {name} must be a positive number, got {cell!r}")
    return price


def _check_size(n_assets: int, n_rows: int, source: str, min_assets: int, min_rows: int) -> None:
    if n_assets < min_assets:
        raise ValueError(f"{source}: expected at least {min_assets} price columns, got {n_assets}")
    if n_rows < min_rows:
        raise ValueError(f"{source}: expected at least {min_rows} dated rows, got {n_rows}")
