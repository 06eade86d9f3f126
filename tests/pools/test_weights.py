"""Guardrails and paths: reference values, bounds and speeds always, gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hmgym.pools import CoarseWeights, PoolConfig, PowerChannelPool, coarse_weights, fine_weights
from hmgym.pools.parameters import Interpolation
from tests.pools import reference
from tests.pools.markets import check_gradient, random_parameters, random_prices, random_weights

LIMITS = {"minimum_weight": 0.04, "maximum_change": 2e-3, "interpolation_minutes": 50}


def wild_changes(chunks: int, assets: int, size: float, seed: int = 0) -> torch.Tensor:
    changes = size * torch.randn(chunks, assets, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return changes - changes.mean(-1, keepdim=True)


@pytest.mark.parametrize("size", [0.01, 0.2, 3.0])
@pytest.mark.parametrize("assets", [2, 3, 6])
def test_coarse_and_fine_weights_against_the_equations(size: float, assets: int) -> None:
    initial, changes = random_weights(1, assets)[0], wild_changes(40, assets, size)
    coarse = coarse_weights(initial, changes, **LIMITS)
    slow = reference.coarse_weights(initial.tolist(), changes.tolist(), 0.04, 2e-3, 50)
    for name, expected in zip(("start", "rate", "target"), slow, strict=True):
        np.testing.assert_allclose(getattr(coarse, name), expected, rtol=0.0, atol=1e-13)
    for interpolation in ("linear", "approx_optimal"):
        path = fine_weights(
            initial, coarse, minutes=41 * 60, chunk_minutes=60, interpolation_minutes=50, interpolation=interpolation
        )
        curved = interpolation == "approx_optimal"
        expected = reference.fine_weights(initial.tolist(), slow, 41 * 60, 60, 50, curved)
        np.testing.assert_allclose(path, expected, rtol=0.0, atol=1e-13)


def test_one_pass_of_the_guardrails_is_not_enough() -> None:
    initial = torch.full((4,), 0.25, dtype=torch.float64)
    changes = torch.tensor([[0.35, -0.145, 0.15, -0.355]], dtype=torch.float64)
    found = coarse_weights(initial, changes, minimum_weight=0.1, maximum_change=1.0, interpolation_minutes=1).target[0]
    # Wanted are .6, .105, .4, −.105. With the last on .1 the others make room, and .105 becomes .0855.
    assert found.tolist() == pytest.approx([0.48, 0.1, 0.32, 0.1], abs=1e-15)
    assert found.tolist() == pytest.approx(reference.guarded((initial + changes[0]).tolist(), 0.1), abs=1e-15)


@pytest.mark.parametrize("interpolation", ["linear", "approx_optimal"])
@pytest.mark.parametrize("seed", range(4))
def test_weights_stay_within_bounds_and_speed(interpolation: Interpolation, seed: int) -> None:
    config = PoolConfig(
        chunk_minutes=30,
        interpolation_minutes=20,
        interpolation=interpolation,
        maximum_change=2e-3,
        minimum_weight=0.03,
    )
    prices = random_prices(2000, 4, seed=seed, volatility=0.02)
    parameters = random_parameters(4, seed=seed, sets=3, k_per_day=300.0 if seed % 2 else 3.0)
    wide = parameters.map(lambda x: x)
    object.__setattr__(wide, "initial_weights_logits", 10.0 * parameters.initial_weights_logits)
    weights = PowerChannelPool(config).weights(wide, prices)
    assert weights.shape == (3, 2000, 4)
    assert float((weights.sum(-1) - 1.0).abs().max()) < 1e-14
    assert float(weights.min()) >= 0.03 - 1e-15
    assert float(weights.max()) <= 1.0 - 3 * 0.03 + 1e-15
    speed = weights.diff(dim=-2).abs().max()
    assert 0.5 * config.maximum_change < float(speed) <= config.maximum_change + 1e-15


def test_a_curved_path_between_wide_apart_weights_keeps_the_speed() -> None:
    for seed in range(20):
        changes = wild_changes(30, 5, 2.0, seed)
        initial = torch.full((5,), 0.2, dtype=torch.float64)
        coarse = coarse_weights(
            initial, changes, minimum_weight=0.001, maximum_change=0.01, interpolation_minutes=40,
            interpolation="approx_optimal",
        )  # fmt: skip
        path = fine_weights(
            initial, coarse, minutes=31 * 40, chunk_minutes=40, interpolation_minutes=40, interpolation="approx_optimal"
        )
        assert float(path.diff(dim=0).abs().max()) <= 0.01 + 1e-15
        assert float(path.min()) >= 0.001 - 1e-15


def test_a_change_acts_from_the_minute_after_its_price() -> None:
    initial = torch.full((2,), 0.5, dtype=torch.float64)
    coarse = coarse_weights(
        initial,
        torch.tensor([[0.1, -0.1], [-0.2, 0.2]]),
        minimum_weight=0.05,
        maximum_change=1.0,
        interpolation_minutes=2,
    )
    path = fine_weights(initial, coarse, minutes=14, chunk_minutes=4, interpolation_minutes=2)[:, 0].tolist()
    assert path == pytest.approx([0.5] * 5 + [0.55, 0.6, 0.6, 0.6] + [0.5, 0.4, 0.4, 0.4, 0.4])
    assert (
        fine_weights(initial, coarse, minutes=3, chunk_minutes=4, interpolation_minutes=2).tolist() == [[0.5, 0.5]] * 3
    )


@pytest.mark.parametrize("interpolation", ["linear", "approx_optimal"])
@pytest.mark.parametrize("size", [0.02, 0.3])
def test_gradients_of_weights(interpolation: Interpolation, size: float) -> None:
    initial, changes = random_weights(1, 4)[0], wild_changes(6, 4, size, seed=2)
    towards = torch.randn(70, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    settings = {"minimum_weight": 0.05, "maximum_change": 6e-3, "interpolation_minutes": 10}

    def path(initial: torch.Tensor, changes: torch.Tensor) -> torch.Tensor:
        coarse = coarse_weights(initial, changes, **settings, interpolation=interpolation)
        fine = fine_weights(
            initial, coarse, minutes=70, chunk_minutes=10, interpolation_minutes=10, interpolation=interpolation
        )
        return (towards * fine).sum() + (coarse.rate * coarse.start).sum()

    check_gradient(lambda changes: path(initial, changes), changes)
    # Along directions in which initial weights keep their sum.
    check_gradient(lambda logits: path(torch.softmax(logits, -1), changes), initial.log())


def test_weights_that_are_refused() -> None:
    initial, changes = torch.full((3,), 1.0 / 3.0, dtype=torch.float64), torch.zeros(2, 3)
    for wrong, said in (
        ({"minimum_weight": 0.5}, "`minimum_weight` must be"),
        ({"maximum_change": 0.0}, "`maximum_change` must be a number > 0, got 0.0"),
        ({"interpolation_minutes": 0}, "`interpolation_minutes` must be an integer >= 1, got 0"),
    ):
        with pytest.raises(ValueError, match=said):
            coarse_weights(initial, changes, **{**LIMITS, **wrong})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`initial_weights` must be > 0 and sum to 1"):
        coarse_weights(2.0 * initial, changes, **LIMITS)
    with pytest.raises(ValueError, match=r"`changes` must have shape"):
        coarse_weights(initial, torch.zeros(2, 4), **LIMITS)
    with pytest.raises(ValueError, match="`chunk_minutes` must be an integer >= 50, got 40"):
        fine_weights(
            initial, coarse_weights(initial, changes, **LIMITS), minutes=5, chunk_minutes=40, interpolation_minutes=50
        )
    assert isinstance(coarse_weights(initial, changes, **LIMITS), CoarseWeights)
