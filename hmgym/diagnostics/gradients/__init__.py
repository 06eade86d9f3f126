"""Diagnostics of gradients through the market, as commands with figures: ``python -m hmgym.diagnostics.gradients``."""
