"""Classes, screens, weights and private signals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from hmgym.investors import styles
from hmgym.investors.signals import SIGNALS


def signals(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(*shape, len(SIGNALS)))


def test_percentiles_reach_from_0_to_1() -> None:
    values = np.array([[3.0, 1.0, 2.0, 9.0, 4.0], [1.0, 1.0, 0.0, 2.0, 2.0]])
    wanted = (rankdata(values, axis=-1) - 1.0) / 4.0
    np.testing.assert_array_equal(styles.percentiles(values), wanted)
    np.testing.assert_array_equal(styles.percentiles(torch.from_numpy(values)).numpy(), wanted)
    np.testing.assert_array_equal(styles.percentiles(np.array([[7.0]])), [[0.5]])


def test_classes_are_those_of_the_difference() -> None:
    z = signals(30, 20)
    value, growth = ((rankdata(z[..., k], axis=-1) - 1.0) / 19.0 for k in (2, 3))
    wanted = np.select([value - growth > 0.3, value - growth < -0.3], [1, -1], 0)
    np.testing.assert_array_equal(styles.classification(z), wanted)
    np.testing.assert_array_equal(styles.classification(torch.from_numpy(z)).numpy(), wanted)
    assert set(np.unique(wanted)) == {styles.VALUE_CLASS, styles.CORE_CLASS, styles.GROWTH_CLASS}


def test_a_lead_of_just_the_threshold_is_core() -> None:
    z = np.zeros((11, 5))
    z[:, 2] = np.arange(11)
    z[:, 3] = np.roll(np.arange(11), 3)  # leads are -8/10 and 3/10
    assert set(styles.classification(z).tolist()) == {styles.CORE_CLASS, styles.GROWTH_CLASS}


@pytest.mark.parametrize(("assets", "held"), [(1, 1), (2, 1), (5, 1), (6, 2), (10, 2), (20, 4), (50, 10)])
def test_the_screen_leaves_the_top_fifth(assets: int, held: int) -> None:
    esg = signals(7, assets)[..., 4]
    mask = styles.esg_screen(esg)
    assert (mask.sum(-1) == held).all()
    for values, allowed in zip(esg, mask, strict=True):
        assert values[allowed].min() > values[~allowed].max(initial=-np.inf)
    np.testing.assert_array_equal(styles.esg_screen(torch.from_numpy(esg)).numpy(), mask)


def test_the_screen_counts_also_where_signals_are_equal() -> None:
    np.testing.assert_array_equal(styles.esg_screen(np.zeros(5), 3), [True, True, False, False, False])
    np.testing.assert_array_equal(styles.esg_screen(torch.zeros(5), 3).numpy(), [True, True, False, False, False])
    assert styles.esg_screen(np.zeros(5), 0).all()


def test_weights_favour_the_own_style() -> None:
    table = styles.style_multipliers(("value", "growth", "blend", "esg"))
    np.testing.assert_array_equal(table[:, [0, 1, 4]], 1.0)
    np.testing.assert_array_equal(table[:, 2:4], [[1.5, 0.5], [0.5, 1.5], [1.0, 1.0], [1.0, 1.0]])
    spread = np.random.default_rng(0).uniform(0.8, 1.2, (3, 4, 1, 5))
    weights = styles.style_weights(table, np.array(styles.TRUE_WEIGHTS), spread)
    assert weights.shape == (3, 4, 1, 5)
    assert weights[1, 0, 0, 2] == pytest.approx(0.25 * 1.5 * spread[1, 0, 0, 2])


def test_private_signals_are_noisy_in_value_and_growth_only() -> None:
    rng = np.random.default_rng(0)
    z, noise, trust = signals(2, 1, 6), rng.normal(size=(2, 3, 6, 2)), rng.uniform(0.7, 0.9, (2, 3, 6, 2))
    seen = styles.private_signals(z, noise, trust)
    assert seen.shape == (2, 3, 6, 5)
    for k in (0, 1, 4):
        np.testing.assert_array_equal(seen[..., k], np.broadcast_to(z[..., k], (2, 3, 6)))
    np.testing.assert_allclose(seen[..., 2:4], trust * z[..., 2:4] + (1.0 - trust) * noise)
    tensors = styles.private_signals(*(torch.from_numpy(x) for x in (z, noise, trust)))
    np.testing.assert_array_equal(tensors.numpy(), seen)
    weights = rng.normal(size=(2, 3, 1, 5))
    found = styles.expected_returns(weights, seen)
    np.testing.assert_allclose(found, np.einsum("ebik,ebnk->ebn", weights, seen))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: styles.style_multipliers(("value", "quality")), r"`styles` must be of value, .*quality"),
        (lambda: styles.esg_screen(np.zeros(4), 4), "`excluded` must be less than the number of assets, 4, got 4"),
        (lambda: styles.esg_screen(np.zeros(4), -1), "`excluded` must be an integer >= 0"),
        (lambda: styles.classification(signals(4), 1.5), "`threshold` must be a number in"),
        (lambda: styles.classification(signals(4), True), "`threshold` must be a number in"),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
