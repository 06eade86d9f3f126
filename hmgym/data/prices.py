"""Price histories: read, checked, and thinned to month ends.

A history is a table of positive prices with ascending dates. It comes from a CSV file (plain or gzipped), a pandas
frame, or the packaged file; whichever it was, every error names the source and, for a file, the line.
"""

from __future__ import annotations

import csv
import datetime
import functools
import gzip
import itertools
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

PriceSource: TypeAlias = "str | os.PathLike[str] | pd.DataFrame | PriceHistory"

_PACKAGED = "sp500_monthly.csv"


@dataclass(frozen=True, kw_only=True, eq=False)
class PriceHistory:
    """Prices of several assets at ascending dates.

    Args:
        dates: T dates.
        assets: N names.
        prices: (T, N) prices, positive, in any currency.
        source: where they came from, one line, used in error messages and reports.

    Raises:
        ValueError: a shape, a price or a date that cannot be used.
    """

    dates: tuple[datetime.date, ...]
    assets: tuple[str, ...]
    prices: NDArray[np.float64]
    source: str = "prices"

    def __post_init__(self) -> None:
        prices = np.array(self.prices, dtype=np.float64)
        if prices.shape != (len(self.dates), len(self.assets)):
            raise ValueError(
                f"{self.source}: `prices` must have shape (dates, assets) = {(len(self.dates), len(self.assets))}, "
                f"got {prices.shape}"
            )
        _check_names(self.assets, self.source)
        bad = np.argwhere(~(np.isfinite(prices) & (prices > 0.0)))
        if bad.size:
            row, column = (int(i) for i in bad[0])
            raise ValueError(
                f"{self.source}: prices must be positive and finite, got {prices[row, column]} for "
                f"{self.assets[column]} on {self.dates[row]}"
            )
        for earlier, later in itertools.pairwise(self.dates):
            if later <= earlier:
                raise ValueError(f"{self.source}: dates must be strictly ascending, got {later} after {earlier}")
        prices.setflags(write=False)
        object.__setattr__(self, "prices", prices)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PriceHistory):
            return NotImplemented
        return (self.dates, self.assets) == (other.dates, other.assets) and np.array_equal(self.prices, other.prices)

    def __hash__(self) -> int:
        return hash((self.dates, self.assets, self.prices.tobytes()))

    @property
    def log_returns(self) -> NDArray[np.float64]:
        """Log returns between successive rows, (T-1, N)."""
        return np.diff(np.log(self.prices), axis=0)

    def month_ends(self) -> PriceHistory:
        """The last row of every calendar month."""
        months = [(date.year, date.month) for date in self.dates]
        keep = [i for i, month in enumerate(months) if i + 1 == len(months) or months[i + 1] != month]
        for i, after in itertools.pairwise(keep):
            passed = 12 * (months[after][0] - months[i][0]) + months[after][1] - months[i][1]
            if passed > 1:
                raise ValueError(
                    f"`source` must have prices in every month, got none between {self.dates[i]} and "
                    f"{self.dates[after]} ({self.source})"
                )
        return PriceHistory(
            dates=tuple(self.dates[i] for i in keep), assets=self.assets, prices=self.prices[keep], source=self.source
        )

    def select(self, assets: Sequence[str]) -> PriceHistory:
        """The named assets, in the order asked for."""
        unknown = [name for name in assets if name not in self.assets]
        if unknown:
            known = ", ".join(self.assets)
            raise ValueError(f"`assets` must be among {known} ({self.source}), got {', '.join(unknown)}")
        columns = [self.assets.index(name) for name in assets]
        return PriceHistory(dates=self.dates, assets=tuple(assets), prices=self.prices[:, columns], source=self.source)


@functools.cache
def sp500_monthly() -> PriceHistory:
    """Monthly prices of 20 S&P 500 stocks (survivors), January 1990 to December 2022, 396 month ends.

    Adjusted closes, as distributed in the data sets of skfolio (BSD-3-Clause). Stocks that left the index are not in
    it, so its mean return is not an estimate of anything; the market de-means it.
    """
    text = resources.files(__package__).joinpath(_PACKAGED).read_text(encoding="utf-8")
    return _from_lines(text.splitlines(), "monthly prices of 20 S&P 500 stocks (survivors)", min_assets=1, min_rows=3)


def read_prices(source: PriceSource, *, min_assets: int = 1, min_rows: int = 3) -> PriceHistory:
    """Read prices from a CSV file (``.gz`` allowed) or a pandas frame.

    The CSV has a header, ISO dates (YYYY-MM-DD) in the first column and one price column an asset; lines that start
    with ``#`` are comments. The frame has dates as its index and one column an asset.

    Args:
        source: path, frame, or a `PriceHistory`, which is returned as it is.
        min_assets: fewest price columns that will do.
        min_rows: fewest dates that will do.

    Raises:
        ValueError: unreadable file, ragged row, date out of order, price that is not a positive number; the message
            names the file and the line.
    """
    if isinstance(source, PriceHistory):
        history = source
    elif isinstance(source, (str, os.PathLike)):
        path = Path(source)
        return _from_lines(_lines(path), str(path), min_assets=min_assets, min_rows=min_rows)
    elif hasattr(source, "columns") and hasattr(source, "index"):
        history = _from_frame(source)
    else:
        raise ValueError(f"`source` must be a CSV path, a pandas frame or a PriceHistory, got {type(source).__name__}")
    _check_size(len(history.assets), len(history.dates), history.source, min_assets, min_rows)
    return history


def write_prices(history: PriceHistory, path: str | os.PathLike[str], *, comments: Iterable[str] = ()) -> None:
    """Write a history in the form that `read_prices` reads, at full precision."""
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for comment in comments:
            file.write(f"# {comment}\n")
        file.write(",".join(("Date", *history.assets)) + "\n")
        for date, row in zip(history.dates, history.prices, strict=True):
            file.write(",".join((date.isoformat(), *(repr(float(price)) for price in row))) + "\n")


def _lines(path: Path) -> Iterator[str]:
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
                yield from file
        else:
            with open(path, encoding="utf-8", newline="") as file:
                yield from file
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as a CSV file of prices: {error}") from error


def _from_lines(lines: Iterable[str], source: str, *, min_assets: int, min_rows: int) -> PriceHistory:
    assets: tuple[str, ...] | None = None
    dates: list[datetime.date] = []
    rows: list[list[float]] = []
    for number, line in enumerate(lines, start=1):
        text = line.strip().lstrip("\ufeff")
        if not text or text.startswith("#"):
            continue
        where = f"{source}, line {number}"
        cells = [cell.strip() for cell in next(csv.reader([text]))]
        if assets is None:
            assets = tuple(cells[1:])
            _check_names(assets, where)
            if len(assets) < min_assets:
                raise ValueError(f"{where}: expected a date and at least {min_assets} price columns, got {len(assets)}")
            continue
        if len(cells) != len(assets) + 1:
            raise ValueError(f"{where}: expected {len(assets) + 1} cells as in the header, got {len(cells)}")
        date = _date(cells[0], where)
        if dates and date <= dates[-1]:
            raise ValueError(f"{where}: dates must be strictly ascending, got {date} after {dates[-1]}")
        dates.append(date)
        rows.append([_price(cell, name, where) for cell, name in zip(cells[1:], assets, strict=True)])
    if assets is None:
        raise ValueError(f"{source}: expected a header and rows of prices, the file is empty")
    _check_size(len(assets), len(dates), source, min_assets, min_rows)
    return PriceHistory(dates=tuple(dates), assets=assets, prices=np.array(rows), source=source)


def _from_frame(frame: pd.DataFrame) -> PriceHistory:
    source = "price frame"
    try:
        prices = frame.to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{source}: expected numbers in every column: {error}") from error
    return PriceHistory(
        dates=tuple(_label_date(label, source) for label in frame.index),
        assets=tuple(str(name) for name in frame.columns),
        prices=prices,
        source=source,
    )


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


def _date(cell: str, where: str) -> datetime.date:
    try:
        return datetime.datetime.fromisoformat(cell).date()
    except ValueError:
        raise ValueError(f"{where}: expected a date YYYY-MM-DD in the first column, got {cell!r}") from None


def _price(cell: str, name: str, where: str) -> float:
    try:
        price = float(cell)
    except ValueError:
        price = math.nan
    if not (price > 0.0 and math.isfinite(price)):
        raise ValueError(f"{where}: the price of {name} must be a positive number, got {cell!r}")
    return price


def _check_names(assets: Sequence[str], where: str) -> None:
    if not assets:
        raise ValueError(f"{where}: expected at least one price column, got none")
    if len(set(assets)) != len(assets) or "" in assets:
        raise ValueError(f"{where}: every price column needs a name of its own, got {', '.join(map(repr, assets))}")


def _check_size(n_assets: int, n_rows: int, source: str, min_assets: int, min_rows: int) -> None:
    if n_assets < min_assets:
        raise ValueError(f"{source}: expected at least {min_assets} price columns, got {n_assets}")
    if n_rows < min_rows:
        raise ValueError(f"{source}: expected at least {min_rows} dated rows, got {n_rows}")
