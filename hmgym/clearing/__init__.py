"""Clearing: portfolios, equilibrium prices and their gradients. Tensors in, tensors out."""

from __future__ import annotations

from hmgym.clearing.clearing import clear_market, clear_unchecked
from hmgym.clearing.solution import ClearingError, ClearingSolution

__all__ = ["ClearingError", "ClearingSolution", "clear_market", "clear_unchecked"]
