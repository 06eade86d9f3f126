"""What happened in the running episodes: the series that a frame draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hmgym.market import MarketState

FloatArray = npt.NDArray[np.float64]


def gross_leverage(state: MarketState) -> tuple[FloatArray, FloatArray]:
    """Gross leverage of the learners and of the crowd: money in risky positions, of either sign, over wealth.

    Returns:
        learners: shape (E, L), multiple of each learner's wealth.
        crowd: shape (E,), of all who are no learners together, multiple of their wealth.
    """
    n = state.unit_value.shape[1]
    prices = state.prices.numpy()[:, None, :]
    positions = state.holdings.numpy() * prices
    wealth = state.cash.numpy() + positions.sum(-1)
    gross = np.abs(positions).sum(-1)
    floor = 1e-9  # money; wealth below it counts as none
    learners = gross[:, :n] / np.maximum(wealth[:, :n], floor)
    crowd = gross[:, n:].sum(-1) / np.maximum(wealth[:, n:].sum(-1), floor)
    return learners, crowd


@dataclass(frozen=True, kw_only=True)
class EpisodeSeries:
    """One market's episode so far, T closes.

    Attributes:
        prices: shape (T, N), currency.
        fundamentals: shape (T, N), currency.
        unit_value: shape (T,), 1 at reset; (T, L) where there are several learners.
        learner_leverage: shape (T,), multiple of wealth; (T, L) where there are several learners.
        crowd_leverage: shape (T,), multiple of wealth.
    """

    prices: FloatArray
    fundamentals: FloatArray
    unit_value: FloatArray
    learner_leverage: FloatArray
    crowd_leverage: FloatArray


_NAMES = ("prices", "fundamentals", "unit_value", "learner_leverage", "crowd_leverage")


class History:
    """Series of the running episode of each of E markets with L learners."""

    def __init__(self, num_markets: int, n_learners: int = 1) -> None:
        self._one_learner = n_learners == 1
        self._closes: list[dict[str, FloatArray]] = []
        self._begin = np.zeros(num_markets, np.int64)

    def restart(self, rows: npt.NDArray[np.int64], state: MarketState) -> None:
        """Begin new series in these markets with the state after their reset."""
        if rows.size == self._begin.size:
            self._closes.clear()
            self.append(state)
        else:
            self._closes[-1] = _snapshot(state)
        self._begin[rows] = len(self._closes) - 1
        needless = int(self._begin.min())  # closes that no running episode shows any more
        del self._closes[:needless]
        self._begin -= needless

    def append(self, state: MarketState) -> None:
        """Add the close of one period."""
        self._closes.append(_snapshot(state))

    def episode(self, market: int) -> EpisodeSeries:
        """Series of one market since its last reset."""
        closes = self._closes[self._begin[market] :]
        series = {name: np.stack([close[name][market] for close in closes]) for name in _NAMES}
        if self._one_learner:
            for name in ("unit_value", "learner_leverage"):
                series[name] = series[name][:, 0]
        return EpisodeSeries(**series)


def _snapshot(state: MarketState) -> dict[str, FloatArray]:
    learners, crowd = gross_leverage(state)
    return {
        "prices": state.prices.numpy().copy(),
        "fundamentals": state.fundamentals.numpy().copy(),
        "unit_value": state.unit_value.numpy().copy(),
        "learner_leverage": learners,
        "crowd_leverage": crowd,
    }
