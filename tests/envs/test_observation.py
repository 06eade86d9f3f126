from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from hmgym.envs import OBSERVATION_TABLE, ObservationMap, observation_table
from hmgym.market import Market, MarketConfig, MarketState

CONFIG = MarketConfig(n_assets=2, n_investors=6)


@pytest.fixture(name="state")
def make_state() -> MarketState:
    market = Market(CONFIG)
    generators = [np.random.default_rng(seed) for seed in range(3)]
    state = market.initial(market.draw_initial_shocks(generators))
    with torch.no_grad():
        for _ in range(4):
            state, _ = market.transition(state, None, market.draw_shocks(generators))
    return state


def test_entries_say_what_the_table_says(state: MarketState) -> None:
    observe = ObservationMap(CONFIG)
    seen = observe(state)
    assert seen.dtype == np.float32
    assert seen.shape == (3, 1, observe.size)
    seen = seen[:, 0]

    def quantity(name: str) -> Any:
        return observe.unsquash(seen, name)

    def close(name: str, expected: torch.Tensor) -> None:
        np.testing.assert_allclose(quantity(name), expected.numpy().reshape(3, -1), rtol=1e-4, atol=1e-5, err_msg=name)

    positions = state.holdings * state.prices[:, None]
    wealth = state.cash + positions.sum(-1)
    close("cash_weight", state.cash[:, 0] / wealth[:, 0])
    close("weight", positions[:, 0] / wealth[:, :1])
    close("leverage", positions[:, 0].abs().sum(-1) / wealth[:, 0])
    close("undervaluation", torch.log(state.fundamentals / state.prices))
    close("news", state.news)
    close("signal", state.signal)
    close("regime", 2.0 * state.regime - 1.0)
    close("news_volatility", state.news_variance.sqrt())
    close("volatility", state.variance.sqrt())
    close("last_return", state.last_return)
    close("short_interest", -state.holdings[:, 1:].clamp(max=0.0).sum(1) / state.supply)
    close("crowd_leverage", positions[:, 1:].abs().sum((1, 2)) / wealth[:, 1:].sum(-1))
    close("crowd_cash", state.cash[:, 1:].sum(-1) / (state.supply * state.prices).sum(-1))
    close("wealth_share", wealth[:, 0] / wealth.sum(-1))
    close("log_unit_value", torch.log(state.unit_value[:, 0]))


def test_hidden_parts_of_the_state_are_hidden(state: MarketState) -> None:
    observe = ObservationMap(CONFIG)
    memory = state.scenario.population
    others = replace(memory, error=memory.error + 1.0, sentiment=memory.sentiment + 1.0)
    other = replace(
        state,
        next_news=state.next_news + 1.0,
        scenario=replace(state.scenario, memories=(others,)),
    )
    np.testing.assert_array_equal(observe(state), observe(other))


def test_a_hidden_regime_is_hidden(state: MarketState) -> None:
    """States that differ in the regime alone look alike; with the regime in sight they differ in its entry alone."""
    hidden, shown = ObservationMap(CONFIG, hidden_regime=True), ObservationMap(CONFIG)
    assert hidden.hidden_regime
    assert not shown.hidden_regime
    assert hidden.size == shown.size - 1
    assert hidden.names == tuple(name for name in shown.names if name != "regime")
    other = replace(state, regime=1.0 - state.regime)
    np.testing.assert_array_equal(hidden(state), hidden(other))
    assert torch.equal(hidden.tensor(state), hidden.tensor(other))
    column = shown.columns("regime")
    differs = shown(state) != shown(other)
    assert differs[..., column].all()
    assert differs.sum() == 3
    np.testing.assert_array_equal(np.delete(shown(state), column.start, -1), hidden(state))
    for name in ("news", "signal", "news_volatility", "last_return", "log_unit_value"):
        entries = shown(state)[..., shown.columns(name)]
        np.testing.assert_array_equal(hidden(state)[..., hidden.columns(name)], entries)
        np.testing.assert_array_equal(
            hidden.unsquash(hidden(state), name), shown.unsquash(shown(state), name), err_msg=name
        )
    for use in (hidden.columns, lambda name: hidden.unsquash(hidden(state), name)):
        with pytest.raises(ValueError, match=r"`name` must be one of .* got 'regime'"):
            use("regime")


def months(config: MarketConfig, count: int, seed: int = 0) -> MarketState:
    market = Market(config)
    generators = [np.random.default_rng(seed + row) for row in range(3)]
    state = market.initial(market.draw_initial_shocks(generators))
    with torch.no_grad():
        for _ in range(count):
            state, _ = market.transition(state, None, market.draw_shocks(generators))
    return state


@pytest.mark.parametrize("n_learners", [1, 3])
@pytest.mark.parametrize("hidden", [False, True])
def test_the_tensor_face_is_the_array_face_before_rounding(n_learners: int, hidden: bool) -> None:
    config = CONFIG.replace(n_learners=n_learners)
    observe, state = ObservationMap(config, hidden), months(config, 4)
    seen, exact = observe(state), observe.tensor(state)
    assert exact.dtype == torch.float64
    assert exact.shape == seen.shape == (3, n_learners, observe.size)
    np.testing.assert_allclose(seen, exact.numpy(), rtol=0.0, atol=1.2e-7)


def test_every_learner_sees_all_others() -> None:
    """The view of learner l is that of learner 0 in the market where the two have changed seats."""
    config = CONFIG.replace(n_learners=3)
    observe, state = ObservationMap(config), months(config, 6)
    state = replace(state, holdings=state.holdings * torch.linspace(-1.0, 1.5, 6, dtype=torch.float64)[:, None])
    seen = observe(state)
    assert not np.allclose(seen[:, 0], seen[:, 1])
    for learner in (1, 2):
        seats = torch.arange(6)
        seats[0], seats[learner] = learner, 0
        swapped = {name: getattr(state, name)[:, seats] for name in ("holdings", "cash", "wealth")}
        changed = replace(state, **swapped, unit_value=state.unit_value[:, seats[:3]])
        np.testing.assert_allclose(observe(changed)[:, 0], seen[:, learner], rtol=1e-5, atol=1e-7)


def test_gradients_flow_to_the_state() -> None:
    config = CONFIG.replace(n_learners=2)
    observe, state = ObservationMap(config), months(config, 5)
    names = (
        "prices",
        "holdings",
        "cash",
        "wealth",
        "unit_value",
        "variance",
        "last_return",
        "log_value",
        "news",
        "news_variance",
    )
    inputs = tuple(getattr(state, name)[:1].clone().requires_grad_() for name in names)

    def view(*given: torch.Tensor) -> torch.Tensor:
        return observe.tensor(replace(state.select(slice(1)), **dict(zip(names, given, strict=True))))

    for one, name in zip(inputs, names, strict=True):
        (gradient,) = torch.autograd.grad(view(*inputs).sum(), one, retain_graph=True)
        assert bool(gradient.isfinite().all()), name
        assert bool((gradient != 0.0).any()), name
        direction = torch.randn(one.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        # The scale of a step is that of what is moved: prices are a hundred, money a hundred thousand.
        step = 1e-6 * one.detach().abs().clamp(min=0.01) * direction
        with torch.no_grad():
            high, low = (view(*(x + sign * step if x is one else x for x in inputs)).sum() for sign in (1.0, -1.0))
        assert float((gradient * step).sum()) == pytest.approx(float(high - low) / 2.0, rel=1e-5, abs=1e-12), name


def test_finite_and_bounded_in_extremes(state: MarketState) -> None:
    extreme = replace(
        state, wealth=torch.zeros_like(state.wealth), prices=state.prices * 1e-12, unit_value=state.unit_value * 1e-300
    )
    seen = ObservationMap(CONFIG)(extreme)
    assert np.isfinite(seen).all()
    assert (np.abs(seen) <= 1.0).all()


def test_names_and_columns_agree() -> None:
    observe = ObservationMap(CONFIG)
    assert len(observe.names) == observe.size
    assert observe.names[observe.columns("news")] == ("news_0", "news_1")
    assert observe.names[observe.columns("regime")] == ("regime",)
    with pytest.raises(ValueError, match="`name` must be one of"):
        observe.columns("tomorrow")


def test_documented_table_covers_every_column() -> None:
    table = observation_table(3)
    size = gym.make("hmgym/Leverage-v0", hidden_regime=False).observation_space.shape[0]
    assert f"| {size - 1} |" in table
    assert all(f"`{entry.name}`" in table for entry in OBSERVATION_TABLE)
