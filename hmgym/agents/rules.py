"""One-line rules: an action that hangs on a single feature x of the observation, linearly or by a threshold.

With x̃ = (x − m)/s, in standard deviations from its mean, an entry of the action in [-1, 1] is

    linear      a + b x̃,  clipped to the box;        threshold      low where x̃ < t, else high.

Where the action sets leverage alone, its axes follow the rule (on one axis log ℓ = a' + b' x): x is a number in all, or
a mean over assets. Where it sets beliefs, every asset's expected return follows it with the same coefficients and its
own x_i, and leverage, where the action also sets it, is a constant. A scale of risk stays at 1.

A rule can hang on a feature that it remembers past observations for, such as the posterior of the hidden regime
(:mod:`hmgym.agents.regime_filter`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from hmgym.checks import shown
from hmgym.envs import ActionMap

FloatArray = npt.NDArray[np.float64]

FORMS = ("linear", "threshold")
_FARTHEST = 2.0  # thresholds lie within so many standard deviations of the mean


class RuleFeature(Protocol):
    """What a rule hangs on: a function of the observation alone (:class:`~hmgym.agents.features.Feature`)."""

    @property
    def label(self) -> str:
        """For formulas."""

    def __call__(self, observation: npt.NDArray[np.float32]) -> FloatArray:
        """x of observations (R, size), (R, N) or (R, 1)."""


class RememberingFeature(Protocol):
    """What a rule hangs on and has to be remembered for."""

    @property
    def label(self) -> str:
        """For formulas."""

    def follow(
        self, observation: npt.NDArray[np.float32], state: Any, episode_start: npt.NDArray[np.bool_]
    ) -> tuple[FloatArray, Any]:
        """x of observations (R, size), (R, N) or (R, 1), and the state that the next call is given back."""


@dataclass(frozen=True, kw_only=True)
class RuleFamily:
    """All rules of one form on one feature; a member is a row of parameters, each in [-1, 1].

    Attributes:
        feature: x.
        form: "linear" or "threshold".
        action_map: what an action means.
        center: m, in the unit of x.
        spread: s, in the unit of x.
    """

    feature: RuleFeature | RememberingFeature
    form: str
    action_map: ActionMap
    center: float = 0.0
    spread: float = 1.0

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ValueError(f"`form` must be one of {FORMS}, got {shown(self.form)}")
        if not self.spread > 0.0:
            raise ValueError(f"`spread` must be > 0, got {self.spread}")

    @property
    def label(self) -> str:
        """For progress and reports."""
        return f"{self.form} in {self.feature.label}"

    @property
    def axes(self) -> int:
        """Entries of an action that set leverage."""
        taken = self.action_map.n_assets * self.action_map.beliefs + self.action_map.confidence
        return int(self.action_map.size - taken)

    @property
    def driven(self) -> int:
        """Entries with coefficients of their own: one for all beliefs, else one a leverage axis."""
        return 1 if self.action_map.beliefs else self.axes

    @property
    def size(self) -> int:
        """Parameters of a member."""
        held = self.axes if self.action_map.beliefs else 0
        return 2 * self.driven + (self.form == "threshold") + held

    def actions(self, parameters: FloatArray, x: FloatArray) -> FloatArray:
        """Actions (R, size of one action).

        Args:
            parameters: shape (R, size), of the rule of every row.
            x: shape (R, 1) or (R, N).
        """
        seen = (x - self.center) / self.spread
        first, second = parameters[:, : self.driven], parameters[:, self.driven : 2 * self.driven]
        if self.form == "linear":
            values = first + second * seen
        else:
            values = np.where(seen < _FARTHEST * parameters[:, 2 * self.driven, None], first, second)
        action = np.zeros((len(x), self.action_map.size))
        if self.action_map.beliefs:
            held = self.size - self.axes
            action[:, : self.axes] = parameters[:, held:]
            action[:, self.axes : self.axes + self.action_map.n_assets] = values
        else:
            action[:, : self.axes] = values
        return np.clip(action, -1.0, 1.0, out=action)

    def formula(self, parameters: npt.ArrayLike) -> str:
        """A member in natural units: ``log ℓ = -0.31 + 2.4 · mean undervaluation``."""
        row = np.clip(np.asarray(parameters, np.float64), -1.0, 1.0)
        x = self.feature.label + ("_i" if getattr(self.feature, "kind", "") == "each" else "")
        lines = []
        for entry in range(self.driven):
            name, middle, half, low, high = self._scale(entry)
            first, second = row[entry], row[self.driven + entry]
            if self.form == "linear":
                slope = second / self.spread
                constant = middle + half * (first - slope * self.center)
                lines.append(f"{name} = {constant:+.3g} {half * slope:+.3g} · {x}, within [{low:.3g}, {high:.3g}]")
            else:
                threshold = self.center + self.spread * _FARTHEST * row[2 * self.driven]
                below, above = middle + half * first, middle + half * second
                lines.append(f"{name} = {below:+.3g} where {x} < {threshold:+.3g}, else {above:+.3g}")
        if self.action_map.beliefs:
            for axis, value in enumerate(row[self.size - self.axes :]):
                name, middle, half, _, _ = self._scale(axis, leverage=True)
                lines.append(f"{name} = {middle + half * value:+.3g}")
        return "; ".join(lines)

    def _scale(self, entry: int, *, leverage: bool | None = None) -> tuple[str, float, float, float, float]:
        """Of an entry: its name, the middle and half of its range and its ends, in natural units (log for one ℓ)."""
        of_leverage = not self.action_map.beliefs if leverage is None else leverage
        ends = [self._natural(entry, of_leverage, value) for value in (-1.0, 1.0)]
        name = "return_i"
        if of_leverage:
            name = "log ℓ" if self.axes == 1 else ("κ", "θ")[entry]
            if self.axes == 1:
                ends = [math.log(end) for end in ends]
        return name, 0.5 * (ends[0] + ends[1]), 0.5 * (ends[1] - ends[0]), ends[0], ends[1]

    def _natural(self, entry: int, leverage: bool, value: float) -> float:
        action = np.zeros((1, 1, self.action_map.size))
        action[..., entry if leverage else self.axes + entry] = value
        natural = self.action_map.to_market(action, torch.ones(1, self.action_map.n_assets, dtype=torch.float64))
        chosen = natural.beliefs
        if leverage:
            chosen = natural.short_leverage if self.axes > 1 and entry == 0 else natural.long_leverage
        assert chosen is not None
        return float(chosen.flatten()[0])


class RulePolicy:
    """Rules of one family at work, one of them or K side by side.

    Args:
        family: of the rules.
        parameters: shape (size,) of one rule, or (K, size): what is observed is then K equal parts, one a rule.

    Raises:
        ValueError: `parameters` has another shape or is not finite.
    """

    def __init__(self, family: RuleFamily, parameters: npt.ArrayLike) -> None:
        self.family = family
        self.parameters = np.atleast_2d(np.asarray(parameters, np.float64))
        if self.parameters.ndim != 2 or self.parameters.shape[1] != family.size:
            raise ValueError(
                f"`parameters` must have shape ({family.size},) or (K, {family.size}), got {np.shape(parameters)}"
            )
        if not np.isfinite(self.parameters).all():
            raise ValueError("`parameters` must be finite")

    @property
    def name(self) -> str:
        """The formula of one rule."""
        return self.family.formula(self.parameters[0])

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[FloatArray, Any]:
        """Actions (R, size of one action) for observations (R, size), and the state of a feature that remembers."""
        seen = np.asarray(observation, np.float32)
        rows = np.atleast_2d(seen)
        feature = self.family.feature
        if hasattr(feature, "follow"):
            starting = np.full(len(rows), state is None) if episode_start is None else np.asarray(episode_start)
            x, state = feature.follow(rows, state, starting)
        else:
            x = feature(rows)
        actions = self.family.actions(self.parameters.repeat(len(rows) // len(self.parameters), 0), x)
        return (actions[0] if seen.ndim == 1 else actions), state

    def __repr__(self) -> str:
        return f"RulePolicy({self.name})" if len(self.parameters) == 1 else f"RulePolicy({self.family.label})"
