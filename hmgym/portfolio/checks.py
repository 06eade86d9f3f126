"""Arguments as float64 tensors of the shapes they should have."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hmgym.checks import check_number, shown


def tensor(name: str, value: Any, shape: str, dimensions: int, *, infinite: bool = False) -> Tensor:
    """`value` as a float64 tensor, finite unless infinite numbers are allowed; gradients and device stay.

    Args:
        name: of the argument.
        value: tensor, array, nested lists or number.
        shape: as the message shows it.
        dimensions: at least so many.
        infinite: whether ±inf may come; NaN never.

    Raises:
        ValueError: it is none.
    """
    wanted = f"`{name}` must be {shape} {'numbers' if infinite else 'finite numbers'}"
    try:
        # By way of numpy, since torch would round numbers and lists to float32.
        given = value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value).copy())
        right = not given.is_complex() and given.dtype != torch.bool and given.layout == torch.strided
    except (TypeError, ValueError, RuntimeError, OverflowError):
        right = False
    if not right:
        raise ValueError(f"{wanted}, got {shown(value)}")
    given = given.to(torch.float64)
    if given.ndim < dimensions:
        raise ValueError(f"{wanted}, got shape {tuple(given.shape)}")
    with torch.no_grad():
        bad = given.isnan().any() if infinite else ~given.isfinite().all()
        if bad:
            raise ValueError(f"{wanted}, got {shown(given.detach().cpu().numpy())}")
    return given


def check_last(name: str, value: Tensor, shape: str, last: tuple[int, ...]) -> None:
    """Check the last dimensions of an argument.

    Raises:
        ValueError: they are others; names the argument.
    """
    if tuple(value.shape[value.ndim - len(last) :]) != last:
        raise ValueError(f"`{name}` must be {shape} with {last} last, got shape {tuple(value.shape)}")


def batch_shape(shapes: dict[str, tuple[int, ...]]) -> torch.Size:
    """The shape that leading dimensions have in common.

    Raises:
        ValueError: there is none; names the first argument that does not fit.
    """
    common = torch.Size()
    for name, shape in shapes.items():
        try:
            common = common_shape(common, shape)
        except RuntimeError:
            raise ValueError(
                f"`{name}` must have leading dimensions that go with {tuple(common)}, got {tuple(shape)}"
            ) from None
    return common


def common_shape(*shapes: tuple[int, ...]) -> torch.Size:
    """What shapes broadcast to."""
    different = {tuple(each) for each in shapes if len(each)}
    if len(different) <= 1:  # mostly; torch takes its time
        return torch.Size(*different)
    shape: torch.Size = torch.broadcast_shapes(*shapes)  # type: ignore[no-untyped-call]
    return shape


def check_penalty(value: Any) -> float:
    """ρ as a float.

    Raises:
        ValueError: it is no number > 0.
    """
    if isinstance(value, Tensor) and value.ndim == 0:
        value = float(value.detach())
    check_number("penalty", value, 0.0, strict=True)
    return float(value)
