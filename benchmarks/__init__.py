"""Measurements: ``python -m benchmarks`` for speed, ``python -m benchmarks.stress`` for failures."""
