"""Random markets in every regime of the limits, for benchmarks and tests alike."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def random_markets(
    rng: np.random.Generator,
    n_markets: int,
    n_investors: int = 6,
    n_assets: int = 3,
    *,
    volatility: float = 0.1,
    condition: float | None = None,
    with_orders: bool = False,
    with_cost: bool = False,
    with_own_limits: bool = False,
) -> dict[str, Tensor]:
    """Arguments of ``clear_market`` for a batch of markets, each of which has an equilibrium.

    Args:
        rng: source of all draws.
        n_markets, n_investors, n_assets: E, B and N.
        volatility: of the assets over one period.
        condition: largest condition number of risk, each investor's own between 1 and that; None draws one covariance a
            market, well conditioned.
        with_orders: money orders; in one market of four they sell up to nine tenths of buying power.
        with_cost: trading costs, and the last prices and positions that they are counted from.
        with_own_limits: limits of every position, some of them forced holdings, forced shorts or without room; always
            with orders, chosen such that a portfolio inside the limits takes them up.
    """
    E, B, N = n_markets, n_investors, n_assets
    factors = rng.normal(size=(E, 1, N, N))
    covariance = factors @ factors.swapaxes(-1, -2) / N + 0.3 * np.eye(N)
    scale = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
    covariance *= volatility**2 / (scale[..., :, None] * scale[..., None, :])
    risk = 0.5 * rng.uniform(2, 8, (E, B, 1, 1)) * covariance
    wealth = 1 + rng.pareto(1.5, (E, B))
    short = rng.uniform(0, 0.5, (E, B)) * rng.choice([0, 1, 4], (E, B))
    long = np.where(rng.random((E, B)) < 0.3, rng.uniform(1.01 / (N + 1), 1, (E, B)), rng.uniform(1, 2.5, (E, B)))
    supply = np.exp(rng.normal(size=(E, N)))
    level = np.log(0.7 * wealth.sum(1, keepdims=True) / N / supply)
    beliefs = level[:, None] + rng.normal(size=(E, B, N)) * rng.choice([0.02, 0.1, 0.4], (E, 1, 1))
    markets = {"beliefs": beliefs, "risk": risk, "wealth": wealth, "supply": supply}
    markets |= {"short_leverage": short, "long_leverage": long}
    if with_orders:
        markets["orders"] = rng.normal(size=(E, N)) * 0.02 * wealth.sum(1, keepdims=True)
        # In one market of four, sellers take up to nine tenths of what the others can buy.
        k = np.arange(1, N + 1)
        reach = np.minimum(k * long[..., None], 1 + short[..., None] * (N + 1 - k))
        power = (wealth[..., None] * reach).sum(1).min(1, keepdims=True)
        sold = -rng.uniform(0, 0.9, (E, 1)) * power * rng.dirichlet(np.ones(N), E)
        markets["orders"] = np.where(rng.random((E, 1)) < 0.25, sold, markets["orders"])
    if with_cost:
        markets["last_prices"] = np.exp(level + 0.02 * rng.normal(size=(E, N)))
        held = rng.uniform(-0.2, 0.6, (E, B, N))
        markets["positions"] = held * wealth[..., None] / markets["last_prices"][:, None]
        markets["trading_cost"] = rng.choice([0.0, 0.001, 0.01, 0.05], (E, B, N))
    if condition is not None:
        markets["risk"] = (
            0.5 * rng.uniform(2, 8, (E, B, 1, 1)) * _ill_conditioned(rng, (E, B), N, volatility, condition)
        )
    if with_own_limits:
        markets |= _own_limits(rng, wealth, supply * np.exp(level))
    return {name: torch.as_tensor(np.asarray(x, dtype=np.float64)) for name, x in markets.items()}


def _ill_conditioned(
    rng: np.random.Generator, shape: tuple[int, ...], n_assets: int, volatility: float, condition: float
) -> np.ndarray:
    """Covariances whose eigenvalues fall evenly in logarithm, or after the first few, to 1/condition of the largest."""
    basis = np.linalg.qr(rng.normal(size=(*shape, n_assets, n_assets)))[0]
    fall = rng.uniform(0, np.log(condition), (*shape, 1))
    share = np.where(
        rng.random((*shape, 1)) < 0.5,
        np.linspace(0, 1, n_assets) if n_assets > 1 else np.zeros(1),
        np.arange(n_assets) >= rng.integers(1, n_assets + 1, (*shape, 1)),
    )
    covariance = volatility**2 * (basis * np.exp(-fall * share)[..., None, :]) @ basis.swapaxes(-1, -2)
    return 0.5 * (covariance + covariance.swapaxes(-1, -2))


def _own_limits(rng: np.random.Generator, wealth: np.ndarray, value: np.ndarray) -> dict[str, np.ndarray]:
    """Limits around a random portfolio, and orders that make it clear the market at prices of its own."""
    E, B = wealth.shape
    N = value.shape[1]
    middle = rng.dirichlet(np.ones(N + 1), (E, B)) * 1.5 - 0.5 / (N + 1)
    below, above = (rng.exponential(0.4, (E, B, N + 1)) for _ in range(2))
    below[rng.random(below.shape) < 0.1] = 0.0
    above[rng.random(above.shape) < 0.1] = 0.0
    wide = rng.random((E, B, 1)) < 0.2
    below, above = (np.where(wide, 10 * x, x) for x in (below, above))
    orders = value * np.exp(rng.normal(size=(E, N))) - (wealth[..., None] * middle[..., 1:]).sum(1)
    return {"short_leverage": below - middle, "long_leverage": middle + above, "orders": orders}
