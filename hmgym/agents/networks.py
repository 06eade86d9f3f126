"""Networks of the gradient agents: those of stable-baselines3's PPO, in float64 and differentiable to the observation.

Two hidden layers of 64 tanh units, orthogonal weights, observations divided by their running deviation and clipped. A
policy may have a memory, a gated recurrent unit that reads the observation before these layers do.

Source: Cho et al. (2014), Learning phrase representations using RNN encoder-decoder, for the gated recurrent unit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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


class Memory(nn.Module):
    """Gated recurrent unit ``h' = u h + (1 − u) tanh(W x + r V h)`` with gates u and r of x and h.

    Args:
        inputs: entries of x.
        size: entries of h.
    """

    def __init__(self, inputs: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.input = nn.Linear(inputs, 3 * size, dtype=torch.float64)
        self.carry = nn.Linear(size, 3 * size, dtype=torch.float64)
        with torch.no_grad():
            self.input.bias[:size] += 1.0  # keep at first what is remembered

    def forward(self, inputs: Tensor, memory: Tensor) -> Tensor:
        """Memory (..., size) after one more input (..., inputs)."""
        return self._step(self.input(inputs), memory)

    def run(self, inputs: Tensor, memory: Tensor, starting: Tensor) -> Tensor:
        """Memory (H, S, size) after each of H inputs.

        Args:
            inputs: shape (H, S, inputs).
            memory: shape (S, size), before the first.
            starting: shape (H, S) bool, where an episode begins with the input, and the memory with it.
        """
        driven, kept = self.input(inputs), (~starting).to(memory.dtype).unsqueeze(-1)
        after = []
        for drive, keep in zip(driven, kept, strict=True):
            memory = self._step(drive, keep * memory)
            after.append(memory)
        return torch.stack(after)

    def _step(self, driven: Tensor, memory: Tensor) -> Tensor:
        carried = self.carry(memory)
        gates = torch.sigmoid(driven[..., : 2 * self.size] + carried[..., : 2 * self.size])
        update, reset = gates[..., : self.size], gates[..., self.size :]
        fresh = torch.tanh(driven[..., 2 * self.size :] + reset * carried[..., 2 * self.size :])
        return fresh + update * (memory - fresh)


class SquashedGaussianPolicy(nn.Module):
    """``a = tanh(μ(x, h) + σ ε)`` with x the normalised observation, h the memory and ε standard normal; σ is fixed.

    Args:
        observation_size: entries of one observation.
        action_size: entries of one action.
        deviation: σ, before tanh.
        memory: entries of h; 0 makes a policy without one.
        remembered: entries of the observation that the memory reads; None is all of them.

    Raises:
        ValueError: `deviation` is negative, or `remembered` are no entries of the observation.
    """

    columns: Tensor

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        deviation: float = 0.3,
        memory: int = 0,
        remembered: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if not deviation >= 0.0:
            raise ValueError(f"`deviation` must be >= 0, got {deviation}")
        columns = list(range(observation_size)) if remembered is None else [int(column) for column in remembered]
        if not columns or not all(0 <= column < observation_size for column in columns):
            raise ValueError(f"`remembered` must be some of {observation_size} entries, got {remembered}")
        self.deviation, self.memory_size = deviation, memory
        self.normalizer = Normalizer(observation_size)
        self.mean = perceptron(observation_size + memory, action_size, last_gain=0.01)
        self.memory = Memory(len(columns), memory) if memory else None
        self.register_buffer("columns", torch.tensor(columns), persistent=False)
        self.action_size = action_size

    def forward(
        self, observation: Tensor, noise: Tensor | None = None, memory: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Actions (..., action_size) and the memory (..., memory_size) after them.

        Args:
            observation: shape (..., observation_size).
            noise: shape (..., action_size); None leaves the deterministic actions.
            memory: shape (..., memory_size), before the observation; None is that of a beginning episode.
        """
        inputs = self.normalizer(observation)
        if memory is None:
            memory = inputs.new_zeros(*inputs.shape[:-1], self.memory_size)
        if self.memory is not None:
            memory = self.memory(inputs[..., self.columns], memory)
        center = self.center(inputs, memory)
        return torch.tanh(center if noise is None else center + self.deviation * noise), memory

    def center(self, inputs: Tensor, memory: Tensor) -> Tensor:
        """μ (..., action_size) of normalised observations and the memory after them."""
        mean: Tensor = self.mean(inputs if self.memory is None else torch.cat((inputs, memory), -1))
        return mean

    def remember(self, inputs: Tensor, memory: Tensor, starting: Tensor) -> Tensor:
        """Memory (H, S, memory_size) after each of H normalised observations; arguments as in `Memory.run`."""
        if self.memory is None:
            return inputs.new_zeros(*inputs.shape[:-1], 0)
        after: Tensor = self.memory.run(inputs[..., self.columns], memory, starting)
        return after

    def predict(
        self, observation: npt.ArrayLike, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64] | None]:
        """Actions for one observation or a batch of them, as stable-baselines3's `predict` gives them.

        Args:
            observation: shape (size,) or (E, size).
            state: what the last call returned; None begins episodes everywhere. Not used without a memory.
            episode_start: shape (E,), rows whose episode begins with this observation; None is none of them.
            deterministic: whether to leave out the noise, which otherwise comes from torch's global generator.

        Returns:
            Actions, and the memory after them, (memory_size,) or (E, memory_size); None without a memory.

        Raises:
            ValueError: `observation` or `state` has another size.
        """
        size = self.normalizer.mean.shape[0]
        array = np.asarray(observation, np.float64)
        if array.ndim not in (1, 2) or array.shape[-1] != size:
            raise ValueError(f"`observation` must have shape ({size},) or (E, {size}), got {array.shape}")
        shape = (*array.shape[:-1], self.memory_size)
        before = np.zeros(shape) if state is None or not self.memory_size else np.asarray(state, np.float64)
        if before.shape != shape:
            raise ValueError(f"`state` must have shape {shape}, got {before.shape}")
        if episode_start is not None:
            begins = np.asarray(episode_start, np.bool_).reshape(*array.shape[:-1], 1)
            before = np.where(begins, 0.0, before)
        with torch.no_grad():
            place = self.normalizer.mean.device
            noise = None if deterministic else torch.randn(*array.shape[:-1], self.action_size, dtype=torch.float64)
            action, memory = self(
                torch.from_numpy(array).to(place),
                None if noise is None else noise.to(place),
                torch.from_numpy(before).to(place),
            )
        return action.cpu().numpy().astype(np.float32), memory.cpu().numpy() if self.memory_size else None

    def save(self, path: Path | str) -> None:
        """Write sizes and parameters; no code is stored, so that loading the file runs none."""
        sizes = {"observation_size": self.normalizer.mean.shape[0], "action_size": self.action_size}
        memory = {"memory": self.memory_size, "remembered": self.columns.tolist()}
        torch.save({**sizes, **memory, "deviation": self.deviation, "parameters": self.state_dict()}, path)

    @classmethod
    def load(cls, path: Path | str) -> SquashedGaussianPolicy:
        """The policy that `save` wrote, on the CPU.

        Raises:
            ValueError: the file holds something else.
        """
        stored = torch.load(path, weights_only=True, map_location="cpu")
        expected = {"observation_size", "action_size", "memory", "remembered", "deviation", "parameters"}
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
