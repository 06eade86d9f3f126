"""Market making with a limit on inventory: best quotes, the exact law of any quotes, simulation."""

from __future__ import annotations

from hmgym.market_making.inventory_hjb import InventoryHJB
from hmgym.market_making.law import PolicyLaw, exact_law
from hmgym.market_making.quotes import Quotes, QuotingSolution
from hmgym.market_making.simulation import Simulation, simulate

__all__ = ["InventoryHJB", "PolicyLaw", "Quotes", "QuotingSolution", "Simulation", "exact_law", "simulate"]
