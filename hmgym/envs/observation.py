"""What a learner sees before it acts: a bounded float32 vector, every entry ``tanh(x / scale)``.

It holds this month's news, the learner's own signal and positions, and what is public: prices, fundamental values, the
crowd's positions in sum. Next month's news, other investors' errors, moods and traits are not in it; nor is the time
left, which only the wrapper that truncates knows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hmgym.arrays import to_numpy
from hmgym.envs.boxes import ObservationBox
from hmgym.market import MarketConfig, MarketState

_FLOOR = np.array(1e-9)  # money; wealth below it counts as none
_LOWEST, _HIGHEST = np.array(-20.0), np.array(20.0)  # tanh is ±1 to the last bit of float64 beyond 19


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row of the observation table.

    Attributes:
        name: of the quantity.
        per_asset: whether there is one entry an asset, else one in all.
        scale: the entry is ``tanh(x / scale)``.
        unit: of x.
        span: values that the entry takes, after tanh.
        meaning: what x is.
    """

    name: str
    per_asset: bool
    scale: float
    unit: str
    span: str
    meaning: str


def _one(name: str, scale: float, unit: str, span: str, meaning: str) -> Entry:
    return Entry(name=name, per_asset=False, scale=scale, unit=unit, span=span, meaning=meaning)


def _each(name: str, scale: float, unit: str, span: str, meaning: str) -> Entry:
    return Entry(name=name, per_asset=True, scale=scale, unit=unit, span=span, meaning=meaning)


OBSERVATION_TABLE: tuple[Entry, ...] = (
    _one("cash_weight", 2.0, "of own wealth", "(-1, 1)", "cash; below 0 borrowed"),
    _each("weight", 2.0, "of own wealth", "(-1, 1)", "position at the last close"),
    _one("leverage", 4.0, "of own wealth", "[0, 1)", "sum of absolute positions"),
    _each("undervaluation", 0.5, "log", "(-1, 1)", "log(fundamental value / last price), this month's news included"),
    _each("news", 0.15, "log a month", "(-1, 1)", "this month's log return of the fundamental value"),
    _each("signal", 0.15, "log a month", "(-1, 1)", "private signal of next month's news"),
    _one("regime", 0.5, "±1", "±0.964", "1 where the signal is informative, -1 where it is noise"),
    _each("news_volatility", 0.15, "log a month", "[0, 1)", "standard deviation of next month's news"),
    _each("volatility", 0.15, "log a month", "[0, 1)", "root of the weighted mean of squared returns"),
    _each("last_return", 0.15, "log a month", "(-1, 1)", "return at the last close"),
    _each("short_interest", 0.5, "of shares supplied", "[0, 1)", "shares that all others are short"),
    _one("crowd_leverage", 2.0, "of the crowd's wealth", "[0, 1)", "sum of absolute positions of all others"),
    _one("crowd_cash", 1.0, "of market value", "(-1, 1)", "cash of all others"),
    _one("wealth_share", 0.3, "of all wealth", "[0, 1)", "own wealth"),
    _one("log_unit_value", 1.0, "log", "(-1, 1)", "log of the fund's unit value, 0 at reset"),
)
"""Meaning, unit, scale and range of every entry, in the order they stand in the observation."""


class ObservationMap(ObservationBox):
    """From states to observations, for one economy.

    Args:
        config: the economy.
        hidden_regime: whether the row `regime` is left out.
    """

    def __init__(self, config: MarketConfig, hidden_regime: bool = False) -> None:
        self.hidden_regime = hidden_regime
        table = [entry for entry in OBSERVATION_TABLE if not (hidden_regime and entry.name == "regime")]
        counts = [config.n_assets if entry.per_asset else 1 for entry in table]
        names: list[str] = []
        for entry in table:
            names += [f"{entry.name}_{i}" for i in range(config.n_assets)] if entry.per_asset else [entry.name]
        super().__init__(names)
        self._rate = np.repeat([1.0 / entry.scale for entry in table], counts)
        bounds = np.cumsum([0, *counts])
        self._slices = {
            entry.name: slice(int(start), int(stop))
            for entry, start, stop in zip(table, bounds[:-1], bounds[1:], strict=True)
        }

    def columns(self, name: str) -> slice:
        """Where the entries of one row of the table stand in an observation.

        Raises:
            ValueError: the table has no such row.
        """
        if name not in self._slices:
            raise ValueError(f"`name` must be one of {list(self._slices)}, got {name!r}")
        return self._slices[name]

    def unsquash(self, observation: npt.NDArray[np.float32], name: str) -> npt.NDArray[np.float64]:
        """The quantity behind one row of the table, shape (..., 1) or (..., N); infinite where saturated."""
        columns = self.columns(name)
        with np.errstate(divide="ignore"):
            quantity: npt.NDArray[np.float64] = np.arctanh(observation[..., columns], dtype=np.float64)
        quantity /= self._rate[columns]
        return quantity

    def __call__(self, state: MarketState) -> npt.NDArray[np.float32]:
        """Observations of the learners of each market, shape (E, L, size), a fresh array outside any graph."""
        scaled = self._scaled(np, to_numpy, state, self._rate, _FLOOR)
        np.minimum(np.maximum(scaled, _LOWEST, out=scaled), _HIGHEST, out=scaled)
        observed: npt.NDArray[np.float32] = np.tanh(scaled.astype(np.float32))
        return observed

    def tensor(self, state: MarketState) -> Tensor:
        """Observations of the learners of each market, float64 (E, L, size) on the state's device.

        The same numbers as the arrays before these are rounded to float32; gradients flow to the state.
        """
        constants = (torch.as_tensor(value, device=state.prices.device) for value in (self._rate, _FLOOR))
        return torch.tanh(self._scaled(torch, _itself, state, *constants).clamp(float(_LOWEST), float(_HIGHEST)))

    def _scaled(self, xp: Any, array: Callable[[Tensor], Any], state: MarketState, rate: Any, floor: Any) -> Any:
        """Every ``x / scale``, shape (E, L, size): the one formula, in numpy or in torch.

        Args:
            xp: numpy or torch.
            array: from the state's tensors to arrays of `xp`.
            state: the markets.
            rate: ``1 / scale`` of every entry, an array of `xp`.
            floor: money below which wealth counts as none, an array of `xp`.
        """
        n = state.unit_value.shape[1]
        prices, holdings, cash = array(state.prices)[:, None], array(state.holdings), array(state.cash)[..., None]
        wealth, supply = array(state.wealth)[..., None], array(state.supply)[:, None]
        price_column = prices.swapaxes(1, 2)  # (E, N, 1)
        own_wealth = xp.maximum(wealth[:, :n], floor)
        own_weights = holdings[:, :n] * prices / own_wealth
        twice_short = _of_others(xp, abs(holdings) - holdings, n)
        gross = (
            (supply - array(state.dealer_holdings)[:, None]) - holdings[:, :n] + twice_short
        )  # the others hold in sum what the learner does not hold
        if self.hidden_regime:
            regime: tuple[Any, ...] = ()
        else:
            informative = array(state.regime)[:, None, None]
            regime = (informative + informative - 1.0,)
        parts: tuple[Any, ...] = (
            cash[:, :n] / own_wealth,
            own_weights,
            abs(own_weights).sum(-1)[..., None],
            array(state.log_value)[:, None] - xp.log(prices),
            array(state.news)[:, None],
            array(state.signal)[:, None],
            *regime,
            xp.sqrt(array(state.news_variance))[:, None],
            xp.sqrt(array(state.variance))[:, None],
            array(state.last_return)[:, None],
            twice_short / (supply + supply),
            gross @ price_column / xp.maximum(_of_others(xp, wealth, n), floor),
            _of_others(xp, cash, n) / (supply @ price_column),
            wealth[:, :n] / xp.maximum(wealth.sum(1)[:, None], floor),
            xp.log(array(state.unit_value))[..., None],
        )
        if n != 1:  # what is public is the same for all of them
            parts = tuple(xp.broadcast_to(part, (len(wealth), n, part.shape[-1])) for part in parts)
        return xp.concatenate(parts, -1) * rate


def _of_others(xp: Any, amounts: Any, n_learners: int) -> Any:
    """Sum over all investors but the learner, shape (E, L, k), of amounts (E, B, k)."""
    background = amounts[:, n_learners:].sum(1)[:, None]
    if n_learners == 1:
        return background
    learners = amounts[:, :n_learners]
    others = [xp.concatenate((learners[:, :own], learners[:, own + 1 :]), 1).sum(1) for own in range(n_learners)]
    return background + xp.stack(others, 1)


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def observation_table(n_assets: int) -> str:
    """The observation table in Markdown, for N assets."""
    lines = ["| columns | entry | x is | unit of x | scale | range |", "|---|---|---|---|---|---|"]
    start = 0
    for entry in OBSERVATION_TABLE:
        stop = start + (n_assets if entry.per_asset else 1)
        columns = str(start) if stop == start + 1 else f"{start}–{stop - 1}"
        lines.append(
            f"| {columns} | `{entry.name}` | {entry.meaning} | {entry.unit} | {entry.scale:g} | {entry.span} |"
        )
        start = stop
    return "\n".join(lines)
