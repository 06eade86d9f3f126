"""Fund markets that the tests share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hmgym.market import Market
from hmgym.market.funds import FundsConfig

SMALL: dict[str, Any] = {
    "n_assets": 5, "n_retail": 12, "n_active": 4, "n_passive": 3, "n_momentum": 1, "n_learners": 0,
}  # fmt: skip


@pytest.fixture
def begin():
    """A small fund market, its generators (one a market) and its first state."""

    def make(n_markets: int = 3, seed: int = 0, arrays: str = "torch", **settings: Any):
        market = Market(FundsConfig(**{**SMALL, **settings}), arrays=arrays)
        generators = [np.random.default_rng(seed + row) for row in range(n_markets)]
        return market, generators, market.initial(market.draw_initial_shocks(generators))

    return make
