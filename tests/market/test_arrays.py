"""A market of arrays is the market of tensors, to rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hmgym.arrays import to_numpy
from hmgym.market import Action, Market, MarketConfig

SETTINGS = {
    "default": {},
    "gaussian": {"fundamentals": "gaussian", "n_learners": 3},
    "costs and ruins": {"trading_cost": 0.002, "ruin_fraction": 0.6, "n_learners": 2},
    "smoothed": {"smoothing": 1e-3, "n_assets": 1, "n_investors": 6},
    "no learner": {"n_learners": 0, "n_assets": 5},
}


def pair(settings, n_markets=4):
    """Two markets, their generators and first states."""
    for arrays in ("torch", "numpy"):
        market = Market(MarketConfig(**settings), arrays=arrays)
        generators = [np.random.default_rng(seed) for seed in range(n_markets)]
        yield market, generators, market.initial(market.draw_initial_shocks(generators))


@pytest.mark.parametrize("name", SETTINGS)
def test_months_are_equal(name):
    (tensors, generators, state), (arrays, others, twin) = pair(SETTINGS[name])
    rng, n = np.random.default_rng(1), tensors.config.n_learners
    assert all(isinstance(x, np.ndarray) for x in twin.tensors().values())
    ruins = 0
    for _ in range(36):
        limits = rng.uniform(0.5, 2.0, (2, 4, n))
        shocks, same_shocks = tensors.draw_shocks(generators), arrays.draw_shocks(others)
        action = Action(short_leverage=torch.from_numpy(limits[0]), long_leverage=torch.from_numpy(limits[1]))
        same_action = Action(short_leverage=limits[0], long_leverage=limits[1])
        if n:
            gain = tensors.terminal_mark_gain(state, action, shocks)
            same_gain = arrays.terminal_mark_gain(twin, same_action, same_shocks)
            np.testing.assert_allclose(same_gain, gain, atol=1e-11)
        state, outcome = tensors.transition(state, action, shocks)
        twin, same = arrays.transition(twin, same_action, same_shocks)
        ruins += int(outcome.ruins.sum())
        np.testing.assert_allclose(same.reward, outcome.reward, rtol=0.0, atol=1e-11)
        np.testing.assert_array_equal(same.active_limits, outcome.active_limits)
        of_twin = twin.tensors()
        for key, tensor in state.tensors().items():
            scale = float(np.abs(to_numpy(tensor)).max(initial=1e-9))
            np.testing.assert_allclose(of_twin[key], tensor, rtol=0.0, atol=1e-11 * scale, err_msg=key)
    assert ruins > 0 or name != "costs and ruins"
    as_tensors = twin.as_tensors()
    assert isinstance(as_tensors.prices, torch.Tensor)
    np.testing.assert_array_equal(as_tensors.prices, twin.prices)


def test_rows_do_not_depend_on_their_neighbours():
    _, (market, generators, state) = pair({"trading_cost": 0.001, "n_learners": 2}, 9)
    alone = [np.random.default_rng(5)]
    one = market.initial(market.draw_initial_shocks(alone))
    for _ in range(60):
        state, outcome = market.transition(state, None, market.draw_shocks(generators))
        one, single = market.transition(one, None, market.draw_shocks(alone))
        np.testing.assert_allclose(single.reward, outcome.reward[5:6], rtol=0.0, atol=1e-12)


def test_one_kind_is_not_given_to_the_other():
    (market, generators, _), (_, _, twin) = pair({})
    with pytest.raises(ValueError, match='`state` must be of a market with `arrays="torch"`, got ndarray'):
        market.transition(twin, None, market.draw_shocks(generators))
    with pytest.raises(ValueError, match=r"`arrays` must be .* got 'jax'"):
        Market(arrays="jax")
    with pytest.raises(ValueError, match="`config` must be a MarketConfig or None, got 5"):
        Market(5)
