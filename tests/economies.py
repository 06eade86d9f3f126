"""Economies that several tests share, as arguments of `MarketConfig`."""

from __future__ import annotations

from typing import Any

FREE: dict[str, Any] = {
    "trading_cost": 0.0,
    "borrowing_spread": 0.0,
    "ownership_limit": None,
    "short_limit": None,
    "maintenance_margin": 0.0,
    "issuance_rate": 0.0,
}
"""without costs, and without what rules, lenders and companies do"""
