"""Shocks: all random draws of a period, made before the transition and passed to it.

A market's own generator gives uniforms, one call for any number of periods, so that k periods in one call are the same
numbers as k calls. They are turned into what they stand for here: standard normals (the inverse distribution function)
where the shape matters, and for the innovations of private errors and sentiment, which their autoregressions make
nearly normal anyway, uniforms of mean 0 and variance 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hmgym.arrays import placed
from hmgym.checks import integer
from hmgym.investors.draws import Draws, Layout

_SMALLEST = 2.0**-54  # a generator can give 0, whose normal is -inf
_UNIT_VARIANCE = 12.0**0.5


class Shocks(Draws):
    """One period's draws (a leading dimension k when k periods were drawn together).

    Every market has `news` (E, N) normal, the news after next, used by Gaussian fundamentals only; `signal` (E, N)
    normal, noise of the signal; `row` (E,) uniform, which row of the history the news after next has; `regime` (E,)
    uniform, whether the signal's regime changes. The rest is its scenario's.
    """

    def period(self, index: int) -> Shocks:
        """One of the k periods."""
        return self.map(lambda tensor: tensor[index])


class InitialShocks(Draws):
    """What a market starts from.

    Every market has `news` (E, 2, N) normal, this month's and next month's, Gaussian fundamentals only; `signal`
    (E, N) normal; `mispricing` (E, N) normal; `row` (E, 2) uniform, which rows of the history they have; `volatility`
    (E,) uniform, the variance of this month's news; `regime` (E,) uniform. The rest is its scenario's.
    """


def period_layout(n_assets: int) -> Layout:
    """What every market draws in a period."""
    return Layout(normals={"news": (n_assets,), "signal": (n_assets,)}, uniforms={"row": (), "regime": ()})


def initial_layout(n_assets: int) -> Layout:
    """What every market draws at its start."""
    return Layout(
        normals={"news": (2, n_assets), "signal": (n_assets,), "mispricing": (n_assets,)},
        uniforms={"row": (2,), "volatility": (), "regime": ()},
    )


def as_generators(
    generators: np.random.Generator | Sequence[np.random.Generator], n_markets: int | None = None
) -> list[np.random.Generator]:
    """One generator a market: a sequence as it is, a single one spawned into `n_markets`."""
    if isinstance(generators, np.random.Generator):
        if n_markets is None:
            raise ValueError("`n_markets` must be >= 1 to spawn a single generator, got None")
        return generators.spawn(integer("n_markets", n_markets, 1))
    listed = list(generators) if isinstance(generators, Sequence) else []
    if not listed or not all(isinstance(generator, np.random.Generator) for generator in listed):
        raise ValueError("`generators` must be numpy Generators, one a market, got " + repr(generators)[:80])
    if n_markets is not None and n_markets != len(listed):
        raise ValueError(f"`generators` must hold one generator for each of {n_markets} markets, got {len(listed)}")
    return listed


def draw(
    generators: Sequence[np.random.Generator], layout: Layout, periods: int, device: torch.device | None
) -> dict[str, Tensor]:
    """Fields of the layout with leading dimensions (periods, E); arrays in place of tensors where `device` is None."""
    groups = (layout.normals, layout.innovations, layout.uniforms)
    widths = [sum(math.prod(shape) for shape in group.values()) for group in groups]
    drawn = np.empty((len(generators), periods, sum(widths)))
    for row, generator in zip(drawn, generators, strict=True):
        generator.random(out=row)
    first, second = widths[0], widths[0] + widths[1]
    normals = drawn[..., :first]
    # Scalar inverse of the normal distribution function, so that no number depends on the size of the batch.
    normals[...] = torch.special.ndtri(torch.from_numpy(np.maximum(normals, _SMALLEST))).numpy()
    innovations = drawn[..., first:second]
    innovations -= 0.5
    innovations *= _UNIT_VARIANCE
    table: Tensor = placed(torch.from_numpy(drawn).transpose(0, 1), device)
    fields: dict[str, Tensor] = {}
    at = 0
    for group in groups:
        for name, shape in group.items():
            size = math.prod(shape)
            fields[name] = table[..., at : at + size].reshape(periods, len(generators), *shape)
            at += size
    return fields
