"""From changes to weights: guardrails a chunk, a path a minute.

Wanted weights (w + Δw)/Σ are capped at 1 − (N−1)·least, what is below the least weight is put on it, and the rest is
rescaled so that all sum to 1, repeated until it holds. The way there is then shortened, its direction kept, until no
weight moves faster than allowed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from hmgym.checks import check_number, integer, shown
from hmgym.pools.operators import Coarse, rows
from hmgym.pools.parameters import Interpolation, Real, common_shape, tensor_of


@dataclass(frozen=True, kw_only=True, eq=False)
class CoarseWeights:
    """Where weights go in each chunk, every field (…, C, N).

    Attributes:
        start: weights before the change.
        rate: change a minute over the interpolation period.
        target: weights after it, and the start of the next chunk.
    """

    start: Tensor
    rate: Tensor
    target: Tensor


def coarse_weights(
    initial_weights: Real,
    changes: Tensor,
    *,
    minimum_weight: float,
    maximum_change: float,
    interpolation_minutes: int,
    interpolation: Interpolation = "linear",
) -> CoarseWeights:
    """Weights chunk by chunk, with the guardrails in place.

    Args:
        initial_weights: (…, N) > 0 that sum to 1.
        changes: (…, C, N) Δw of each chunk.
        minimum_weight: in [0, 1/N].
        maximum_change: of a weight a minute, > 0.
        interpolation_minutes: P ≥ 1.
        interpolation: the path whose speed is bounded; ``"approx_optimal"`` is faster at its ends and gets less far.

    Raises:
        ValueError: an argument is none of these.
    """
    weights, changes = tensor_of("initial_weights", initial_weights), tensor_of("changes", changes)
    if changes.ndim < 2 or weights.ndim < 1 or weights.shape[-1] != changes.shape[-1]:
        shapes = f"{tuple(changes.shape)} for initial weights {tuple(weights.shape)}"
        raise ValueError(f"`changes` must have shape (..., C, N) with N of `initial_weights`, got {shapes}")
    assets, period = changes.shape[-1], integer("interpolation_minutes", interpolation_minutes, 1)
    check_number("minimum_weight", minimum_weight, 0.0, (1.0 + 1e-12) / assets)
    check_number("maximum_change", maximum_change, 0.0, strict=True)
    _check_interpolation(interpolation)
    if not bool(torch.isfinite(changes).all()):
        raise ValueError("`changes` must be finite, got some that are not")
    if not bool((weights > 0.0).all() and ((weights.sum(-1) - 1.0).abs() < 1e-3).all()):
        raise ValueError(f"`initial_weights` must be > 0 and sum to 1, got {shown(weights.tolist())}")
    lead = common_shape(weights.shape[:-1], changes.shape[:-2])
    found = Coarse.apply(  # type: ignore[no-untyped-call]
        rows(weights, lead, 1), rows(changes, lead, 2), float(minimum_weight), float(maximum_change), period,
        interpolation == "approx_optimal",
    )  # fmt: skip
    start, rate, target = (each.reshape(*lead, *each.shape[1:]) for each in found)
    return CoarseWeights(start=start, rate=rate, target=target)


def guarded(weights: Tensor, least: float) -> Tensor:
    """Weights (…, N) with those below the least raised to it and the rest rescaled; others are left as they are."""
    flat = rows(weights, weights.shape[:-1], 1)
    unlimited = float("inf")
    target: Tensor = Coarse.apply(flat, torch.zeros_like(flat)[:, None], least, unlimited, 1, False)[2]  # type: ignore[no-untyped-call]
    return target.reshape(weights.shape)


def fine_weights(
    initial_weights: Real,
    coarse: CoarseWeights,
    *,
    minutes: int,
    chunk_minutes: int,
    interpolation_minutes: int,
    interpolation: Interpolation = "linear",
) -> Tensor:
    """Weights minute by minute.

    Minutes 0 … c have the initial weights, c the length of a chunk. The first change comes of the price at minute c and
    acts from c + 1 on, the next of that at 2c from 2c + 1 on: nothing is known before its price is. A change is spread
    over P minutes and then held. At the j-th of them weights are start + rate·j, or, ``"approx_optimal"``, the mean of
    that and of start·(target/start)^(j/P), over its sum.

    Args:
        initial_weights: (…, N).
        coarse: (…, C, N); what follows the last chunk has its target.
        minutes: of the result, ≥ 1.
        chunk_minutes: c ≥ P.
        interpolation_minutes: P ≥ 1, that of `coarse`.
        interpolation: ``"linear"`` or ``"approx_optimal"``.

    Returns:
        (…, minutes, N).

    Raises:
        ValueError: an argument is none of these.
    """
    minutes, period = integer("minutes", minutes, 1), integer("interpolation_minutes", interpolation_minutes, 1)
    chunk = integer("chunk_minutes", chunk_minutes, period)
    _check_interpolation(interpolation)
    weights = tensor_of("initial_weights", initial_weights)
    lead = common_shape(weights.shape[:-1], coarse.start.shape[:-2])
    before = weights.unsqueeze(-2).expand(*lead, min(minutes, chunk + 1), weights.shape[-1])
    needed = min(-(-max(minutes - 1 - chunk, 0) // chunk), coarse.start.shape[-2])
    if not needed:
        return torch.cat([before, before[..., :1, :].expand(*lead, minutes - before.shape[-2], -1)], -2)
    start, rate, target = (
        each[..., :needed, :].unsqueeze(-2) for each in (coarse.start, coarse.rate, coarse.target)
    )  # fmt: skip
    step = torch.arange(1, period, dtype=torch.float64)[:, None]
    path = start + rate * step
    if interpolation == "approx_optimal":
        path = path + start * ((target / start).log() * (step / period)).exp()
        path = path / path.sum(-1, keepdim=True)
    held = target.expand(*target.shape[:-2], chunk - period + 1, -1)
    moving = torch.cat([path, held], -2).flatten(-3, -2)
    moving = moving.expand(*lead, *moving.shape[-2:])
    parts = [before, moving[..., : minutes - before.shape[-2], :]]
    if (left := minutes - before.shape[-2] - moving.shape[-2]) > 0:
        parts.append(moving[..., -1:, :].expand(*lead, left, -1))
    return torch.cat(parts, -2)


def _check_interpolation(interpolation: str) -> None:
    if interpolation not in get_args(Interpolation):
        known = ", ".join(get_args(Interpolation))
        raise ValueError(f"`interpolation` must be one of {known}, got {shown(interpolation)}")
