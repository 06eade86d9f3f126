"""Shocks: all random draws of a period, made before the transition and passed to it.

Everything is drawn as standard normals, one call of a market's own generator for any number of periods, so that k periods in
one call are the same numbers as k calls. What needs a uniform makes it from two normals: exp(−(z₁² + z₂²)/2).
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hmgym.investors.population import TRAIT_DRAWS, WEALTH_DRAWS

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Shocks:
    """Standard normals of one period (a leading dimension k when k periods were drawn together)."""

    news: Tensor  # (E, N) the news after next, Gaussian fundamentals only
    block: Tensor  # (E, 2) where the next block of history starts
    regime: Tensor  # (E,) whether the signal's regime changes
    signal: Tensor  # (E, N) noise of the signal
    error: Tensor  # (E, B, N) innovations of private errors
    sentiment: Tensor  # (E, B, N) innovations of sentiment
    newcomers: Tensor  # (E, B, TRAIT_DRAWS) traits of whoever replaces a ruined investor

    def period(self, index: int) -> Shocks:
        """One of the k periods."""
        return Shocks(
            news=self.news[index],
            block=self.block[index],
            regime=self.regime[index],
            signal=self.signal[index],
            error=self.error[index],
            sentiment=self.sentiment[index],
            newcomers=self.newcomers[index],
        )


@dataclass(frozen=True, kw_only=True)
class InitialShocks:
    """Standard normals that a market starts from."""

    traits: Tensor  # (E, B, TRAIT_DRAWS)
    wealth: Tensor  # (E, B, 2)
    mispricing: Tensor  # (E, N)
    first_news: Tensor  # (E, N) Gaussian fundamentals only
    news: Tensor  # (E, N) Gaussian fundamentals only
    block: Tensor  # (E, 2)
    next_block: Tensor  # (E, 2) where the block after the first starts
    phase: Tensor  # (E, 2) how far into its block the market starts
    regime: Tensor  # (E,)
    signal: Tensor  # (E, N)
    error: Tensor  # (E, B, N)
    sentiment: Tensor  # (E, B, N)


def period_layout(n_investors: int, n_assets: int) -> dict[str, Shape]:
    """Fields of `Shocks` and their shapes a market, in the order they are drawn."""
    return {
        "news": (n_assets,),
        "block": (2,),
        "regime": (),
        "signal": (n_assets,),
        "error": (n_investors, n_assets),
        "sentiment": (n_investors, n_assets),
        "newcomers": (n_investors, TRAIT_DRAWS),
    }


def initial_layout(n_investors: int, n_assets: int) -> dict[str, Shape]:
    """Fields of `InitialShocks` and their shapes a market, in the order they are drawn."""
    return {
        "traits": (n_investors, TRAIT_DRAWS),
        "wealth": (n_investors, WEALTH_DRAWS),
        "mispricing": (n_assets,),
        "first_news": (n_assets,),
        "news": (n_assets,),
        "block": (2,),
        "next_block": (2,),
        "phase": (2,),
        "regime": (),
        "signal": (n_assets,),
        "error": (n_investors, n_assets),
        "sentiment": (n_investors, n_assets),
    }


def as_generators(
    generators: np.random.Generator | Sequence[np.random.Generator], n_markets: int | None = None
) -> list[np.random.Generator]:
    """One generator a market: a sequence as it is, a single one spawned into `n_markets`."""
    if isinstance(generators, np.random.Generator):
        if n_markets is None or n_markets < 1:
            raise ValueError(f"`n_markets` must be >= 1 to spawn a single generator, got {n_markets}")
        return generators.spawn(n_markets)
    listed = list(generators)
    if not listed or not all(isinstance(generator, np.random.Generator) for generator in listed):
        raise ValueError("`generators` must be numpy Generators, one a market, got " + repr(generators)[:80])
    if n_markets is not None and n_markets != len(listed):
        raise ValueError(f"`generators` must hold one generator for each of {n_markets} markets, got {len(listed)}")
    return listed


def draw_normals(
    generators: Sequence[np.random.Generator], layout: dict[str, Shape], periods: int, device: torch.device
) -> dict[str, Tensor]:
    """Fields of the layout with leading dimensions (periods, E)."""
    sizes = [math.prod(shape) for shape in layout.values()]
    width = sum(sizes)
    n_markets = len(generators)
    drawn = np.empty((n_markets, periods * width))
    for row, generator in zip(drawn, generators):
        generator.standard_normal(out=row)
    table = torch.from_numpy(drawn.reshape(n_markets, periods, width)).to(device).transpose(0, 1)
    pieces = table.split(sizes, dim=-1)
    return {
        name: piece.reshape(periods, n_markets, *shape) for (name, shape), piece in zip(layout.items(), pieces)
    }


def uniform(normals: Tensor) -> Tensor:
    """A uniform in (0, 1] from two standard normals, (…, 2) to (…)."""
    return torch.exp(-0.5 * (normals * normals).sum(-1))
