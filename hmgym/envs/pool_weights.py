"""``hmgym/Pool-v0``: a pool on a weighted invariant whose weights an agent moves, or the rule that moves them.

Prices are recorded or simulated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import torch
from gymnasium.vector import AutoresetMode

from hmgym.checks import check_interval, check_number, integer, shown
from hmgym.data import PriceHistory
from hmgym.envs.boxes import ActionBox, ObservationBox
from hmgym.envs.face import BatchFace
from hmgym.envs.history import History
from hmgym.envs.pool_rule_box import RULE_RANGES, RuleBox, decay_of
from hmgym.envs.pool_series import PoolSeries
from hmgym.envs.protocol import Flags, FloatArray, Infos, Observations, Simulator, StepResult
from hmgym.envs.single import BatchEnv
from hmgym.envs.vector import BatchVectorEnv
from hmgym.market import MarketConfig
from hmgym.pools import (
    coarse_weights,
    price_trend,
    reserves_with_fees,
    reserves_without_fees,
    weight_changes,
)

PoolAction: TypeAlias = Literal["weights", "parameters"]

REWARDS = ("log_value", "over_hold")
MEMORY = 13
"""Rows of prices that a step shows, the last one included: a year of months."""
_LAGS = (1, 3, 12)


@dataclass(frozen=True, kw_only=True, eq=False)
class PoolWeightsState:
    """What E pools know before they act.

    Attributes:
        prices: (E, 13, N) the last rows, this one last.
        weights: (E, N).
        reserves: (E, N).
        elapsed: (E,) steps since the start.
        maximum_change: largest change of a weight in a step.
        acts_on: what an action sets, "weights" or "parameters".
    """

    prices: FloatArray
    weights: FloatArray
    reserves: FloatArray
    elapsed: npt.NDArray[np.int64]
    maximum_change: float
    acts_on: PoolAction = "weights"

    def action(self, changes: FloatArray) -> FloatArray:
        """Actions (E, N) that ask for changes (E, N) of weights, the nearest there are.

        Raises:
            ValueError: an action sets the parameters of the rule.
        """
        if self.acts_on != "weights":
            raise ValueError(f'`action` of the pool must be "weights" to ask for changes, got {self.acts_on!r}')
        return np.clip(np.asarray(changes, np.float64) / self.maximum_change, -1.0, 1.0)


class PoolSimulator(Simulator):
    """E pools; arguments as in :class:`PoolEnv`.

    Args:
        num_markets: E.
        record: whether to keep the history that a frame shows.
    """

    def __init__(
        self,
        num_markets: int,
        *,
        action: PoolAction = "weights",
        per_asset: bool = False,
        n_assets: int = 3,
        steps: int = 60,
        history: PriceHistory | str = "training",
        simulated: bool = False,
        maximum_change: float = 0.05,
        minimum_weight: float | None = None,
        fee: float = 0.0,
        noise_ratio: float = 0.0,
        reward: str = "log_value",
        record: bool = False,
    ) -> None:
        self.num_markets = integer("num_envs", num_markets, 1)
        self.steps = integer("steps", steps, 1)
        for name, flag in (("simulated", simulated), ("per_asset", per_asset)):
            if not isinstance(flag, (bool, np.bool_)):
                raise ValueError(f"`{name}` must be True or False, got {shown(flag)}")
        if action not in get_args(PoolAction):
            raise ValueError(f"`action` must be one of {list(get_args(PoolAction))}, got {shown(action)}")
        if per_asset and action == "weights":
            raise ValueError('`per_asset` must be False where `action` is "weights", got True')
        if reward not in REWARDS:
            raise ValueError(f"`reward` must be one of {list(REWARDS)}, got {reward!r}")
        check_interval("maximum_change", maximum_change, 0.0, 1.0)
        check_number("maximum_change", maximum_change, 0.0, strict=True)
        check_interval("fee", fee, 0.0, 0.5)
        check_number("noise_ratio", noise_ratio, 0.0)
        recorded = MarketConfig(n_assets=integer("n_assets", n_assets, 2), history=history).selected_history
        self.n_assets, self.assets = n_assets, recorded.assets
        least = 0.1 / n_assets if minimum_weight is None else minimum_weight
        check_number("minimum_weight", least, 0.0, 1.0 / n_assets, strict=True)
        self.minimum_weight, self.maximum_change = float(least), float(maximum_change)
        self.fee, self.noise_ratio, self.simulated = float(fee), float(noise_ratio), bool(simulated)
        self._over_hold = reward == "over_hold"
        self._recorded = recorded.prices
        self._needed = MEMORY + self.steps
        if not simulated and len(self._recorded) < self._needed:
            raise ValueError(
                f"`steps` must be <= {len(self._recorded) - MEMORY}, the rows of {recorded.source} less the {MEMORY} "
                f"that the first observation shows, got {steps}"
            )
        returns = np.diff(np.log(self._recorded), axis=0)
        self._mean, self._root = returns.mean(0), np.linalg.cholesky(np.cov(returns.T) + 1e-12 * np.eye(n_assets))
        self._scale = returns.std(0)
        self.acts_on = action
        self._rule_box = RuleBox(n_assets, bool(per_asset)) if action == "parameters" else None
        self.action_map = self._rule_box or ActionBox([f"weight_{i}" for i in range(n_assets)])
        names = [f"weight_{i}" for i in range(n_assets)]
        names += [f"return_{lag}_{i}" for lag in _LAGS for i in range(n_assets)]
        self.observation_map = ObservationBox([*names, "over_hold", "time_left"])
        self.history = History(num_markets, self._series) if record else None
        self._paths = np.ones((num_markets, self._needed, n_assets))
        self._weights = np.full((num_markets, n_assets), 1.0 / n_assets)
        self._reserves, self._first = (np.ones((num_markets, n_assets)) for _ in range(2))
        self._elapsed = np.zeros(num_markets, np.int64)
        self._last = np.full((num_markets, self.action_map.size), np.nan)  # actions
        self._started = False

    @property
    def started(self) -> bool:
        """Whether every pool was reset at least once."""
        return self._started

    @property
    def state(self) -> PoolWeightsState:
        """A copy of what is known.

        Raises:
            RuntimeError: no pool was reset yet.
        """
        self._require_start()
        return PoolWeightsState(
            prices=self._recent(), weights=self._weights.copy(), reserves=self._reserves.copy(),
            elapsed=self._elapsed.copy(), maximum_change=self.maximum_change,
            acts_on=self.acts_on,
        )  # fmt: skip

    def reset(self, rows: npt.NDArray[np.int64], generators: list[np.random.Generator]) -> None:
        """Begin with equal weights and a value of 1, at a row that is drawn, or on a path that is."""
        for row in rows:
            self._paths[row] = self._path(generators[row])
        self._weights[rows] = 1.0 / self.n_assets
        self._elapsed[rows], self._last[rows], self._started = 0, np.nan, True
        self._reserves[rows] = 1.0 / self.n_assets / self._prices()[rows]
        self._first[rows] = self._reserves[rows]
        if self.history is not None:
            self.history.restart(rows, self._snapshot())

    def step(
        self,
        action: FloatArray,
        generators: list[np.random.Generator],
        frozen: Flags | None = None,
        acting: Flags | None = None,
    ) -> StepResult:
        """Move weights, as the action or its rule says, then prices; arbitrage holds reserves to both."""
        self._require_start()
        idle = np.zeros(self.num_markets, np.bool_) if frozen is None else frozen
        before, elapsed = self._prices(), np.where(idle, self._elapsed, self._elapsed + 1)
        after = self._paths[np.arange(self.num_markets), MEMORY - 1 + np.minimum(elapsed, self.steps)]
        wanted = self._wanted(action[:, 0])
        weights, reserves = self._moved(np.where(idle[:, None], 0.0, wanted), before, after)
        if frozen is not None:
            weights = np.where(idle[:, None], self._weights, weights)
            reserves = np.where(idle[:, None], self._reserves, reserves)
        reward = np.log((reserves * after).sum(-1) / (self._reserves * before).sum(-1))
        if self._over_hold:
            reward = reward - np.log((self._first * after).sum(-1) / (self._first * before).sum(-1))
        reward = np.where(idle, 0.0, reward)
        ended = ~idle & (elapsed == self.steps)
        self._weights, self._reserves, self._elapsed = weights, reserves, elapsed
        self._last = np.where(idle[:, None], self._last, action[:, 0])
        if self.history is not None:
            self.history.append(self._snapshot())
        return StepResult(reward[:, None], ended[:, None])

    def observe(self) -> Observations:
        """Weights, returns over 1, 3 and 12 rows, value over that of the first reserves, what is left; (E, 1, size)."""
        logs = np.log(self._recent())
        parts = [2.0 * self._weights - 1.0]
        parts += [np.tanh((logs[:, -1] - logs[:, -1 - lag]) / (self._scale * np.sqrt(lag))) for lag in _LAGS]
        value, hold = self._values()
        parts += [np.tanh(np.log(value / hold) / 0.2)[:, None], (1.0 - self._elapsed / self.steps)[:, None]]
        return np.concatenate(parts, -1).astype(np.float32)[:, None]

    def infos(self) -> Infos:
        """Prices, weights, reserves, value and that of the first reserves (1 at the start); parameters of the rule."""
        value, hold = self._values()
        rule = {} if self._rule_box is None else self._rule_box.to_rule(self._last)
        return {
            "prices": self._prices(), "weights": self._weights.copy(), "reserves": self._reserves.copy(),
            "value": value, "hold": hold, **rule,
        }  # fmt: skip

    def _wanted(self, action: FloatArray) -> FloatArray:
        """Changes of weights (E, N) before guardrails, of actions (E, size)."""
        if self._rule_box is None:
            wanted: FloatArray = self.maximum_change * (action - action.mean(-1, keepdims=True))
            return wanted
        rule = self._rule_box.to_rule(action)
        # A first price that is repeated in front leaves the rule where it begins.
        columns = np.maximum(self._elapsed[:, None] + np.arange(-self.steps, MEMORY), 0)
        seen = self._paths[np.arange(self.num_markets)[:, None], columns]
        k, exponents, scaling = (torch.from_numpy(rule[name]) for name in ("k", "exponent", "pre_scaling"))
        with torch.no_grad():
            trend = price_trend(torch.from_numpy(seen), decay_of(rule["memory"]).expand(-1, self.n_assets))
            changes: FloatArray = weight_changes(trend[:, -1:], k, exponents, scaling)[:, 0].numpy()
        return changes

    def _moved(self, wanted: FloatArray, before: FloatArray, after: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Weights and reserves (E, N) after a step."""
        with torch.no_grad():
            target = coarse_weights(
                torch.from_numpy(self._weights), torch.from_numpy(wanted)[:, None], minimum_weight=self.minimum_weight,
                maximum_change=self.maximum_change, interpolation_minutes=1,
            ).target.numpy()[:, 0]  # fmt: skip
            weights = torch.from_numpy(np.stack([self._weights, target], 1))
            prices, held = torch.from_numpy(np.stack([before, after], 1)), torch.from_numpy(self._reserves)
            if self.fee > 0.0:
                moved = reserves_with_fees(held, weights, prices, fee=self.fee, noise_ratio=self.noise_ratio)
            else:
                moved = reserves_without_fees(held, weights, prices)
        return target, moved.numpy()[:, 1]

    def _path(self, generator: np.random.Generator) -> FloatArray:
        """Prices (13 + steps, N) of an episode."""
        if not self.simulated:
            first = int(generator.integers(0, len(self._recorded) - self._needed + 1))
            recorded: FloatArray = self._recorded[first : first + self._needed]
            return recorded
        moves = self._mean + generator.standard_normal((self._needed - 1, self.n_assets)) @ self._root.T
        path: FloatArray = np.exp(np.concatenate([np.zeros((1, self.n_assets)), np.cumsum(moves, 0)]))
        return path

    def _prices(self) -> FloatArray:
        return self._paths[np.arange(self.num_markets), MEMORY - 1 + self._elapsed]

    def _recent(self) -> FloatArray:
        columns = self._elapsed[:, None] + np.arange(MEMORY)
        recent: FloatArray = self._paths[np.arange(self.num_markets)[:, None], columns]
        return recent

    def _values(self) -> tuple[FloatArray, FloatArray]:
        prices = self._prices()
        return (self._reserves * prices).sum(-1), (self._first * prices).sum(-1)

    def _snapshot(self) -> dict[str, FloatArray]:
        value, hold = self._values()
        found = {"prices": self._prices(), "weights": self._weights.copy(), "value": value, "hold": hold}
        if self._rule_box is not None:
            share = 0.5 * (1.0 + self._last.reshape(self.num_markets, len(RULE_RANGES), -1).mean(-1))
            found["rule"] = share
        return found

    def _series(self, **arrays: FloatArray) -> PoolSeries:
        return PoolSeries(assets=self.assets, **arrays)

    def _require_start(self) -> None:
        if not self._started:
            raise RuntimeError("call `reset` before `step`")


class PoolFace(BatchFace):
    """What is the pool's own in each of its environments."""

    _batch: PoolSimulator

    @property
    def simulator(self) -> PoolSimulator:
        """What runs."""
        return self._batch


class PoolEnv(PoolFace, BatchEnv):
    """A pool that holds N assets in proportion to its weights, which the agent moves, itself or by a rule.

    ## Description
    At prices p the pool holds w_i of its value in asset i; as prices move, arbitrage trades it along its invariant
    Π R_i^{w_i}. Every step the weights are moved, then the next prices come, and arbitrage takes its part of the
    trades to both: :func:`hmgym.pools.reserves_without_fees`, with a `fee` :func:`hmgym.pools.reserves_with_fees`.

    ## Action space
    "weights": a box of [-1, 1]^N, changes of weights `maximum_change` (a − mean a). "parameters": a box of [-1, 1]^4,
    memory (2 to 60 rows), k (0 to 100), exponent (1 to 4) and pre_scaling (.01 to 1) of the power-channel rule, on log
    scales (:class:`hmgym.envs.pool_rule_box.RuleBox`); with `per_asset` one of each an asset, [-1, 1]^4N. The changes
    are then those that the rule makes of all prices from the first that the first observation shows to the present
    one, :func:`hmgym.pools.price_trend` and :func:`hmgym.pools.weight_changes`. Either way they are cut to
    `maximum_change` and weights held within [minimum_weight, 1 − (N − 1) minimum_weight]. Entries outside are clipped,
    NaN and infinity raise.

    ## Observation space
    A float32 vector in [-1, 1]: weights 2w − 1; log returns of each asset over the last 1, 3 and 12 rows by tanh, in
    their standard deviations; log value over that of the first reserves; the share of steps that is left.

    ## Reward
    "log_value": change of the log of the pool's value. "over_hold": the same less that of the first reserves.

    ## Start and end
    Equal weights and a value of 1, at a row of the history that the seed draws. Terminated after `steps`.

    ## Info
    `prices (N,)`, `weights (N,)`, `reserves (N,)`, `value`, `hold`, the value of the first reserves; with "parameters"
    also `memory`, `k`, `exponent` and `pre_scaling` of the last step, (1,) or (N,), NaN after a reset.

    Args:
        action: "weights", or "parameters" of the rule.
        per_asset: whether every asset has parameters of its own; only with "parameters".
        n_assets: N >= 2.
        steps: of an episode, rows of prices.
        history: "training", "held-out" or "all" of the packaged monthly prices, or a price history.
        simulated: whether prices are drawn: independent normal log returns with the history's mean and covariance.
        maximum_change: of a weight in a step.
        minimum_weight: None is .1 / N.
        fee: share of what comes in that traders pay.
        noise_ratio: volume of others that trade to and fro, over that of arbitrage.
        reward: "log_value" or "over_hold".
        render_mode: None, "rgb_array" or "human".

    Raises:
        ValueError: an argument is out of range or unknown.
    """

    def __init__(self, *, render_mode: str | None = None, **parameters: Any) -> None:
        super().__init__(PoolSimulator(1, record=render_mode is not None, **parameters), render_mode)


class PoolVectorEnv(PoolFace, BatchVectorEnv):
    """E independent pools stepped together; arguments and spaces as in :class:`PoolEnv`.

    Args:
        num_envs: number of pools E.
        max_episode_steps: steps after which this environment truncates an episode itself; None never does.
        autoreset_mode: an :class:`~gymnasium.vector.AutoresetMode` or its value.
    """

    def __init__(
        self,
        *,
        num_envs: int = 1,
        action: PoolAction = "weights",
        per_asset: bool = False,
        n_assets: int = 3,
        steps: int = 60,
        history: PriceHistory | str = "training",
        simulated: bool = False,
        maximum_change: float = 0.05,
        minimum_weight: float | None = None,
        fee: float = 0.0,
        noise_ratio: float = 0.0,
        reward: str = "log_value",
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        autoreset_mode: str | AutoresetMode | None = None,
    ) -> None:
        batch = PoolSimulator(
            num_envs, action=action, per_asset=per_asset, n_assets=n_assets, steps=steps, history=history,
            simulated=simulated, maximum_change=maximum_change, minimum_weight=minimum_weight, fee=fee,
            noise_ratio=noise_ratio, reward=reward, record=render_mode is not None,
        )  # fmt: skip
        super().__init__(
            batch, render_mode=render_mode, max_episode_steps=max_episode_steps, autoreset_mode=autoreset_mode
        )
