"""Selling a block of shares within a day, after Almgren and Chriss: an environment of dynamics of its own.

A trader holds one block and must have sold it after T periods. Selling a share v of the block in one period is paid the
mid price less κ v, and the mid follows a random walk. Without risk aversion the best schedule sells equal parts, at a
cost of κ / T.

Source: Almgren and Chriss (2000), Optimal execution of portfolio transactions, with temporary impact only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from hmgym.agents import Baseline
from hmgym.checks import integer
from hmgym.envs import (
    ActionBox,
    BatchEnv,
    BatchVectorEnv,
    History,
    Line,
    ObservationBox,
    Panel,
    Registered,
    Simulator,
    StepResult,
    register_environment,
)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A day so far: mid price and inventory, shape (T,) each."""

    mid: Any
    inventory: Any
    period: ClassVar[str] = "period"

    def __len__(self) -> int:
        return len(self.mid)

    def panels(self) -> tuple[Panel, ...]:
        """What a picture shows."""
        return (
            Panel(title="Mid price", unit="of the first", lines=(Line(values=self.mid),), wide=True),
            Panel(title="Inventory", unit="of the block", lines=(Line(values=self.inventory),), floor=0.0),
        )


class Liquidation(Simulator):
    """E traders, each with a block of its own.

    Args:
        num_markets: E.
        periods: T.
        impact: κ, of the first mid price, when the whole block is sold at once.
        volatility: of the mid in one period, of the first mid price.
        record: whether to keep what a picture shows.
    """

    def __init__(
        self,
        num_markets: int,
        *,
        periods: int = 20,
        impact: float = 0.1,
        volatility: float = 0.01,
        record: bool = False,
    ) -> None:
        self.num_markets = integer("num_envs", num_markets, 1)
        self.periods = integer("periods", periods, 1)
        self.impact, self.volatility = impact, volatility
        self.action_map = ActionBox(["share_of_inventory"])  # -1 sells nothing, 1 all of it
        self.observation_map = ObservationBox(["inventory", "time_left"], low=0.0, high=1.0)
        self.history = History(num_markets, Schedule) if record else None
        self._started = False
        self._mid, self._inventory, self._elapsed = np.ones(num_markets), np.ones(num_markets), np.zeros(num_markets)

    @property
    def started(self) -> bool:
        return self._started

    @property
    def state(self) -> dict[str, Any]:
        return {name: getattr(self, f"_{name}").copy() for name in ("mid", "inventory", "elapsed")}

    def reset(self, rows: Any, generators: Any) -> None:
        self._started = True
        self._mid[rows], self._inventory[rows], self._elapsed[rows] = 1.0, 1.0, 0.0
        if self.history is not None:
            self.history.restart(rows, self._close())

    def step(self, action: Any, generators: Any, frozen: Any = None, acting: Any = None) -> StepResult:
        if not self._started:
            raise RuntimeError("call `reset` before `step`")
        running = np.ones(self.num_markets, np.bool_) if frozen is None else ~frozen
        draws = np.array([one.standard_normal() if go else 0.0 for one, go in zip(generators, running, strict=True)])
        elapsed = self._elapsed + running
        ended = running & (elapsed == self.periods)
        share = np.where(ended, 1.0, 0.5 * (action[:, 0, 0] + 1.0)) * running
        sold = share * self._inventory
        reward = sold * (self._mid - 1.0 - self.impact * sold)  # what it brings beyond the value at the first mid
        self._inventory, self._elapsed = self._inventory - sold, elapsed
        self._mid = self._mid + self.volatility * draws
        if self.history is not None:
            self.history.append(self._close())
        return StepResult(reward[:, None], ended[:, None])

    def _close(self) -> dict[str, Any]:
        return {"mid": self._mid.copy(), "inventory": self._inventory.copy()}

    def observe(self) -> Any:
        seen = np.stack([self._inventory, 1.0 - self._elapsed / self.periods], axis=-1)
        return seen.astype(np.float32)[:, None]

    def infos(self) -> dict[str, Any]:
        return {"mid": self._mid.copy()}


class LiquidationEnv(BatchEnv):
    """One trader; arguments as in :class:`Liquidation`."""

    def __init__(self, *, render_mode: str | None = None, **parameters: Any) -> None:
        super().__init__(Liquidation(1, record=render_mode is not None, **parameters), render_mode)


class LiquidationVectorEnv(BatchVectorEnv):
    """E traders; arguments as in :class:`Liquidation`, and those of every vector environment."""

    def __init__(
        self,
        *,
        num_envs: int = 1,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        autoreset_mode: Any = None,
        **parameters: Any,
    ) -> None:
        super().__init__(
            Liquidation(num_envs, record=render_mode is not None, **parameters),
            render_mode=render_mode,
            max_episode_steps=max_episode_steps,
            autoreset_mode=autoreset_mode,
        )


class EqualParts:
    """The schedule that sells the same number of shares in every one of T periods."""

    def __init__(self, periods: int) -> None:
        self._periods = periods

    def __call__(self, observation: Any) -> Any:
        """Of what is left, one over the number of periods left."""
        left = np.maximum(np.round(observation[:, 1:] * self._periods), 1.0)
        return 2.0 / left - 1.0


def baselines(env_id: str, env_kwargs: Mapping[str, Any]) -> dict[str, Baseline]:
    """What agents are compared with besides random actions and the best constant: equal parts."""
    policy = EqualParts(env_kwargs.get("periods", 20))
    return {"equal_parts": Baseline(policy=policy, env_id=env_id, env_kwargs=env_kwargs)}


register_environment(
    "extending/Liquidation-v0",
    Registered(
        entry_point=f"{__name__}:LiquidationEnv",
        vector_entry_point=f"{__name__}:LiquidationVectorEnv",
        baselines=f"{__name__}:baselines",
    ),
)
