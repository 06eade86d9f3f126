"""The compiled loops as operations that torch differentiates once: each has its adjoint in `hmgym.pools.kernels`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from hmgym.pools import kernels

Floats = NDArray[np.float64]


def rows(tensor: Tensor, lead: Sequence[int], inner: int) -> Tensor:
    """A tensor whose leading axes broadcast to `lead`, as one axis of rows before its last `inner` axes, contiguous."""
    own = tensor.shape[-inner:]
    return tensor.expand(*lead, *own).reshape(math.prod(lead), *own).contiguous()


def price_rows(prices: Tensor, lead: Sequence[int]) -> Tensor:
    """Prices (…, T, N) as rows (Bp, T, N) that rows of `lead` use in turn; a copy is made only where it must be."""
    own: tuple[int, ...] = tuple(prices.shape[:-2])
    while own and own[0] == 1:
        prices, own = prices[0], own[1:]
    if own and own != tuple(lead[len(lead) - len(own) :]):
        own = tuple(lead)
    return rows(prices, own, 2)


def _array(tensor: Tensor) -> Floats:
    return tensor.detach().numpy()


class Trend(torch.autograd.Function):
    """prices (Bp, M, N), decay (B, N), denominator decay (B, N) or None → trend (B, M−1, N)."""

    @staticmethod
    def forward(ctx: Any, prices: Tensor, decay: Tensor, denominator_decay: Tensor | None) -> Tensor:
        """Keeps averages for the adjoint."""
        own = denominator_decay is not None
        below = decay if denominator_decay is None else denominator_decay
        (B, N), M = decay.shape, prices.shape[1]
        trend = prices.new_empty((B, M - 1, N))
        kept = [np.empty((B, M, N)) for _ in range(3)]
        kernels.trend(_array(prices), _array(decay), _array(below), own, _array(trend), *kept)
        ctx.save_for_backward(prices, decay, below)
        ctx.own, ctx.kept = own, kept
        return trend

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, trend_bar: Tensor) -> tuple[Tensor | None, ...]:
        """Adjoints of the three."""
        prices, decay, below = ctx.saved_tensors
        bars = [torch.zeros_like(each) for each in (prices, decay, below)]
        kernels.trend_adjoint(
            _array(prices), _array(decay), _array(below), ctx.own, *ctx.kept, _array(trend_bar.contiguous()),
            *map(_array, bars),
        )  # fmt: skip
        return bars[0], bars[1], bars[2] if ctx.own else None


class Coarse(torch.autograd.Function):
    """weights (B, N), changes (B, C, N) → start, rate, target (B, C, N)."""

    @staticmethod
    def forward(
        ctx: Any, initial: Tensor, changes: Tensor, least: float, largest: float, period: int, curved: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Keeps the starts for the adjoint."""
        start, rate, target = (torch.empty_like(changes) for _ in range(3))
        kernels.coarse(
            _array(initial), _array(changes), least, largest, period, curved, *map(_array, (start, rate, target))
        )
        ctx.save_for_backward(changes, start)
        ctx.settings = least, largest, period, curved
        return start, rate, target

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *bars: Tensor) -> tuple[Tensor | None, ...]:
        """Adjoints of weights and changes."""
        changes, start = ctx.saved_tensors
        initial_bar, changes_bar = changes.new_zeros((len(changes), changes.shape[-1])), torch.zeros_like(changes)
        kernels.coarse_adjoint(
            _array(changes), *ctx.settings, _array(start), *(_array(bar.contiguous()) for bar in bars),
            _array(initial_bar), _array(changes_bar),
        )  # fmt: skip
        return initial_bar, changes_bar, None, None, None, None


class ReservesFree(torch.autograd.Function):
    """reserves (B, N), weights (B, T, N), prices (Bp, T, N) → reserves (B, T, N)."""

    @staticmethod
    def forward(ctx: Any, initial: Tensor, weights: Tensor, prices: Tensor) -> Tensor:
        """Keeps what it was given and what it found."""
        reserves = torch.empty_like(weights)
        kernels.reserves_free(*map(_array, (initial, weights, prices, reserves)))
        ctx.save_for_backward(initial, weights, prices, reserves)
        return reserves

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, reserves_bar: Tensor) -> tuple[Tensor | None, ...]:
        """Adjoints of the three; that of prices only where it is asked for."""
        initial, weights, prices, reserves = ctx.saved_tensors
        wanted = ctx.needs_input_grad[2]
        initial_bar, weights_bar = torch.empty_like(initial), torch.empty_like(weights)
        prices_bar = torch.zeros_like(prices) if wanted else prices.new_zeros((1, 1, 1))
        kernels.reserves_free_adjoint(
            *map(_array, (initial, weights, prices, reserves, reserves_bar.contiguous())), wanted,
            *map(_array, (initial_bar, weights_bar, prices_bar)),
        )  # fmt: skip
        return initial_bar, weights_bar, prices_bar if wanted else None


class ReservesFees(torch.autograd.Function):
    """reserves (B, N), weights (B, T, N), prices (Bp, T, N), settings of `kernels.reserves_fees` → reserves."""

    @staticmethod
    def forward(ctx: Any, initial: Tensor, weights: Tensor, prices: Tensor, settings: tuple[Any, ...]) -> Tensor:
        """Keeps what it was given and what it found."""
        reserves = torch.empty_like(weights)
        kernels.reserves_fees(*map(_array, (initial, weights, prices)), *settings, _array(reserves))
        ctx.save_for_backward(initial, weights, prices, reserves)
        ctx.settings = settings
        return reserves

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, reserves_bar: Tensor) -> tuple[Tensor | None, ...]:
        """Adjoints of the first three."""
        initial, weights, prices, reserves = ctx.saved_tensors
        bars = [torch.zeros_like(each) for each in (initial, weights, prices)]
        kernels.reserves_fees_adjoint(
            *map(_array, (initial, weights, prices)), *ctx.settings,
            *map(_array, (reserves, reserves_bar.contiguous(), *bars)),
        )  # fmt: skip
        return *bars, None
