"""A price history: positive prices with ascending dates, checked on construction."""

from __future__ import annotations

import datetime
import functools
import itertools
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, eq=False)
class PriceHistory:
    """Prices of several assets at ascending dates, or times.

    Args:
        dates: T dates; or T ``datetime.datetime`` without time zones, in which case all are.
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
        prices = real_numbers("prices", self.prices, self.source)
        if prices.shape != (len(self.dates), len(self.assets)):
            raise ValueError(
                f"{self.source}: `prices` must have shape (dates, assets) = {(len(self.dates), len(self.assets))}, "
                f"got {prices.shape}"
            )
        check_names(self.assets, self.source)
        bad = np.argwhere(~(np.isfinite(prices) & (prices > 0.0)))
        if bad.size:
            row, column = (int(i) for i in bad[0])
            raise ValueError(
                f"{self.source}: prices must be positive and finite, got {prices[row, column]} for "
                f"{self.assets[column]} on {self.dates[row]}"
            )
        if len({isinstance(date, datetime.datetime) for date in self.dates}) > 1:
            raise ValueError(f"{self.source}: `dates` must be all dates or all times, got some of both")
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

    @functools.cached_property
    def row_minutes(self) -> int | None:
        """Minutes between most rows; None where rows are dates without a time.

        Raises:
            ValueError: that is no whole number of minutes, or some rows are closer than that.
        """
        if not self.dates or not isinstance(self.dates[0], datetime.datetime):
            return None
        minutes, closer = row_step(self.dates, self.source)
        if closer is not None:
            raise ValueError(closer_rows(self.source, minutes, self.dates, closer))
        return minutes

    @property
    def rows_a_year(self) -> float:
        """Rows over the years of 365 days between the first and the last, T >= 2."""
        passed = self.dates[-1] - self.dates[0]
        return (len(self.dates) - 1) / (passed / datetime.timedelta(days=365))

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

    def between(self, first: str, last: str) -> PriceHistory:
        """The rows from one ISO date to another, both included.

        Raises:
            ValueError: one is no date, they are in the wrong order, or no two rows lie between them.
        """
        try:
            low, high = datetime.date.fromisoformat(first), datetime.date.fromisoformat(last)
        except ValueError as error:
            raise ValueError(f"`dates` must be ISO dates (YYYY-MM-DD), got {first!r} and {last!r}") from error
        if high < low:
            raise ValueError(f"`dates` must be the first and the last, in this order, got {first} and {last}")
        keep = [row for row, date in enumerate(self.dates) if low <= _day(date) <= high]
        if len(keep) < 2:
            raise ValueError(
                f"`dates` must hold at least two rows of {self.source}, {self.dates[0]} to {self.dates[-1]}, "
                f"got {len(keep)} from {first} to {last}"
            )
        return PriceHistory(
            dates=tuple(self.dates[row] for row in keep),
            assets=self.assets,
            prices=self.prices[keep],
            source=self.source,
        )

    def select(self, assets: Sequence[str]) -> PriceHistory:
        """The named assets, in the order asked for."""
        unknown = [name for name in assets if name not in self.assets]
        if unknown:
            known = ", ".join(self.assets)
            raise ValueError(f"`assets` must be among {known} ({self.source}), got {', '.join(unknown)}")
        columns = [self.assets.index(name) for name in assets]
        return PriceHistory(dates=self.dates, assets=tuple(assets), prices=self.prices[:, columns], source=self.source)


def _day(date: datetime.date) -> datetime.date:
    return date.date() if isinstance(date, datetime.datetime) else date


def row_step(times: Sequence[datetime.date], source: str) -> tuple[int, int | None]:
    """Minutes between most rows of ascending times, and the first row that is closer to the one before, if any.

    Raises:
        ValueError: that is no whole number of minutes, or there is one row.
    """
    if len(times) < 2:
        raise ValueError(f"{source}: expected at least 2 rows with a time, got {len(times)}")
    gaps = np.diff(np.array(times, dtype="datetime64[us]")).astype(np.int64)
    sizes, counts = np.unique(gaps, return_counts=True)
    most = int(sizes[counts.argmax()])
    minutes, rest = divmod(most, 60_000_000)
    if rest or not minutes:
        raise ValueError(f"{source}: rows must be whole minutes apart, got {most / 1e6:g} seconds between most of them")
    closer = np.flatnonzero(gaps < most)
    return minutes, int(closer[0]) + 1 if closer.size else None


def closer_rows(where: str, minutes: int, times: Sequence[datetime.date], row: int) -> str:
    """What is wrong with a row that is closer to the one before than others are."""
    return f"{where}: rows must be at least {minutes} min apart, as most are, got {times[row]} after {times[row - 1]}"


def real_numbers(name: str, values: Any, where: str) -> NDArray[np.float64]:
    """A fresh float64 array of values that are real numbers already; nothing is parsed, unmasked or cut off.

    Raises:
        ValueError: some are complex, text, truth values, masked or too large for a float, or it is no dense array.
    """
    expected = f"{where}: `{name}` must be a dense array of real numbers"
    if np.ma.is_masked(values):
        raise ValueError(f"{expected}, got masked values")
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{expected}, got {type(values).__name__}: {error}") from error
    if array.dtype.kind in "iuf":
        return np.array(array, dtype=np.float64)
    if array.dtype.kind != "O" or array.ndim == 0:
        found = array.dtype.name if array.dtype.kind != "O" else type(values).__name__
        raise ValueError(f"{expected}, got {found}")
    for value in array.flat:
        if isinstance(value, bool) or not isinstance(value, numbers.Real | Decimal):
            raise ValueError(f"{expected}, got {value!r}")
    try:
        return array.astype(np.float64)
    except OverflowError as error:
        raise ValueError(f"{expected}, got one that is too large for a float") from error


def check_names(assets: Sequence[str], where: str) -> None:
    if not assets:
        raise ValueError(f"{where}: expected at least one price column, got none")
    if len(set(assets)) != len(assets) or "" in assets:
        raise ValueError(f"{where}: every price column needs a name of its own, got {', '.join(map(repr, assets))}")
    spaced = [name for name in assets if name != name.strip()]
    if spaced:
        raise ValueError(f"{where}: names of price columns must not begin or end with white space, got {spaced[0]!r}")
