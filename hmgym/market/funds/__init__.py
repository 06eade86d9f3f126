"""The active/passive fund market: retail investors, the funds whose units they hold, and who lives on the fees."""

from __future__ import annotations

from hmgym.market.funds.config import FundsConfig
from hmgym.market.funds.scenario import FundsScenario
from hmgym.market.funds.state import FundsState

__all__ = ["FundsConfig", "FundsScenario", "FundsState"]
