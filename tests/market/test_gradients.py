"""Gradients through months and a year against central differences; values do not depend on asking for them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hmgym.market import Action


def play(market, state, action, shocks, months):
    total = 0.0
    for month in range(months):
        state, outcome = market.transition(state, action, shocks.period(month))
        total = total + outcome.reward
    return total, state


@pytest.mark.parametrize("settings", [{}, {"smoothing": 0.01}, {"fundamentals": "gaussian", "n_learners": 2}])
@pytest.mark.parametrize("name", ["short_leverage", "long_leverage", "beliefs", "risk_scale"])
def test_reward_by_action(settings, name, start):
    market, generators, state = start(2, seed=3, **settings)
    shocks = market.draw_shocks(generators, periods=3)
    own = market.own_action(state)
    limits = {"short_leverage": own.short_leverage + 0.6, "long_leverage": own.long_leverage + 0.4}
    base = replace(own, **limits)
    point = getattr(base, name).clone()

    def value(x):
        return play(market, state, replace(base, **{name: x}), shocks, 3)[0].sum()

    x = point.clone().requires_grad_()
    total = value(x)
    (gradient,) = torch.autograd.grad(total, x)
    assert torch.equal(total.detach(), value(point))
    if settings.get("smoothing"):
        assert (gradient != 0.0).all()
    step = 1e-6
    for index in range(point.numel()):
        shift = torch.zeros_like(point).view(-1)
        shift[index] = step
        up, down = value(point + shift.view_as(point)), value(point - shift.view_as(point))
        numeric = float(up - down) / (2.0 * step)
        assert float(gradient.view(-1)[index]) == pytest.approx(numeric, rel=1e-4, abs=1e-7)


def test_a_year_is_differentiable_in_the_first_state(start):
    market, generators, state = start(1, seed=5)
    shocks = market.draw_shocks(generators, periods=12)
    log_value = state.log_value.clone().requires_grad_()
    total, last = play(market, replace(state, log_value=log_value), None, shocks, 12)
    direction = torch.tensor([[0.3, -0.2, 0.5]], dtype=torch.float64)
    objective = total.sum() + torch.log(last.prices).sum()
    (gradient,) = torch.autograd.grad(objective, log_value)

    def value(x):
        total, last = play(market, replace(state, log_value=x), None, shocks, 12)
        return float(total.sum() + torch.log(last.prices).sum())

    step = 1e-6
    at = state.log_value
    numeric = (value(at + step * direction) - value(at - step * direction)) / (2.0 * step)
    assert float((gradient * direction).sum()) == pytest.approx(numeric, rel=1e-4)


def test_a_detached_state_carries_no_graph(start):
    market, generators, state = start(1)
    action = Action(short_leverage=torch.ones(1, 1, dtype=torch.float64, requires_grad=True))
    after, _ = market.transition(state, action, market.draw_shocks(generators))
    assert after.prices.requires_grad
    assert not after.detach().prices.requires_grad
