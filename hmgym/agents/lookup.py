"""A probe for a leak: does this month's news name its row of the history, and so the next one?

The look-up policy finds the row of the history's standardised residuals that is nearest to this month's news, and acts
on the row after it as if that were next month's. Where months are drawn independently the row after it is any row: the
policy is then a gambler, and earns what it earns with the rows after in any other order (`HistoryLookup.permuted`).
Compare with several of those, not with a policy that does not gamble: it trades in other ways as well.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import numpy.typing as npt

from hmgym.arrays import to_numpy
from hmgym.envs import ActionMap, make_markets
from hmgym.envs.actions import BELIEF_RANGE
from hmgym.envs.markets import MarketVectorEnv
from hmgym.market import MarketState


class HistoryLookup:
    """Expects of next month the row of the history that followed the one nearest to this month.

    Expected log return of an asset is pull × log(value / last price) + growth + weight × √h × the row after; leverage,
    where the action sets it, is the largest where the mean of the rows after is positive and the smallest where not.

    Of the state it reads what an observer knows: value, price, news and their variance. Its own memory is the variance
    of a month ago, which standardises this month's news; in the first month it takes the history's.

    Args:
        env_id: a registered id of the market.
        pull: weight of undervaluation.
        weight: of the row after.
        env_kwargs: arguments of the environment; the rows are those of the history in use.

    Raises:
        ValueError: the environment is no market.
    """

    def __init__(self, env_id: str, *, pull: float = 0.3, weight: float = 1.0, **env_kwargs: Any) -> None:
        markets = make_markets(env_id, 1, **env_kwargs)
        if not isinstance(markets, MarketVectorEnv) or not isinstance(markets.action_map, ActionMap):
            raise ValueError(f"`env_id` must be a market's, got {env_id!r}")
        self._map, self._config = markets.action_map, markets.config
        markets.close()
        self._pull, self._weight = pull, weight
        volatility = self._config.volatility
        self._rows, self._variance = volatility.residuals, volatility.variance
        # The last row has none after it; the first comes round.
        self._after = np.roll(np.arange(len(self._rows)), -1)
        self._last: tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]] | None = None

    def permuted(self, seed: int) -> HistoryLookup:
        """The same with the rows after in another order: what looking up earns where it tells nothing."""
        other = copy.copy(self)
        other._after, other._last = np.random.default_rng(seed).permutation(len(self._rows)), None
        return other

    def expected(self, state: MarketState) -> npt.NDArray[np.float64]:
        """The row after (E, N), in standard deviations."""
        news, month = to_numpy(state.news), to_numpy(state.month)
        variance = np.broadcast_to(self._variance, news.shape)
        if self._last is not None and self._last[0].shape == month.shape:
            goes_on = (month == self._last[0] + 1)[:, None]
            variance = np.where(goes_on, self._last[1], variance)
        self._last = month.copy(), to_numpy(state.news_variance).copy()
        seen = (news - self._config.growth) / np.sqrt(variance)
        # |u − row|², the same for all rows but for these terms
        distance = (self._rows**2).sum(-1) - 2.0 * seen @ self._rows.T
        after: npt.NDArray[np.float64] = self._rows[self._after[distance.argmin(-1)]]
        return after

    def act(self, state: MarketState) -> npt.NDArray[np.float32]:
        """Actions (E, size) for E markets of one learner."""
        after = self.expected(state)
        action = np.where(after.mean(-1, keepdims=True) > 0.0, 1.0, -1.0).repeat(self._map.size, -1)
        if self._map.beliefs:
            undervaluation = to_numpy(state.log_value) - np.log(to_numpy(state.prices))
            news = self._config.growth + self._weight * np.sqrt(to_numpy(state.news_variance)) * after
            start = self._map.size - self._config.n_assets - self._map.confidence
            beliefs = slice(start, start + self._config.n_assets)
            action[:, beliefs] = (self._pull * undervaluation + news) / BELIEF_RANGE
            action[:, beliefs.stop :] = 0.0  # risk as it is
        return np.clip(action, -1.0, 1.0).astype(np.float32)
