"""Sentiment: a mood that is about nothing, per investor and asset.

A discretised Ornstein–Uhlenbeck process, s' = ρ s + σ z. Every background investor has a little of it; sentiment
traders have nothing else besides the public news.
"""

from __future__ import annotations

from torch import Tensor


def next_sentiment(sentiment: Tensor, persistence: float, innovation: Tensor, normals: Tensor) -> Tensor:
    """Next month's sentiment, an expected log return (E, B, N); `innovation` (1, B, 1) is the sd of a month's z."""
    return persistence * sentiment + innovation * normals
