"""Clearing: portfolios, equilibrium prices and their gradients. Tensors in, tensors out."""

from __future__ import annotations

from hmgym.clearing.clearing import clear_market, clear_unchecked
from hmgym.clearing.equilibrium import EquilibriumSolution, find_equilibrium_prices
from hmgym.clearing.portfolio import optimize_portfolio
from hmgym.clearing.solution import ClearingError, ClearingSolution
from hmgym.clearing.threads import set_num_threads

__all__ = [
    "ClearingError",
    "ClearingSolution",
    "EquilibriumSolution",
    "clear_market",
    "clear_unchecked",
    "find_equilibrium_prices",
    "optimize_portfolio",
    "set_num_threads",
]
