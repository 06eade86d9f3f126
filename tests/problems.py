"""Markets whose equilibrium is known in closed form, and random ones, shared by all suites of clearing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Problem:
    """The arguments of ``clear_market`` for one market (unbatched) and its known prices."""

    name: str
    arguments: dict[str, Tensor]
    prices: Tensor
    options: dict[str, Tensor | float]


def _tensor(x: object) -> Tensor:
    return torch.as_tensor(np.asarray(x, dtype=np.float64))


def _market(
    beliefs: object, risk: object, wealth: object, short: object, long: object, supply: object
) -> dict[str, Tensor]:
    names = ("beliefs", "risk", "wealth", "short_leverage", "long_leverage", "supply")
    return {name: _tensor(x) for name, x in zip(names, (beliefs, risk, wealth, short, long, supply), strict=True)}


def closed_form_problems() -> list[Problem]:
    """Problems solved by hand."""
    problems = []

    # One investor, one asset, no limit binds: w = (m - u)/(2g) = S p / W. With w fixed at x, u = m - 2 g x.
    g, x, m = 0.02, 0.6, 1.5
    u = m - 2 * g * x
    problems.append(
        Problem("interior", _market([[m]], [[[g]]], [x**-1 * np.exp(u)], [0.0], [1.0], [1.0]), _tensor([np.exp(u)]), {})
    )

    # Everybody at the long limit: p = theta W / S whatever the beliefs, as long as they are high.
    problems.append(
        Problem(
            "all at the long limit",
            _market([[9.0], [8.0]], np.full((2, 1, 1), 0.01), [3.0, 5.0], [0.2, 0.5], [1.1, 0.9], [2.0]),
            _tensor([(3.0 * 1.1 + 5.0 * 0.9) / 2.0]),
            {},
        )
    )

    # Cash at the short limit: risky weights sum to 1 + kappa; two assets alike share it, p = (1 + kappa) W / (2 S).
    problems.append(
        Problem(
            "cash at the short limit",
            _market([[7.0, 7.0]], [np.eye(2) * 0.01], [4.0], [0.5], [3.0], [1.0, 1.0]),
            _tensor([3.0, 3.0]),
            {},
        )
    )

    # A money order alone against one interior investor: W (m - u)/(2g) + D = S e^u.
    u = 0.3
    weight = (0.4 - u) / (2 * 0.1)
    problems.append(
        Problem(
            "a sell order",
            _market([[0.4]], [[[0.1]]], [(1.0 * np.exp(u) + 0.25) / weight], [0.0], [1.0], [1.0]),
            _tensor([np.exp(u)]),
            {"orders": _tensor([-0.25])},
        )
    )

    # Inside the dead zone of a trading cost nobody changes the money held: p = sum W w_prev / S.
    problems.append(
        Problem(
            "nobody trades inside the dead zone",
            _market([[0.01], [-0.01]], np.full((2, 1, 1), 0.001), [2.0, 2.0], [0.0, 0.0], [1.0, 1.0], [1.0]),
            _tensor([1.0]),
            {
                "trading_cost": _tensor(0.2),
                "last_prices": _tensor([1.0]),
                "positions": _tensor([[0.4], [0.6]]),
            },
        )
    )
    return problems


def random_markets(
    rng: np.random.Generator,
    n_markets: int,
    n_investors: int = 6,
    n_assets: int = 3,
    *,
    volatility: float = 0.1,
    with_orders: bool = False,
    with_cost: bool = False,
) -> dict[str, Tensor]:
    """Random markets in every regime of the limits; arguments of ``clear_market`` for a batch."""
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
    return {name: _tensor(x) for name, x in markets.items()}
