"""What fund managers believe and how much risk they take: active funds, and momentum funds.

    expected log price = log p + premium + news + pull (log v − news − log p) + forecast

An active manager's forecast weighs its private signals as its style does. A momentum fund's is its gain times the
average of past returns. Everybody has seen this month's news.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hmgym.arrays import namespace, placed
from hmgym.investors.signals import SIGNALS, default_signals
from hmgym.investors.styles import (
    TRUE_WEIGHTS,
    esg_screen,
    expected_returns,
    private_signals,
    style_multipliers,
)
from hmgym.market.fundamentals import Fundamentals
from hmgym.market.funds.config import FundsConfig
from hmgym.market.funds.seats import Seats
from hmgym.market.funds.state import FundsState, FundsTraits
from hmgym.market.state import MarketState

_BARRED = -10.0  # expected log return of what may not be held
_ESG = SIGNALS.index("esg")
_WEIGHTS, _TRUST = (0.8, 1.2), (0.7, 0.9)  # ranges of what managers believe of the truth


class Managers:
    """Managers of the funds whose portfolios are solved, learners first.

    Args:
        config: of the market.
        fundamentals: of the market.
        seats: of the market.
    """

    def __init__(self, config: FundsConfig, fundamentals: Fundamentals, seats: Seats) -> None:
        self._config, self._seats, device = config, seats, fundamentals.device

        def constant(values: object) -> Tensor:
            return placed(torch.as_tensor(values, dtype=torch.float64), device)  # type: ignore[no-any-return]

        styles = ["blend"] * seats.learners + [config.styles[i % len(config.styles)] for i in range(config.n_active)]
        self.styles = tuple(styles)
        self._truth = constant(TRUE_WEIGHTS)
        self._multipliers = constant(style_multipliers(styles))
        self._screened = [i for i, style in enumerate(styles) if style == "esg"]
        # The signals are scaled so that they explain `signals_r2` of every asset's news.
        factor = torch.from_numpy(default_signals().stationary)
        deviation = float(torch.linalg.vector_norm(factor.T @ torch.tensor(TRUE_WEIGHTS, dtype=torch.float64)))
        self._scale = fundamentals.deviation * (config.signals_r2 / (1.0 - config.signals_r2)) ** 0.5 / deviation
        risk = 0.5 * config.manager_risk_aversion * fundamentals.covariance
        identity = constant(torch.eye(config.n_assets))
        self.risk = risk + config.quadratic_cost * identity
        """(N, N) of every manager, the dislike of trades included"""

    @property
    def draws(self) -> int:
        """Uniforms that a manager's traits take."""
        return len(SIGNALS) + 2

    def traits(self, uniforms: Tensor) -> tuple[Tensor, Tensor]:
        """Weights of signals (E, M, K) and trust in private ones (E, M, 1, 2) from uniforms (E, M, `draws`)."""
        xp, learners = namespace(uniforms), self._seats.learners
        spread = _WEIGHTS[0] + (_WEIGHTS[1] - _WEIGHTS[0]) * uniforms[..., : len(SIGNALS)]
        trust = _TRUST[0] + (_TRUST[1] - _TRUST[0]) * uniforms[..., len(SIGNALS) :]
        if learners:  # they know the truth of both
            spread = xp.concatenate([xp.ones_like(spread[:, :learners]), spread[:, learners:]], 1)
            trust = xp.concatenate([xp.full_like(trust[:, :learners], sum(_TRUST) / 2.0), trust[:, learners:]], 1)
        return self._multipliers * self._truth * spread, trust[:, :, None]

    def drift(self, signals: Tensor) -> Tensor:
        """What the true signals (E, N, K) add to next month's news (E, N)."""
        moved: Tensor = self._scale * expected_returns(self._truth, signals)
        return moved

    def forecasts(self, own: FundsState) -> Tensor:
        """What each active manager expects the signals to add (E, M, N)."""
        traits: FundsTraits = own.traits
        seen = private_signals(own.signals[:, None], own.errors, traits.signal_share)
        expected: Tensor = self._scale * expected_returns(traits.signal_weights[:, :, None], seen)
        return expected

    def returns(self, state: MarketState, gap: Tensor) -> Tensor:
        """Expected log returns over interest (E, M + momentum, N), beyond this month's news.

        Args:
            state: the markets.
            gap: (E, N) log value over the last close, both before the news.
        """
        xp, own, seats = namespace(gap), state.scenario, self._seats
        common = (self._config.premium + self._config.manager_pull * gap)[:, None]
        parts = []
        if seats.managed:
            expected = common + self.forecasts(own)
            if self._screened:
                barred = xp.floats(~esg_screen(own.signals[..., _ESG], self._config.esg_exclusions))[:, None]
                screened = [_BARRED * barred if i in self._screened else 0.0 * barred for i in range(seats.managed)]
                expected = expected + xp.concatenate(screened, 1)
            parts.append(expected)
        if seats.momentum:
            trend = common + (self._config.momentum_gain * own.trend)[:, None]
            parts.append(xp.broadcast_to(trend, (len(trend), seats.momentum, trend.shape[-1])))
        joined: Tensor = parts[0] if len(parts) == 1 else xp.concatenate(parts, 1)
        return joined

    def demand(self, returns: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Expected returns (E, S, N) that allow for the dislike of trades, and risk (E, S, N, N).

        Args:
            returns: of `returns`.
            positions: (E, S, N) held, as fractions of the wealth to be invested.
        """
        tilted = returns + 2.0 * self._config.quadratic_cost * positions
        shape = (*returns.shape, returns.shape[-1])
        return tilted, namespace(returns).broadcast_to(self.risk, shape)
