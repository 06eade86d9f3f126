from __future__ import annotations

import numpy as np
import pytest
import torch

from hmgym.envs import ActionMap
from hmgym.envs.actions import LEVERAGE_RANGE, leverage_range

PRICES = torch.tensor([[100.0, 50.0, 20.0]], dtype=torch.float64)


def natural(action_map: ActionMap, *entries: float):  # type: ignore[no-untyped-def]
    return action_map.to_market(action_map.check([entries], 1), PRICES)


def test_one_axis_is_a_log_scale_onto_its_box() -> None:
    low, high = LEVERAGE_RANGE
    for n_assets, least in ((1, max(low, 0.6)), (2, max(low, 0.4)), (3, max(low, 0.3)), (9, low)):
        action_map = ActionMap(n_assets=n_assets, leverage=True)
        assert action_map.names == ("leverage",)
        assert action_map.leverage_axes == 1
        assert leverage_range(n_assets) == pytest.approx((least, high), rel=1e-12)
        prices = torch.ones(1, n_assets, dtype=torch.float64)
        levels = []
        for entry in (-1.0, 0.0, 0.5, 1.0):
            action = action_map.to_market(action_map.check([[entry]], 1), prices)
            assert torch.equal(action.short_leverage, action.long_leverage)
            assert action.short_leverage.shape == (1, 1)
            assert action.beliefs is action.risk_scale is None
            levels.append(action.long_leverage.item())
        expected = [least * (high / least) ** part for part in (0.0, 0.5, 0.75, 1.0)]
        np.testing.assert_allclose(levels, expected, rtol=1e-14)


@pytest.mark.parametrize("n_assets", [1, 2, 3])
@pytest.mark.parametrize("beliefs", [False, True])
def test_from_leverage_inverts_one_axis(n_assets: int, beliefs: bool) -> None:
    action_map = ActionMap(n_assets=n_assets, leverage=True, beliefs=beliefs)
    prices = torch.full((1, n_assets), 7.0, dtype=torch.float64)
    low, high = leverage_range(n_assets)
    for level in (low, 1.0, 0.5 * (low + high), high):
        entries = action_map.from_leverage(level, level)
        assert entries.dtype == np.float32
        assert entries.shape == (action_map.size,)
        assert not entries[1:].any()
        action = action_map.to_market(action_map.check([entries], 1), prices)
        assert action.short_leverage.item() == action.long_leverage.item() == pytest.approx(level, rel=1e-6)
    with pytest.raises(ValueError, match=r"`short_leverage` must be `long_leverage` .* got 0.5 and 1.0"):
        action_map.from_leverage(0.5, 1.0)
    for level in (0.9 * low, 1.1 * high):
        with pytest.raises(ValueError, match=rf"`long_leverage` must lie in \[{low:.3g}, {high}\], got {level}"):
            action_map.from_leverage(level, level)


def test_the_grid_covers_the_box() -> None:
    """21 constants of one axis, from one edge to the other; 7 × 7 of two; fewer where beliefs stand beside them."""
    one = ActionMap(n_assets=3, leverage=True).grid()
    np.testing.assert_allclose(one[:, 0], np.linspace(-1.0, 1.0, 21))
    assert ActionMap(n_assets=3, leverage=True, leverage_axes=2).grid().shape == (49, 2)
    both = ActionMap(n_assets=3, leverage=True, beliefs=True, confidence=True).grid()
    assert both.shape == (49, 5)
    assert (both[:, 1] == both[:, 2]).all()
    assert (both[:, 1] == both[:, 3]).all()
    assert not both[:, 4].any()
    assert set(both[:, 0]) == set(both[:, 1]) == set(np.linspace(-1.0, 1.0, 7))


@pytest.mark.parametrize("axes", [0, 3, "two", None])
def test_there_are_one_or_two_leverage_axes(axes: object) -> None:
    with pytest.raises(ValueError, match=f"`leverage_axes` must be 1 or 2, got {axes!r}"):
        ActionMap(n_assets=3, leverage=True, leverage_axes=axes)  # type: ignore[arg-type]


def test_two_axes_are_affine_onto_their_box() -> None:
    action_map = ActionMap(n_assets=3, leverage=True, leverage_axes=2)
    low, high = natural(action_map, -1.0, -1.0), natural(action_map, 1.0, 1.0)
    assert (low.short_leverage.item(), high.short_leverage.item()) == (0.0, 2.0)
    assert (low.long_leverage.item(), high.long_leverage.item()) == (0.4, 4.0)
    assert low.beliefs is None
    assert natural(ActionMap(n_assets=1, leverage=True, leverage_axes=2), -1.0, -1.0).long_leverage.item() == 0.6


def test_order_is_leverage_beliefs_risk() -> None:
    one = ActionMap(n_assets=3, leverage=True, beliefs=True, confidence=True)
    assert one.names == ("leverage", "belief_0", "belief_1", "belief_2", "risk_scale")
    action = natural(one, 1.0, 1.0, -1.0, 0.0, -1.0)
    assert action.short_leverage.item() == action.long_leverage.item() == pytest.approx(LEVERAGE_RANGE[1], rel=1e-14)
    torch.testing.assert_close(action.beliefs - torch.log(PRICES), torch.tensor([[[0.25, -0.25, 0.0]]]).double())
    assert action.risk_scale.item() == pytest.approx(0.5)

    action_map = ActionMap(n_assets=3, leverage=True, beliefs=True, confidence=True, leverage_axes=2)
    assert action_map.names == ("short_leverage", "long_leverage", "belief_0", "belief_1", "belief_2", "risk_scale")
    action = natural(action_map, 0.0, 1.0, 1.0, -1.0, 0.0, -1.0)
    assert action.short_leverage.item() == 1.0
    assert action.long_leverage.item() == 4.0
    torch.testing.assert_close(action.beliefs - torch.log(PRICES), torch.tensor([[[0.25, -0.25, 0.0]]]).double())
    assert action.risk_scale.item() == pytest.approx(0.5)


def test_from_leverage_inverts_two_axes() -> None:
    action_map = ActionMap(n_assets=3, leverage=True, beliefs=True, leverage_axes=2)
    action = natural(action_map, *action_map.from_leverage(0.25, 1.0))
    assert action.short_leverage.item() == pytest.approx(0.25)
    assert action.long_leverage.item() == pytest.approx(1.0, rel=1e-6)
    with pytest.raises(ValueError, match=r"`short_leverage` must lie in \[0, 2.0\], got 2.5"):
        action_map.from_leverage(2.5, 1.0)
    with pytest.raises(ValueError, match=r"`long_leverage` must lie in \[0.4, 4.0\], got 0.3"):
        action_map.from_leverage(0.0, 0.3)
    with pytest.raises(ValueError, match="sets leverage"):
        ActionMap(n_assets=3, beliefs=True).from_leverage(0.0, 1.0)


def test_description_is_in_natural_units() -> None:
    assert ActionMap(n_assets=3, leverage=True).describe([1.0]) == f"ℓ {LEVERAGE_RANGE[1]:.3g}"
    one = ActionMap(n_assets=2, leverage=True, beliefs=True, confidence=True)
    assert one.describe([1.0, 0.2, 0.2, 1.0]) == f"ℓ {LEVERAGE_RANGE[1]:.3g}, log return +0.05, risk × 2"
    assert ActionMap(n_assets=3, leverage=True, leverage_axes=2).describe([-1.0, 1.0]) == "κ 0, θ 4"
    joint = ActionMap(n_assets=2, leverage=True, beliefs=True, confidence=True, leverage_axes=2)
    assert joint.describe([0.0, 1.0, 0.2, 0.2, 1.0]) == "κ 1, θ 4, log return +0.05, risk × 2"


def test_an_action_sets_something() -> None:
    with pytest.raises(ValueError, match="`leverage` or `beliefs` must be True"):
        ActionMap(n_assets=3)


def test_numbers_are_asked_for() -> None:
    with pytest.raises(ValueError, match="`action` must be numbers of shape"):
        ActionMap(n_assets=3, leverage=True).check([["a", "b"]], 1)


def test_check_leaves_the_callers_array_alone() -> None:
    action = np.array([[3.0, -3.0]])
    checked = ActionMap(n_assets=3, leverage=True, leverage_axes=2).check(action, 1)
    np.testing.assert_array_equal(checked, [[[1.0, -1.0]]])
    np.testing.assert_array_equal(action, [[3.0, -3.0]])


def test_check_takes_a_row_a_learner() -> None:
    action_map = ActionMap(n_assets=3, leverage=True, leverage_axes=2)
    actions = np.linspace(-1.5, 1.5, 12).reshape(2, 3, 2)
    np.testing.assert_array_equal(action_map.check(actions, 2, 3), actions.clip(-1.0, 1.0))
    np.testing.assert_array_equal(action_map.check(actions[:, :1], 2), action_map.check(actions[:, 0], 2))
    with pytest.raises(ValueError, match=r"`action` must have shape \(2, 3, 2\), got \(2, 2\)"):
        action_map.check(actions[:, 0], 2, 3)
    actions[1, 2, 0] = np.nan
    with pytest.raises(ValueError, match="got nan for `short_leverage` of learner 2 of market 1"):
        action_map.check(actions, 2, 3)


@pytest.mark.parametrize("axes", [1, 2])
def test_arrays_and_tensors_mean_the_same(axes: int) -> None:
    action_map = ActionMap(n_assets=3, leverage=True, beliefs=True, confidence=True, leverage_axes=axes)
    values = np.random.default_rng(0).uniform(-1.0, 1.0, (1, 4, action_map.size))
    from_array, from_tensor = (action_map.to_market(x, PRICES) for x in (values, torch.from_numpy(values)))
    for part in ("short_leverage", "long_leverage", "beliefs", "risk_scale"):
        torch.testing.assert_close(getattr(from_array, part), getattr(from_tensor, part), rtol=1e-15, atol=0.0)
    assert from_array.beliefs.shape == (1, 4, 3)


@pytest.mark.parametrize("axes", [1, 2])
def test_gradients_reach_actions_and_prices(axes: int) -> None:
    action_map = ActionMap(n_assets=3, leverage=True, beliefs=True, confidence=True, leverage_axes=axes)
    values = torch.rand(1, 2, action_map.size, dtype=torch.float64, requires_grad=True)
    prices = PRICES.clone().requires_grad_()

    def natural(values: torch.Tensor, prices: torch.Tensor) -> tuple[torch.Tensor, ...]:
        action = action_map.to_market(values, prices)
        return action.short_leverage, action.long_leverage, action.beliefs, action.risk_scale

    assert torch.autograd.gradcheck(natural, (values, prices))
    (gradient,) = torch.autograd.grad(action_map.to_market(values.detach().numpy(), prices).beliefs.sum(), prices)
    torch.testing.assert_close(gradient, 2.0 / prices)
