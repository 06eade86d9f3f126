"""Features: single numbers of what a learner observes, in their own units, that a one-line rule can hang on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hmgym.envs import ObservationMap
from hmgym.envs.observation import OBSERVATION_TABLE

FloatArray = npt.NDArray[np.float64]

SIGNED = ("weight", "undervaluation", "news", "signal", "last_return")
"""Entries an asset whose size is a feature of its own, as its mean over assets."""
_LARGEST = 1.0 - 1e-7  # an entry at ±1 to the last bit of float32 stands for about 8 scales


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One feature of an observation.

    Attributes:
        name: of the quantity, as in :data:`~hmgym.envs.observation.OBSERVATION_TABLE`.
        columns: of the observation.
        scale: the entry is tanh(x / scale).
        kind: "own" (one number in all), "each" (one an asset), or over the assets "mean" or "mean size".
    """

    name: str
    columns: slice
    scale: float
    kind: str

    @property
    def label(self) -> str:
        """For formulas: ``mean |signal|``."""
        return {"mean": f"mean {self.name}", "mean size": f"mean |{self.name}|"}.get(self.kind, self.name)

    def __call__(self, observation: npt.NDArray[np.float32]) -> FloatArray:
        """x of observations (R, size), shape (R, N) where there is one an asset, else (R, 1)."""
        seen = np.clip(observation[:, self.columns].astype(np.float64), -_LARGEST, _LARGEST)
        x = self.scale * np.arctanh(seen)
        if self.kind == "mean":
            return np.asarray(x.mean(1, keepdims=True))
        if self.kind == "mean size":
            return np.asarray(np.abs(x).mean(1, keepdims=True))
        return np.asarray(x)


def features_of(observation_map: ObservationMap, *, per_asset: bool) -> list[Feature]:
    """All features of an observation.

    Args:
        observation_map: of the market.
        per_asset: whether what is observed of each asset gives a number an asset, else a mean over assets and, where it
            has a sign, a mean of its size.
    """
    names = list(observation_map.names)
    found = []
    for entry in OBSERVATION_TABLE:
        first = f"{entry.name}_0" if entry.per_asset else entry.name
        if first not in names:
            continue  # left out of this environment's observation
        at = names.index(first)
        count = sum(name.rpartition("_")[0] == entry.name for name in names[at:]) if entry.per_asset else 1
        kinds = ["own"]
        if entry.per_asset:
            kinds = ["each"] if per_asset else ["mean"] + ["mean size"] * (entry.name in SIGNED)
        columns = slice(at, at + count)
        found += [Feature(name=entry.name, columns=columns, scale=entry.scale, kind=kind) for kind in kinds]
    return found


def feature(observation_map: ObservationMap, name: str, kind: str = "each") -> Feature:
    """One feature by its name.

    Raises:
        ValueError: the observation has none of this name and kind.
    """
    known = features_of(observation_map, per_asset=kind in ("own", "each"))
    for one in known:
        if (one.name, one.kind) == (name, kind):
            return one
    raise ValueError(f"`name` must be one of {[(one.name, one.kind) for one in known]}, got {(name, kind)}")
