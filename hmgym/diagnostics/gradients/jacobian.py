"""Spectrum of the state Jacobian J_t = ds_{t+1}/ds_t along rollouts, and growth of the product J_{t+k−1} … J_t.

The state s is the part that an action reaches, each entry in a unit of its own size:

    log prices, cash and positions of every investor (money, as a share of all wealth; positions at the present price),
    averages of returns of every investor, volatility, last return, log supply, log unit value.

Values, news, signals, errors and moods are left out: they follow from shocks alone, so no gradient of an action passes
through them. Without feedback the action is given; with feedback it follows the policy, J + (ds_{t+1}/da)(da/ds).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hmgym.agents.networks import SquashedGaussianPolicy
from hmgym.analysis.figures import MUTED, SERIES, layout, log_scale, new_figure, save
from hmgym.diagnostics.gradients.reporting import counted, format_table, quantiles, title
from hmgym.diagnostics.gradients.rollouts import Setting
from hmgym.market import MarketState


@dataclass(frozen=True, kw_only=True)
class JacobianSettings:
    """What is looked at.

    Attributes:
        months: of the product.
        burn_in: months before it.
        smoothing: of the clearing.
        eigenvalues_every: months between those whose eigenvalues are computed.
        seed: of the markets.
    """

    months: int = 32
    burn_in: int = 12
    smoothing: float = 0.0
    eigenvalues_every: int = 8
    seed: int = 0


class Coordinates:
    """Entries of a state as one row a market, in the units that this state gives.

    Args:
        state: whose total wealth and prices are the units.
    """

    def __init__(self, state: MarketState) -> None:
        self._wealth = state.wealth.sum(1, keepdim=True).detach()
        self._prices = state.prices.detach()

    def of(self, state: MarketState) -> Tensor:
        """Row (E, n) of a state, with its graph."""
        positions = state.holdings * (self._prices / self._wealth)[:, None]
        parts = (
            torch.log(state.prices), state.cash / self._wealth, positions.flatten(1),
            state.scenario.population.trend.flatten(1),
            torch.sqrt(state.variance), state.last_return, torch.log(state.supply), torch.log(state.unit_value),
        )  # fmt: skip
        return torch.cat(parts, 1)

    def to_state(self, row: Tensor, state: MarketState) -> dict[str, Tensor]:
        """Tensors of `state` with its entries replaced by those of a row, with the row's graph."""
        _, investors, assets = state.holdings.shape
        several = investors * assets
        sizes = [assets, investors, several, several, assets, assets, assets, state.unit_value.shape[1]]
        parts = torch.split(row, sizes, 1)
        log_prices, cash, positions, trend, volatility, last_return, log_supply, log_unit_value = parts
        prices, cash = torch.exp(log_prices), cash * self._wealth
        holdings = positions.reshape(-1, investors, assets) * (self._wealth / self._prices)[:, None]
        replaced = {
            "prices": prices, "cash": cash, "holdings": holdings,
            "wealth": cash + (holdings * prices[:, None]).sum(-1),
            "scenario.memories.0.trend": trend.reshape(-1, investors, assets),
            "variance": volatility**2, "last_return": last_return,
            "supply": torch.exp(log_supply), "unit_value": torch.exp(log_unit_value),
        }  # fmt: skip
        return state.detach().tensors() | replaced


def measure(setting: Setting, policy: SquashedGaussianPolicy, settings: JacobianSettings, label: str) -> dict[str, Any]:
    """Singular values, spectral radius and growth, without and with feedback, ready for JSON."""
    markets = setting.markets(settings.seed, settings.smoothing)
    with torch.no_grad():
        for _ in range(settings.burn_in):
            markets.step(policy(markets.observe())[0])
            markets.restart()
    running = torch.ones(setting.num_markets, dtype=torch.bool)
    size = Coordinates(markets.state).of(markets.state).shape[1]
    products = {name: torch.eye(size, dtype=torch.float64).repeat(len(running), 1, 1) for name in ("given", "feedback")}
    values: dict[str, list[Tensor]] = {name: [] for name in products}
    radii: dict[str, list[float]] = {name: [] for name in products}
    growth: dict[str, list[Any]] = {name: [] for name in products}
    reach: dict[str, list[Any]] = {name: [] for name in products}
    for month in counted(range(settings.months), label):
        given, feedback, ended = _jacobians(markets, policy)
        running &= ~ended
        for name, jacobian in (("given", given), ("feedback", feedback)):
            products[name] = jacobian @ products[name]
            values[name].append(torch.linalg.svdvals(jacobian[running]))
            growth[name].append(quantiles(torch.linalg.matrix_norm(products[name][running], 2)))
            reach[name].append(quantiles(products[name][running, -1].norm(dim=1)))
            if month % settings.eigenvalues_every == 0:
                radii[name] += torch.linalg.eigvals(jacobian[running]).abs().amax(1).tolist()
        markets.restart()
        markets.detach()
    variants = {}
    for name in products:
        ordered = torch.cat(values[name])
        norms = np.array([entry["median"] for entry in growth[name]])
        later = slice(len(norms) // 4, None)
        months = np.arange(1, len(norms) + 1)
        rate = np.polyfit(months[later], np.log(norms[later]), 1)[0] if len(norms) > 4 else np.nan
        variants[name] = {
            "singular_values": {
                "median": ordered.median(0).values.tolist(), "q95": ordered.quantile(0.95, 0).tolist(),
            },
            "largest_singular_value": quantiles(ordered[:, 0]), "spectral_radius": quantiles(radii[name]),
            "product_norm": growth[name], "unit_value_row_norm": reach[name], "growth_a_month": float(rate),
        }  # fmt: skip
    return {
        "settings": asdict(settings), "size": size, "markets": setting.num_markets,
        "markets_to_the_end": int(running.sum()), "variants": variants,
    }  # fmt: skip


def _jacobians(markets: Any, policy: SquashedGaussianPolicy) -> tuple[Tensor, Tensor, Tensor]:
    """Run one month; Jacobians (E, n, n) with the action given and with feedback, and whether the episode ended."""
    here = Coordinates(markets.state)
    row = here.of(markets.state).detach().requires_grad_()
    markets.load_state_dict(markets.state_dict() | {"state": here.to_state(row, markets.state)})
    response = policy(markets.observe()[:, 0])[0]
    policy_rows = _rows(response, row)[0]
    action = response.detach().requires_grad_()
    period = markets.step(action[:, None])
    given, by_action = _rows(Coordinates(markets.state).of(markets.state), row, action)
    return given, given + by_action @ policy_rows, period.ended[:, 0]


def _rows(outputs: Tensor, *inputs: Tensor) -> list[Tensor]:
    """Jacobians (E, outputs, inputs) of outputs (E, k), one backward pass an output."""
    found = [
        torch.autograd.grad(column.sum(), inputs, retain_graph=True, allow_unused=True, materialize_grads=True)
        for column in outputs.unbind(1)
    ]
    return [torch.stack(part, 1) for part in zip(*found, strict=True)]


_NAMES = {"given": "action given", "feedback": "with feedback"}


def table(results: list[dict[str, Any]]) -> str:
    """One line a policy and variant."""
    header = [
        "environment", "policy", "action", "largest singular value", "95 %", "spectral radius", "95 %",
        "product after 12", "95 %", "after all", "95 %", "growth a month",
    ]  # fmt: skip
    lines = []
    for result in results:
        for name, variant in result["variants"].items():
            norms = variant["product_norm"]
            shown = [variant["largest_singular_value"], variant["spectral_radius"], norms[min(11, len(norms) - 1)]]
            cells = [f"{entry[key]:.3g}" for entry in [*shown, norms[-1]] for key in ("median", "q95")]
            rate = f"{variant['growth_a_month']:+.3f}"
            lines.append([title(result["env_id"]), result["policy"], _NAMES[name], *cells, rate])
    return format_table(header, lines)


@layout()
def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Of trained policies: singular values, and growth of the product's norm and of the row of the log unit value."""
    shown = [result for result in results if result["policy"] == "trained"]
    figure = new_figure(2.3 * len(shown) + 0.4)
    grid = figure.subplots(len(shown), 3, squeeze=False)
    for panels, result in zip(grid, shown, strict=True):
        spectrum, product, reach = panels
        log_scale(spectrum, "y")
        months = np.arange(1, len(result["variants"]["given"]["product_norm"]) + 1)
        ticks = [month for month in (1, 2, 4, 8, 16, 32, 64) if month <= months[-1]]
        for panel in (product, reach):
            log_scale(panel, "x", ticks)
            log_scale(panel, "y")
            panel.set_xlabel("months")
        for (name, variant), colour in zip(result["variants"].items(), SERIES, strict=False):
            values = variant["singular_values"]
            order = np.arange(1, result["size"] + 1)
            spectrum.plot(order, np.maximum(values["median"], 1e-6), color=colour, label=_NAMES[name])
            spectrum.plot(order, np.maximum(values["q95"], 1e-6), ":", color=colour)
            for panel, key in ((product, "product_norm"), (reach, "unit_value_row_norm")):
                panel.plot(months, [entry["median"] for entry in variant[key]], color=colour)
                panel.plot(months, [entry["q95"] for entry in variant[key]], ":", color=colour)
        spectrum.plot([], [], ":", color=MUTED, label="95 % quantile")
        spectrum.set(xlabel="number", ylabel="singular value of one month", ylim=(1e-3, None))
        spectrum.set_title(f"{title(result['env_id'])}, {result['policy']}")
        product.set_ylabel("norm of the product")
        reach.set_ylabel("d log unit value / d state")
    if len(grid):
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3)
    save(figure, path)
