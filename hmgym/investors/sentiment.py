"""Sentiment: a mood that is about nothing, a discretised Ornstein–Uhlenbeck process s' = ρ s + σ z per investor and asset.

Every background investor has a little of it; sentiment traders have nothing else besides the public news.
"""
from __future__ import annotations

from torch import Tensor


def next_sentiment(sentiment: Tensor, persistence: float, innovation: Tensor, normals: Tensor) -> Tensor:
    """Next month's sentiment, an expected log return (E, B, N); `innovation` (1, B, 1) is its monthly sd."""
    return persistence * sentiment + innovation * normals
