"""The price mechanism ``"pools"``: the clearing, with pools on a weighted invariant among the investors.

A pool belongs to nobody in the market. It brings its reserves, money and shares, and trades along its invariant to the
prices that clear (:mod:`hmgym.clearing.pools`). In the books it is the mechanism's own account: its shares stand in
`MarketState.dealer_holdings`, its money in the account ``dealer``. What it loses against keeping its reserves goes to
the account ``arbitrage``: those who traded with it on the way gained as much. It receives no dividends and pays no
trading cost or interest.

Weights stand still, or follow the power-channel rule (:mod:`hmgym.pools`) on the prices that cleared: what the price of
a month changes acts in the next month's clearing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from hmgym.arrays import is_array, namespace, placed, to_numpy, to_torch
from hmgym.checks import check_interval, check_number, integer, is_finite_number, shown
from hmgym.clearing.pools import Pools
from hmgym.market.config import MarketConfig
from hmgym.market.demand import Demand, Trade
from hmgym.market.mechanisms import DEALER, Clearing, with_posted
from hmgym.market.shocks import Shocks
from hmgym.market.state import MarketState
from hmgym.market.tensors import map_tensors
from hmgym.pools import PoolConfig, PoolParameters, PoolState, PowerChannelPool, coarse_weights

ARBITRAGE = "arbitrage"
_MONTH = 30 * 1440  # minutes


@dataclass(frozen=True, kw_only=True)
class PoolInvestor:
    """A pool that joins a market.

    Attributes:
        size: its value at the start, over the market value of all shares.
        weights: share of its value in each position, cash first, each > 0, summing to 1; None for equal ones, or those
            of `parameters`.
        parameters: of the rule, for N + 1 assets, cash first; None keeps the weights. Gradients flow to them.
        maximum_change: of a weight in a month, > 0.
        minimum_weight: in (0, 1/(N+1)]; None is .1/(N+1).
    """

    size: float = 0.1
    weights: tuple[float, ...] | None = None
    parameters: PoolParameters | None = None
    maximum_change: float = 0.1
    minimum_weight: float | None = None

    def __post_init__(self) -> None:
        check_interval("size", self.size, 0.0, 10.0, open_interval=True)
        check_number("maximum_change", self.maximum_change, 0.0, strict=True)
        if self.parameters is not None and not isinstance(self.parameters, PoolParameters):
            raise ValueError(f"`parameters` must be PoolParameters or None, got {shown(self.parameters)}")
        if self.minimum_weight is not None:
            check_number("minimum_weight", self.minimum_weight, 0.0, 0.5, strict=True)
        if self.weights is None:
            return
        given = tuple(self.weights)
        good = len(given) >= 2 and all(is_finite_number(one) and one > 0.0 for one in given)
        if not good or abs(sum(given) - 1.0) > 1e-9:
            raise ValueError(f"`weights` must be numbers > 0 that sum to 1, cash first, got {shown(self.weights)}")
        object.__setattr__(self, "weights", tuple(float(one) for one in given))

    @property
    def config(self) -> PoolConfig:
        """What bounds its weights, a row of prices a month."""
        return PoolConfig(
            chunk_minutes=_MONTH, row_minutes=_MONTH, maximum_change=self.maximum_change / _MONTH,
            minimum_weight=self.minimum_weight,
        )  # fmt: skip

    def weights_of(self, n_assets: int) -> tuple[float, ...]:
        """The weights in a market of so many assets.

        Raises:
            ValueError: they are of another number of assets.
        """
        if self.parameters is not None and self.parameters.assets != n_assets + 1:
            raise ValueError(
                f"`parameters` of a pool must be of {n_assets + 1} assets, cash first, got {self.parameters.assets}"
            )
        if self.weights is None and self.parameters is not None:
            given = self.parameters.decode(self.config).initial_weights.detach()
            return tuple(given.flatten().tolist())
        if self.weights is None:
            return (1.0 / (n_assets + 1),) * (n_assets + 1)
        if len(self.weights) != n_assets + 1:
            raise ValueError(f"`weights` of a pool must be {n_assets + 1} numbers, cash first, got {len(self.weights)}")
        return self.weights


def as_pools(pools: Any) -> tuple[PoolInvestor, ...]:
    """Pools from their number or a sequence of them.

    Raises:
        ValueError: `pools` is neither.
    """
    if isinstance(pools, Sequence) and not isinstance(pools, str):
        if not all(isinstance(pool, PoolInvestor) for pool in pools):
            raise ValueError(f"`pools` must be a number of pools or a sequence of PoolInvestor, got {shown(pools)}")
        return tuple(pools)
    return (PoolInvestor(),) * integer("pools", pools, 0)


@dataclass(frozen=True, kw_only=True)
class PoolsState:
    """What the pools of E markets hold after their last trade."""

    reserves: Tensor  # (E, K, N+1) money and shares, cash first
    weights: Tensor  # (E, K, N+1) of the next trade
    rules: tuple[PoolState | tuple[()], ...]  # what each pool's rule remembers, (E, N+1) each; () without one


class PooledClearing(Clearing):
    """All demand meets supply at one vector of prices, pools among the investors.

    Args:
        config: of the market; `pools` are the pools, one default pool where there are none.

    Raises:
        ValueError: the weights of a pool are of another number of assets.
    """

    accounts: ClassVar[tuple[str, ...]] = (DEALER, ARBITRAGE)
    numpy_ready: ClassVar[bool] = True

    def __init__(self, config: MarketConfig) -> None:
        super().__init__(config)
        self._pools = as_pools(config.pools) or (PoolInvestor(),)
        weights = [pool.weights_of(config.n_assets) for pool in self._pools]
        self._weights = torch.tensor(weights, dtype=torch.float64)
        self._sizes = torch.tensor([pool.size for pool in self._pools], dtype=torch.float64)

    def memory(self) -> None:
        """Nothing is kept: a pool's search clears several times a month."""

    def begin(self, state: MarketState) -> PoolsState:
        """Every pool holds its weights of its value at the first prices."""
        xp = namespace(state.prices)
        weights, sizes = (self._placed(x, state.prices) for x in (self._weights, self._sizes))
        weights = xp.copy(xp.broadcast_to(weights, (len(state.prices), *weights.shape)))
        value = sizes * (state.supply * state.prices).sum(-1)[:, None]
        prices = xp.concatenate([xp.ones_like(state.prices[:, :1]), state.prices], -1)
        rules = tuple(self._first_rule(pool, prices) for pool in self._pools)
        return PoolsState(reserves=weights * value[..., None] / prices[:, None], weights=weights, rules=rules)

    def stock(self, remembered: PoolsState) -> tuple[Tensor, Tensor]:
        """Money (E,) and shares (E, N) that the pools bring."""
        held = remembered.reserves.sum(1)
        return held[:, 0], held[:, 1:]

    @staticmethod
    def _placed(x: Tensor, like: Tensor) -> Any:
        return placed(x, None if is_array(like) else like.device)

    def __call__(self, state: MarketState, demand: Demand, shocks: Shocks | None, memory: Any = None) -> Trade:
        """Clear the markets; pools trade along their invariants to the prices that clear."""
        held: PoolsState = state.mechanism
        solution = self._solve(state, demand, None, Pools(weights=held.weights, reserves=held.reserves))
        reserves, loss = solution.pool_reserves, solution.pool_loss
        assert reserves is not None
        assert loss is not None
        return Trade(
            prices=solution.prices, holdings=with_posted(solution.holdings, demand, solution.prices),
            weights=solution.weights, residual=solution.residual, iterations=solution.iterations,
            converged=solution.converged, dealer_holdings=reserves[..., 1:].sum(1),
            dealer_pays={ARBITRAGE: loss.sum(1)}, remembered=self._moved(held, reserves, solution.prices),
            solution=solution,
        )  # fmt: skip

    @staticmethod
    def _first_rule(pool: PoolInvestor, prices: Tensor) -> PoolState | tuple[()]:
        if pool.parameters is None:
            return ()
        state = PowerChannelPool(pool.config).begin(pool.parameters, to_torch(prices))
        return map_tensors(lambda x: _like(x.clone(), prices), state)

    def _moved(self, held: PoolsState, reserves: Tensor, prices: Tensor) -> PoolsState:
        """The pools after a trade at these prices: new reserves, and weights as their rules say."""
        if all(pool.parameters is None for pool in self._pools):
            return PoolsState(reserves=reserves, weights=held.weights, rules=held.rules)
        xp = namespace(prices)
        # A market that did not clear has no price; what its rule makes of 1 is not used.
        paid = to_torch(xp.where(prices > 0.0, prices, xp.ones_like(prices)))
        paid = torch.cat([torch.ones_like(paid[:, :1]), paid], -1)
        weights: list[Tensor] = []
        rules: list[PoolState | tuple[()]] = []
        for k, (pool, rule) in enumerate(zip(self._pools, held.rules, strict=True)):
            own = to_torch(held.weights[:, k])
            if pool.parameters is None or not isinstance(rule, PoolState):
                weights.append(own)
                rules.append(rule)
                continue
            config = pool.config
            state, change = PowerChannelPool(config).step(pool.parameters, map_tensors(to_torch, rule), paid)
            moved = coarse_weights(
                own, change[:, None], minimum_weight=config.least_weight(own.shape[-1]),
                maximum_change=pool.maximum_change, interpolation_minutes=1,
            )  # fmt: skip
            weights.append(moved.target[:, 0])
            rules.append(map_tensors(lambda x: _like(x, prices), state))
        return PoolsState(reserves=reserves, weights=_like(torch.stack(weights, 1), prices), rules=tuple(rules))


def _like(x: Tensor, like: Tensor) -> Any:
    """A tensor as an array where another is one."""
    return to_numpy(x) if is_array(like) else x
