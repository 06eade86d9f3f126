"""Training a pool's rule inside a market that clears: what the pool buys moves the prices that its rule sees.

E markets run side by side. A window of months is run with the graph kept, through every clearing, and the rule's
parameters climb the gradient of what the pool made of it. Then the markets go on from where they are, cut from the
graph, until their episode is over and others begin with fresh shocks. `hmgym.pools.train_pool` does the same on prices
that nobody moves.

Source: Xu et al. (2022), Accelerated policy learning with parallel differentiable simulation, for windows of running
episodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from hmgym.checks import check_number, integer, shown
from hmgym.clearing import ClearingError
from hmgym.market import Market, MarketConfig, MarketState, Shocks
from hmgym.market.pooled import PoolInvestor
from hmgym.pools import PoolParameters
from hmgym.pools.training import TRAINED

Progress = Callable[[int, int], None]

MARKET_OBJECTIVES = ("log_value", "over_hold")
"""Growth of the log of the pool's value, and the same less that of the reserves that the window began with."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PoolMarketRun:
    """A pool in E markets over T months.

    Attributes:
        value: (T+1, E) money, reserves at the prices that cleared; row 0 is before the first month.
        hold: (T+1, E) money, the reserves of row 0 at the same prices.
        loss: (T, E) money that the pool lost to arbitrage in each month.
        weights: (T+1, E, N+1), cash first; of the trade that follows the row.
    """

    value: Tensor
    hold: Tensor
    loss: Tensor
    weights: Tensor

    @property
    def log_value(self) -> Tensor:
        """Growth (E,) of the log of the value."""
        return (self.value[-1] / self.value[0]).log()

    @property
    def over_hold(self) -> Tensor:
        """The same (E,) less that of the first reserves."""
        return (self.value[-1] / self.hold[-1]).log()

    @property
    def log_loss(self) -> Tensor:
        """What of `log_value` (E,) was lost to arbitrage, ≥ 0: the sum over months of log((V + loss)/V)."""
        return (self.loss / self.value[1:]).log1p().sum(0)


@dataclass(frozen=True, kw_only=True, eq=False)
class MarketPoolTraining:
    """What training in a market found.

    Attributes:
        pool: as it was, with the trained parameters.
        parameters: the trained ones.
        objective: (updates,) mean over markets of each window's objective, a month, before its step; NaN where a market
            did not clear, which is no step.
        gradient_norm: (updates,) of that mean, before clipping; NaN likewise.
        months: that markets ran in all, E × months of every window.
    """

    pool: PoolInvestor
    parameters: PoolParameters
    objective: Tensor
    gradient_norm: Tensor
    months: int


def train_pool_in_market(
    config: MarketConfig,
    *,
    pool: int = 0,
    objective: str = "log_value",
    window: int = 12,
    months: int = 60,
    markets: int = 16,
    updates: int = 100,
    learning_rate: float = 0.05,
    weight_decay: float = 0.0,
    clip: float = 1.0,
    fresh: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> MarketPoolTraining:
    """Train the parameters of a pool by gradient ascent through the months of a market that clears.

    Each update maximises the mean over markets of the objective of a window by a step of AdamW. What is trained are
    the parameters of `hmgym.pools.training.TRAINED` that the pool uses, in the shapes that they have, (N+1,) or (1,);
    `sp_exponents` is kept at 0 or more, where it has a gradient. All other investors, and the learner, act as without
    anybody's action. A window with a market that does not clear is no step, and new markets begin.

    Args:
        config: of the markets, `price_mechanism="pools"`; one of its pools has `parameters`, where training begins.
        pool: which of the pools.
        objective: a name of `MARKET_OBJECTIVES`.
        window: months that a gradient goes through, ≥ 1.
        months: of an episode, after which markets begin anew, ≥ `window`.
        markets: E ≥ 1.
        updates: ≥ 0.
        learning_rate: > 0.
        weight_decay: ≥ 0.
        clip: largest norm of the gradient of the mean a month, > 0.
        fresh: whether every episode has shocks of its own; else all repeat those of the first.
        seed: of all shocks, ≥ 0.
        progress: told updates done and to do.

    Raises:
        ValueError: an argument is none of these, or the pool has no parameters.
    """
    own = pool_of(config, pool)
    if own.parameters is None:
        raise ValueError(f"`pool` must be one with `parameters`, got pool {pool}, whose weights stand still")
    if objective not in MARKET_OBJECTIVES:
        raise ValueError(f"`objective` must be one of {', '.join(MARKET_OBJECTIVES)}, got {shown(objective)}")
    window, updates = integer("window", window, 1), integer("updates", updates, 0)
    months, markets = integer("months", months, window), integer("markets", markets, 1)
    for name, value in (("learning_rate", learning_rate), ("clip", clip)):
        check_number(name, value, 0.0, strict=True)
    check_number("weight_decay", weight_decay, 0.0)
    if not isinstance(fresh, bool):
        raise ValueError(f"`fresh` must be True or False, got {shown(fresh)}")
    start, allowed = own.parameters, own.config
    unused = {"logit_delta_lamb": allowed.alternative_decay, "sp_pre_exp_scaling": allowed.pre_scaling}
    names = [name for name in TRAINED if unused.get(name, True)]
    leaves = {name: start.to_dict()[name].detach().clone().requires_grad_() for name in names}

    def current() -> PoolInvestor:
        return replace(own, parameters=PoolParameters(**{**start.to_dict(), **leaves}))

    with torch.no_grad():
        leaves["sp_exponents"].clamp_(min=0.0)
    optimizer = torch.optim.AdamW(leaves.values(), lr=learning_rate, weight_decay=weight_decay)
    episodes = _Episodes(config, markets, integer("seed", seed, 0), fresh)
    found, norms = (torch.full((updates,), torch.nan, dtype=torch.float64) for _ in range(2))
    done = 0
    for update in range(updates):
        if episodes.elapsed >= months:
            episodes.begin()
        count = min(window, months - episodes.elapsed)
        market = Market(with_pool(config, current(), pool))
        try:
            run, after = episodes.run(market, pool, count)
        except ClearingError:
            episodes.begin()
        else:
            made = getattr(run, objective).mean() / count
            optimizer.zero_grad()
            torch.autograd.backward(-made)
            gradients = [leaf.grad for leaf in leaves.values() if leaf.grad is not None]
            norm = torch.stack([each.norm() for each in gradients]).norm() if gradients else torch.zeros(())
            found[update], done = made.detach(), done + count * markets
            if bool(torch.isfinite(norm)):
                norms[update] = norm
                torch.nn.utils.clip_grad_norm_(leaves.values(), clip)
                optimizer.step()
                with torch.no_grad():
                    leaves["sp_exponents"].clamp_(min=0.0)
            episodes.go_on(after)
        if progress is not None:
            progress(update + 1, updates)
    trained = PoolParameters(**{**start.to_dict(), **{name: leaf.detach() for name, leaf in leaves.items()}})
    return MarketPoolTraining(
        pool=replace(own, parameters=trained), parameters=trained, objective=found, gradient_norm=norms, months=done
    )


def run_pool_in_market(
    config: MarketConfig, *, pool: int = 0, months: int = 60, markets: int = 16, seed: int = 0
) -> PoolMarketRun:
    """A pool in E markets from their start on, without gradients; the shocks depend on `seed` and `markets` only.

    Pools that differ in their parameters are compared on the same shocks by the same seed: their markets share all
    but prices and what follows from them.

    Args:
        config: of the markets, `price_mechanism="pools"`.
        pool: which of its pools is told of.
        months: T ≥ 1.
        markets: E ≥ 1.
        seed: ≥ 0.

    Raises:
        ValueError: an argument is none of these.
        ClearingError: a market did not clear (a ValueError; names the markets).
    """
    pool_of(config, pool)
    months, markets = integer("months", months, 1), integer("markets", markets, 1)
    episodes = _Episodes(config, markets, integer("seed", seed, 0), fresh=True)
    with torch.no_grad():
        return episodes.run(Market(config), pool, months)[0]


def pool_of(config: MarketConfig, pool: int = 0) -> PoolInvestor:
    """One of the pools of a market.

    Raises:
        ValueError: the market has none of this number.
    """
    if not isinstance(config, MarketConfig):
        raise ValueError(f"`config` must be a MarketConfig, got {shown(config)}")
    if config.price_mechanism != "pools" or not config.pools:
        got = f"{len(config.pools)} pools and {config.price_mechanism!r}"
        raise ValueError(f'`config` must have `pools` and `price_mechanism="pools"`, got {got}')
    if integer("pool", pool, 0) >= len(config.pools):
        raise ValueError(f"`pool` must be below the number of pools, {len(config.pools)}, got {pool}")
    found: PoolInvestor = config.pools[pool]
    return found


def with_pool(config: MarketConfig, changed: PoolInvestor, pool: int = 0) -> MarketConfig:
    """The market with another pool in the place of one of its own."""
    pools = config.pools
    return config.replace(pools=(*pools[:pool], changed, *pools[pool + 1 :]))


def with_constant_weights(config: MarketConfig, pool: int = 0) -> MarketConfig:
    """The market with a pool that keeps the weights it begins with: k = 0."""
    own = pool_of(config, pool)
    return with_pool(config, replace(own, parameters=None, weights=own.weights_of(config.n_assets)), pool)


class _Episodes:
    """E running markets: where they are, and what they draw from."""

    def __init__(self, config: MarketConfig, markets: int, seed: int, fresh: bool) -> None:
        self._market, self._markets, self._seed, self._fresh = Market(config), markets, seed, fresh
        self._source = np.random.default_rng(seed)
        self.begin()

    def begin(self) -> None:
        """New markets."""
        source = self._source if self._fresh else np.random.default_rng(self._seed)
        self._generators = source.spawn(self._markets)
        self._state: MarketState = self._market.initial(self._market.draw_initial_shocks(self._generators))
        self.elapsed = 0

    def run(self, market: Market, pool: int, months: int) -> tuple[PoolMarketRun, MarketState]:
        """A pool over the coming months of these markets, as `market` has it, and the state after them."""
        state = self._state
        reserves = first = state.mechanism.reserves[:, pool]
        prices, weights = [_with_cash(state)], [state.mechanism.weights[:, pool]]
        value, loss = [(reserves * prices[0]).sum(-1)], []
        for _ in range(months):
            shocks: Shocks = market.draw_shocks(self._generators)
            state, outcome = market.transition(state, None, shocks)
            solution = outcome.trade.solution
            assert solution is not None
            assert solution.pool_loss is not None
            reserves = state.mechanism.reserves[:, pool]
            prices.append(_with_cash(state))
            value.append((reserves * prices[-1]).sum(-1))
            weights.append(state.mechanism.weights[:, pool])
            loss.append(solution.pool_loss[:, pool])
        hold = torch.stack([(first * each).sum(-1) for each in prices])
        run = PoolMarketRun(value=torch.stack(value), hold=hold, loss=torch.stack(loss), weights=torch.stack(weights))
        self.elapsed += months
        return run, state

    def go_on(self, state: MarketState) -> None:
        """The next months begin here, outside the graph."""
        self._state = state.detach()


def _with_cash(state: MarketState) -> Tensor:
    """Prices (E, N+1), cash first."""
    return torch.cat([torch.ones_like(state.prices[:, :1]), state.prices], -1)
