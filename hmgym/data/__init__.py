"""Price history, read and checked."""

from __future__ import annotations

from hmgym.data.history import PriceHistory
from hmgym.data.prices import SPANS, PriceSource, packaged_span, read_prices, sp500_monthly, write_prices

__all__ = ["SPANS", "PriceHistory", "PriceSource", "packaged_span", "read_prices", "sp500_monthly", "write_prices"]
