"""Laboratories: they run markets and train policies to measure them, and draw with `hmgym.analysis`."""
