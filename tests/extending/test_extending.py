"""The examples of docs/extending.md: one file and one line in a registry each, and every face works."""

from __future__ import annotations

import copy
import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch

from hmgym.agents import PlannerPolicy, PlanningSettings
from hmgym.market import COHORTS, MECHANISMS, Action, Market, MarketConfig
from tests.extending.contrarians import ContrarianConfig, Contrarians
from tests.extending.linear_impact import LinearImpact

# The lines of the registries.
LINES = {
    "contrarians": (COHORTS, "tests.extending.contrarians:ContrarianConfig"),
    "accumulators": (COHORTS, "tests.extending.accumulators:AccumulatorConfig"),
    "linear-impact": (MECHANISMS, "tests.extending.linear_impact:LinearImpact"),
}
CASES = {
    "contrarians": {"cohorts": ("contrarians",)},
    "accumulators": {"cohorts": ("accumulators",)},
    "both": {"cohorts": ("accumulators", "contrarians"), "trading_cost": 0.002},
    "linear-impact": {"price_mechanism": "linear-impact"},
    "all": {"price_mechanism": "linear-impact", "cohorts": ("contrarians", "accumulators"), "n_learners": 2},
}


RUINS = {"ruins": "both", "ruins with a dealer": "all"}


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    for name, (registry, entry) in LINES.items():
        monkeypatch.setitem(registry, name, entry)


def begin(case: str, n_markets: int = 4):
    settings = CASES[RUINS[case]] | {"ruin_fraction": 0.8} if case in RUINS else CASES[case]
    market = Market(MarketConfig(**settings))
    generators = [np.random.default_rng(seed) for seed in range(n_markets)]
    return market, generators, market.initial(market.draw_initial_shocks(generators))


@pytest.mark.parametrize("case", [*CASES, *RUINS])
def test_the_books_balance(case):
    """Cash and shares, dealer included, every month; and a row does not depend on its neighbours."""
    market, generators, state = begin(case)
    alone = [np.random.default_rng(2)]
    one = market.initial(market.draw_initial_shocks(alone))
    cash, ruins = state.total_cash, 0
    for _ in range(60):
        state, outcome = market.transition(state, None, market.draw_shocks(generators))
        one, _ = market.transition(one, None, market.draw_shocks(alone))
        shares = state.holdings.sum(1) + state.dealer_holdings
        torch.testing.assert_close(shares, state.supply, rtol=1e-9, atol=0.0)
        assert ((state.total_cash - cash).abs() <= 1e-9 * state.gross_money).all()
        assert (state.prices > 0.0).all()
        assert outcome.converged.all()
        ruins += int(state.ruined.sum())
    assert ruins > 0 or case not in RUINS
    torch.testing.assert_close(state.prices[2:3], one.prices, rtol=1e-12, atol=0.0)
    assert sorted(state.tensors()) == sorted(one.tensors())


def test_contrarians_remember():
    market, generators, state = begin("contrarians")
    memory = state.scenario.memories[1].mean_return
    after, _ = market.transition(state, None, market.draw_shocks(generators))
    expected = memory + (after.last_return[:, None] - memory) / 6.0
    torch.testing.assert_close(after.scenario.memories[1].mean_return, expected)
    assert market.beliefs(state).shape == (4, 20, 3)
    torch.testing.assert_close(state.scenario.target_share[:, -4:].sum(1), torch.full((4,), 0.2, dtype=torch.float64))
    torch.testing.assert_close(state.scenario.target_share.sum(1), torch.ones(4, dtype=torch.float64))


def test_accumulators_buy_for_the_money_they_said():
    market, generators, state = begin("accumulators")
    after, _ = market.transition(state, None, market.draw_shocks(generators))
    wanted = 0.05 / 3.0 * state.cash[:, -2:] * state.scenario.memories[1].buys
    wanted = torch.maximum(wanted[..., None], -0.5 * state.holdings[:, -2:] * state.prices[:, None])
    spent = (after.holdings[:, -2:] - state.holdings[:, -2:]) * after.prices[:, None]
    torch.testing.assert_close(spent, wanted, rtol=1e-9, atol=1e-6)
    assert "scenario.memories.1.buys" in state.exogenous()


@pytest.mark.parametrize("case", CASES)
def test_gradients(case):
    """A learner's reward two months on, differentiated by its beliefs, against central differences."""
    market, generators, state = begin(case, 2)
    months = [market.draw_shocks(generators) for _ in range(2)]
    seats = tuple(state.unit_value.shape)
    limits = {"short_leverage": torch.full(seats, 2.0), "long_leverage": torch.full(seats, 4.0)}
    cautious = torch.full(seats, 10.0)

    def reward(beliefs):
        action = Action(beliefs=beliefs, risk_scale=cautious, **limits)
        after, first = market.transition(state, action, months[0])
        _, second = market.transition(after, None, months[1])
        return (first.reward + second.reward)[0].sum()

    # Beliefs so close to the price that orders are made for, and a learner so cautious, that no limit binds.
    quoted = "price_mechanism" in CASES[case]  # by a dealer, at the last close
    log_price = torch.log(state.prices) if quoted else market.log_prices(state, None, months[0])
    beliefs = (log_price[:, None].expand(*seats, -1) + torch.tensor([0.002, 0.012, 0.003])).detach().requires_grad_()
    bound = market.transition(state, Action(beliefs=beliefs, risk_scale=cautious, **limits), months[0])[1].trade
    rules = market._demand(state, {}, Action(**limits))
    own, n = bound.weights[0, : seats[1]], slice(seats[1])
    assert (own > 1e-6 - rules.short_leverage[0, n]).all()
    assert (own < rules.long_leverage[0, n] - 1e-6).all()
    (slope,) = torch.autograd.grad(reward(beliefs), beliefs)
    step, direction = 1e-6, torch.zeros_like(beliefs)
    direction[0, 0, 1] = 1.0
    with torch.no_grad():
        difference = (reward(beliefs + step * direction) - reward(beliefs - step * direction)) / (2.0 * step)
    assert float(slope[0, 0, 1]) == pytest.approx(float(difference), rel=1e-4, abs=1e-7)
    assert slope[0].abs().max() > 0.0


@pytest.mark.parametrize("case", ["both", "linear-impact"])
def test_the_environments_run_on_it(case):
    config = MarketConfig(**CASES[case])
    env = gym.make("hmgym/Leverage-v0", config=config)
    observation, info = env.reset(seed=3)
    total = 0.0
    for _ in range(12):
        observation, reward, terminated, _, info = env.step(env.action_space.sample())
        total += reward
        assert env.observation_space.contains(observation)
        if terminated:
            break
    assert np.isclose(total, np.log(info["unit_value"]))
    copy.deepcopy(env)


def test_a_planner_imagines_it():
    config = MarketConfig(**CASES["both"])
    policy = PlannerPolicy("hmgym/Leverage-v0", PlanningSettings(samples=2, starts=1, iterations=1), config=config)
    market, _, state = Market(config), None, None
    state = market.initial(market.draw_initial_shocks([np.random.default_rng(0)]))
    assert policy.act(state).shape == (1, 1)


def test_unknown_names():
    with pytest.raises(
        ValueError,
        match=r"`cohorts` must be one of \['accumulators', 'contrarians', 'flow-followers'\], got 'momentum'",
    ):
        MarketConfig(cohorts=("momentum",))
    with pytest.raises(ValueError, match=r"`price_mechanism` must be one of .* got 'auction'"):
        MarketConfig(price_mechanism="auction")
    with pytest.raises(ValueError, match=r"`scenario` must be one of .* got 'bazaar'"):
        MarketConfig(scenario="bazaar")
    with pytest.raises(ValueError, match=r"`n_investors` must be >= n_learners . 2 . the 4 seats"):
        MarketConfig(cohorts=("contrarians",), n_investors=6)
    with pytest.raises(ValueError, match="`cohorts` must hold parameters of cohorts"):
        MarketConfig(cohorts=(3,))


class Careless(LinearImpact):
    """Forgets what it holds."""

    def __call__(self, *arguments):
        trade = super().__call__(*arguments)
        return trade._replace(dealer_holdings=trade.dealer_holdings * 0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GreedyConfig(ContrarianConfig):
    """Its cohort wants more than its share."""

    def build(self, setting):
        cohort = Contrarians(self, setting)
        cohort.target_shares = lambda draws, n_markets: torch.full((n_markets, 4), 0.2, dtype=torch.float64)
        return cohort


def test_shares_must_add_up(monkeypatch):
    monkeypatch.setitem(MECHANISMS, "careless", Careless)
    market = Market(MarketConfig(price_mechanism="careless"))
    state = market.initial(market.draw_initial_shocks(np.random.default_rng(0), 2))
    with pytest.raises(ValueError, match="`price_mechanism` 'careless' must hold the shares that investors do not"):
        market.transition(state, None, market.draw_shocks(np.random.default_rng(0), 2))
    with pytest.raises(ValueError, match='`price_mechanism` must be "clearing" for a terminal mark gain'):
        market.terminal_mark_gain(state, None, market.draw_shocks(np.random.default_rng(0), 2))
    market = Market(MarketConfig(cohorts=(GreedyConfig(),)))
    with pytest.raises(ValueError, match="`target_shares` must add up to each cohort's `wealth_share`"):
        market.initial(market.draw_initial_shocks(np.random.default_rng(0), 2))


def test_parameters_of_cohorts_are_checked():
    with pytest.raises(ValueError, match="`cohorts: seats of contrarians` must be an integer >= 1, got 0"):
        MarketConfig(cohorts=(ContrarianConfig(seats=0),))
    with pytest.raises(ValueError, match=r"`cohorts: wealth_share of contrarians` must be in \[0, 1\], got -0.2"):
        MarketConfig(cohorts=(ContrarianConfig(wealth_share=-0.2),))


def test_own_limits_of_positions_are_an_action():
    """A cohort whose limits are one a position widens everybody's; what changes nothing still changes nothing."""

    class Limited(Contrarians):
        def demand(self, view, memory):
            rows = super().demand(view, memory)
            return rows._replace(long_leverage=rows.long_leverage[..., None].expand(*view.wealth.shape, 4))

    class LimitedConfig(ContrarianConfig):
        def build(self, setting):
            return Limited(self, setting)

    market = Market(MarketConfig(cohorts=(LimitedConfig(),), n_learners=2))
    generators = [np.random.default_rng(seed) for seed in range(3)]
    state = market.initial(market.draw_initial_shocks(generators))
    shocks = market.draw_shocks(generators)
    own, _ = market.transition(state, market.own_action(state), shocks)
    same, _ = market.transition(state, None, shocks)
    assert torch.equal(own.prices, same.prices)
