"""One formula for numpy arrays and torch tensors.

A market's month is written once. With tensors it has gradients and runs on any device; with arrays, what environments
use, a small market takes half the time, because an operation of torch costs several of numpy's. What both libraries
spell alike (arithmetic, indexing, ``abs(x)``, ``x.sum(-1)``) needs nothing from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

Array = Any
"""A float64 numpy array or torch tensor, all of one call of one kind."""


class Numpy:
    """The operations that the two libraries spell differently, on arrays."""

    exp, log, sqrt, where = np.exp, np.log, np.sqrt, np.where
    concatenate, stack, broadcast_to = np.concatenate, np.stack, np.broadcast_to
    zeros_like, ones_like, full_like = np.zeros_like, np.ones_like, np.full_like
    at_least, at_most, minimum, maximum = np.maximum, np.minimum, np.minimum, np.maximum
    expm1, inverse, cholesky, solve = np.expm1, np.linalg.inv, np.linalg.cholesky, np.linalg.solve
    eigh = np.linalg.eigh

    @staticmethod
    def floats(mask: Array) -> Array:
        """1.0 where true, else 0.0."""
        return mask.astype(np.float64)

    @staticmethod
    def integers(x: Array) -> Array:
        """Cut off at the point, int64."""
        return x.astype(np.int64)

    @staticmethod
    def signs(mask: Array) -> Array:
        """1 where true, else 0, int8."""
        return mask.view(np.int8)

    @staticmethod
    def flags_like(x: Array) -> Array:
        """False everywhere."""
        return np.zeros(x.shape, np.bool_)

    @staticmethod
    def dot(x: Array, y: Array) -> Array:
        """Sum over the last axis of x (..., b, n) times y (..., n)."""
        return np.matmul(x, y[..., None])[..., 0]

    @staticmethod
    def spread(x: Array, count: int) -> Array:
        """The same `count` times along a new last axis; a copy of an array, a view of a tensor."""
        return x[..., None].repeat(count, -1)

    @staticmethod
    def across(x: Array, count: int) -> Array:
        """x (E, n) beside arrays (E, count, n): the same `count` times, or a view (E, 1, n) where that is faster."""
        # Many markets: numpy repeats rows and multiplies what lies in one piece faster than it spreads short rows.
        return x[:, None].repeat(count, 1) if len(x) > 1 else x[:, None]

    @staticmethod
    def identity_like(x: Array) -> Array:
        """The identity (n, n) that goes with x (..., n, n) or (..., n)."""
        return np.eye(x.shape[-1])

    @staticmethod
    def copy(x: Array) -> Array:
        """A contiguous array of its own."""
        return np.array(x, order="C")


class Torch:
    """The same on tensors."""

    exp, log, sqrt, where = torch.exp, torch.log, torch.sqrt, torch.where
    stack, broadcast_to = torch.stack, torch.broadcast_to
    zeros_like, ones_like, full_like = torch.zeros_like, torch.ones_like, torch.full_like
    minimum, maximum = torch.minimum, torch.maximum
    expm1, inverse, cholesky, solve = torch.expm1, torch.linalg.inv, torch.linalg.cholesky, torch.linalg.solve
    eigh = torch.linalg.eigh

    @staticmethod
    def concatenate(parts: Sequence[Array], axis: int) -> Array:
        return torch.cat(list(parts), axis)

    @staticmethod
    def at_least(x: Array, low: float) -> Array:
        return x.clamp(min=low)

    @staticmethod
    def at_most(x: Array, high: float) -> Array:
        return x.clamp(max=high)

    @staticmethod
    def floats(mask: Array) -> Array:
        return mask.to(torch.float64)

    @staticmethod
    def integers(x: Array) -> Array:
        return x.long()

    @staticmethod
    def signs(mask: Array) -> Array:
        return mask.to(torch.int8)

    @staticmethod
    def flags_like(x: Array) -> Array:
        return torch.zeros_like(x, dtype=torch.bool)

    @staticmethod
    def dot(x: Array, y: Array) -> Array:
        return torch.matmul(x, y[..., None])[..., 0]

    @staticmethod
    def spread(x: Array, count: int) -> Array:
        return x[..., None].expand(*x.shape, count)

    @staticmethod
    def across(x: Array, count: int) -> Array:
        return x[:, None]

    @staticmethod
    def identity_like(x: Array) -> Array:
        return torch.eye(x.shape[-1], dtype=torch.float64, device=x.device)

    @staticmethod
    def copy(x: Array) -> Array:
        return x.clone(memory_format=torch.contiguous_format)


def is_array(x: Array) -> bool:
    """Whether `x` is a numpy array."""
    return isinstance(x, np.ndarray)


def namespace(x: Array) -> Any:
    """`Numpy` or `Torch`, whichever `x` is of."""
    return Numpy if isinstance(x, np.ndarray) else Torch


def as_floats(name: str, value: Any, like: Array | None = None) -> Array:
    """`value` as float64, of the kind of `like` and on its device; alone, a tensor stays one and all else is an array.

    Raises:
        ValueError: `value` is not made of numbers.
    """
    try:
        if isinstance(value, torch.Tensor) and not is_array(like):
            return value.to(torch.float64)
        if like is not None and not is_array(like):
            return torch.as_tensor(np.asarray(value, np.float64), device=like.device)
        return np.asarray(value, np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"`{name}` must be an array of real numbers, got {type(value).__name__}: {error}") from error


def to_numpy(x: Array) -> Any:
    """The array itself, or that of a tensor, outside any graph."""
    return x if isinstance(x, np.ndarray) else x.detach().cpu().numpy()


def to_torch(x: Array) -> torch.Tensor:
    """The tensor itself, or one that shares the array's memory."""
    return torch.from_numpy(x) if isinstance(x, np.ndarray) else x


def placed(x: torch.Tensor, device: torch.device | None) -> Any:
    """A constant as a market uses it: a tensor on its device, or, where there is none, an array."""
    return x.numpy() if device is None else x.to(device)
