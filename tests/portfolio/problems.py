"""Portfolio problems that the tests of this folder share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hmgym.portfolio import PortfolioProblem


def arguments(
    *batch: int,
    assets: int = 6,
    groups: int = 2,
    limits: int = 0,
    bounds: bool = False,
    redundant: bool = False,
    seed: int = 0,
    **others: Any,
) -> dict[str, Any]:
    """Of a feasible problem that is drawn at random."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*batch, *shape, generator=draw, dtype=torch.float64)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*batch, *shape, generator=draw, dtype=torch.float64)

    root = normal(assets, assets + 2)
    inside = uniform(assets)
    inside = inside / inside.sum(-1, keepdim=True)
    members = (torch.rand(groups, assets, generator=draw, dtype=torch.float64) < 0.5).double()
    members[:, 0] = 1.0
    members[0] = 1.0
    if redundant:
        members = torch.cat([members, members[:1] - members[-1:], 2.0 * members[:1]])
    given: dict[str, Any] = {
        "expected_returns": normal(assets),
        "covariance": root @ root.mT / assets,
        "risk_aversion": 1.5,
        "cost_rates": 0.3 * uniform(assets),
        "holdings": inside,
        "cost_weight": 0.8,
        "groups": members,
        "group_totals": (members @ inside.unsqueeze(-1)).squeeze(-1),
    }
    if limits:
        rows = (torch.rand(limits, assets, generator=draw, dtype=torch.float64) < 0.5).double()
        given |= {
            "limit_groups": rows,
            "group_limits": (rows @ inside.unsqueeze(-1)).squeeze(-1) + 0.1 * uniform(limits),
        }
    if bounds:
        given |= {"lower": 0.0, "upper": inside.amax(-1, keepdim=True) + 0.1}
    return given | others


def problem(*batch: int, **options: Any) -> PortfolioProblem:
    """One that is drawn at random."""
    return PortfolioProblem(**arguments(*batch, **options))
