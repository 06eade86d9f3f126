"""Price history, read and checked."""

from __future__ import annotations

from hmgym.data.history import PriceHistory
from hmgym.data.prices import PriceSource, read_prices, sp500_monthly, write_prices

__all__ = ["PriceHistory", "PriceSource", "read_prices", "sp500_monthly", "write_prices"]
