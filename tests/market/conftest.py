"""Small helpers that the tests of the market share."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hmgym.market import Action, Market, MarketConfig, MarketState
from hmgym.market.tensors import named_tensors


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors: more threads only disturb the neighbours."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def start():
    """A market of a configuration, its generators (one a market) and its first state."""

    def make(n_markets: int = 4, seed: int = 0, **settings):
        market = Market(MarketConfig(**settings))
        generators = [np.random.default_rng(seed + row) for row in range(n_markets)]
        return market, generators, market.initial(market.draw_initial_shocks(generators))

    return make


@pytest.fixture
def random_action():
    """An action uniform over the box of Leverage-v0."""

    def make(market: Market, state: MarketState, rng: np.random.Generator) -> Action:
        shape = (state.n_markets, market.config.n_learners)
        return Action(
            short_leverage=torch.from_numpy(rng.uniform(0.0, 2.0, shape)),
            long_leverage=torch.from_numpy(rng.uniform(max(0.4, 1.2 / (market.config.n_assets + 1)), 4.0, shape)),
        )

    return make


@pytest.fixture
def same():
    """Assert that two dataclasses of tensors are equal to the last bit."""

    def check(one, other):
        others = named_tensors(other)
        for name, left in named_tensors(one).items():
            right = others.pop(name)
            assert torch.equal(left, right), f"{name} differs by {(left - right).abs().max()}"

        assert not others

    return check
