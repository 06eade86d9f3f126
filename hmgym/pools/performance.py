"""What a pool earned: statistics of its value over time, differentiable, and the objectives that training may have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from hmgym.checks import check_number, integer, shown
from hmgym.pools.parameters import MINUTES_A_DAY, tensor_of
from hmgym.pools.pool import PoolRun
from hmgym.pools.rule import check_positive

Objective = Callable[["Performance"], Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Performance:
    """Statistics of values (…, T), each (…).

    Attributes:
        daily_log_sharpe: mean of daily log returns over their standard deviation, times √(days a year); NaN where the
            value never moves.
        annual_log_return: mean of daily log returns times days a year.
        annual_volatility: their standard deviation times √(days a year).
        maximum_drawdown: largest loss from an earlier high as a share of it, over all rows, in [0, 1).
        total_return: last value over the first less 1.
        return_over_hold: last value over that of holding the first reserves, less 1; NaN where that is not known.
    """

    daily_log_sharpe: Tensor
    annual_log_return: Tensor
    annual_volatility: Tensor
    maximum_drawdown: Tensor
    total_return: Tensor
    return_over_hold: Tensor

    def to_dict(self) -> dict[str, Tensor]:
        """The statistics by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def performance(
    value: Tensor | PoolRun, *, hold: Tensor | None = None, row_minutes: int = 1, days_per_year: float = 365.0
) -> Performance:
    """Statistics of a pool.

    Args:
        value: (…, T) money > 0; or a run, which has its own `hold`.
        hold: (…, T) money > 0 of holding the first reserves.
        row_minutes: between rows; a day's value is that of the first of its rows.
        days_per_year: 365, or 252 where rows are trading days.

    Raises:
        ValueError: an argument is none of these, or there are fewer than three days.
    """
    if isinstance(value, PoolRun):
        found, hold = value.value, value.hold
    else:
        found = value
    worth = _values("value", found)
    each = max(1, MINUTES_A_DAY // integer("row_minutes", row_minutes, 1))
    check_number("days_per_year", days_per_year, 0.0, strict=True)
    days = worth[..., ::each]
    if days.shape[-1] < 3:
        raise ValueError(f"`value` must have rows of at least 3 days, got {worth.shape[-1]} rows, {each} a day")
    returns = days.log().diff(dim=-1)
    mean = returns.mean(-1)
    moves = (returns != returns[..., :1]).any(-1)
    # Of returns that never change the deviation is 0, whose root has no slope.
    variance = torch.where(moves, returns.var(-1), torch.ones_like(mean))
    deviation = torch.where(moves, variance.sqrt(), torch.zeros_like(mean))
    ratio = torch.where(moves, mean / variance.sqrt(), torch.full_like(mean, torch.nan))
    high = worth.cummax(-1).values
    over_hold = torch.full_like(mean, torch.nan)
    if hold is not None:
        kept = _values("hold", hold)
        over_hold = worth[..., -1] / worth[..., 0] * kept[..., 0] / kept[..., -1] - 1.0
    return Performance(
        daily_log_sharpe=ratio * days_per_year**0.5,
        annual_log_return=mean * days_per_year,
        annual_volatility=deviation * days_per_year**0.5,
        maximum_drawdown=(1.0 - worth / high).amax(-1),
        total_return=worth[..., -1] / worth[..., 0] - 1.0,
        return_over_hold=over_hold,
    )


OBJECTIVES: dict[str, Objective] = {
    "daily_log_sharpe": lambda found: torch.nan_to_num(found.daily_log_sharpe),
    "log_return": lambda found: found.annual_log_return,
    "return_over_hold": lambda found: found.return_over_hold,
    "drawdown": lambda found: -found.maximum_drawdown,
}
"""What training may maximise, by name."""


def objective_of(name: str) -> Objective:
    """An objective by name.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in OBJECTIVES:
        raise ValueError(f"`objective` must be one of {', '.join(OBJECTIVES)}, got {shown(name)}")
    return OBJECTIVES[name]


def _values(name: str, given: Tensor) -> Tensor:
    found = tensor_of(name, given)
    if found.ndim < 1 or found.shape[-1] < 1:
        raise ValueError(f"`{name}` must have shape (..., T), got {tuple(found.shape)}")
    check_positive(name, found)
    return found
