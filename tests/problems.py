"""Markets whose equilibrium is known in closed form, shared by all suites of clearing."""

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
