"""The clearing problem of a batch of markets: one noun for what solvers, their adjoints and their callers pass on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hmgym.arrays import Numpy, namespace, to_torch
from hmgym.clearing.threads import as_array


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What E markets of B investors and N assets are to clear (``clear_market`` says it in full); all float64.

    Nothing is checked here. A cotangent of a problem is a problem too, field by field. Numpy arrays may stand in place
    of all tensors.
    """

    beliefs: Tensor  # (E, B, N) expected log prices
    risk: Tensor  # (E, B, N, N) symmetric positive definite
    wealth: Tensor  # (E, B) money; who has none demands nothing
    short_leverage: Tensor  # (E, B), or (E, B, N+1) one for each position, cash first
    long_leverage: Tensor  # likewise
    supply: Tensor  # (E, N) shares, > 0
    orders: Tensor  # (E, N) money, > 0 buys
    reference_weights: Tensor | None = None  # (E, B, N) from which trades are counted, fractions of wealth
    trading_cost: Tensor | None = None  # (E, B, N) fraction of the money traded
    start: Tensor | None = None  # (E, N) prices to search from; no gradient flows to them

    @classmethod
    def of(
        cls,
        beliefs: Tensor,
        risk: Tensor,
        wealth: Tensor,
        short_leverage: Tensor,
        long_leverage: Tensor,
        supply: Tensor,
        *,
        orders: Tensor | None = None,
        last_prices: Tensor | None = None,
        positions: Tensor | None = None,
        trading_cost: Tensor | None = None,
        start: Tensor | None = None,
    ) -> Problem:
        """The problem in the terms of ``clear_market``: shares held and last prices in place of weights held."""
        reference, xp = None, namespace(wealth)
        if trading_cost is not None:
            assert last_prices is not None
            assert positions is not None
            money = last_prices[:, None] * positions
            reference = money / xp.where(wealth > 0, wealth, xp.ones_like(wealth))[..., None]
        start = start if start is not None else last_prices
        return cls(
            beliefs=beliefs,
            risk=risk,
            wealth=wealth,
            short_leverage=short_leverage,
            long_leverage=long_leverage,
            supply=supply,
            orders=xp.zeros_like(supply) if orders is None else orders,
            reference_weights=reference,
            trading_cost=trading_cost,
            start=start if start is None or xp is Numpy else start.detach(),
        )

    @property
    def inputs(self) -> tuple[Tensor | None, ...]:
        """Everything that a solution has derivatives by, in the order of the fields: all but ``start``."""
        return tuple(getattr(self, name) for name in INPUTS)

    def with_inputs(self, *inputs: Tensor | None) -> Problem:
        """This problem with other ``inputs``."""
        fields: dict[str, Any] = dict(zip(INPUTS, inputs, strict=True))
        return dataclasses.replace(self, **fields)

    def rows(self, markets: Any) -> Problem:
        """Some of the markets: a slice, a list or a tensor of indices."""
        return self._each(lambda x: x[markets])

    def to(self, device: torch.device) -> Problem:
        """This problem on another device."""
        return self._each(lambda x: x.to(device))

    def as_arrays(self) -> Problem:
        """This problem in contiguous arrays, which share what memory they can."""
        return self._each(as_array)

    def as_tensors(self) -> Problem:
        """This problem in tensors."""
        return self._each(to_torch)

    def _each(self, change: Callable[[Tensor], Any]) -> Problem:
        values = {name: getattr(self, name) for name in (*INPUTS, "start")}
        fields: dict[str, Any] = {name: None if x is None else change(x) for name, x in values.items()}
        return Problem(**fields)

    def replace(self, **fields: Tensor | None) -> Problem:
        """This problem with some fields changed."""
        return dataclasses.replace(self, **fields)  # type: ignore[arg-type]


INPUTS = tuple(field.name for field in dataclasses.fields(Problem) if field.name != "start")


def per_position(limit: Tensor, positions: int) -> Tensor:
    """A limit ``(E, B)`` or ``(E, B, N+1)`` as the latter; a tensor is expanded, not copied."""
    if limit.ndim == 3:
        return limit
    expanded: Tensor = namespace(limit).spread(limit, positions)
    return expanded
