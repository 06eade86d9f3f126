"""Market making with a limit on inventory: best quotes, the exact law of any quotes, simulation, constraint programs."""

from __future__ import annotations

from hmgym.market_making.inventory_hjb import InventoryHJB
from hmgym.market_making.quotes import Quotes, QuotingSolution

__all__ = ["InventoryHJB", "Quotes", "QuotingSolution"]
