"""Market making with a limit on inventory: best quotes, the law of any quotes, paths, backtests, constraints."""

from __future__ import annotations

from hmgym.market_making.backtest import Backtest, backtest
from hmgym.market_making.config import QuotingConfig
from hmgym.market_making.constraint_program import ConstraintProgram, PolicyTable
from hmgym.market_making.fit import fit_model
from hmgym.market_making.inventory_hjb import InventoryHJB
from hmgym.market_making.law import PolicyLaw, exact_law
from hmgym.market_making.quotes import Quotes, QuotingSolution
from hmgym.market_making.replay import BookReplay, BookScales
from hmgym.market_making.simulation import Simulation, simulate

__all__ = [
    "Backtest",
    "BookReplay",
    "BookScales",
    "ConstraintProgram",
    "InventoryHJB",
    "PolicyLaw",
    "PolicyTable",
    "Quotes",
    "QuotingConfig",
    "QuotingSolution",
    "Simulation",
    "backtest",
    "exact_law",
    "fit_model",
    "simulate",
]
