"""Prices, weights and parameters that several tests of pools share."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from hmgym.pools import PoolParameters


def random_prices(rows: int, assets: int, seed: int = 0, volatility: float = 0.02, level: float = 1.0) -> Tensor:
    random = np.random.default_rng(seed)
    steps = volatility * random.standard_normal((rows, assets))
    return torch.from_numpy(level * np.exp(random.standard_normal(assets) + steps.cumsum(0)))


def random_weights(rows: int, assets: int, seed: int = 0, swing: float = 0.05) -> Tensor:
    random = np.random.default_rng(seed + 100)
    logits = random.standard_normal(assets) + (swing * random.standard_normal((rows, assets))).cumsum(0)
    return torch.softmax(torch.from_numpy(logits), -1)


def random_parameters(assets: int, seed: int = 0, sets: int | None = None, k_per_day: float = 0.3) -> PoolParameters:
    random = torch.Generator().manual_seed(seed)
    lead = () if sets is None else (sets,)

    def around(mean: float, width: float) -> Tensor:
        return mean + width * torch.randn(*lead, assets, generator=random, dtype=torch.float64)

    return PoolParameters(
        sp_k=around(k_per_day - 1.0 / k_per_day, 0.2),
        logit_lamb=around(1.0, 0.5),
        logit_delta_lamb=around(0.0, 0.5),
        sp_exponents=around(0.6, 0.1),
        sp_pre_exp_scaling=around(-1.0, 0.3),
        initial_weights_logits=around(0.0, 0.3),
    )


def check_gradient(
    function: Callable[[Tensor], Tensor], at: Tensor, *, step: float = 1e-6, tolerance: float = 1e-6
) -> None:
    """Central differences, relative steps, against the gradient; errors relative to its largest element."""
    leaf = at.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(leaf), leaf)
    assert torch.isfinite(gradient).all()
    differences = torch.zeros_like(at)
    for place in itertools.product(*map(range, at.shape)):
        size = step * max(1e-3 * float(at.abs().max()), float(at[place].abs()))
        moved = [at.clone(), at.clone()]
        moved[0][place] += size
        moved[1][place] -= size
        up, down = (float(function(each)) for each in moved)
        differences[place] = (up - down) / (2.0 * size)
    assert float((gradient - differences).abs().max()) <= tolerance * float(differences.abs().max())
