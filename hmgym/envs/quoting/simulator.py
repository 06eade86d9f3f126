"""Market makers as a simulator: what every one of them does, whatever market it quotes in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hmgym.envs.boxes import ObservationBox
from hmgym.envs.history import History
from hmgym.envs.protocol import Flags, FloatArray, Infos, Observations, Simulator, StepResult
from hmgym.envs.quoting.depths import DepthBox
from hmgym.envs.quoting.rewards import QuotingReward
from hmgym.envs.quoting.series import QuotingSeries


@dataclass(frozen=True, kw_only=True, eq=False)
class QuotingState:
    """What E market makers know before they quote.

    Attributes:
        step: (E,) steps since the start.
        time: (E,) time since the start, in the unit of the model that strategies were made for.
        inventory: (E,) lots.
        cash: (E,) money since the start.
        mid: (E,) price.
        depths: what an action is worth in price.
    """

    step: npt.NDArray[np.int64]
    time: FloatArray
    inventory: npt.NDArray[np.int64]
    cash: FloatArray
    mid: FloatArray
    depths: DepthBox


class Trade(NamedTuple):
    """What a step brought, (E,) each."""

    bid: FloatArray  # price quoted
    ask: FloatArray
    bought: Flags  # whether a lot was
    sold: Flags
    mid: FloatArray  # price after it


class QuotingSimulator(Simulator):
    """E market makers, each of whom quotes one lot on either side of mid in every step of a horizon.

    Nothing is bought at the largest inventory and nothing sold at the smallest. Episodes end by themselves.

    Args:
        num_markets: E.
        depths: what an action means.
        observation_map: of a simulator's own; the first two entries are `inventory` and `time_left`.
        steps: of an episode.
        step_time: length of a step, in the unit of the model that strategies are made for.
        max_inventory: Q, lots.
        reward: of a step.
        record: whether to keep the history that a frame shows.
    """

    action_map: DepthBox

    def __init__(
        self,
        num_markets: int,
        *,
        depths: DepthBox,
        observation_map: ObservationBox,
        steps: int,
        step_time: float,
        max_inventory: int,
        reward: QuotingReward,
        record: bool,
    ) -> None:
        self.num_markets = num_markets
        self.action_map, self.observation_map = depths, observation_map
        self.steps, self.step_time, self.max_inventory = steps, step_time, max_inventory
        self.reward = reward
        self.history = History(num_markets, QuotingSeries) if record else None
        self._started = False
        self._elapsed = np.zeros(num_markets, np.int64)
        self._inventory = np.zeros(num_markets, np.int64)
        self._cash, self._mid = np.zeros(num_markets), np.zeros(num_markets)
        nothing = np.zeros(num_markets, np.bool_)
        none = np.full(num_markets, np.nan)
        self._last = Trade(none, none, nothing, nothing, self._mid)

    def _begin(self, rows: npt.NDArray[np.int64], generators: list[np.random.Generator]) -> FloatArray:
        """Begin new episodes; returns their mids, (rows,)."""
        raise NotImplementedError

    def _trade(self, depths: FloatArray, generators: list[np.random.Generator], frozen: Flags | None) -> Trade:
        """What a step at these depths (E, 2) brings within the limits of inventory; changes nothing.

        Rows that are frozen count for nothing.
        """
        raise NotImplementedError

    def _within(self, bought: Flags, sold: Flags) -> tuple[Flags, Flags]:
        """Fills but those that the limits of inventory leave no quote for."""
        return bought & (self._inventory < self.max_inventory), sold & (self._inventory > -self.max_inventory)

    def _advance(self, frozen: Flags | None) -> None:
        """The step that `_trade` told of is taken."""

    def _see(self) -> tuple[FloatArray, ...]:
        """Further entries of the observation, (E,) each."""
        return ()

    @property
    def started(self) -> bool:
        """Whether every market was reset at least once."""
        return self._started

    @property
    def state(self) -> QuotingState:
        """A copy of what is known in all markets.

        Raises:
            RuntimeError: no market was reset yet.
        """
        self._require_start()
        return QuotingState(
            step=self._elapsed.copy(), time=np.asarray(self._elapsed * self.step_time, np.float64),
            inventory=self._inventory.copy(), cash=self._cash.copy(), mid=self._mid.copy(), depths=self.action_map,
        )  # fmt: skip

    def reset(self, rows: npt.NDArray[np.int64], generators: list[np.random.Generator]) -> None:
        """Begin a new episode in the given markets: no inventory, no cash."""
        mid = self._mid.copy()
        mid[rows] = self._begin(rows, generators)
        self._mid, self._started = mid, True
        self._elapsed[rows], self._inventory[rows], self._cash[rows] = 0, 0, 0.0
        starting = np.zeros(self.num_markets, np.bool_)
        starting[rows] = True
        self.reward.restart(starting)
        last = self._last
        self._last = Trade(
            bid=np.where(starting, np.nan, last.bid), ask=np.where(starting, np.nan, last.ask),
            bought=last.bought & ~starting, sold=last.sold & ~starting, mid=mid,
        )  # fmt: skip
        if self.history is not None:
            self.history.restart(rows, self._snapshot())

    def step(
        self,
        action: FloatArray,
        generators: list[np.random.Generator],
        frozen: Flags | None = None,
        acting: Flags | None = None,
    ) -> StepResult:
        """Quote once in every market.

        Args:
            action: checked actions in [-1, 1], shape (E, 1, 2).
            generators: one a market.
            frozen: shape (E,), markets that wait for a reset; they draw nothing and return 0 and False.
            acting: of no meaning with one learner a market.
        """
        self._require_start()
        trade = self._trade(self.action_map.to_depths(action[:, 0]), generators, frozen)
        bought, sold = trade.bought, trade.sold
        mid, elapsed = trade.mid, self._elapsed + 1
        if frozen is not None:
            bought, sold = bought & ~frozen, sold & ~frozen
            mid, elapsed = np.where(frozen, self._mid, mid), np.where(frozen, self._elapsed, elapsed)
        inventory = self._inventory + bought - sold
        profit = bought * (self._mid - trade.bid) + sold * (trade.ask - self._mid) + inventory * (mid - self._mid)
        ended = elapsed == self.steps
        if frozen is not None:
            ended &= ~frozen
        reward = self.reward(profit, inventory, ended)
        if frozen is not None:
            reward = np.where(frozen, 0.0, reward)
        self._cash = self._cash + (sold * trade.ask - bought * trade.bid)
        self._inventory, self._mid, self._elapsed = inventory, mid, elapsed
        self._last = Trade(trade.bid, trade.ask, bought, sold, mid)
        self._advance(frozen)
        if self.history is not None:
            self.history.append(self._snapshot())
        return StepResult(reward[:, None], ended[:, None])

    def observe(self) -> Observations:
        """Inventory over its limit, the share of steps that is left, and what the market shows, (E, 1, size)."""
        own = self._inventory / self.max_inventory, 1.0 - self._elapsed / self.steps
        return np.stack([*own, *self._see()], -1).astype(np.float32)[:, None]

    def infos(self) -> Infos:
        """Mid, the last quotes (NaN after a reset), lots bought and sold at them, inventory, cash and profit."""
        last = self._last
        return {
            "mid": self._mid.copy(), "bid": last.bid.copy(), "ask": last.ask.copy(), "bought": last.bought.copy(),
            "sold": last.sold.copy(), "inventory": self._inventory.copy(), "cash": self._cash.copy(),
            "profit": self._profit(),
        }  # fmt: skip

    def _profit(self) -> FloatArray:
        """Cash and inventory at mid, (E,)."""
        return self._cash + self._inventory * self._mid

    def _snapshot(self) -> dict[str, FloatArray]:
        last = self._last
        before = self._inventory - last.bought + last.sold
        return {
            "mid": self._mid,
            "bid": np.where(before >= self.max_inventory, np.nan, last.bid),
            "ask": np.where(before <= -self.max_inventory, np.nan, last.ask),
            "bought": last.bought.astype(np.float64), "sold": last.sold.astype(np.float64),
            "inventory": self._inventory.astype(np.float64), "profit": self._profit(),
        }  # fmt: skip

    def _require_start(self) -> None:
        if not self._started:
            raise RuntimeError("call `reset` before `step`")
