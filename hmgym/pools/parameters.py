"""Settings of a pool and the parameters of its rule, with the maps from unconstrained numbers to what they stand for.

squareplus(x) = ½(x + √(x² + 4)) > 0 and sigmoid(x) = 1/(1 + e^{−x}) are the maps. A decay λ a chunk of c minutes
remembers for ∛(6λ/(1−λ)³)·2c/1440 days, after which the change of a linear trend shows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor

from hmgym.checks import check_interval, check_number, integer, integer_or_none, shown

Interpolation: TypeAlias = Literal["linear", "approx_optimal"]
Real: TypeAlias = "float | Tensor"

MINUTES_A_DAY = 1440


def tensor_of(name: str, value: Any) -> Tensor:
    """`value` as float64 on the CPU, its gradient kept.

    Raises:
        ValueError: it is no array of real numbers; names it.
    """
    try:
        found = value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
        if found.is_complex() or found.dtype == torch.bool:
            raise TypeError(f"{found.dtype}")
        return found.to(device="cpu", dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"`{name}` must be an array of real numbers, got {shown(value)}") from error


def common_shape(*shapes: Sequence[int]) -> tuple[int, ...]:
    """The shape that shapes broadcast to.

    Raises:
        RuntimeError: there is none.
    """
    return tuple(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]


def squareplus(x: Real) -> Tensor:
    """½(x + √(x² + 4)): positive, 1 at 0, x + 1/x + … far above and −1/x far below it; without cancellation there."""
    x = tensor_of("x", x)
    size = torch.where(x < 0.0, -x, x)
    larger = 0.5 * (size + torch.hypot(size, torch.full_like(size, 2.0)))
    return torch.where(x < 0.0, 1.0 / larger, larger)


def inverse_squareplus(y: Real) -> Tensor:
    """y − 1/y, the x whose squareplus is y.

    Raises:
        ValueError: `y` is not > 0.
    """
    y = tensor_of("y", y)
    _check_range("y", y, bool((y > 0.0).all()), "> 0")
    return y - 1.0 / y


def memory_days(decay: Real, chunk_minutes: int) -> Tensor:
    """Days ∛(6λ/(1−λ)³)·2c/1440 that a decay λ remembers; its inverse is `decay_for_memory`.

    Args:
        decay: (…) λ a chunk, in [0, 1).
        chunk_minutes: c ≥ 1.

    Raises:
        ValueError: an argument is none of these.
    """
    decay = tensor_of("decay", decay)
    _check_range("decay", decay, bool(((decay >= 0.0) & (decay < 1.0)).all()), "in [0, 1)")
    minutes = integer("chunk_minutes", chunk_minutes, 1)
    return (6.0 * decay).pow(1.0 / 3.0) / (1.0 - decay) * (2.0 * minutes / MINUTES_A_DAY)


def decay_for_memory(days: Real, chunk_minutes: int) -> Tensor:
    """The decay λ a chunk that remembers for some days: λ/(1−λ)³ = C with C = (1440·days/2c)³/6.

    1 − λ = (2/r) sinh(asinh(1.5 r)/3) with r = √(3C), the one real root, without cancellation.

    Args:
        days: (…) ≥ 0.
        chunk_minutes: c ≥ 1.

    Raises:
        ValueError: an argument is none of these.
    """
    days = tensor_of("days", days)
    _check_range("days", days, bool((days >= 0.0).all() and torch.isfinite(days).all()), "finite and >= 0")
    minutes = integer("chunk_minutes", chunk_minutes, 1)
    cube = (days * (MINUTES_A_DAY / (2.0 * minutes))) ** 3 / 6.0
    some = cube > 1e-300
    root = (3.0 * torch.where(some, cube, torch.ones_like(cube))).sqrt()
    new = 2.0 / root * torch.sinh(torch.asinh(1.5 * root) / 3.0)
    return torch.where(some, torch.where(new > 0.5, cube * new**3, 1.0 - new), cube)


def _check_range(name: str, found: Tensor, holds: bool, expected: str) -> None:
    if not holds:
        raise ValueError(f"`{name}` must be {expected}, got {shown(found.detach().tolist())}")


@dataclass(frozen=True, kw_only=True)
class PoolConfig:
    """What a pool does besides its rule.

    Attributes:
        chunk_minutes: between prices that the rule looks at, ≥ 1.
        interpolation_minutes: over which a change of weights is spread, in [1, chunk_minutes]; None is a whole chunk.
        interpolation: ``"linear"``, or ``"approx_optimal"``: the mean of the linear and the geometric path, normalised.
        maximum_change: of a weight a minute, > 0.
        minimum_weight: in (0, 1/N]; None is 0.1/N. No weight is then above 1 − (N−1) minimum_weight.
        max_memory_days: at which memory is capped, > 0.
        alternative_decay: whether the average below the trend has a decay of its own, sigmoid of the sum of
            `logit_lamb` and `logit_delta_lamb`.
        pre_scaling: whether the parameter `sp_pre_exp_scaling` is used; 0.5 stands for it where not.
        fee: share of what comes in that traders pay, in [0, 1).
        gas_cost: of a trade, in the money of prices, ≥ 0.
        arbitrage_fee: share of volume, half of what comes in and goes out, that rebalancing elsewhere costs, ≥ 0.
        arbitrage_minutes: between trades, ≥ 1.
        noise_ratio: volume of others that trade to and fro, over what an arbitrage brings in, ≥ 0.
        protocol_share: of the fee that leaves the pool, in [0, 1].
        initial_value: of reserves where a run starts, in the money of prices, > 0.
        row_minutes: between rows of prices, ≥ 1; 1440 for daily prices. Must divide chunk_minutes,
            interpolation_minutes and, above 1, arbitrage_minutes.

    Raises:
        ValueError: an attribute is none of these.
    """

    chunk_minutes: int = 1440
    interpolation_minutes: int | None = None
    interpolation: Interpolation = "linear"
    maximum_change: float = 3e-4
    minimum_weight: float | None = None
    max_memory_days: float = 365.0
    alternative_decay: bool = False
    pre_scaling: bool = True
    fee: float = 0.0
    gas_cost: float = 0.0
    arbitrage_fee: float = 0.0
    arbitrage_minutes: int = 1
    noise_ratio: float = 0.0
    protocol_share: float = 0.0
    initial_value: float = 1e6
    row_minutes: int = 1

    def __post_init__(self) -> None:
        for name in ("row_minutes", "chunk_minutes", "arbitrage_minutes"):
            object.__setattr__(self, name, integer(name, getattr(self, name), 1))
        given = integer_or_none("interpolation_minutes", self.interpolation_minutes, 1)
        object.__setattr__(self, "interpolation_minutes", given)
        if given is not None and given > self.chunk_minutes:
            expected = f"at most `chunk_minutes` = {self.chunk_minutes}"
            raise ValueError(f"`interpolation_minutes` must be {expected}, got {given}")
        for name in ("chunk_minutes", "interpolation_minutes", "arbitrage_minutes"):
            minutes = getattr(self, name)
            if minutes is not None and minutes % self.row_minutes and (name, minutes) != ("arbitrage_minutes", 1):
                expected = f"a multiple of `row_minutes` = {self.row_minutes}"
                raise ValueError(f"`{name}` must be {expected}, got {minutes}")
        if self.interpolation not in get_args(Interpolation):
            known = ", ".join(get_args(Interpolation))
            raise ValueError(f"`interpolation` must be one of {known}, got {shown(self.interpolation)}")
        for name in ("alternative_decay", "pre_scaling"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"`{name}` must be True or False, got {shown(getattr(self, name))}")
        for name in ("maximum_change", "max_memory_days", "initial_value"):
            check_number(name, getattr(self, name), 0.0, strict=True)
        for name in ("gas_cost", "arbitrage_fee", "noise_ratio"):
            check_number(name, getattr(self, name), 0.0)
        check_interval("protocol_share", self.protocol_share, 0.0, 1.0)
        check_fee(self.fee)
        if self.minimum_weight is not None:
            check_number("minimum_weight", self.minimum_weight, 0.0, 0.5, strict=True)

    def least_weight(self, assets: int) -> float:
        """`minimum_weight` in a pool of some assets.

        Raises:
            ValueError: it is above 1 over their number.
        """
        if self.minimum_weight is None:
            return 0.1 / assets
        if self.minimum_weight * assets > 1.0 + 1e-12:
            raise ValueError(
                f"`minimum_weight` must be at most 1/N = {1 / assets:g} for {assets} assets, got {self.minimum_weight}"
            )
        return float(self.minimum_weight)

    @property
    def chunk_rows(self) -> int:
        """Rows of prices a chunk."""
        return self.chunk_minutes // self.row_minutes

    @property
    def interpolation_rows(self) -> int:
        """Rows of prices over which a change is spread."""
        return (self.interpolation_minutes or self.chunk_minutes) // self.row_minutes

    @property
    def arbitrage_rows(self) -> int:
        """Rows of prices between trades."""
        return max(1, self.arbitrage_minutes // self.row_minutes)

    def replace(self, **changes: Any) -> PoolConfig:
        """A copy with some attributes changed, checked again."""
        return dataclasses.replace(self, **changes)


def check_fee(fee: Any) -> None:
    """Check that a fee is a share in [0, 1).

    Raises:
        ValueError: it is not.
    """
    check_number("fee", fee, 0.0)
    if fee >= 1.0:
        raise ValueError(f"`fee` must be in [0, 1), got {shown(fee)}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Rule:
    """What parameters stand for; every field (…, N).

    Attributes:
        decay: λ a chunk, capped where memory would be above `max_memory_days`.
        denominator_decay: of the average below the trend, None where it is `decay`.
        memory_days: of `decay`.
        k: weight a unit of signal, squareplus(sp_k)·memory_days.
        exponents: q ≥ 1.
        pre_scaling: s > 0.
        initial_weights: softmax of the logits, those too small raised to the least weight.
    """

    decay: Tensor
    denominator_decay: Tensor | None
    memory_days: Tensor
    k: Tensor
    exponents: Tensor
    pre_scaling: Tensor
    initial_weights: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class PoolParameters:
    """Parameters of the rule, unconstrained numbers, each (…, N) or (…, 1); leading axes are parameter sets.

    Attributes:
        sp_k: k a day of memory is its squareplus.
        logit_lamb: the decay λ a chunk is its sigmoid.
        logit_delta_lamb: with `logit_lamb`, the decay of the average below the trend, where it has its own.
        sp_exponents: the exponent q is the larger of 1 and its squareplus: what is below 0 stands for 1, and there its
            gradient is zero; at 0, the kink, it is that of what lies above.
        sp_pre_exp_scaling: the scale s of the trend is its squareplus.
        initial_weights_logits: (…, N); weights where a run starts are their softmax.

    Raises:
        ValueError: one is not an array of finite numbers, or shapes do not go together.
    """

    sp_k: Tensor
    logit_lamb: Tensor
    logit_delta_lamb: Tensor
    sp_exponents: Tensor
    sp_pre_exp_scaling: Tensor
    initial_weights_logits: Tensor

    def __post_init__(self) -> None:
        for field in fields(self):
            found = tensor_of(field.name, getattr(self, field.name))
            if not torch.isfinite(found).all():
                raise ValueError(f"`{field.name}` must be finite, got {shown(found.tolist())}")
            object.__setattr__(self, field.name, found if found.ndim else found[None])
        assets = self.initial_weights_logits.shape[-1]
        if assets < 2:
            raise ValueError(f"`initial_weights_logits` must have a logit for each of N >= 2 assets, got {assets}")
        for name, found in self.to_dict().items():
            if found.shape[-1] not in (1, assets):
                shape = tuple(found.shape)
                raise ValueError(f"`{name}` must have shape (..., 1) or (..., N) with N = {assets}, got {shape}")
        try:
            common_shape(*(found.shape for found in self.to_dict().values()))
        except RuntimeError as error:
            shapes = ", ".join(f"{name} {tuple(found.shape)}" for name, found in self.to_dict().items())
            raise ValueError(f"`parameters` must have leading shapes that broadcast, got {shapes}") from error

    def standing_still(self) -> PoolParameters:
        """These with k of 1e-12, at which weights stay where a run starts."""
        return PoolParameters(**{**self.to_dict(), "sp_k": torch.full_like(self.sp_k, -1e12)})

    @classmethod
    def initial(
        cls,
        assets: int,
        config: PoolConfig | None = None,
        *,
        memory: float = 30.0,
        k_per_day: float = 20.0,
        exponent: float = 1.0,
        pre_scaling: float = 0.5,
        memory_difference: float = 0.0,
        weights: Any = None,
        per_asset: bool = True,
        sets: int | None = None,
        noise: float = 0.0,
        seed: int = 0,
    ) -> PoolParameters:
        """Parameters from what they stand for, with noise where there are several sets.

        Args:
            assets: N ≥ 2.
            config: of the pool, for its chunks.
            memory: days.
            k_per_day: weight a unit of signal and day of memory, > 0.
            exponent: q ≥ 1.
            pre_scaling: s > 0.
            memory_difference: days by which the average below the trend remembers for longer.
            weights: (N,) > 0, where a run starts; None is equal ones.
            per_asset: whether each asset has parameters of its own, or all share one number.
            sets: None is one set without an axis.
            noise: standard deviation of what is added to all but the logits of weights, in every set but the first.
            seed: of the noise, ≥ 0.

        Raises:
            ValueError: an argument is none of these.
        """
        assets = integer("assets", assets, 2)
        config = PoolConfig() if config is None else config
        for name, value in (("memory", memory), ("k_per_day", k_per_day), ("pre_scaling", pre_scaling)):
            check_number(name, value, 0.0, strict=True)
        check_number("exponent", exponent, 1.0)
        check_number("memory_difference", memory_difference, -memory, strict=True)
        check_number("noise", noise, 0.0)
        given = (
            torch.full((assets,), 1.0 / assets, dtype=torch.float64)
            if weights is None
            else tensor_of("weights", weights)
        )
        if given.shape != (assets,) or not bool((given > 0.0).all()):
            raise ValueError(f"`weights` must be {assets} numbers > 0, got {shown(weights)}")
        width = assets if per_asset else 1
        logit = torch.logit(decay_for_memory(memory, config.chunk_minutes))
        other = torch.logit(decay_for_memory(memory + memory_difference, config.chunk_minutes))
        means = {
            "sp_k": inverse_squareplus(k_per_day), "logit_lamb": logit, "logit_delta_lamb": other - logit,
            "sp_exponents": inverse_squareplus(exponent), "sp_pre_exp_scaling": inverse_squareplus(pre_scaling),
        }  # fmt: skip
        lead = () if sets is None else (integer("sets", sets, 1),)
        found = {name: mean.expand(*lead, width).clone() for name, mean in means.items()}
        random = torch.Generator().manual_seed(integer("seed", seed, 0))
        if sets is not None:
            for tensor in found.values():
                draws = torch.randn(tensor.shape, generator=random, dtype=torch.float64)
                tensor[1:] += noise * draws[1:]
        logits = given.log().expand(*lead, assets).clone()
        return cls(**found, initial_weights_logits=logits)

    def to_dict(self) -> dict[str, Tensor]:
        """The parameters by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PoolParameters:
        """The inverse of `to_dict`; lists will do.

        Raises:
            ValueError: a parameter is missing or unknown.
        """
        names = {field.name for field in fields(cls)}
        if set(values) != names:
            raise ValueError(f"`values` must have {sorted(names)}, got {sorted(values)}")
        return cls(**values)

    def map(self, change: Callable[[Tensor], Tensor]) -> PoolParameters:
        """Parameters with every tensor changed."""
        return PoolParameters(**{name: change(found) for name, found in self.to_dict().items()})

    @property
    def assets(self) -> int:
        """N."""
        return int(self.initial_weights_logits.shape[-1])

    def decode(self, config: PoolConfig) -> Rule:
        """What the parameters stand for in a pool.

        Raises:
            ValueError: the least weight is above 1/N.
        """
        from hmgym.pools.weights import guarded

        if not isinstance(config, PoolConfig):
            raise ValueError(f"`config` must be a PoolConfig, got {shown(config)}")
        shape = common_shape(*(found.shape for found in self.to_dict().values()))
        largest = float(decay_for_memory(config.max_memory_days, config.chunk_minutes))
        own = {name: found.expand(shape) for name, found in self.to_dict().items()}
        decay = torch.sigmoid(own["logit_lamb"]).clamp(max=largest)
        denominator = torch.sigmoid(own["logit_lamb"] + own["logit_delta_lamb"]).clamp(max=largest)
        memory = memory_days(decay, config.chunk_minutes)
        scaling = squareplus(own["sp_pre_exp_scaling"])
        weights = torch.softmax(own["initial_weights_logits"], -1)
        return Rule(
            decay=decay,
            denominator_decay=denominator if config.alternative_decay else None,
            memory_days=memory,
            k=squareplus(own["sp_k"]) * memory,
            exponents=squareplus(own["sp_exponents"]).clamp(min=1.0),
            pre_scaling=scaling if config.pre_scaling else torch.full_like(scaling, 0.5),
            initial_weights=guarded(weights, config.least_weight(shape[-1])),
        )
