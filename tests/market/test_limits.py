"""Frictions and rules: limits of what one may own or be short of, margin, borrowing spread, anticipated cost."""

from __future__ import annotations

from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest
import torch

from hmgym.market import Action, Demand, Market, MarketConfig
from hmgym.market.limits import Limits
from hmgym.market.mechanisms import Clearing
from tests.economies import FREE

EAGER = {"n_assets": 2, "n_learners": 2, "learner_share": 0.3}  # learners that could own a market


def begin(n_markets: int = 3, seed: int = 0, arrays: str = "torch", **settings):
    market = Market(MarketConfig(**settings), arrays=arrays)
    generators = [np.random.default_rng(seed + row) for row in range(n_markets)]
    return market, generators, market.initial(market.draw_initial_shocks(generators))


def buying(market, state, expected=0.25, level=3.0, others=-1.0):
    """All learners want as much of the first asset as they may have, and none of the others."""
    shape = tuple(state.unit_value.shape)
    prices = torch.as_tensor(state.prices)
    beliefs = torch.log(prices)[:, None].expand(*shape, -1).clone()
    beliefs[..., 0] += expected
    beliefs[..., 1:] += others * expected
    limits = torch.full(shape, level, dtype=torch.float64)
    action = Action(short_leverage=limits, long_leverage=limits, beliefs=beliefs)
    if market.arrays == "torch":
        return action
    return Action(short_leverage=limits.numpy(), long_leverage=limits.numpy(), beliefs=beliefs.numpy())


def planned(state, outcome):
    """Money (E, O, N) that investors plan to hold over what the whole supply is worth at last close and news."""
    weights, wealth, prices, news, supply = (
        np.asarray(x) for x in (outcome.weights, state.wealth, state.prices, state.news, state.supply)
    )
    return weights[..., 1:] * wealth[..., None] / (supply * prices * np.exp(news))[:, None]


@pytest.mark.parametrize("arrays", ["torch", "numpy"])
def test_nobody_plans_to_own_more_than_the_limit(arrays):
    """Whatever the learners want; and it is the limit that holds them back."""
    most = {}
    for limit in (0.25, 0.4, None):
        market, generators, state = begin(8, arrays=arrays, **EAGER, ruin_fraction=0.01, ownership_limit=limit)
        largest = []
        for _ in range(24):
            ready = market.seated(state)
            state, outcome = market.transition(state, buying(market, state), market.draw_shocks(generators))
            assert bool(outcome.converged.all())
            largest.append(planned(ready, outcome).max())
            assert planned(ready, outcome).min() >= -market.config.short_limit * (1.0 + 1e-9)
        most[limit] = max(largest)
        assert market.config.largest_holding == (np.inf if limit is None else limit)
        if limit is not None:
            assert most[limit] == pytest.approx(limit, rel=1e-9)
    assert most[None] > 0.5


def test_several_learners_share_a_limit():
    four = MarketConfig(n_learners=4, learner_share=0.1)
    assert four.largest_learner_holding == pytest.approx(0.5 / 4, rel=1e-12)
    assert four.replace(learner_share=0.02).largest_learner_holding == pytest.approx(0.35 / 4, rel=1e-12)
    assert four.replace(n_learners=1).largest_learner_holding == four.largest_holding == 0.35
    assert four.replace(n_learners=2, learner_share=0.4).largest_learner_holding == 0.35
    assert four.replace(ownership_limit=None).largest_learner_holding == np.inf
    market, generators, state = begin(16, n_learners=4, learner_share=0.1, ruin_fraction=0.01)
    most = np.zeros(2)
    for _ in range(24):
        ready = market.seated(state)
        state, outcome = market.transition(state, buying(market, state, 0.5), market.draw_shocks(generators))
        assert outcome.converged.all()
        held = np.asarray(planned(ready, outcome))
        most = np.maximum(most, [held[:, :4].max(), held[:, 4:].max()])
    assert most[0] == pytest.approx(0.125, rel=1e-9)
    assert 0.125 < most[1] <= 0.35 * (1.0 + 1e-9)


def test_small_markets_can_hold_what_there_is():
    assert MarketConfig(ownership_limit=0.2, n_investors=40).largest_holding == 0.2
    assert MarketConfig(ownership_limit=0.2, n_investors=8).largest_holding == 0.5
    assert MarketConfig(ownership_limit=0.9, n_investors=8).largest_holding == 0.9
    assert MarketConfig(ownership_limit=None, n_investors=8).largest_holding == np.inf
    for n_investors in (3, 4, 8):
        market, generators, state = begin(16, n_investors=n_investors, ownership_limit=0.01)
        for _ in range(24):
            ready = market.seated(state)
            state, outcome = market.transition(state, None, market.draw_shocks(generators))
            assert outcome.converged.all()
            assert planned(ready, outcome).max() <= 4.0 / n_investors * (1.0 + 1e-9)


@pytest.mark.parametrize("arrays", ["torch", "numpy"])
def test_nobody_plans_to_be_short_of_more_than_the_limit(arrays):
    least = {}
    for limit in (0.03, 0.1, None):
        market, generators, state = begin(8, arrays=arrays, **EAGER, ruin_fraction=0.01, short_limit=limit)
        smallest = []
        for _ in range(24):
            ready = market.seated(state)
            state, outcome = market.transition(state, buying(market, state), market.draw_shocks(generators))
            assert bool(outcome.converged.all())
            smallest.append(-planned(ready, outcome).min())
        least[limit] = max(smallest)
        if limit is not None:
            assert least[limit] == pytest.approx(limit, rel=1e-9)
    assert least[None] > 0.12


def by_conic_solver(expected, risk, held, cost, short, long):
    """Positions that are best for one investor, written down independently of the library: (N,) over wealth."""
    w = cp.Variable(expected.size)
    cash = 1.0 - cp.sum(w)
    limits = [w >= -short[1:], w <= long[1:], cash >= -short[0], cash <= long[0]]
    utility = expected @ w - cp.quad_form(w, cp.psd_wrap(risk)) - cost * cp.sum_squares(w - held)
    cp.Problem(cp.Maximize(utility), limits).solve(
        solver=cp.CLARABEL, tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12
    )
    return w.value


@pytest.mark.parametrize("arrays", ["torch", "numpy"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"ownership_limit": 0.3, "trading_cost": 0.01, "short_limit": 0.02},
        {"maintenance_margin": 0.8, "initial_margin": 1.0, "ownership_limit": 0.6, "short_limit": None},
        FREE,
    ],
    ids=["default", "tight", "margin", "free"],
)
def test_every_portfolio_is_that_of_an_independent_solver(settings, arrays):
    market, generators, state = begin(2, 5, arrays, **EAGER | {"n_investors": 16} | settings)
    config, found = market.config, {"owners": 0, "called": 0, "restricted": 0, "short": 0}
    for month in range(4):
        action = buying(market, state, 0.1)
        wanted = market.scenario.demand(market.seated(state), None)
        ready = market.seated(state)
        state, outcome = market.transition(state, action, market.draw_shocks(generators))
        wealth, prices, news = (np.asarray(x) for x in (ready.wealth, ready.prices, ready.news))
        weights, clearing, holdings = (np.asarray(x) for x in (outcome.weights, outcome.prices, ready.holdings))
        for e in range(2):
            for b in range(16):
                money = holdings[e, b] * prices[e]
                learner = b < config.n_learners
                belief = np.asarray(action.beliefs if learner else wanted.beliefs)[e, b]
                short = float(np.asarray(action.short_leverage if learner else wanted.short_leverage)[e, b])
                theta = float(np.asarray(action.long_leverage if learner else wanted.long_leverage)[e, b])
                equity = wealth[e, b] / max(abs(money).sum(), 1e-300)
                if config.maintenance_margin and equity <= config.maintenance_margin:
                    short, theta = 0.0, min(theta, 1.0)
                    found["called"] += 1
                elif config.maintenance_margin and equity < config.initial_margin:
                    credit = np.interp(equity, [config.maintenance_margin, config.initial_margin], [0.0, 1.0])
                    short, theta = credit * short, np.interp(credit, [0.0, 1.0], [min(theta, 1.0), theta])
                    found["restricted"] += 1
                long, shorts = np.full(3, theta), np.full(3, short)
                supply = np.asarray(ready.supply)[e] * prices[e] * np.exp(news[e]) / wealth[e, b]
                if config.short_limit is not None:
                    shorts[1:] = np.minimum(short, config.short_limit * supply)
                    found["short"] += int((abs(weights[e, b, 1:] + config.short_limit * supply) < 1e-9).any())
                if config.ownership_limit is not None:
                    long[0] = max(theta, 1.0)
                    share = max(config.ownership_limit, 4.0 / 16)
                    if learner and config.n_learners > 1:
                        together = max(share, 1.25 * config.n_learners * config.learner_share)
                        share = min(share, together / config.n_learners)
                    most = share * supply
                    long[1:] = np.minimum(long[1:], most)
                    found["owners"] += int((abs(weights[e, b, 1:] - most) < 1e-9).any())
                best = by_conic_solver(
                    belief - np.log(clearing[e]), np.asarray(wanted.risk)[e, b], money / wealth[e, b],
                    config.trading_cost, shorts, long,
                )  # fmt: skip
                np.testing.assert_allclose(weights[e, b, 1:], best, atol=2e-6, err_msg=f"{month} {e} {b}")
        demanded = (weights[..., 1:] * wealth[..., None] / clearing[:, None]).sum(1)
        np.testing.assert_allclose(demanded, np.asarray(ready.supply), rtol=1e-9)
    assert bool(found["owners"]) == (config.ownership_limit is not None)
    assert bool(found["short"]) == (config.short_limit is not None)
    assert found["called"] > 0 or config.maintenance_margin < 0.5
    assert found["restricted"] > 0 or config.maintenance_margin < 0.5
    assert found["restricted"] == 0 or config.maintenance_margin > 0.0


def indebted(state, investor, margin):
    """The state in which an investor is short of the last asset and has `margin` of its gross positions as equity."""
    holdings, cash, wealth = state.holdings.clone(), state.cash.clone(), state.wealth.clone()
    sold = 1.5 * holdings[:, investor, -1]
    holdings[:, investor, -1] -= sold
    holdings[:, investor + 1, -1] += sold  # its neighbour has them
    money = holdings[:, investor] * state.prices
    wealth[:, investor] = margin * money.abs().sum(-1)
    wealth[:, investor + 1] += sold * state.prices[:, -1]
    cash[:, investor] = wealth[:, investor] - money.sum(-1)
    return replace(state, holdings=holdings, cash=cash, wealth=wealth)


@pytest.mark.parametrize(
    ("equity", "credit"), [(0.1, 0.0), (0.25, 0.0), (0.3, 0.2), (0.4, 0.6), (0.5, 1.0), (0.8, 1.0)]
)
def test_what_may_be_borrowed_rises_from_the_maintenance_to_the_initial_margin(equity, credit):
    market, generators, state = begin(3, ruin_fraction=0.01, short_limit=None, ownership_limit=None)
    assert (market.config.maintenance_margin, market.config.initial_margin) == (0.25, 0.5)
    shocks = market.draw_shocks(generators)
    state = indebted(state, 5, equity)
    wanted = market.scenario.demand(state, None)
    _, after = market.transition(state, market.own_action(state), shocks)
    torch.testing.assert_close(after.short_limits[:, 5], credit * wanted.short_leverage[:, 5], rtol=1e-9, atol=1e-12)
    theta = wanted.long_leverage[:, 5]
    at_least = theta.clamp(max=1.0)
    torch.testing.assert_close(after.long_limits[:, 5], at_least + credit * (theta - at_least), rtol=1e-9, atol=0.0)
    others = [b for b in range(market.config.n_investors) if b != 5]
    assert torch.equal(after.short_limits[:, others], wanted.short_leverage[:, others])
    # It cuts what an action asks for too: a bold learner is restricted likewise.
    bold = Action(
        short_leverage=torch.full((3, 1), 2.0, dtype=torch.float64),
        long_leverage=torch.full((3, 1), 3.0, dtype=torch.float64),
    )
    _, one = market.transition(indebted(state, 0, equity), bold, shocks)
    torch.testing.assert_close(one.short_leverage, bold.short_leverage * credit, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(one.long_leverage, 1.0 + bold.short_leverage * credit, rtol=1e-9, atol=0.0)


def test_a_margin_call_closes_shorts_and_pays_back_debt():
    market, generators, state = begin(3, ruin_fraction=0.01, short_limit=None)
    state = indebted(state, 5, 0.2499)
    assert (state.cash[:, 5] < 0.0).all()
    _, after = market.transition(state, market.own_action(state), market.draw_shocks(generators))
    assert after.weights[:, 5].min() >= -1e-12  # cash among them: no debt
    assert after.holdings[:, 5].min() >= -1e-9


RULES = [
    {},
    FREE | {"maintenance_margin": 0.3},
    FREE | {"ownership_limit": 0.3},
    FREE | {"short_limit": 0.01},
    FREE | {"short_limit": 0.01, "ownership_limit": 0.3, "maintenance_margin": 0.3},
    FREE,
]


@pytest.mark.parametrize("each", [False, True], ids=["one limit", "one a position"])
@pytest.mark.parametrize("settings", RULES)
def test_limits_in_arrays_and_in_tensors_of_either_shape(settings, each):
    market, _, state = begin(4, 2, **settings)
    state = indebted(state, 3, 0.2)
    demand = market.scenario.demand(state, None)
    if each:
        wide = (4, market.config.n_investors, 4)
        demand = demand._replace(
            short_leverage=demand.short_leverage[..., None].expand(wide),
            long_leverage=demand.long_leverage[..., None].expand(wide),
        )
    allowed = market.limits(demand, state.prices, state.supply)
    arrays = Demand(*(None if x is None else x.numpy() for x in demand))
    twin = Limits(market.config, None)(arrays, state.prices.numpy(), state.supply.numpy())
    assert isinstance(twin.long_leverage, np.ndarray)
    np.testing.assert_allclose(twin.short_leverage, allowed.short_leverage, rtol=1e-14)
    np.testing.assert_allclose(twin.long_leverage, allowed.long_leverage, rtol=1e-14)
    for name in set(Demand._fields) - {"short_leverage", "long_leverage"}:
        assert getattr(allowed, name) is getattr(demand, name)
    owning, shorting = market.config.ownership_limit is not None, market.config.short_limit is not None
    ruled = owning or shorting
    for limit in (allowed.long_leverage, allowed.short_leverage):
        assert limit.shape == ((4, market.config.n_investors, 4) if ruled or each else demand.wealth.shape)
    called = market.config.maintenance_margin > 0.2
    assert bool((allowed.short_leverage[:, 3] == 0.0).all()) == called
    if ruled:
        worth = (state.supply * state.prices * state.news.exp())[:, None] / state.wealth[..., None]
        wide = (4, market.config.n_investors, 4)
        long, short = (
            (limit if each else limit[..., None]).expand(wide).clone()
            for limit in (demand.long_leverage, demand.short_leverage)
        )
        if called:
            long[:, 3], short[:, 3] = long[:, 3].clamp(max=1.0), 0.0
        if owning:
            most = market.config.largest_holding * worth
            long = torch.cat([long[..., :1].clamp(min=1.0), torch.minimum(long[..., 1:], most)], -1)
        if shorting:
            most = market.config.short_limit * worth
            short = torch.cat([short[..., :1], torch.minimum(short[..., 1:], most)], -1)
        torch.testing.assert_close(allowed.long_leverage, long, rtol=1e-14, atol=0.0)
        torch.testing.assert_close(allowed.short_leverage, short, rtol=1e-14, atol=0.0)


def test_who_has_no_wealth_has_limits_all_the_same():
    market, _, state = begin(2)
    demand = market.scenario.demand(state, None)
    wealth = demand.wealth.clone()
    wealth[:, 4], wealth[:, 5] = 0.0, -10.0
    allowed = market.limits(demand._replace(wealth=wealth), state.prices, state.supply)
    assert allowed.long_leverage.isfinite().all()
    assert (allowed.long_leverage >= 0.0).all()
    assert allowed.short_leverage.isfinite().all()
    assert (allowed.short_leverage >= 0.0).all()


def test_the_spread_is_paid_to_the_bank_by_those_who_owe():
    """The same month with and without it: prices are equal, cash differs by the spread on debt, nothing is lost."""
    quiet = {"flow_rate": 0.0, "cash_adjustment": 0.0, "n_learners": 2, "issuance_rate": 0.0}
    results = {}
    for spread in (0.0, 0.01):
        market, generators, state = begin(4, 3, borrowing_spread=spread, **quiet)
        state, outcome = market.transition(state, None, market.draw_shocks(generators))
        results[spread] = state, outcome
    (plain, _), (dear, outcome) = results[0.0], results[0.01]
    assert torch.equal(plain.prices, dear.prices)
    rate = market.config.interest_rate
    before = market.initial(market.draw_initial_shocks([np.random.default_rng(3 + row) for row in range(4)]))
    bought = (plain.holdings - before.holdings) * plain.prices[:, None]
    debt = before.cash - bought.sum(-1) - market.config.trading_cost * bought.abs().sum(-1)
    paid = 0.01 * debt.clamp(max=0.0)
    assert (paid < 0.0).any()
    torch.testing.assert_close(dear.cash - plain.cash, paid, rtol=1e-9, atol=1e-6)
    torch.testing.assert_close(dear.wealth - plain.wealth, paid, rtol=1e-9, atol=1e-6)
    torch.testing.assert_close(dear.accounts["bank"] - plain.accounts["bank"], -paid.sum(1), rtol=1e-9, atol=1e-6)
    torch.testing.assert_close(plain.accounts["bank"], -(rate * debt).sum(1), rtol=1e-9, atol=1e-6)
    torch.testing.assert_close(dear.total_cash, plain.total_cash, rtol=1e-12, atol=0.0)
    learners = dear.unit_value / plain.unit_value - 1.0
    torch.testing.assert_close(learners, paid[:, :2] / (plain.unit_value * before.wealth[:, :2]), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("anticipation", ["quadratic", "none"])
def test_an_investor_alone_anticipates_cost_in_closed_form(anticipation):
    """(Q + q I) w = (m − u) / 2 + q w_prev, at the price u at which w is all there is; q = 0 without anticipation."""
    rng = np.random.default_rng(0)
    config = MarketConfig(n_assets=3, trading_cost=0.03, cost_anticipation=anticipation)
    factor = torch.tensor(rng.normal(0.0, 0.1, (5, 1, 3, 3)))
    risk = factor @ factor.mT + 0.02 * torch.eye(3, dtype=torch.float64)
    _, _, state = begin(5, n_assets=3)
    wealth = torch.tensor(rng.uniform(1e6, 2e6, (5, 1)))
    holdings = torch.tensor(rng.uniform(-500.0, 2000.0, (5, 1, 3)))
    demand = Demand(
        log_price=torch.log(state.prices), beliefs=torch.log(state.prices)[:, None] + 0.05, risk=risk, wealth=wealth,
        short_leverage=torch.full((5, 1), 50.0, dtype=torch.float64),
        long_leverage=torch.full((5, 1), 50.0, dtype=torch.float64),
        holdings=holdings, supply=state.supply, start=torch.log(state.prices),
    )  # fmt: skip
    trade = Clearing(config)(state, demand, None)
    assert trade.converged.all()
    w = trade.weights[..., 1:]
    cost = config.trading_cost if anticipation == "quadratic" else 0.0
    before = holdings * state.prices[:, None] / wealth[..., None]
    damped = risk + cost * torch.eye(3, dtype=torch.float64)
    right = 0.5 * (demand.beliefs - torch.log(trade.prices)[:, None]) + cost * before
    torch.testing.assert_close(w, torch.linalg.solve(damped, right[..., None])[..., 0], rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(w * wealth[..., None], (state.supply * trade.prices)[:, None], rtol=1e-9, atol=0.0)


def test_who_anticipates_cost_trades_less():
    traded = {}
    for anticipation in ("none", "quadratic", "exact"):
        market, generators, state = begin(6, 1, cost_anticipation=anticipation, trading_cost=0.02, issuance_rate=0.0)
        traded[anticipation] = 0.0
        for _ in range(12):
            old = state
            state, _ = market.transition(state, None, market.draw_shocks(generators))
            money = (state.holdings - old.holdings).abs() * state.prices[:, None]
            traded[anticipation] += float(money.sum())
            paid = state.accounts["exchange"] - old.accounts["exchange"]
            torch.testing.assert_close(paid, 0.02 * money.sum((1, 2)), rtol=1e-9, atol=1e-6)  # in full in every case
    assert traded["exact"] < 0.9 * traded["none"]
    assert traded["quadratic"] < 0.9 * traded["none"]


GRADIENT_CASES = {
    "owner": {"learner_share": 0.4, "ownership_limit": 0.25},
    "owner, smoothed": {"learner_share": 0.4, "ownership_limit": 0.25, "smoothing": 0.01},
    "owner and short": {"learner_share": 0.4, "ownership_limit": 0.25, "short_limit": 0.02},
    "called": {"maintenance_margin": 0.4},
    "restricted": {},
    "debt": {"borrowing_spread": 0.02, "trading_cost": 0.01},
    "exact": {"cost_anticipation": "exact", "ownership_limit": 0.5},
}
INPUTS = ("beliefs", "risk_scale", "long_leverage", "cash", "prices", "news", "holdings")


@pytest.mark.parametrize("case", GRADIENT_CASES)
def test_gradients_equal_central_differences(case):
    """Rewards and prices of two months by actions and by the state, where rules bind and debt is dear."""
    market, generators, state = begin(1, 4, n_assets=2, **GRADIENT_CASES[case])
    months = [market.draw_shocks(generators) for _ in range(2)]
    if case in ("called", "restricted"):
        state = indebted(state, 0, 0.3)
    expected, others = {"owner": (0.06, -1.0), "owner, smoothed": (0.06, -1.0), "owner and short": (0.3, -1.0)}.get(
        case, (0.3, 1.0)
    )
    own = buying(market, state, expected, 2.0, others)
    own = replace(own, risk_scale=torch.full((1, 1), 0.9, dtype=torch.float64))
    ones = {name: getattr(own if hasattr(own, name) else state, name).clone() for name in INPUTS}

    def value(**given):
        actions = {name: given[name] for name in ("beliefs", "risk_scale", "long_leverage")}
        cash, prices, holdings = given["cash"], given["prices"], given["holdings"]
        now = replace(
            state, cash=cash, prices=prices, holdings=holdings, news=given["news"],
            wealth=cash + (holdings * prices[:, None]).sum(-1),
        )  # fmt: skip
        action = replace(own, **actions)
        now, first = market.transition(now, action, months[0])
        now, second = market.transition(now, action, months[1])
        result = (first.reward + second.reward).sum() + torch.log(first.prices).sum() + torch.log(now.prices).sum()
        return result, first, second

    with torch.no_grad():
        _, first, _ = value(**ones)
    if case.startswith("owner"):
        supply = market.seated(state).supply  # issues and buybacks included
        limit = market.config.largest_holding * supply * state.prices * state.news.exp()
        near = 0.2 if market.config.smoothing else 1e-9
        assert float(first.weights[0, 0, 1] * state.wealth[0, 0] / limit[0, 0]) == pytest.approx(1.0, abs=near)
    if case == "owner and short":
        assert float(planned(market.seated(state), first)[0, 0, 1]) == pytest.approx(-0.02, rel=1e-9)
    if case == "called":
        assert float(first.short_leverage.max()) == 0.0
        assert float(first.weights[0, 0, 0]) == pytest.approx(0.0, abs=1e-12)
    if case == "restricted":
        assert 0.0 < float(first.short_leverage.max()) < 0.3 * 2.0
    if case == "debt":
        assert float(first.weights[0, 0, 0]) < 0.0
    leaves = {name: x.clone().requires_grad_() for name, x in ones.items()}
    slopes = torch.autograd.grad(value(**leaves)[0], list(leaves.values()), allow_unused=True)
    random = torch.Generator().manual_seed(1)
    for (name, x), slope in zip(ones.items(), slopes, strict=True):
        direction = torch.randn(x.shape, dtype=torch.float64, generator=random)
        step = 1e-6 * x.abs().clamp(min=0.01) * direction
        with torch.no_grad():
            up, down = (value(**ones | {name: x + sign * step})[0] for sign in (1.0, -1.0))
        found = 0.0 if slope is None else float((slope * step).sum())
        assert found == pytest.approx(float(up - down) / 2.0, rel=2e-4, abs=2e-11), name
        assert slope is not None or name == "long_leverage", name
