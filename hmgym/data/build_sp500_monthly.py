"""Make the packaged month-end file from daily prices: ``python -m hmgym.data.build_sp500_monthly DAILY OUT``.

DAILY (CSV, may be gzipped) is the adjusted closes of 20 surviving S&P 500 stocks, 1990-01-02 to 2022-12-28, as
distributed in the data sets of skfolio (BSD-3-Clause). OUT keeps the last row of each calendar month, unrounded.
"""

from __future__ import annotations

import argparse

from hmgym.data.prices import read_prices, write_prices

COMMENTS = (
    "Monthly prices of 20 S&P 500 stocks (survivors): adjusted closes on the last trading day of each month,",
    "as distributed in the data sets of skfolio (BSD-3-Clause). Made by hmgym/data/build_sp500_monthly.py.",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("daily", help="CSV of daily prices, first column Date")
    parser.add_argument("out", help="CSV to write")
    arguments = parser.parse_args()
    write_prices(read_prices(arguments.daily).month_ends(), arguments.out, comments=COMMENTS)


if __name__ == "__main__":
    main()
