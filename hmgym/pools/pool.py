"""A pool whose weights follow the power-channel rule: a step at a time, or a whole history at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hmgym.checks import integer, shown
from hmgym.pools.parameters import PoolConfig, PoolParameters, Real, Rule, tensor_of
from hmgym.pools.reserves import reserves_with_fees, reserves_without_fees
from hmgym.pools.rule import check_positive, price_trend, read_prices, weight_changes
from hmgym.pools.weights import coarse_weights, fine_weights


@dataclass(frozen=True, kw_only=True, eq=False)
class PoolState:
    """What the rule remembers, every field (…, N).

    Attributes:
        average: e, the average of prices.
        weighted: Σ λ^age (p − e before it), a(1 − λ)/λ.
        denominator: the average that a/b is divided by.
    """

    average: Tensor
    weighted: Tensor
    denominator: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class PoolRun:
    """A pool over T rows of prices.

    Attributes:
        weights: (…, T, N).
        reserves: (…, T, N), after the trades of the row.
        value: (…, T) money, reserves at the prices of the row.
        hold: (…, T) money, the first reserves at the prices of the row.
    """

    weights: Tensor
    reserves: Tensor
    value: Tensor
    hold: Tensor


class PowerChannelPool:
    """The pool of a configuration; parameters come with every call and may have sets as leading axes.

    Prices have a row every `row_minutes`, (T, N); the rule sees every `chunk_minutes`, minute 0 first. What a pool with
    sets (S,) returns begins with that axis.

    Args:
        config: None is the defaults.

    Raises:
        ValueError: `config` is no PoolConfig.
    """

    def __init__(self, config: PoolConfig | None = None) -> None:
        config = PoolConfig() if config is None else config
        if not isinstance(config, PoolConfig):
            raise ValueError(f"`config` must be a PoolConfig, got {shown(config)}")
        self.config = config

    def begin(self, parameters: PoolParameters, price: Real) -> PoolState:
        """The state after a first price (N,), which changes no weight.

        Raises:
            ValueError: `price` is not N positive numbers.
        """
        rule, paid = self._rule(parameters), self._price(parameters, price)
        average = paid.expand(torch.broadcast_shapes(paid.shape, rule.decay.shape))  # type: ignore[no-untyped-call]
        return PoolState(average=average, weighted=torch.zeros_like(average), denominator=average)

    def step(self, parameters: PoolParameters, state: PoolState, price: Real) -> tuple[PoolState, Tensor]:
        """The next state, and the change of weights (…, N), from the price (N,) of the next chunk.

        Raises:
            ValueError: `price` is not N positive numbers.
        """
        rule, paid = self._rule(parameters), self._price(parameters, price)
        gap = paid - state.average
        average = state.average + (1.0 - rule.decay) * gap
        weighted = rule.decay * state.weighted + gap
        denominator = average
        if rule.denominator_decay is not None:
            denominator = state.denominator + (1.0 - rule.denominator_decay) * (paid - state.denominator)
        trend = (1.0 - rule.decay) ** 2 * weighted / denominator
        change = weight_changes(trend.unsqueeze(-2), rule.k, rule.exponents, rule.pre_scaling).squeeze(-2)
        return PoolState(average=average, weighted=weighted, denominator=denominator), change

    def changes(self, parameters: PoolParameters, prices: Tensor) -> Tensor:
        """Changes of weights (…, M−1, N) from prices (T, N) with M starts of chunks: row c is that of chunk c + 1.

        Raises:
            ValueError: `prices` are not positive, or of other assets than the parameters.
        """
        rule, prices = self._rule(parameters), self._prices(parameters, prices)
        seen = prices[:: self.config.chunk_rows]
        trend = price_trend(seen, rule.decay, rule.denominator_decay)
        return weight_changes(trend, rule.k, rule.exponents, rule.pre_scaling)

    def weights(self, parameters: PoolParameters, prices: Tensor, start: int = 0, minutes: int | None = None) -> Tensor:
        """Weights (…, T, N) of a pool that opens with its initial weights at minute `start`.

        Args:
            parameters: of the rule.
            prices: (T₀, N); the rule remembers those before `start`, and the first change is of the next chunk's price.
            start: minute of the first row of the result, a multiple of `chunk_minutes`.
            minutes: of the result, rows × `row_minutes`; None is to the end of prices.

        Raises:
            ValueError: an argument is none of these.
        """
        prices = self._prices(parameters, prices)
        first, count = self._span(prices, start, minutes)
        return self._weights(self._rule(parameters), self.changes(parameters, prices), [first], count).squeeze(-3)

    def simulate(
        self, parameters: PoolParameters, prices: Tensor, *, start: int = 0, minutes: int | None = None
    ) -> PoolRun:
        """Weights, reserves and value of a pool that opens at minute `start`; arguments as of `weights`.

        Raises:
            ValueError: an argument is none of these.
        """
        prices = self._prices(parameters, prices)
        first, count = self._span(prices, start, minutes)
        run = self._windows(parameters, prices, [first], count)
        return PoolRun(
            weights=run.weights.squeeze(-3), reserves=run.reserves.squeeze(-3), value=run.value.squeeze(-2),
            hold=run.hold.squeeze(-2),
        )  # fmt: skip

    def windows(self, parameters: PoolParameters, prices: Tensor, starts: Sequence[int], minutes: int) -> PoolRun:
        """Runs that open at several minutes, side by side: the axis of starts (W,) follows that of sets.

        Raises:
            ValueError: an argument is none that `simulate` takes.
        """
        prices = self._prices(parameters, prices)
        spans = [self._span(prices, start, minutes) for start in starts]
        if not spans:
            raise ValueError("`starts` must be at least one minute, got none")
        return self._windows(parameters, prices, [first for first, _ in spans], spans[0][1])

    def _windows(self, parameters: PoolParameters, prices: Tensor, firsts: list[int], count: int) -> PoolRun:
        config, rule = self.config, self._rule(parameters)
        weights = self._weights(rule, self.changes(parameters, prices), firsts, count)
        paid = torch.stack([prices[first : first + count] for first in firsts])
        initial = weights[..., 0, :] * config.initial_value / paid[:, 0]
        if config.fee or config.gas_cost or config.arbitrage_fee or config.arbitrage_rows > 1:
            reserves = reserves_with_fees(
                initial, weights, paid, fee=config.fee, gas_cost=config.gas_cost, arbitrage_fee=config.arbitrage_fee,
                noise_ratio=config.noise_ratio, protocol_share=config.protocol_share,
                arbitrage_minutes=config.arbitrage_rows,
            )  # fmt: skip
        else:
            reserves = reserves_without_fees(initial, weights, paid)
        value, hold = (reserves * paid).sum(-1), (initial.unsqueeze(-2) * paid).sum(-1)
        return PoolRun(weights=weights, reserves=reserves, value=value, hold=hold)

    def _weights(self, rule: Rule, changes: Tensor, firsts: list[int], count: int) -> Tensor:
        """Weights (…, W, count, N) of pools that open at rows."""
        config, assets = self.config, changes.shape[-1]
        chunk, period = config.chunk_rows, config.interpolation_rows
        needed = -(-max(count - 1 - chunk, 0) // chunk)
        own = torch.stack([changes[..., first // chunk : first // chunk + needed, :] for first in firsts], -3)
        initial = rule.initial_weights.unsqueeze(-2)
        coarse = coarse_weights(
            initial, own, minimum_weight=config.least_weight(assets),
            maximum_change=config.maximum_change * config.row_minutes, interpolation_minutes=period,
            interpolation=config.interpolation,
        )  # fmt: skip
        return fine_weights(
            initial, coarse, minutes=count, chunk_minutes=chunk, interpolation_minutes=period,
            interpolation=config.interpolation,
        )  # fmt: skip

    def _rule(self, parameters: PoolParameters) -> Rule:
        if not isinstance(parameters, PoolParameters):
            raise ValueError(f"`parameters` must be PoolParameters, got {shown(parameters)}")
        return parameters.decode(self.config)

    def _prices(self, parameters: PoolParameters, prices: Tensor) -> Tensor:
        found = read_prices("prices", prices)
        if found.ndim != 2 or found.shape[-1] != parameters.assets:
            expected = f"shape (T, N) with N = {parameters.assets} as in `parameters`"
            raise ValueError(f"`prices` must have {expected}, got {tuple(found.shape)}")
        return found

    def _price(self, parameters: PoolParameters, price: Real) -> Tensor:
        paid = tensor_of("price", price)
        if paid.ndim < 1 or paid.shape[-1] != parameters.assets:
            expected = f"shape (N,) with N = {parameters.assets} as in `parameters`"
            raise ValueError(f"`price` must have {expected}, got {tuple(paid.shape)}")
        check_positive("price", paid)
        return paid

    def _span(self, prices: Tensor, start: int, minutes: int | None) -> tuple[int, int]:
        """First row and number of rows."""
        start, each = integer("start", start, 0), self.config.row_minutes
        have = len(prices) * each
        if start % self.config.chunk_minutes or start >= have:
            expected = (
                f"a multiple of `chunk_minutes` = {self.config.chunk_minutes} below the {have} minutes of `prices`"
            )
            raise ValueError(f"`start` must be {expected}, got {start}")
        minutes = have - start if minutes is None else integer("minutes", minutes, 1)
        if minutes % each or minutes > have - start:
            expected = f"a multiple of `row_minutes` = {each}, at most {have - start} after `start`"
            raise ValueError(f"`minutes` must be {expected}, got {minutes}")
        return start // each, minutes // each
