"""Market makers' problems that the tests of this folder share."""

from __future__ import annotations

import dataclasses

from hmgym.market_making import InventoryHJB

# Guéant, Lehalle and Fernandez-Tapia (2013), figure 1; Avellaneda and Stoikov (2008), tables.
GLFT = InventoryHJB(
    volatility=0.3, arrival_rate=0.9, depth_decay=0.3, risk_aversion=0.01, horizon=600.0, max_inventory=30
)
AS = InventoryHJB(volatility=2.0, arrival_rate=140.0, depth_decay=1.5, risk_aversion=0.1, horizon=1.0, max_inventory=30)

PROBLEMS = {
    "glft": GLFT,
    "glft-drift": dataclasses.replace(GLFT, drift=0.02),
    "glft-impact": dataclasses.replace(GLFT, impact=0.3),
    "glft-both": dataclasses.replace(GLFT, drift=0.02, impact=0.3),
    "as": AS,
    "as-both": dataclasses.replace(AS, drift=-1.0, impact=0.1),
    "neutral": dataclasses.replace(AS, risk_aversion=0.0, running_penalty=0.2, terminal_penalty=0.1, impact=0.1),
    "penalties": dataclasses.replace(AS, running_penalty=0.1, terminal_penalty=0.05, drift=0.5, max_inventory=8),
    "flat": dataclasses.replace(AS, risk_aversion=0.0),
    "averse": dataclasses.replace(AS, risk_aversion=5.0, max_inventory=5),
    "one share": dataclasses.replace(AS, max_inventory=1),
    "far end": dataclasses.replace(AS, risk_aversion=0.0, depth_decay=100.0, terminal_penalty=0.1, max_inventory=10),
}
