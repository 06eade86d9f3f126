"""Retail investors: G-learning over assets and fund units together (`hmgym.investors.g_learning`), one period.

With x positions over wealth, funds seen through to the assets that they hold, Σ_ext = CΣC', C = [I; X_f], and a prior
about the habitual portfolio x̄, N(s (x̄ − x), Σₚ), the policy is that of an investor who maximises m'w − w'Gw with

    G = λ Σ_ext + D,      D = Ω + Σₚ⁻¹ / 2β, diagonal,
    m = μ + 2Ωx + Σₚ⁻¹ (x + s (x̄ − x)) / β + √(2/β) (√λ C Σ^½ ε₁ + √D ε₂).

The last term, of variance 2G/β, is the policy's noise. All investors of a market share C, D and Σ, so one spectral
decomposition serves them all: with B = C Σ^½ and B'D⁻¹B = VΛV',

    G⁻¹ = D⁻¹ − D⁻¹BV diag(λ/(1 + λΛ)) V'B'D⁻¹.

Funds come first: the joint optimum, planned at the last close, says what goes into funds and out of them; what is left
of wealth then goes to market, given the funds.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from hmgym.arrays import namespace
from hmgym.market.fundamentals import Fundamentals
from hmgym.market.funds.config import FundsConfig
from hmgym.market.funds.seats import Seats
from hmgym.market.funds.state import FundsState
from hmgym.market.state import MarketState

REWARD = 1e-4
"""of wealth a month, what β is measured against: `rationality` 1 is β = 1/REWARD"""
_LEAST_POSITION = 1e-3  # habitual, of wealth: the spread of a prior cannot be nothing
_LEAST_DIRECT = 1e-3  # of wealth, that risk is measured for


class Outlook(NamedTuple):
    """What retail investors see at the last close, and what they want."""

    positions: Tensor  # (E, R, N + F) held, over wealth
    portfolios: Tensor  # (E, F, N) positions of the funds over their net asset value
    wanted: Tensor  # (E, R, N + F) m


class Plan(NamedTuple):
    """What retail investors put into funds and take out, settled at this month's net asset value."""

    subscriptions: Tensor  # (E, R, F) money
    redemptions: Tensor  # (E, R, F) units
    outlook: Outlook


class Retail:
    """The retail investors of one kind of market.

    Args:
        config: of the market.
        fundamentals: of the market.
        seats: of the market.
        habits: (N + F,) habitual positions over wealth, assets' equal to one another.
    """

    def __init__(self, config: FundsConfig, fundamentals: Fundamentals, seats: Seats, habits: Tensor) -> None:
        self._config, self._seats, self._n = config, seats, config.n_assets
        self._habits, self._covariance = habits, fundamentals.covariance
        xp, beta = namespace(habits), config.rationality / REWARD
        self._root = xp.cholesky(fundamentals.covariance)
        spread = xp.at_least(habits, _LEAST_POSITION)
        n = self._n
        spread = xp.concatenate([config.asset_spread * spread[:n], config.fund_spread * spread[n:]], 0)
        self._pull = 1.0 / (beta * spread * spread)  # Σₚ⁻¹/β
        self._stiffness = config.quadratic_cost + 0.5 * self._pull  # D
        self._loudness = (2.0 / beta) ** 0.5

    def outlook(self, state: MarketState, gap: Tensor) -> Outlook:
        """What they want at the last close, moved by this month's news.

        Args:
            state: the markets.
            gap: (E, N) log value over the last close, both before the news.
        """
        own: FundsState = state.scenario
        xp, seats, config = namespace(gap), self._seats, self._config
        wealth = seats.of_retail(state.wealth)[..., None]
        direct = seats.of_retail(state.holdings) * state.prices[:, None]
        held = xp.concatenate([direct, own.units * own.unit_value[:, None]], -1) / wealth
        values = seats.of_funds(state.wealth)[..., None]
        portfolios = seats.of_funds(state.holdings) * state.prices[:, None] / values

        market = state.supply * state.prices
        habits = xp.broadcast_to(self._habits, (len(gap), self._habits.shape[0]))
        assets = habits[:, : self._n].sum(-1)[:, None] * market / market.sum(-1)[:, None]
        habits = xp.concatenate([assets, habits[:, self._n :]], -1)[:, None]

        returns = config.premium + own.traits.pull * gap[:, None]  # (E, R, N)
        through = returns @ portfolios.swapaxes(-1, -2)  # (E, R, F)
        wanted = xp.concatenate([returns, through + own.record[:, None]], -1)
        wanted = wanted + 2.0 * config.quadratic_cost * held
        wanted = wanted + self._pull * (held + config.habit_speed * (habits - held))
        risky = own.noise[..., : self._n] @ self._root.T
        risky = xp.sqrt(own.traits.risk_aversion)[..., None] * risky
        noise = xp.concatenate([risky, risky @ portfolios.swapaxes(-1, -2)], -1)
        noise = noise + xp.sqrt(self._stiffness) * own.noise[..., self._n :]
        return Outlook(held, portfolios, wanted + self._loudness * noise)

    def plan(self, state: MarketState, gap: Tensor) -> Plan:
        """What goes into funds and out of them; arguments of `outlook`.

        The joint optimum, cut at no fund units at all, at the investor's cash, and at the redemption gate of a fund,
        which narrows with its debt.
        """
        own: FundsState = state.scenario
        xp, seats, outlook = namespace(gap), self._seats, self.outlook(state, gap)
        wealth = seats.of_retail(state.wealth)[..., None]
        target = xp.at_least(self._fund_positions(own, outlook), 0.0)
        change = (target - outlook.positions[..., self._n :]) * wealth
        bought = xp.at_least(change, 0.0)
        sold = xp.minimum(xp.at_least(-change, 0.0) / own.unit_value[:, None], xp.at_least(own.units, 0.0))
        cash, asked = xp.at_least(seats.of_retail(state.cash), 0.0), bought.sum(-1)
        bought = bought * _share(xp, cash, asked)[..., None]
        debt = xp.at_least(-seats.of_funds(state.cash), 0.0) / seats.of_funds(state.wealth)
        open_part = xp.at_least(1.0 - debt / self._config.overdraft_limit, 0.0)
        gate, asked = self._config.redemption_gate * open_part * own.units.sum(1), sold.sum(1)
        sold = sold * _share(xp, gate, asked)[:, None]
        return Plan(bought, sold, outlook)

    def demand(self, state: MarketState, plan: Plan) -> tuple[Tensor, Tensor, Tensor]:
        """What goes to market, given the funds: expected returns (E, R, N), risk (E, R, N, N) and wealth (E, R)."""
        own: FundsState = state.scenario
        xp, n = namespace(plan.redemptions), self._n
        wealth = self._seats.of_retail(state.wealth)
        in_funds = (own.units - plan.redemptions) * own.unit_value[:, None] + plan.subscriptions
        direct = wealth - in_funds.sum(-1)
        share = xp.at_least(direct / wealth, _LEAST_DIRECT)[..., None, None]
        aversion = own.traits.risk_aversion[..., None, None]
        diagonal = xp.identity_like(self._covariance) * self._stiffness[:n]
        risk = share * (aversion * self._covariance + diagonal)
        through = (in_funds / wealth[..., None]) @ plan.outlook.portfolios  # (E, R, N) assets held by way of funds
        returns = plan.outlook.wanted[..., :n] - 2.0 * aversion[..., 0] * (through @ self._covariance)
        return returns, risk, direct

    def _fund_positions(self, own: FundsState, outlook: Outlook) -> Tensor:
        """The funds' part (E, R, F) of G⁻¹m/2."""
        xp, n = namespace(outlook.wanted), self._n
        root = xp.broadcast_to(self._root, (len(outlook.portfolios), n, n))
        loadings = xp.concatenate([root, outlook.portfolios @ root], -2)  # B
        eased = loadings / self._stiffness[:, None]  # D⁻¹B
        values, vectors = xp.eigh(loadings.swapaxes(-1, -2) @ eased)
        modes = eased @ vectors  # (E, N + F, N)
        aversion = own.traits.risk_aversion[..., None]
        damped = (outlook.wanted @ modes) * (aversion / (1.0 + aversion * values[:, None]))
        funds = outlook.wanted[..., n:] / self._stiffness[n:] - damped @ modes[:, n:].swapaxes(-1, -2)
        positions: Tensor = 0.5 * funds
        return positions


def _share(xp: Any, limit: Tensor, asked: Tensor) -> Tensor:
    """What part of all that is asked for can be had."""
    enough = asked <= limit
    share: Tensor = xp.where(enough, 1.0, limit / xp.where(enough, 1.0, asked))
    return share
