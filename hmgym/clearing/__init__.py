"""Clearing: portfolios, equilibrium prices and their gradients. Tensors in, tensors out."""

from __future__ import annotations

from hmgym.clearing.clearing import clear, clear_market
from hmgym.clearing.equilibrium import EquilibriumSolution, find_equilibrium_prices
from hmgym.clearing.memory import PortfolioMemory
from hmgym.clearing.pools import Pools
from hmgym.clearing.portfolio import optimize_portfolio
from hmgym.clearing.problem import Problem
from hmgym.clearing.solution import ClearingError, ClearingSolution
from hmgym.clearing.threads import set_num_threads

__all__ = [
    "ClearingError",
    "ClearingSolution",
    "EquilibriumSolution",
    "Pools",
    "PortfolioMemory",
    "Problem",
    "clear",
    "clear_market",
    "find_equilibrium_prices",
    "optimize_portfolio",
    "set_num_threads",
]
