"""Networks of the gradient agents: those of stable-baselines3's PPO, in float64 and differentiable to the observation.

Two hidden layers of 64 tanh units, orthogonal weights, observations divided by their running deviation and clipped.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

HIDDEN = (64, 64)
_CLIP = 10.0  # deviations
_EPSILON = 1e-8
_LIKE_NOTHING = 1e-4  # observations that the first mean and variance count for


class Normalizer(nn.Module):
    """``(x − mean) / √(variance + ε)``, clipped to ± 10, with the mean and variance of all that was seen so far.

    Args:
        size: of one observation.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(size, dtype=torch.float64))
        self.register_buffer("count", torch.tensor(_LIKE_NOTHING, dtype=torch.float64))

    def forward(self, observation: Tensor) -> Tensor:
        """Normalised observations of any leading shape."""
        scaled = (observation - self.mean) / torch.sqrt(self.variance + _EPSILON)
        return scaled.clamp(-_CLIP, _CLIP)

    @torch.no_grad()
    def update(self, observations: Tensor) -> None:
        """Take in observations (..., size)."""
        seen = observations.reshape(-1, self.mean.shape[0])
        total = self.count + len(seen)
        gap = seen.mean(0) - self.mean
        moment = self.variance * self.count + seen.var(0, correction=0) * len(seen)
        self.variance.copy_((moment + gap * gap * self.count * len(seen) / total) / total)
        self.mean.add_(gap * len(seen) / total)
        self.count.copy_(total)


class SquashedGaussianPolicy(nn.Module):
    """``a = tanh(μ(x) + σ ε)`` with x the normalised observation and ε standard normal; σ is fixed.

    Args:
        observation_size: entries of one observation.
        action_size: entries of one action.
        deviation: σ, before tanh.

    Raises:
        ValueError: `deviation` is negative.
    """

    def __init__(self, observation_size: int, action_size: int, deviation: float = 0.3) -> None:
        super().__init__()
        if not deviation >= 0.0:
            raise ValueError(f"`deviation` must be >= 0, got {deviation}")
        self.deviation = deviation
        self.normalizer = Normalizer(observation_size)
        self.mean = perceptron(observation_size, action_size, last_gain=0.01)
        self.action_size = action_size

    def forward(self, observation: Tensor, noise: Tensor | None = None) -> Tensor:
        """Actions (..., action_size) for observations (..., observation_size); without noise the deterministic ones."""
        center = self.mean(self.normalizer(observation))
        return torch.tanh(center if noise is None else center + self.deviation * noise)

    def predict(
        self, observation: npt.ArrayLike, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[npt.NDArray[np.float32], None]:
        """Actions for one observation or a batch of them, as stable-baselines3's `predict` gives them.

        Args:
            observation: shape (size,) or (E, size).
            state: not used; the policy has no memory.
            episode_start: not used.
            deterministic: whether to leave out the noise, which otherwise comes from torch's global generator.

        Raises:
            ValueError: `observation` has another size.
        """
        size = self.normalizer.mean.shape[0]
        array = np.asarray(observation, np.float64)
        if array.ndim not in (1, 2) or array.shape[-1] != size:
            raise ValueError(f"`observation` must have shape ({size},) or (E, {size}), got {array.shape}")
        with torch.no_grad():
            seen = torch.from_numpy(array).to(self.normalizer.mean.device)
            noise = None if deterministic else torch.randn(*array.shape[:-1], self.action_size, dtype=torch.float64)
            action = self(seen, None if noise is None else noise.to(seen.device))
        return action.cpu().numpy().astype(np.float32), None

    def save(self, path: Path | str) -> None:
        """Write sizes and parameters; no code is stored, so that loading the file runs none."""
        sizes = {"observation_size": self.normalizer.mean.shape[0], "action_size": self.action_size}
        torch.save({**sizes, "deviation": self.deviation, "parameters": self.state_dict()}, path)

    @classmethod
    def load(cls, path: Path | str) -> SquashedGaussianPolicy:
        """The policy that `save` wrote, on the CPU.

        Raises:
            ValueError: the file holds something else.
        """
        stored = torch.load(path, weights_only=True, map_location="cpu")
        expected = {"observation_size", "action_size", "deviation", "parameters"}
        if not isinstance(stored, dict) or set(stored) != expected:
            raise ValueError(f"`path` must be a file written by {cls.__name__}.save, got {path}")
        parameters = stored.pop("parameters")
        policy = cls(**stored)
        policy.load_state_dict(parameters)
        return policy


def perceptron(inputs: int, outputs: int, *, last_gain: float) -> nn.Sequential:
    """Two hidden layers of tanh units with orthogonal weights, float64."""
    layers: list[nn.Module] = []
    for width in HIDDEN:
        layers += [_linear(inputs, width, math.sqrt(2.0)), nn.Tanh()]
        inputs = width
    return nn.Sequential(*layers, _linear(inputs, outputs, last_gain))


def _linear(inputs: int, outputs: int, gain: float) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, dtype=torch.float64)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer
