"""Random portfolios and markets with price beliefs, and the committed market of the seed library's example."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

NAMES = ("Sigma", "expected_returns", "commission", "holdings", "budget", "short_leverage", "long_leverage")
_FIXTURE = Path(__file__).parents[1] / "fixtures" / "seed_market.json"


def seed_market() -> dict[str, Any]:
    """The 20 investors of the seed library's README, drawn once."""
    drawn = json.loads(_FIXTURE.read_text())
    market = {name: torch.tensor(drawn[name], dtype=torch.float64) for name in (*NAMES, "supply") if name in drawn}
    market["commission"] = torch.zeros(20, dtype=torch.float64)
    market["holdings"] = torch.zeros(20, 3, dtype=torch.float64)
    return market


def generated_market(n: int, B: int, seed: int) -> dict[str, Any]:
    """A market from the distributions of the seed library's example, with n assets and B investors."""
    rng = np.random.default_rng(seed)
    factors = rng.standard_normal((B, n + 1, n)) * np.sqrt(50.0 / (n + 1))
    return {
        "Sigma": np.einsum("bki,bkj->bij", factors, factors),
        "expected_returns": 1.0 + np.sqrt(5.0) * rng.standard_normal((B, n)),
        "commission": 0.0,
        "holdings": np.zeros((B, n)),
        "budget": 130000.0 * (1.0 - rng.random(B)) ** -0.1,
        "short_leverage": rng.beta(1.0, 4.0, B),
        "long_leverage": rng.beta(2.0, 2.0, B) / n * (n - 1) + 1.0 / n,
        "supply": np.full(n, 10000.0),
    }


def ordinary_market(n: int, B: int, seed: int, kind: str = "plain") -> dict[str, Any]:
    """Beliefs around fundamental values, return volatility .003 to .3, heavy-tailed wealth; kind "cost" has commissions
    and holdings, "caps" limits per asset."""
    rng = np.random.default_rng(seed)
    value, supply = np.exp(rng.normal(3.0, 0.7, n)), np.exp(rng.normal(3.0, 1.0, n))
    wealth = rng.pareto(1.5, B) + 1.0
    wealth *= (value @ supply) * rng.uniform(1.05, 3.0) / wealth.sum()
    expected = value * np.exp(rng.normal(0.02, 0.1, (B, n)))
    loadings = rng.standard_normal((B, n, n + 2)) * 10 ** rng.uniform(-2.5, -0.5) / np.sqrt(n + 2)
    risk = np.einsum("bik,bjk->bij", loadings, loadings) * (rng.uniform(0.5, 4.0, B) / wealth)[:, None, None]
    size = (B, n) if kind == "caps" else (B,)
    short = rng.uniform(0.0, 0.5, size) * rng.integers(0, 2, size)
    long = rng.uniform(1.0 / (n + 1) + 0.05, 2.5, size)
    commission, held = 0.0, np.zeros((B, n))
    if kind == "cost":
        commission, held = value.mean() * 10 ** rng.uniform(-4.0, -1.5), rng.dirichlet(np.ones(B), n).T * supply
    return {
        "Sigma": risk * value[:, None] * value,
        "expected_returns": expected,
        "commission": commission,
        "holdings": held,
        "budget": wealth,
        "short_leverage": short,
        "long_leverage": long,
        "supply": supply,
    }


def random_portfolio(n: int, seed: int) -> dict[str, Any]:
    """One investor: covariances conditioned up to 1e10 or singular, commissions, holdings, every kind of limit."""
    rng = np.random.default_rng(seed)
    prices = np.exp(rng.normal(0.0, 1.5, n)) if rng.random() < 0.7 else np.full(n, 10.0)
    wealth = np.exp(rng.normal(4.0, 2.0))
    condition = 10 ** rng.uniform(0.0, 10.0)
    basis = np.linalg.qr(rng.standard_normal((n, n)))[0]
    risk = (basis * np.exp(np.linspace(0.0, -np.log(condition), n))) @ basis.T * 10 ** rng.uniform(-3.0, 1.0)
    if seed % 5 == 0:
        loadings = rng.standard_normal((n, max(1, n // 2)))
        risk = loadings @ loadings.T * 10 ** rng.uniform(-3.0, 1.0)
        condition = np.inf if n > 1 else 1.0
    short = rng.choice([0.0, 0.1, 0.5, 2.0]) if rng.random() < 0.6 else rng.exponential(0.4)
    long = rng.choice([1.0, 0.5, 2.0]) if rng.random() < 0.5 else 1.0 / (n + 1) + rng.exponential(0.5)
    long = max(long, 1.0 / (n + 1))
    if rng.random() < 0.3:
        short = rng.exponential(0.4, n) * rng.integers(0, 2, n)
        long = 1.0 / (n + 1) + rng.exponential(0.5, n)
    commission = prices * rng.exponential(0.05, n) * rng.integers(0, 2, n) if rng.random() < 0.6 else np.zeros(n)
    held = rng.normal(0.0, 0.4, n) * wealth / prices if rng.random() < 0.6 else np.zeros(n)
    if rng.random() < 0.2:
        held = rng.choice([-1, 1], n) * np.where(rng.random(n) < 0.5, short, long) * wealth / prices
    covariance = risk * prices[:, None] * prices / wealth
    return {
        "Sigma": 0.5 * (covariance + covariance.T),
        "expected_returns": prices * (1.0 + rng.normal(0.0, 0.3, n)),
        "commission": commission,
        "holdings": held,
        "budget": wealth,
        "short_leverage": short,
        "long_leverage": long,
        "prices": prices,
        "commission_on": ("buys", "trades")[seed % 2],
        "condition": condition,
    }
