"""Price history and recorded order books, read and checked."""

from __future__ import annotations

from hmgym.data.binance import read_binance
from hmgym.data.books import BookHistory
from hmgym.data.history import PriceHistory
from hmgym.data.lobster import read_lobster
from hmgym.data.prices import SPANS, PriceSource, packaged_span, read_prices, sp500_monthly, write_prices
from hmgym.data.sources import BookSource, read_book
from hmgym.data.synthetic import synthetic_book

__all__ = [
    "SPANS",
    "BookHistory",
    "BookSource",
    "PriceHistory",
    "PriceSource",
    "packaged_span",
    "read_binance",
    "read_book",
    "read_lobster",
    "read_prices",
    "sp500_monthly",
    "synthetic_book",
    "write_prices",
]
