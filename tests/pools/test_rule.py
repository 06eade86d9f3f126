"""The rule and its parameters: reference values, closed forms, gradients, hard numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hmgym.pools import (
    PoolConfig,
    PoolParameters,
    decay_for_memory,
    inverse_squareplus,
    memory_days,
    price_trend,
    squareplus,
    weight_changes,
)
from tests.pools import reference
from tests.pools.markets import check_gradient, random_parameters, random_prices


def test_squareplus_and_its_inverse() -> None:
    assert float(squareplus(0.0)) == 1.0
    assert float(squareplus(-1.0)) == pytest.approx((math.sqrt(5.0) - 1.0) / 2.0, abs=1e-15)
    assert float(squareplus(-3.0)) == pytest.approx((math.sqrt(13.0) - 3.0) / 2.0, abs=1e-15)
    x = torch.tensor([-1e8, -30.0, -1.0, 0.0, 2.0, 1e8, 1e200], dtype=torch.float64)
    torch.testing.assert_close(inverse_squareplus(squareplus(x))[1:], x[1:], rtol=1e-12, atol=1e-15)
    assert float(squareplus(-1e8)) == pytest.approx(1e-8, rel=1e-15)
    check_gradient(lambda x: squareplus(x).sum(), torch.tensor([-5.0, -0.3, 0.0, 0.7, 40.0], dtype=torch.float64))
    with pytest.raises(ValueError, match=r"`y` must be > 0"):
        inverse_squareplus(0.0)


@pytest.mark.parametrize("minutes", [1, 60, 1440])
def test_memory_and_decay_are_inverses(minutes: int) -> None:
    days = torch.tensor([0.0, 1e-6, 1e-3, 0.5, 7.0, 365.0, 3650.0], dtype=torch.float64)
    decay = decay_for_memory(days, minutes)
    # 1 − λ is known to some 1e-16, and memory is in proportion to its inverse.
    torch.testing.assert_close(memory_days(decay, minutes), days, rtol=1e-15 / float(1.0 - decay.max()), atol=1e-15)
    slow = [reference.decay_for_memory(float(each), minutes) for each in days[1:]]
    np.testing.assert_allclose(decay[1:].numpy(), slow, rtol=0.0, atol=1e-12)
    check_gradient(lambda days: decay_for_memory(days, minutes).sum(), torch.tensor([0.01, 2.0], dtype=torch.float64))
    check_gradient(lambda decay: memory_days(decay, 60).log().sum(), torch.tensor([0.1, 0.9], dtype=torch.float64))
    for wrong in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match=r"`decay` must be in \[0, 1\)"):
            memory_days(wrong, minutes)


def test_decoding_and_its_caps() -> None:
    parameters = PoolParameters(
        sp_k=[[19.5], [-1.0]], logit_lamb=[0.5, 4.0, 40.0], logit_delta_lamb=[1.0], sp_exponents=[-2.0, 0.0, 1.5],
        sp_pre_exp_scaling=-1.0, initial_weights_logits=[0.0, -12.0, 1.0],
    )  # fmt: skip
    config = PoolConfig(chunk_minutes=60, max_memory_days=30.0, alternative_decay=True)
    rule = parameters.decode(config)
    largest = reference.decay_for_memory(30.0, 60)
    expected = [1.0 / (1.0 + math.exp(-0.5)), 1.0 / (1.0 + math.exp(-4.0)), largest]
    np.testing.assert_allclose(rule.decay, np.tile(expected, (2, 1)), atol=1e-13)
    memory = [(6.0 * x / (1.0 - x) ** 3) ** (1.0 / 3.0) * 120.0 / 1440.0 for x in expected]
    np.testing.assert_allclose(rule.memory_days[0], memory, rtol=1e-11)
    assert float(rule.memory_days[0, 2]) == pytest.approx(30.0, rel=1e-11)
    k = [reference.squareplus(x) for x in (19.5, -1.0)]
    np.testing.assert_allclose(rule.k, np.outer(k, memory), rtol=1e-11)
    np.testing.assert_allclose(rule.exponents[0], [1.0, 1.0, reference.squareplus(1.5)], rtol=1e-15)
    np.testing.assert_allclose(rule.pre_scaling, np.full((2, 3), reference.squareplus(-1.0)), rtol=1e-15)
    assert rule.denominator_decay is not None
    assert float(rule.denominator_decay[0, 0]) == pytest.approx(1.0 / (1.0 + math.exp(-1.5)), rel=1e-14)
    # The second weight would be 4e-6: it is raised to the least one, 0.1/3.
    odds = math.exp(1.0)
    rest = 1.0 - 0.1 / 3.0
    assert rule.initial_weights[0].tolist() == pytest.approx([rest / (1 + odds), 0.1 / 3, rest * odds / (1 + odds)])
    plain = parameters.decode(PoolConfig(pre_scaling=False))
    assert plain.denominator_decay is None
    assert bool((plain.pre_scaling == 0.5).all())


@pytest.mark.parametrize("alternative", [False, True])
def test_trend_and_changes_against_the_equations(alternative: bool) -> None:
    prices = random_prices(60, 3, seed=1)
    rule = random_parameters(3, seed=2).decode(PoolConfig(alternative_decay=alternative))
    below = None if rule.denominator_decay is None else rule.denominator_decay.tolist()
    expected = reference.price_trend(prices.tolist(), rule.decay.tolist(), below)
    trend = price_trend(prices, rule.decay, rule.denominator_decay)
    np.testing.assert_allclose(trend, expected, rtol=0.0, atol=1e-12)
    changes = weight_changes(trend, rule.k, rule.exponents, rule.pre_scaling)
    slow = reference.weight_changes(expected, rule.k.tolist(), rule.exponents.tolist(), rule.pre_scaling.tolist())
    np.testing.assert_allclose(changes, slow, rtol=0.0, atol=1e-12)
    assert float(changes.sum(-1).abs().max()) < 1e-15
    assert float(changes.abs().max()) > 1e-3


def test_the_trend_of_a_line_is_its_slope() -> None:
    line = 50.0 + 0.25 * torch.arange(600, dtype=torch.float64)[:, None]
    trend = price_trend(line, 0.9)
    average = line[-1] - 0.25 * 0.9 / (1.0 - 0.9)  # e lags by λ/(1 − λ) steps
    assert float(trend[-1] * average) == pytest.approx(0.25, rel=1e-9)
    assert price_trend(line, 0.0)[:, 0].tolist() == pytest.approx((line[1:] / line[:-1] - 1.0)[:, 0].tolist(), rel=0.01)


def test_scalar_parameters_are_those_of_every_asset() -> None:
    trend = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    scalar = weight_changes(trend, 2.0, torch.tensor([1.5]), 0.4)
    each = weight_changes(trend, *(torch.full((3,), x, dtype=torch.float64) for x in (2.0, 1.5, 0.4)))
    assert torch.equal(scalar, each)
    assert float(scalar.sum(-1).abs().max()) < 1e-14


def test_gradients_of_the_rule() -> None:
    prices, config = random_prices(25, 3, seed=4), PoolConfig(alternative_decay=True)
    parameters = random_parameters(3, seed=5)
    towards = torch.randn(24, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(6))

    def through(name: str):  # type: ignore[no-untyped-def]
        def changes(value: torch.Tensor) -> torch.Tensor:
            rule = PoolParameters(**{**parameters.to_dict(), name: value}).decode(config)
            trend = price_trend(prices, rule.decay, rule.denominator_decay)
            return (towards * weight_changes(trend, rule.k, rule.exponents, rule.pre_scaling)).sum()

        return changes

    for name in ("sp_k", "logit_lamb", "logit_delta_lamb", "sp_exponents", "sp_pre_exp_scaling"):
        check_gradient(through(name), parameters.to_dict()[name])
    rule = parameters.decode(config)
    check_gradient(lambda p: (towards * price_trend(p, rule.decay, rule.denominator_decay)).sum(), prices)
    check_gradient(lambda p: (towards * price_trend(p, rule.decay)).sum(), prices)


def test_batches_are_single_rows_and_their_gradients_add_up() -> None:
    prices, rule = random_prices(20, 3), random_parameters(3, sets=4).decode(PoolConfig())
    leaf = prices.clone().requires_grad_()
    together = price_trend(leaf, rule.decay)
    assert together.shape == (4, 19, 3)
    (gradient,) = torch.autograd.grad((together**2).sum(), leaf)
    alone = torch.zeros_like(prices)
    for row in range(4):
        one = price_trend(leaf, rule.decay[row])
        assert torch.equal(one, together[row])
        alone += torch.autograd.grad((one**2).sum(), leaf)[0]
    torch.testing.assert_close(gradient, alone, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("level", [1e-12, 1.0, 1e12])
def test_no_nan_at_hard_numbers(level: float) -> None:
    prices = random_prices(12, 3, level=level)
    prices[4:] = prices[3]  # trends fade to nothing
    for k in (torch.zeros(3), torch.tensor([0.0, 0.0, 1.0]), torch.ones(3)):
        leaves = [
            x.to(torch.float64).requires_grad_() for x in (k, torch.tensor([1.0, 1.2, 3.0]), torch.full((3,), 0.1))
        ]
        paid = prices.clone().requires_grad_()
        trend = torch.cat([price_trend(paid, torch.tensor([0.0, 0.5, 0.999])), torch.zeros(1, 3, dtype=torch.float64)])
        changes = weight_changes(trend, *leaves)
        assert torch.isfinite(changes).all()
        assert float(changes.detach().sum(-1).abs().max()) < 1e-12
        assert bool((changes[:, k == 0.0] == 0.0).all())
        (changes * torch.arange(3.0)).sum().backward()
        assert all(torch.isfinite(leaf.grad).all() for leaf in (*leaves, paid) if leaf.grad is not None)
        assert paid.grad is not None


def test_the_slope_at_no_trend() -> None:
    trend = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(weight_changes(trend, 1.0, 1.0, 0.25)[0, 0], trend)
    assert slope.tolist() == [[1.0, -1.0]]
    (slope,) = torch.autograd.grad(weight_changes(trend, 1.0, 1.5, 0.25)[0, 0], trend)
    assert slope.tolist() == [[0.0, 0.0]]


def test_initial_parameters_decode_to_what_was_asked_for() -> None:
    config = PoolConfig(chunk_minutes=60, alternative_decay=True)
    parameters = PoolParameters.initial(
        4, config, memory=5.0, k_per_day=2.0, exponent=1.5, pre_scaling=0.3, memory_difference=2.0,
        weights=[0.1, 0.2, 0.3, 0.4], sets=3, noise=0.1, seed=1,
    )  # fmt: skip
    rule = parameters.decode(config)
    assert rule.memory_days[0].tolist() == pytest.approx([5.0] * 4)
    assert rule.k[0].tolist() == pytest.approx([10.0] * 4)
    assert rule.exponents[0].tolist() == pytest.approx([1.5] * 4)
    assert rule.pre_scaling[0].tolist() == pytest.approx([0.3] * 4)
    assert rule.denominator_decay is not None
    assert float(memory_days(rule.denominator_decay[0, 0], 60)) == pytest.approx(7.0)
    assert rule.initial_weights[2].tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert float((rule.k[1] - rule.k[0]).abs().min()) > 0.0
    assert PoolParameters.initial(4, per_asset=False).sp_k.shape == (1,)
    again = PoolParameters.from_dict({name: value.tolist() for name, value in parameters.to_dict().items()})
    assert all(torch.equal(again.to_dict()[name], value) for name, value in parameters.to_dict().items())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"chunk_minutes": 0}, "`chunk_minutes` must be an integer >= 1, got 0"),
        ({"interpolation_minutes": 1441}, "`interpolation_minutes` must be at most `chunk_minutes` = 1440, got 1441"),
        ({"interpolation": "cubic"}, "`interpolation` must be one of linear, approx_optimal, got 'cubic'"),
        ({"maximum_change": 0.0}, "`maximum_change` must be a number > 0, got 0.0"),
        ({"minimum_weight": 0.0}, "`minimum_weight` must be"),
        ({"fee": 1.0}, r"`fee` must be in \[0, 1\), got 1.0"),
        ({"protocol_share": 1.5}, r"`protocol_share` must be in \[0, 1\], got 1.5"),
        ({"row_minutes": 7}, "`chunk_minutes` must be a multiple of `row_minutes` = 7, got 1440"),
        ({"alternative_decay": 1}, "`alternative_decay` must be True or False, got 1"),
    ],
)
def test_configurations_that_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        PoolConfig(**wrong)  # type: ignore[arg-type]


def test_arguments_that_are_refused() -> None:
    good = PoolParameters.initial(3).to_dict()
    for wrong, said in (
        ({"sp_k": torch.ones(2)}, r"`sp_k` must have shape \(..., 1\) or \(..., N\) with N = 3, got \(2,\)"),
        ({"sp_k": [math.nan]}, "`sp_k` must be finite"),
        ({"sp_k": "five"}, "`sp_k` must be an array of real numbers, got 'five'"),
        ({"initial_weights_logits": [1.0]}, "`initial_weights_logits` must have a logit for each of N >= 2 assets"),
        ({"sp_k": torch.ones(2, 1), "logit_lamb": torch.ones(3, 1)}, "`parameters` must have leading shapes"),
    ):
        with pytest.raises(ValueError, match=said):
            PoolParameters(**{**good, **wrong})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`minimum_weight` must be at most 1/N = 0.333333 for 3 assets, got 0.4"):
        PoolParameters.initial(3).decode(PoolConfig(minimum_weight=0.4))
    prices = random_prices(5, 3)
    with pytest.raises(ValueError, match=r"`prices` must be positive and finite, got -1.0"):
        price_trend(torch.where(prices == prices[2, 1], -1.0, prices), 0.5)
    with pytest.raises(ValueError, match=r"`decay` must be in \[0, 1\]"):
        price_trend(prices, 1.5)
    with pytest.raises(ValueError, match="`exponents` must be > 0"):
        weight_changes(prices, 1.0, 0.0, 0.5)
