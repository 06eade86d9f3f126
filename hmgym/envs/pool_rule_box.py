"""The action that sets a pool's rule: what the rule remembers, how strongly and how it answers."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hmgym.checks import check_interval, integer
from hmgym.envs.boxes import ActionBox
from hmgym.pools import decay_for_memory, memory_days

FloatArray = npt.NDArray[np.float64]

RULE_RANGES: dict[str, tuple[float, float]] = {
    "memory": (2.0, 60.0),
    "k": (0.0, 100.0),
    "exponent": (1.0, 4.0),
    "pre_scaling": (0.01, 1.0),
}
"""What the ends of the action stand for: memory in rows of prices, k in weight a unit of signal."""

_SMALL_K = 0.1  # from which on k is on a log scale; below it is on a straight one, down to 0
_A_ROW = 1440  # minutes, so that days of `memory_days` are rows


class RuleBox(ActionBox):
    """Parameters of the rule, each a log scale over its range of `RULE_RANGES`; ``u = (1 + a)/2``, a in [-1, 1].

    memory = 2·30^u rows, k = .1 (1001^u − 1), exponent = 4^u, pre_scaling = .01·100^u: at a = −1 k is 0.

    Args:
        n_assets: N.
        per_asset: whether every asset has parameters of its own, N entries each; else all share four entries.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, n_assets: int, per_asset: bool = False) -> None:
        self.n_assets, self.width = integer("n_assets", n_assets, 2), n_assets if per_asset else 1
        ends = [f"_{i}" for i in range(n_assets)] if per_asset else [""]
        super().__init__([name + end for name in RULE_RANGES for end in ends])

    def to_rule(self, action: Any) -> dict[str, FloatArray]:
        """Parameters by name, each (…, N) or (…, 1), of actions (…, size)."""
        share = 0.5 * (1.0 + np.asarray(action, np.float64))
        parts = np.split(share, len(RULE_RANGES), -1)
        found = {}
        for (name, (low, high)), part in zip(RULE_RANGES.items(), parts, strict=True):
            if name == "k":
                found[name] = _SMALL_K * np.expm1(part * np.log1p(high / _SMALL_K))
            else:
                found[name] = low * np.exp(part * np.log(high / low))
        return found

    def from_rule(
        self,
        *,
        memory: npt.ArrayLike,
        k: npt.ArrayLike,
        exponent: npt.ArrayLike = 1.0,
        pre_scaling: npt.ArrayLike = 0.5,
    ) -> FloatArray:
        """One action (size,) of parameters, each a number or one an asset where the action has them.

        Raises:
            ValueError: one is outside its range, or there are others than the action has.
        """
        given = {"memory": memory, "k": k, "exponent": exponent, "pre_scaling": pre_scaling}
        shares = []
        for name, (low, high) in RULE_RANGES.items():
            try:
                values = np.broadcast_to(np.asarray(given[name], np.float64), (self.width,))
            except ValueError as error:
                expected = f"a number or {self.width} numbers" if self.width > 1 else "a number"
                raise ValueError(f"`{name}` must be {expected}, got {given[name]!r}") from error
            for value in values:
                check_interval(name, float(value), low, high)
            if name == "k":
                shares.append(np.log1p(values / _SMALL_K) / np.log1p(high / _SMALL_K))
            else:
                shares.append(np.log(values / low) / np.log(high / low))
        return np.clip(2.0 * np.concatenate(shares) - 1.0, -1.0, 1.0)

    def describe(self, action: npt.ArrayLike) -> str:
        """One action for tables: ``"memory 11, k 3.1, exponent 2, pre_scaling 0.1"``."""
        rule = self.to_rule(self.check(np.asarray(action)[None], 1)[0, 0])
        return ", ".join(f"{name} {'/'.join(f'{value:.2g}' for value in each)}" for name, each in rule.items())

    def grid(self) -> FloatArray:
        """Constants (G, size), alike for all assets: five memories, six k, exponents 1 and 2, pre_scaling .1.

        k = 0, whose other parameters do not matter, is one of them.
        """
        points = itertools.product(np.linspace(-1.0, 1.0, 5), np.linspace(-1.0, 1.0, 6)[1:], (-1.0, 0.0), (0.0,))
        rows = np.array([(0.0, -1.0, -1.0, 0.0), *points])
        return np.repeat(rows, self.width, -1)


def decay_of(memory: FloatArray) -> torch.Tensor:
    """λ a row that remembers for so many rows (…)."""
    return decay_for_memory(torch.from_numpy(memory), _A_ROW)


def memory_of(decay: float) -> float:
    """Rows that a decay λ a row remembers."""
    return float(memory_days(decay, _A_ROW))
