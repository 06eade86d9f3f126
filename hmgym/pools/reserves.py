"""Reserves of a pool whose weights move, minute by minute, held to prices by arbitrage.

Without a fee every row of prices p → p' and of weights w → w' multiplies reserves by

    Π(p'/p)^w / (p'/p) · (w'/w) / Π(w'/w)^{w'}.

With a fee, γ = 1 − fee, whoever trades keeps Π(R + γ·in − out)^w. At each row the trade that earns most is made at the
old weights and then at the new ones. With π = pR/w and μ the root of Σ w (log π̂ − log π) = 0 it lifts every π below γμ
to π̂ = γμ and lowers every π above μ to π̂ = μ, so all splits into what goes in and out are compared at once.
"""

from __future__ import annotations

from torch import Tensor

from hmgym.checks import check_interval, check_number, integer
from hmgym.pools.operators import ReservesFees, ReservesFree, price_rows, rows
from hmgym.pools.parameters import Real, check_fee, common_shape, tensor_of
from hmgym.pools.rule import check_positive, read_prices


def reserves_without_fees(initial_reserves: Real, weights: Tensor, prices: Tensor) -> Tensor:
    """Reserves of a pool that charges nothing.

    Args:
        initial_reserves: (N,) or (…, N) > 0, those of row 0.
        weights: (T, N) or (…, T, N) > 0.
        prices: (T, N) or (…, T, N) > 0.

    Returns:
        (…, T, N), differentiable with respect to all three.

    Raises:
        ValueError: an argument is none of these.
    """
    lead, flat = _read(initial_reserves, weights, prices, checked=False)
    reserves: Tensor = ReservesFree.apply(*flat)  # type: ignore[no-untyped-call]
    # What is not positive and finite leaves no number behind it, so the ends tell for all that lies between.
    ends = (flat[0], flat[1][:, 0], flat[2][:, 0], reserves[:, -1])
    if not all(bool(((each > 0.0) & (each < float("inf"))).all()) for each in ends):
        _read(initial_reserves, weights, prices)
        raise ValueError("`prices` and `weights` must move by less than floats hold, got reserves that are not numbers")
    return reserves.reshape(*lead, *reserves.shape[1:])


def reserves_with_fees(
    initial_reserves: Real,
    weights: Tensor,
    prices: Tensor,
    *,
    fee: float,
    gas_cost: float = 0.0,
    arbitrage_fee: float = 0.0,
    noise_ratio: float = 0.0,
    protocol_share: float = 0.0,
    arbitrage_minutes: int = 1,
) -> Tensor:
    """Reserves of a pool that charges a fee; row 0 is the initial ones, before any trade.

    A trade with t > 0 in and t < 0 out is made if −Σ t·p − gas ≥ ½·arbitrage_fee·Σ|t|·p. Others then trade to and fro,
    which multiplies reserves by 1 + noise_ratio·fee·(1 − protocol_share)·Σ in·p/Σ R·p, and the protocol takes
    in·fee·protocol_share. At a fee of 0 without costs this is `reserves_without_fees`.

    Args:
        initial_reserves: (N,) or (…, N) > 0.
        weights: (T, N) or (…, T, N) > 0.
        prices: (T, N) or (…, T, N) > 0.
        fee: in [0, 1).
        gas_cost: of a trade, money, ≥ 0.
        arbitrage_fee: share of volume, ≥ 0.
        noise_ratio: ≥ 0.
        protocol_share: in [0, 1].
        arbitrage_minutes: m ≥ 1; only rows m, 2m, … trade, from the weights of the last such row to their own.

    Returns:
        (…, T, N), differentiable with respect to reserves, weights and prices; at a trade that just pays it jumps.

    Raises:
        ValueError: an argument is none of these.
    """
    check_fee(fee)
    for name, value in (("gas_cost", gas_cost), ("arbitrage_fee", arbitrage_fee), ("noise_ratio", noise_ratio)):
        check_number(name, value, 0.0)
    check_interval("protocol_share", protocol_share, 0.0, 1.0)
    every = integer("arbitrage_minutes", arbitrage_minutes, 1)
    lead, flat = _read(initial_reserves, weights, prices)
    noise, take = noise_ratio * fee * (1.0 - protocol_share), fee * protocol_share
    settings = (1.0 - float(fee), float(gas_cost), float(arbitrage_fee), float(noise), float(take), every)
    reserves: Tensor = ReservesFees.apply(*flat, settings)  # type: ignore[no-untyped-call]
    return reserves.reshape(*lead, *reserves.shape[1:])


def _read(
    initial: Real, weights: Tensor, prices: Tensor, checked: bool = True
) -> tuple[tuple[int, ...], tuple[Tensor, Tensor, Tensor]]:
    """Leading shape, and the three as rows."""
    weights, prices = tensor_of("weights", weights), read_prices("prices", prices, checked=checked)
    held = tensor_of("initial_reserves", initial)
    if checked:
        check_positive("weights", weights)
        check_positive("initial_reserves", held)
    if weights.ndim < 2 or weights.shape[-2:] != prices.shape[-2:]:
        shapes = f"{tuple(weights.shape)} for prices {tuple(prices.shape)}"
        raise ValueError(f"`weights` must have shape (..., T, N) with T and N of `prices`, got {shapes}")
    if held.ndim < 1 or held.shape[-1] != prices.shape[-1]:
        raise ValueError(f"`initial_reserves` must be of {prices.shape[-1]} assets, got shape {tuple(held.shape)}")
    try:
        lead = common_shape(held.shape[:-1], weights.shape[:-2], prices.shape[:-2])
    except RuntimeError as error:
        shapes = f"{tuple(held.shape)}, {tuple(weights.shape)}, {tuple(prices.shape)}"
        raise ValueError(
            f"`weights`, reserves and prices must have leading shapes that broadcast, got {shapes}"
        ) from error
    return tuple(lead), (rows(held, lead, 1), rows(weights, lead, 2), price_rows(prices, lead))
