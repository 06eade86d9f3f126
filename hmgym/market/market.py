"""The market: a pure function from state, action and shocks to the next state and what the period brought."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hmgym.arrays import namespace, placed, to_numpy
from hmgym.checks import integer, shown
from hmgym.clearing import ClearingError
from hmgym.market.config import MarketConfig
from hmgym.market.demand import Demand, Trade
from hmgym.market.fundamentals import Fundamentals
from hmgym.market.inference import NewsPosterior
from hmgym.market.limits import Limits
from hmgym.market.mechanisms import DEALER, Clearing, PriceMechanism
from hmgym.market.registry import MECHANISMS, SCENARIOS, numpy_ready, registered
from hmgym.market.scenario import Scenario
from hmgym.market.shocks import InitialShocks, Shocks, as_generators, draw
from hmgym.market.state import Action, MarketState, Outcome

_LARGEST_GAP = 1e-6  # of the supply, between what all hold and what there is


class Market:
    """E markets of one configuration side by side.

    Nothing is kept between calls: the same state, action and shocks give the same result, and gradients flow from every
    float input to every float output when an input requires them.

    Args:
        config: what the markets are made of.
        device: where tensors live; shocks are drawn with numpy and moved there.
        arrays: "torch", or "numpy": states, shocks and outcomes are then numpy arrays on the CPU, without gradients,
            the same to rounding, and a small market takes half the time. Not every part of a market may be
            `numpy_ready`.

    Raises:
        ValueError: an argument is none of these, or a part of the market takes tensors only.
    """

    def __init__(
        self, config: MarketConfig | None = None, *, device: str | torch.device = "cpu", arrays: str = "torch"
    ) -> None:
        self.config = config = MarketConfig() if config is None else config
        if not isinstance(config, MarketConfig):
            raise ValueError(f"`config` must be a MarketConfig or None, got {config!r}")
        if arrays not in ("torch", "numpy"):
            raise ValueError(f'`arrays` must be "torch" or "numpy", got {arrays!r}')
        if arrays == "numpy" and not numpy_ready(config):
            raise ValueError('`arrays` must be "torch": a part of this market takes tensors only, got "numpy"')
        self.arrays = arrays
        self.device = torch.device(device)
        if arrays == "numpy" and self.device.type != "cpu":
            raise ValueError(f'`device` must be "cpu" with `arrays="numpy"`, got {str(device)!r}')
        self._placement = None if arrays == "numpy" else self.device
        self.fundamentals = Fundamentals(config, self._placement)
        self.limits = Limits(config, self._placement)
        self.mechanism: PriceMechanism = registered("price_mechanism", config.price_mechanism, MECHANISMS)(config)
        self.scenario: Scenario = registered("scenario", config.scenario, SCENARIOS)(config, self.fundamentals)
        self._initial_layout, self._period_layout = self.scenario.layouts
        self._shock_shapes: dict[int, dict[str, tuple[int, ...]]] = {}  # by the last number of markets
        self._least_long = 1.0 / (config.n_assets + 1)
        self._variance_decay = 1.0 / config.volatility_memory_months

    @cached_property
    def news_posterior(self) -> NewsPosterior:
        """What can be known of next month's news; in tensors."""
        return NewsPosterior(self.config, Fundamentals(self.config, self.device))

    def place(self, tensor: Tensor) -> Any:
        """The tensor as this market's states and shocks are: on its device, or an array."""
        return placed(tensor, self._placement)

    @property
    def marks_by_clearing(self) -> bool:
        """Whether there is a `terminal_mark_gain`: it is what a clearing without the learner's trade would mark."""
        return isinstance(self.mechanism, Clearing)

    # Shocks

    def draw_initial_shocks(
        self, generators: np.random.Generator | Sequence[np.random.Generator], n_markets: int | None = None
    ) -> InitialShocks:
        """What E markets start from; one generator a market, or a single one spawned into `n_markets`."""
        listed = as_generators(generators, n_markets)
        drawn = draw(listed, self._initial_layout, 1, self._placement)
        return InitialShocks({name: tensor[0] for name, tensor in drawn.items()})

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
            drawn = draw(listed, self._period_layout, 1, self._placement)
            return Shocks({name: tensor[0] for name, tensor in drawn.items()})
        return Shocks(draw(listed, self._period_layout, integer("periods", periods, 1), self._placement))

    # State

    def initial(self, shocks: InitialShocks) -> MarketState:
        """E markets at the start."""
        if not isinstance(shocks, InitialShocks):
            raise ValueError(f"`shocks` must be InitialShocks, got {type(shocks).__name__}")
        self._check_kind("shocks", shocks.news)
        state = self.scenario.initial(shocks)
        extra = {name: namespace(state.prices).zeros_like(state.prices[:, 0]) for name in self.mechanism.accounts}
        state = replace(state, accounts={**state.accounts, **extra}) if extra else state
        begin, stock = (getattr(self.mechanism, name, None) for name in ("begin", "stock"))
        if begin is None:
            return state
        remembered = begin(state)
        if stock is not None:
            money, shares = stock(remembered)
            accounts = {**state.accounts, DEALER: state.accounts[DEALER] + money}
            state = replace(
                state, accounts=accounts, supply=state.supply + shares, dealer_holdings=state.dealer_holdings + shares
            )
        return replace(state, mechanism=remembered)

    def beliefs(self, state: MarketState) -> Tensor:
        """Expected log price next month (E, O, N) of all whose portfolios are solved, as no action says otherwise."""
        self._check_state(state)
        return self.scenario.demand(state, None).beliefs

    def own_action(self, state: MarketState) -> Action:
        """The learners' own limits and beliefs, the action that changes nothing."""
        self._check_state(state)
        n, own = self.config.n_learners, self.scenario.demand(state, None)
        return Action(
            short_leverage=own.short_leverage[:, :n],
            long_leverage=own.long_leverage[:, :n],
            beliefs=own.beliefs[:, :n],
            risk_scale=namespace(state.unit_value).ones_like(state.unit_value),
        )

    def seated(self, state: MarketState) -> MarketState:
        """The state as it will be when newcomers have taken the seats of the ruined, but for the traits they will draw.

        Learners' traits are not drawn, so a learner that takes a seat can know all that it may know before it acts.
        """
        self._check_state(state)
        return self.scenario.open(state, None)[0]

    def imagine(self, state: MarketState, uniforms: Tensor) -> MarketState:
        """The state with `next_news` drawn from what signal, regime and variance tell of it.

        The state's own is not read: two states that differ in it alone give the same.

        Args:
            state: the markets.
            uniforms: shape (E, `news_posterior.draws`), float64, each in [0, 1).

        Raises:
            ValueError: `uniforms` are others.
        """
        self._check_state(state)
        if self.arrays == "numpy":
            raise ValueError('`arrays` must be "torch" to imagine months, got "numpy"')
        news = self.news_posterior.draw(state.signal, state.regime, state.news_variance, uniforms)
        return replace(state, next_news=news)

    # One period

    def memory(self) -> Any:
        """An empty memory for `transition`, or None where the price mechanism has none.

        A cache of whoever runs the same markets month after month: results depend on it in rounding only. It has a
        method `forget(rows)` for markets that begin anew.
        """
        make = getattr(self.mechanism, "memory", None)
        return None if make is None else make()

    @np.errstate(divide="ignore", invalid="ignore", over="ignore")  # a market that does not clear is NaN, and marked
    def transition(
        self, state: MarketState, action: Action | None, shocks: Shocks, *, errors: str = "raise", memory: Any = None
    ) -> tuple[MarketState, Outcome]:
        """One month: beliefs and action, clearing, settlement, next month's news.

        Args:
            state: the markets.
            action: what the learners set; None leaves them as they are.
            shocks: of this period, from `draw_shocks`.
            errors: "raise" when a market does not clear, or "mark": its row is NaN and `outcome.converged` is False.
            memory: of these markets, from `memory()`; saves time, and is changed.

        Raises:
            ValueError: an action of the wrong shape, NaN, or limits that leave no portfolio.
            ClearingError: a market did not clear (a ValueError; names the markets).
        """
        if errors not in ("raise", "mark"):
            raise ValueError(f'`errors` must be "raise" or "mark", got {errors!r}')
        self._check_sizes(state, shocks)
        state, promised = self.scenario.open(state, shocks)
        demand = self._demand(state, promised, action)
        remembered = () if memory is None else (memory,)
        trade = self.mechanism(state, demand, shocks, *remembered)
        if errors == "raise" and not bool(trade.converged.all()):
            failed = np.flatnonzero(~to_numpy(trade.converged)).tolist()
            reasons = {market: f"residual {float(trade.residual[market]):.1e}" for market in failed}
            raise ClearingError(reasons, trade.solution, len(trade.converged))
        return self._close(state, promised, demand, trade, shocks)

    def log_prices(self, state: MarketState, action: Action | None, shocks: Shocks) -> Tensor:
        """Log prices (E, N) at which a transition with these arguments clears; NaN where a market does not.

        Of the shocks only the traits of newcomers count, and these only where somebody is ruined.
        """
        self._check_sizes(state, shocks)
        state, promised = self.scenario.open(state, shocks)
        prices = self.mechanism(state, self._demand(state, promised, action), shocks).prices
        log_prices: Tensor = namespace(prices).log(prices)
        return log_prices

    def terminal_mark_gain(self, state: MarketState, action: Action | None, shocks: Shocks) -> Tensor:
        """What each learner's mark gains from its own trade of this period, (E, L), in log unit value.

        log W(p) − log W(p°): W(p) is the learner's wealth at the close, its positions marked at the clearing price p,
        and p° the price at which the market clears when that learner keeps its shares (posted as a money order, which
        always clears where a fixed number of shares need not: the others may be short). Once this is taken off its
        last reward, a policy that trades only to move its own mark gains nothing.

        Raises:
            ValueError: the price does not come from a clearing (`marks_by_clearing`).
        """
        self._check_sizes(state, shocks)
        if not self.marks_by_clearing:
            raise ValueError(
                f'`price_mechanism` must be "clearing" for a terminal mark gain, got {self.config.price_mechanism!r}'
            )
        state, promised = self.scenario.open(state, shocks)
        demand = self._demand(state, promised, action)
        trade = self.mechanism(state, demand, shocks)
        settled = self.scenario.settle(state, promised, trade)
        xp, gains = namespace(state.prices), []
        for learner in range(self.config.n_learners):
            absent = xp.copy(demand.wealth)
            absent[:, learner] = 0.0  # without wealth it posts no demand but the order
            shares, fair_prices = state.holdings[:, learner], state.prices
            for _ in range(2):  # money that buys its old shares at the last close, then at the price that gave
                order = shares * fair_prices
                others = demand._replace(
                    wealth=absent, orders=order if demand.orders is None else demand.orders + order
                )
                fair_prices = self.mechanism(state, others, shocks).prices
            moved = trade.prices - fair_prices
            unit = settled.unit_value[:, learner]
            excess = (trade.holdings[:, learner] * moved).sum(-1) * state.unit_value[:, learner]
            fair = xp.at_least(unit - excess / state.wealth[:, learner], self.config.ruin_fraction)  # NaN stays NaN
            gains.append(xp.log(unit / fair))
        gain: Tensor = xp.stack(gains, -1)
        return gain

    def _demand(self, state: MarketState, promised: Any, action: Action | None) -> Demand:
        """What everybody posts, the learners as the action says, within what rules and lenders allow."""
        return self.limits(self._wanted(state, promised, action), state.prices, state.supply)

    def _wanted(self, state: MarketState, promised: Any, action: Action | None) -> Demand:
        demand = self.scenario.demand(state, promised)
        if action is None:
            return demand
        if not isinstance(action, Action):
            raise ValueError(f"`action` must be an Action or None, got {type(action).__name__}")
        n, shape = self.config.n_learners, tuple(state.unit_value.shape)
        changes: dict[str, Tensor] = {}
        xp = namespace(state.prices)
        for name, low in (("short_leverage", 0.0), ("long_leverage", self._least_long)):
            given, own = getattr(action, name), getattr(demand, name)
            if given is not None:
                each = getattr(given, "ndim", 2) == 3  # one limit a position
                limit = self._checked(name, given, (*shape, self.config.n_assets + 1) if each else shape, low)
                if own.ndim != limit.ndim:
                    wide = self.config.n_assets + 1
                    limit, own = (x if x.ndim == 3 else xp.spread(x, wide) for x in (limit, own))
                changes[name] = xp.concatenate([limit, own[:, n:]], 1)
        if action.beliefs is not None:
            expected = self._checked("beliefs", action.beliefs, (*shape, self.config.n_assets), -1e3)
            changes["beliefs"] = xp.concatenate([expected, demand.beliefs[:, n:]], 1)
        if action.risk_scale is not None:
            scale = self._checked("risk_scale", action.risk_scale, shape, 1e-6)
            changes["risk"] = xp.concatenate([demand.risk[:, :n] * scale[..., None, None], demand.risk[:, n:]], 1)
        return demand._replace(**changes)

    def _close(
        self, state: MarketState, promised: Any, demand: Demand, trade: Trade, shocks: Shocks
    ) -> tuple[MarketState, Outcome]:
        if trade.dealer_holdings is not None:
            self._check_shares(state, trade)
        settled = self.scenario.settle(state, promised, trade)
        log_return = namespace(trade.prices).log(trade.prices) - demand.log_price
        own = self.scenario.advance(state, settled, log_return, shocks)
        drift = self.scenario.drift(state.scenario, state.log_value)
        log_value, news = state.log_value + state.next_news, self.fundamentals.move_on(state, shocks, drift)
        new = MarketState(
            month=state.month + 1,
            prices=trade.prices,
            cash=settled.cash,
            holdings=trade.holdings if settled.holdings is None else settled.holdings,
            wealth=settled.wealth,
            unit_value=settled.unit_value,
            ruined=settled.ruined,
            accounts=settled.accounts,
            supply=state.supply,
            dealer_holdings=state.dealer_holdings if trade.dealer_holdings is None else trade.dealer_holdings,
            log_value=log_value,
            last_return=log_return,
            variance=state.variance + self._variance_decay * (log_return * log_return - state.variance),
            scenario=own,
            mechanism=state.mechanism if trade.remembered is None else trade.remembered,
            **self.scenario.coming(own, log_value, news),
        )
        outcome = Outcome(
            settled.reward,
            settled.unit_value,
            settled.wealth,
            settled.ruined,
            demand.short_leverage,
            demand.long_leverage,
            trade,
        )
        return new, outcome

    def _check_shares(self, state: MarketState, trade: Trade) -> None:
        """A mechanism with holdings of its own must leave no share unaccounted for."""
        assert trade.dealer_holdings is not None
        missing = to_numpy((trade.holdings.sum(1) + trade.dealer_holdings) / state.supply - 1.0)
        if (abs(missing) > _LARGEST_GAP).any():
            raise ValueError(
                f"`price_mechanism` {self.config.price_mechanism!r} must hold the shares that investors do not, "
                f"got {float(np.nanmax(abs(missing))):.3g} of the supply unaccounted for"
            )

    def _check_state(self, state: MarketState) -> None:
        if not isinstance(state, MarketState):
            raise ValueError(f"`state` must be a MarketState, got {type(state).__name__}")
        self._check_kind("state", state.prices)
        sizes = (state.prices.shape[0], self.config.n_investors, self.config.n_assets)
        if tuple(state.holdings.shape) != sizes:
            raise ValueError(
                f"`state` must be of (markets, investors, assets) = {sizes}, got {tuple(state.holdings.shape)}"
            )

    def _check_kind(self, name: str, of: Any) -> None:
        if isinstance(of, np.ndarray) != (self.arrays == "numpy"):
            raise ValueError(f'`{name}` must be of a market with `arrays="{self.arrays}"`, got {type(of).__name__}')

    def _check_sizes(self, state: MarketState, shocks: Shocks) -> None:
        self._check_state(state)
        if not isinstance(shocks, Shocks):
            raise ValueError(f"`shocks` must be Shocks, got {type(shocks).__name__}")
        self._check_kind("shocks", shocks.news)
        n_markets, drawn = state.prices.shape[0], {name: tuple(x.shape) for name, x in shocks.tensors.items()}
        if n_markets not in self._shock_shapes:
            shapes = self._period_layout.shapes
            self._shock_shapes = {n_markets: {name: (n_markets, *shape) for name, shape in shapes.items()}}
        expected = self._shock_shapes[n_markets]
        if drawn != expected:
            name = next(name for name in {**expected, **drawn} if drawn.get(name) != expected.get(name))
            raise ValueError(
                f"`shocks` must be this market's, for {n_markets} markets: {name} of shape {expected.get(name)}, "
                f"got {drawn.get(name)}"
            )

    def _checked(self, name: str, given: Tensor, shape: tuple[int, ...], low: float) -> Tensor:
        try:
            if given.is_complex() if isinstance(given, Tensor) else np.iscomplexobj(given):
                raise TypeError("complex numbers")
            if self.arrays == "numpy":
                tensor: Tensor = np.asarray(given, np.float64)  # type: ignore[assignment]
            else:
                tensor = torch.as_tensor(given, dtype=torch.float64, device=self.device)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise ValueError(f"`{name}` must be a tensor of shape {shape}, got {shown(given)}") from error
        if tensor.shape != shape:
            raise ValueError(f"`{name}` must have shape {shape}, got {tuple(tensor.shape)}")
        values = to_numpy(tensor)
        if not ((values >= low) & (values < 1e3)).all():  # NaN is neither
            least, most = float(values.min()), float(values.max())
            bound = f"1/(N+1) = {low:g}" if name == "long_leverage" else f"{low:g}"
            got = f"{least:g}" if least == most else f"values from {least:g} to {most:g}"
            raise ValueError(f"`{name}` must be >= {bound} and < 1000, got {got}")
        return tensor
