"""The strategies of market makers on a recorded book: those of the model that its training rows are most like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hmgym.agents.baselines import Baseline
from hmgym.agents.quoting import Strategy, strategies_of
from hmgym.envs import make_markets
from hmgym.envs.quoting import BookQuoting
from hmgym.market_making import InventoryHJB, fit_model


def book_models(simulator: BookQuoting, reward: str = "inventory_penalty") -> tuple[InventoryHJB, InventoryHJB]:
    """The model of a simulator's training rows, with the penalties of a reward, and the same with a risk aversion.

    The risk aversion is the one whose ½γσ² is the running penalty, 1 / Qσ where there is none; without volatility
    both are the same.

    Args:
        simulator: on a recorded book.
        reward: "pnl" has no penalties; the best quotes for "sharpe" are taken to be those of "inventory_penalty".
    """
    variance = simulator.replay.scales.volatility**2
    penalised = reward != "pnl"
    shape: dict[str, Any] = {"steps": simulator.steps, "max_inventory": simulator.max_inventory}
    model = fit_model(
        simulator.replay, **shape, running_penalty=simulator.running_penalty if penalised else 0.0,
        terminal_penalty=simulator.terminal_penalty if penalised else 0.0,
    )  # fmt: skip
    if variance == 0.0:
        return model, model
    aversion = 2.0 * simulator.running_penalty / variance or 1.0 / (simulator.max_inventory * variance**0.5)
    return model, fit_model(simulator.replay, **shape, risk_aversion=aversion)


def book_strategies(simulator: BookQuoting, reward: str = "inventory_penalty") -> dict[str, Strategy]:
    """The strategies of :func:`~hmgym.agents.quoting.strategies_of` for a simulator on a recorded book, by name."""
    return strategies_of(*book_models(simulator, reward), simulator.steps)


def book_baselines(env_id: str, env_kwargs: Mapping[str, Any]) -> dict[str, Baseline]:
    """The strategies of the model of the book's training rows, whatever rows they are compared on."""
    markets: Any = make_markets(env_id, 1, **env_kwargs)
    found = book_strategies(markets.simulator, env_kwargs.get("reward", "inventory_penalty"))
    return {name: Baseline(policy=policy, env_id=env_id, env_kwargs=env_kwargs) for name, policy in found.items()}
