"""Market makers in the simulated market of their model: the chain of `hmgym.market_making.tables`, path by path."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hmgym.checks import integer
from hmgym.envs.boxes import ObservationBox
from hmgym.envs.protocol import Flags, FloatArray
from hmgym.envs.quoting.depths import DepthBox
from hmgym.envs.quoting.rewards import make_reward
from hmgym.envs.quoting.simulator import QuotingSimulator, Trade
from hmgym.envs.shock_stream import ShockStream
from hmgym.market import Shocks
from hmgym.market_making import QuotingConfig
from hmgym.market_making.tables import log_fill_probability

SHOCK_STEPS = 50
"""Steps of draws that each market makes at a time; part of what a seed means."""

OBSERVATIONS = ObservationBox(("inventory", "time_left"))
"""Inventory over its limit and the share of steps that is left: all that matters, since mid has no memory."""


def as_config(config: QuotingConfig | Mapping[str, Any] | None, argument: str = "config") -> QuotingConfig:
    """The market itself, or the default one with some attributes changed.

    Args:
        config: either, or None.
        argument: that it came with.

    Raises:
        ValueError: `config` is no market, an attribute is unknown or out of range.
    """
    if isinstance(config, QuotingConfig):
        return config
    changes = {} if config is None else config
    known = [item.name for item in fields(QuotingConfig)]
    if not isinstance(changes, Mapping):
        raise ValueError(f"`{argument}` must be a QuotingConfig, a mapping or None, got {type(config).__name__}")
    if unknown := sorted(set(changes) - set(known)):
        raise ValueError(f"`{argument}` must be some of {sorted(known)}, got {unknown}")
    return QuotingConfig(**changes)


def depth_box(config: QuotingConfig) -> DepthBox:
    """Depths from −1/k to 3/k; in the middle stands 1/k, the best where inventory costs nothing."""
    return DepthBox(1.0 / config.depth_decay, 2.0 / config.depth_decay)


def reward_of(config: QuotingConfig, name: str) -> Any:
    """The reward of that name, with the penalties of the model.

    The Sharpe ratio starts from the law of a step at depth 1/k, one lot held.

    Raises:
        ValueError: no reward has this name.
    """
    depth = 1.0 / config.depth_decay
    fill = math.exp(log_fill_probability(config.problem(), config.dt, np.float64(depth)))
    variance = 2.0 * fill * (1.0 - fill) * depth**2 + config.volatility**2 * config.dt
    return make_reward(
        name, running_penalty=config.running_penalty * config.dt, terminal_penalty=config.terminal_penalty,
        mean=2.0 * fill * depth, deviation=math.sqrt(variance),
    )  # fmt: skip


class Chain:
    """What a step draws: whether either quote is filled, and mid's move."""

    def draw_shocks(self, generators: Sequence[np.random.Generator], *, periods: int) -> Shocks:
        """Arrays (periods, E): `sellers` and `buyers` uniform, `move` normal."""
        fills, moves = np.empty((len(generators), 2, periods)), np.empty((len(generators), periods))
        for row, generator in enumerate(generators):
            generator.random(out=fills[row])
            generator.standard_normal(out=moves[row])
        drawn: dict[str, Any] = {"sellers": fills[:, 0].T, "buyers": fills[:, 1].T, "move": moves.T}
        return Shocks(drawn)

    def place(self, x: torch.Tensor) -> Any:
        """An array."""
        return x.numpy()


class ModelQuoting(QuotingSimulator):
    """E market makers in simulated markets.

    Args:
        config: the market, or what differs in it from the default one, by name; None for nothing.
        reward: "inventory_penalty", "pnl" or "sharpe".
        num_markets: E.
        record: whether to keep the history that a frame shows.

    Raises:
        ValueError: an argument is none of these.
    """

    def __init__(
        self,
        config: QuotingConfig | Mapping[str, Any] | None,
        reward: str,
        num_markets: int,
        record: bool = False,
    ) -> None:
        config = as_config(config)
        super().__init__(
            integer("num_envs", num_markets, 1), depths=depth_box(config), observation_map=OBSERVATIONS,
            steps=config.steps, step_time=config.dt, max_inventory=config.max_inventory,
            reward=reward_of(config, reward), record=record,
        )  # fmt: skip
        self.config = config
        self._model = config.problem()
        self._scale = config.volatility * math.sqrt(config.dt)
        self._shocks = ShockStream(Chain(), SHOCK_STEPS)

    def _begin(self, rows: npt.NDArray[np.int64], generators: list[np.random.Generator]) -> FloatArray:
        self._shocks.restart(rows, self.num_markets)
        return np.full(rows.size, self.config.initial_mid)

    def _trade(self, depths: FloatArray, generators: list[np.random.Generator], frozen: Flags | None) -> Trade:
        config, shocks = self.config, self._shocks.next(generators, frozen)
        bid, ask = depths[:, 0], depths[:, 1]
        fill = np.exp(log_fill_probability(self._model, config.dt, depths))
        sellers, buyers = np.asarray(shocks.sellers), np.asarray(shocks.buyers)
        bought, sold = self._within(sellers < fill[:, 0], buyers < fill[:, 1])
        move = config.drift * config.dt + self._scale * np.asarray(shocks.move)
        if config.impact > 0.0:
            move = move + config.impact * (sold.astype(np.float64) - bought)
        return Trade(self._mid - bid, self._mid + ask, bought, sold, self._mid + move)

    def _advance(self, frozen: Flags | None) -> None:
        self._shocks.advance(frozen)
