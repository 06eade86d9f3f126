"""The market: a pure function from state, action and shocks to the next state and what the period brought."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hmgym.clearing import ClearingError, ClearingSolution, Problem, clear
from hmgym.investors import Population
from hmgym.investors.fundamentalist import next_error
from hmgym.investors.population import TRAIT_DRAWS
from hmgym.investors.sentiment import next_sentiment
from hmgym.investors.trend_follower import next_trend
from hmgym.market.config import MarketConfig
from hmgym.market.fundamentals import Fundamentals
from hmgym.market.inference import NewsPosterior
from hmgym.market.initial import initial_state
from hmgym.market.replacement import replace_ruined
from hmgym.market.settlement import Settlement, settle
from hmgym.market.shocks import (
    InitialShocks,
    Shocks,
    as_generators,
    draw,
    initial_layout,
    period_layout,
)
from hmgym.market.state import Action, MarketState, Outcome


class _Demand(NamedTuple):
    """What the investors bring to the clearing."""

    log_price: Tensor  # (E, N) last close
    beliefs: Tensor  # (E, B, N)
    risk: Tensor  # (E, B, N, N)
    short_leverage: Tensor  # (E, B)
    long_leverage: Tensor  # (E, B)


class Market:
    """E markets of one configuration side by side.

    Nothing is kept between calls: the same state, action and shocks give the same result, and gradients flow from every
    float input to every float output when an input requires them.

    Args:
        config: what the markets are made of.
        device: where tensors live; shocks are drawn with numpy and moved there.
    """

    def __init__(self, config: MarketConfig | None = None, *, device: str | torch.device = "cpu") -> None:
        self.config = config = MarketConfig() if config is None else config
        self.device = torch.device(device)
        self.fundamentals = Fundamentals(config, self.device)
        self.news_posterior = NewsPosterior(config, self.fundamentals)
        self.population = Population(
            config.population,
            n_investors=config.n_investors,
            n_learners=config.n_learners,
            learner_share=config.learner_share,
            covariance=self.fundamentals.covariance,
            device=self.device,
        )
        self._period_layout = period_layout(config.n_investors, config.n_assets)
        self._initial_layout = initial_layout(config.n_investors, config.n_assets)
        self._least_long = 1.0 / (config.n_assets + 1)
        self._variance_decay = 1.0 / config.volatility_memory_months

    # Shocks

    def draw_initial_shocks(
        self, generators: np.random.Generator | Sequence[np.random.Generator], n_markets: int | None = None
    ) -> InitialShocks:
        """What E markets start from; one generator a market, or a single one spawned into `n_markets`."""
        listed = as_generators(generators, n_markets)
        drawn = draw(listed, self._initial_layout, 1, self.device)
        return InitialShocks(**{name: tensor[0] for name, tensor in drawn.items()})

    def draw_shocks(
        self,
        generators: np.random.Generator | Sequence[np.random.Generator],
        n_markets: int | None = None,
        *,
        periods: int | None = None,
    ) -> Shocks:
        """One period's shocks, or those of k `periods` with a leading dimension k: the same numbers as k calls."""
        listed = as_generators(generators, n_markets)
        if periods is None:
            drawn = draw(listed, self._period_layout, 1, self.device)
            return Shocks(**{name: tensor[0] for name, tensor in drawn.items()})
        if periods < 1:
            raise ValueError(f"`periods` must be >= 1, got {periods}")
        return Shocks(**draw(listed, self._period_layout, periods, self.device))

    # State

    def initial(self, shocks: InitialShocks) -> MarketState:
        """E markets at the start: everybody holds the same portfolio, in proportion to its target wealth."""
        return initial_state(self.config, self.population, self.fundamentals, shocks)

    def beliefs(self, state: MarketState) -> Tensor:
        """Expected log price next month of every investor, (E, B, N), a learner's when no action says otherwise."""
        return self._beliefs(state, torch.log(state.prices))

    def own_action(self, state: MarketState) -> Action:
        """The learners' own limits and beliefs, the action that changes nothing."""
        n = self.config.n_learners
        traits = state.traits
        return Action(
            short_leverage=traits.short_leverage[:, :n],
            long_leverage=traits.long_leverage[:, :n],
            beliefs=self.beliefs(state)[:, :n],
            risk_scale=torch.ones_like(traits.short_leverage[:, :n]),
        )

    def seated(self, state: MarketState) -> MarketState:
        """The state as it will be when newcomers have taken the seats of the ruined, but for the traits they will draw.

        Learners' traits are not drawn, so a learner that takes a seat can know all that it may know before it acts.
        """
        not_drawn = state.cash.new_zeros(*state.cash.shape, TRAIT_DRAWS)
        return replace_ruined(self.population, state, not_drawn)[0]

    def imagine(self, state: MarketState, uniforms: Tensor) -> MarketState:
        """The state with `next_news`, `block_row` and `block_left` drawn from what signal and regime tell of them.

        The state's own are not read: two states that differ in these alone give the same.

        Args:
            state: the markets.
            uniforms: shape (E, `news_posterior.draws`), float64, each in [0, 1).

        Raises:
            ValueError: `uniforms` are others.
        """
        news, row, left = self.news_posterior.draw(state.signal, state.regime, uniforms)
        return replace(state, next_news=news, block_row=row, block_left=left)

    # One period

    def transition(
        self, state: MarketState, action: Action | None, shocks: Shocks, *, errors: str = "raise"
    ) -> tuple[MarketState, Outcome]:
        """One month: beliefs and action, clearing, settlement, next month's news.

        Args:
            state: the markets.
            action: what the learners set; None leaves them as they are.
            shocks: of this period, from `draw_shocks`.
            errors: "raise" when a market does not clear, or "mark": its row is NaN and `outcome.converged` is False.

        Raises:
            ValueError: an action of the wrong shape, NaN, or limits that leave no portfolio.
            ClearingError: a market did not clear (a ValueError; names the markets).
        """
        if errors not in ("raise", "mark"):
            raise ValueError(f'`errors` must be "raise" or "mark", got {errors!r}')
        self._check_sizes(state, shocks)
        state, estate = replace_ruined(self.population, state, shocks.newcomers)
        demand = self._demand(state, action)
        solution = self._clear(state, demand)
        if errors == "raise" and not bool(solution.converged.all()):
            failed = torch.nonzero(~solution.converged).flatten().tolist()
            reasons = {market: f"residual {float(solution.residual[market]):.1e}" for market in failed}
            raise ClearingError(reasons, solution, len(solution.converged))
        return self._close(state, demand, solution, shocks, estate)

    def log_prices(self, state: MarketState, action: Action | None, shocks: Shocks) -> Tensor:
        """Log prices (E, N) at which a transition with these arguments clears; NaN where a market does not.

        Of the shocks only the traits of newcomers count, and these only where somebody is ruined.
        """
        self._check_sizes(state, shocks)
        state, _ = replace_ruined(self.population, state, shocks.newcomers)
        return torch.log(self._clear(state, self._demand(state, action)).prices)

    def terminal_mark_gain(self, state: MarketState, action: Action | None, shocks: Shocks) -> Tensor:
        """What each learner's mark gains from its own trade of this period, (E, L), in log unit value.

        log W(p) − log W(p°): W(p) is the learner's wealth at the close, its positions marked at the clearing price p,
        and p° the price at which the market clears when that learner keeps its shares (posted as a money order, which
        always clears where a fixed number of shares need not: the others may be short). Once this is taken off its
        last reward, a policy that trades only to move its own mark gains nothing.
        """
        self._check_sizes(state, shocks)
        state, estate = replace_ruined(self.population, state, shocks.newcomers)
        demand = self._demand(state, action)
        solution = self._clear(state, demand)
        settled = self._settle(state, solution, estate)
        gains = []
        for learner in range(self.config.n_learners):
            absent = state.wealth.clone()
            absent[:, learner] = 0.0  # without wealth it posts no demand but the order
            others, shares, fair_prices = replace(state, wealth=absent), state.holdings[:, learner], state.prices
            for _ in range(2):  # money that buys its old shares at the last close, then at the price that gave
                fair_prices = self._clear(others, demand, orders=shares * fair_prices).prices
            moved = solution.prices - fair_prices
            unit = settled.unit_value[:, learner]
            excess = (solution.holdings[:, learner] * moved).sum(-1) * state.unit_value[:, learner]
            fair = (unit - excess / state.wealth[:, learner]).clamp(min=self.config.ruin_fraction)  # NaN stays NaN
            gains.append(torch.log(unit / fair))
        return torch.stack(gains, -1)

    def _demand(self, state: MarketState, action: Action | None) -> _Demand:
        log_price = torch.log(state.prices)
        traits, n = state.traits, self.config.n_learners
        beliefs = self._beliefs(state, log_price)
        short, long, risk = traits.short_leverage, traits.long_leverage, traits.risk
        if action is not None:
            shape = (beliefs.shape[0], n)
            if action.short_leverage is not None:
                short = torch.cat([self._checked("short_leverage", action.short_leverage, shape, 0.0), short[:, n:]], 1)
            if action.long_leverage is not None:
                given = self._checked("long_leverage", action.long_leverage, shape, self._least_long)
                long = torch.cat([given, long[:, n:]], 1)
            if action.beliefs is not None:
                given = self._checked("beliefs", action.beliefs, (*shape, self.config.n_assets), -1e3)
                beliefs = torch.cat([given, beliefs[:, n:]], 1)
            if action.risk_scale is not None:
                given = self._checked("risk_scale", action.risk_scale, shape, 1e-6)
                risk = torch.cat([risk[:, :n] * given[..., None, None], risk[:, n:]], 1)
        return _Demand(log_price, beliefs, risk, short, long)

    def _clear(self, state: MarketState, demand: _Demand, orders: Tensor | None = None) -> ClearingSolution:
        cost = self.config.trading_cost
        problem = Problem.of(
            demand.beliefs,
            demand.risk,
            state.wealth,
            demand.short_leverage,
            demand.long_leverage,
            state.supply,
            orders=orders,
            last_prices=state.prices,
            positions=state.holdings if cost else None,
            trading_cost=torch.full_like(state.holdings, cost) if cost else None,
            # A place to start from, no more: with this month's news in, a fifth of the search is saved.
            start=torch.exp(demand.log_price + state.news),
        )
        return clear(problem, smoothing=self.config.smoothing)

    def _settle(self, state: MarketState, solution: ClearingSolution, estate: Tensor | None) -> Settlement:
        return settle(
            self.config,
            prices=solution.prices,
            holdings=solution.holdings,
            old_holdings=state.holdings,
            cash=state.cash,
            wealth=state.wealth,
            unit_value=state.unit_value,
            target_share=state.target_share,
            balances=state.balances,
            value=torch.exp(state.log_value),
            supply=state.supply,
            estate=estate,
        )

    def _close(
        self, state: MarketState, demand: _Demand, solution: ClearingSolution, shocks: Shocks, estate: Tensor | None
    ) -> tuple[MarketState, Outcome]:
        population = self.population
        settled = self._settle(state, solution, estate)
        prices = solution.prices
        log_return = torch.log(prices) - demand.log_price
        row, left = self.fundamentals.advance(state.block_row, state.block_left, shocks.block)
        next_news = self.fundamentals.news(row, shocks.news)
        regime = self.fundamentals.next_regime(state.regime, shocks.regime)
        beliefs = self.config.population
        new = MarketState(
            month=state.month + 1,
            prices=prices,
            cash=settled.cash,
            holdings=solution.holdings,
            wealth=settled.wealth,
            unit_value=settled.unit_value,
            ruined=settled.ruined,
            balances=settled.balances,
            supply=state.supply,
            log_value=state.log_value + state.next_news,
            news=state.next_news,
            signal=self.fundamentals.signal(regime, next_news, shocks.signal),
            regime=regime,
            last_return=log_return,
            variance=state.variance + self._variance_decay * (log_return * log_return - state.variance),
            trend=next_trend(state.trend, population.trend_decay, log_return.unsqueeze(1)),
            error=next_error(state.error, beliefs.error_persistence, population.error_innovation, shocks.error),
            sentiment=next_sentiment(
                state.sentiment, beliefs.sentiment_persistence, population.sentiment_innovation, shocks.sentiment
            ),
            target_share=state.target_share,
            traits=state.traits,
            next_news=next_news,
            block_row=row,
            block_left=left,
        )
        outcome = Outcome(
            settled.reward,
            settled.unit_value,
            settled.wealth,
            settled.ruined,
            demand.short_leverage,
            demand.long_leverage,
            solution,
        )
        return new, outcome

    def _beliefs(self, state: MarketState, log_price: Tensor) -> Tensor:
        return self.population.beliefs(
            state.traits,
            log_price=log_price,
            log_value=state.log_value,
            news=state.news,
            signal=state.signal,
            error=state.error,
            trend=state.trend,
            sentiment=state.sentiment,
        )

    def _check_sizes(self, state: MarketState, shocks: Shocks) -> None:
        if not isinstance(state, MarketState) or not isinstance(shocks, Shocks):
            raise ValueError(
                f"`state` and `shocks` must be a MarketState and Shocks, got {type(state).__name__} and "
                f"{type(shocks).__name__}"
            )
        sizes = (state.prices.shape[0], self.config.n_investors, self.config.n_assets)
        for name, found in (("state", state.holdings.shape), ("shocks", shocks.error.shape)):
            if tuple(found) != sizes:
                raise ValueError(f"`{name}` must be of (markets, investors, assets) = {sizes}, got {tuple(found)}")

    def _checked(self, name: str, given: Tensor, shape: tuple[int, ...], low: float) -> Tensor:
        try:
            tensor = torch.as_tensor(given, dtype=torch.float64, device=self.device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"`{name}` must be a tensor of shape {shape}, got {given!r}") from error
        if tensor.shape != shape:
            raise ValueError(f"`{name}` must have shape {shape}, got {tuple(tensor.shape)}")
        if tensor.numel() == 0:
            return tensor
        least, most = (float(bound) for bound in torch.aminmax(tensor.detach()))
        if not low <= least or not most < 1e3:  # also true of NaN
            bound = f"1/(N+1) = {low:g}" if name == "long_leverage" else f"{low:g}"
            got = f"{least:g}" if least == most else f"values from {least:g} to {most:g}"
            raise ValueError(f"`{name}` must be >= {bound} and < 1000, got {got}")
        return tensor
