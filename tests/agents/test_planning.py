"""Planners: their objective and its gradient, the best action, what they may know, and what they remember."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from hmgym.agents import MyopicPolicy, Planner, PlannerPolicy, PlanningSettings, evaluate
from hmgym.envs import make_markets
from hmgym.market import Market, MarketConfig, MarketState

LEVERAGE, BELIEFS = "hmgym/Leverage-v0", "hmgym/Beliefs-v0"
SMALL = {"n_assets": 2, "n_investors": 8}
QUICK = PlanningSettings(horizon=3, samples=2, iterations=2, starts=1)


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors: more threads only disturb the neighbours."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def states(n_markets: int, months: int = 0, seed: int = 0, **sizes: int) -> MarketState:
    """Markets some months after their start, the learner at its own limits."""
    market = Market(MarketConfig(**(sizes or SMALL)))
    generators = [np.random.default_rng(seed + row) for row in range(n_markets)]
    state = market.initial(market.draw_initial_shocks(generators))
    for _ in range(months):
        state, _ = market.transition(state, None, market.draw_shocks(generators))
    return state


def random_plan(policy: PlannerPolicy, n_markets: int, seed: int = 0) -> torch.Tensor:
    shape = (n_markets, policy.settings.horizon - 1, policy.action_map.size)
    return torch.from_numpy(np.random.default_rng(seed).uniform(-0.8, 0.8, shape))


@pytest.mark.parametrize("env_id", [LEVERAGE, BELIEFS])
def test_expected_return_is_that_of_rolled_out_months(env_id: str) -> None:
    """Sample by sample through the market, without sharing the first clearing."""
    settings = PlanningSettings(horizon=4, samples=3, discount=0.9, smoothing=0.0)
    policy, state = PlannerPolicy(env_id, settings, **SMALL), states(5, 3)
    plan, market = random_plan(policy, 5), policy.market
    futures = policy.imagine(state)
    found = policy.expected_return(state, futures, plan)
    random = np.random.default_rng(0)  # the policy's own numbers, drawn once more
    uniforms = random.random((5, 3, market.news_posterior.draws))
    uniforms[..., 0] = (np.arange(3) + uniforms[..., 0]) / 3
    months = [market.draw_shocks([random], periods=15) for _ in range(4)]
    for row in range(5):
        imagined = market.imagine(state.select([row] * 3), torch.from_numpy(uniforms[row]))
        mean = market.news_posterior.mean(state.signal, state.regime, state.news_variance)[row]
        returns = []
        for sample in range(3):
            current = imagined.select([sample])
            drift = mean - imagined.next_news.mean(0)
            current = dataclasses.replace(current, next_news=current.next_news + drift)
            total = 0.0
            for month, shocks in enumerate(months):
                action = policy.action_map.to_market(plan[row : row + 1, [min(month, 2)]], current.prices)
                current, outcome = market.transition(current, action, shocks.period(3 * row + sample))
                total += 0.9**month * outcome.reward.item()
                if month < 3:
                    given = {name: value[[3 * row + sample]] for name, value in futures.states[month].items()}
                    if month == 0:
                        moods = [f"scenario.memories.0.{name}" for name in ("error", "sentiment")]
                        for name in ("log_value", "news", "news_variance", "regime", *moods):
                            torch.testing.assert_close(given[name], current.tensors()[name], rtol=0.0, atol=1e-15)
                    current = current.with_tensors(given)
            returns.append(total)
        assert found[row].item() == pytest.approx(np.mean(returns), abs=1e-12)


@pytest.mark.parametrize("kind", ["filtered", "bootstrap", "gaussian"])
def test_imagined_news_have_the_mean_they_should_have(kind: str) -> None:
    config = MarketConfig(fundamentals=kind, **SMALL)
    policy = PlannerPolicy(BELIEFS, PlanningSettings(horizon=4, samples=4), config=config)
    state = states(6, 2)
    futures = policy.imagine(state)
    mean = policy.market.news_posterior.mean(state.signal, state.regime, state.news_variance)
    for month, given in enumerate(futures.states):
        drawn = given["news"].reshape(6, 4, 2)
        wanted = mean if month == 0 else torch.full_like(mean, config.growth)
        torch.testing.assert_close(drawn.mean(1), wanted, rtol=0.0, atol=1e-15)
        assert bool((drawn.std(1) > 1e-3).all())  # moved, not made the same
    values = [given["log_value"] for given in futures.states]
    torch.testing.assert_close(values[1] - values[0], futures.states[1]["news"], rtol=0.0, atol=1e-14)


@pytest.mark.parametrize("smoothing", [0.0, 1e-3])
@pytest.mark.parametrize("env_id", [LEVERAGE, BELIEFS])
def test_gradient_agrees_with_central_differences(env_id: str, smoothing: float) -> None:
    policy = PlannerPolicy(env_id, PlanningSettings(horizon=4, samples=2, smoothing=smoothing), **SMALL)
    state = states(12, 3)
    futures, plan = policy.imagine(state), random_plan(policy, 12).requires_grad_()
    (gradient,) = torch.autograd.grad(policy.expected_return(state, futures, plan).sum(), plan)
    assert bool((gradient.abs() > 0.0).any())
    random = np.random.default_rng(1)
    for _ in range(3):
        direction = torch.from_numpy(random.normal(size=plan.shape))
        with torch.no_grad():
            ends = [policy.expected_return(state, futures, plan + h * direction) for h in (1e-6, -1e-6)]
        difference = (ends[0] - ends[1]) / 2e-6
        exact = (gradient * direction).sum((1, 2))
        errors = (difference - exact).abs() / (gradient**2).sum((1, 2)).sqrt().clamp(min=1e-3)
        assert errors.median() < 1e-6
        assert (errors < 1e-3).double().mean() > 0.8  # the others have a kink between the two ends


@pytest.mark.parametrize("env_id", [LEVERAGE, BELIEFS])
def test_myopic_action_is_the_best_of_a_grid(env_id: str) -> None:
    """Under the same imagined months; a grid has no gradient to follow."""
    settings = PlanningSettings(horizon=2, samples=8, iterations=20, starts=16, smoothing=0.0)
    policy, state = MyopicPolicy(env_id, settings, **SMALL), states(6, 4)
    futures = policy.imagine(state)
    axis = torch.linspace(-1.0, 1.0, 21, dtype=torch.float64)
    size = policy.action_map.size
    constants = torch.cartesian_prod(*[axis] * size).reshape(-1, size)
    with torch.no_grad():
        grid = [policy.expected_return(state, futures, constant.expand(6, 1, size)) for constant in constants]
    table = torch.stack(grid, 1)  # (E, 21) of one axis, (E, 441) of two beliefs
    best, spread = table.amax(1), table.amax(1) - table.median(1).values
    plan = policy.ascend(state, futures, torch.zeros(6, 1, size, dtype=torch.float64))
    found = policy.expected_return(state, futures, plan)
    short = (best - found) / spread
    assert short.max() < 0.1
    assert short.median() < 0.01


def test_act_reads_nothing_hidden() -> None:
    state = states(4, 2)
    other = dataclasses.replace(state, next_news=state.next_news + 0.3)
    for kind in (PlannerPolicy, MyopicPolicy):
        settings = dataclasses.replace(kind.default_settings, samples=2, iterations=3)
        one, two = (kind(LEVERAGE, settings, **SMALL).act(seen) for seen in (state, other))
        assert np.array_equal(one, two)


def test_actions_and_their_count() -> None:
    policy = PlannerPolicy(BELIEFS, QUICK, **SMALL)
    assert policy.imagined_steps == 0
    state = states(3)
    before = {name: value.clone() for name, value in state.tensors().items()}
    with torch.inference_mode():
        actions = policy.act(state)
    assert (actions.shape, actions.dtype) == ((3, 2), np.float32)
    assert (np.abs(actions) <= 1.0).all()
    assert all(torch.equal(value, before[name]) for name, value in state.tensors().items())
    # What no action changes, then two plans looked at, two steps and the last plan, of 1 + 2 samples × 2 months.
    assert policy.imagined_steps == 3 * (2 * 2 + 5 * (1 + 2 * 2))
    again = PlannerPolicy(BELIEFS, QUICK, **SMALL)
    assert np.array_equal(again.act(state), actions)
    assert not np.array_equal(PlannerPolicy(BELIEFS, QUICK, seed=1, **SMALL).act(state), actions)


def test_the_plan_is_where_the_next_month_starts() -> None:
    still = PlanningSettings(horizon=4, samples=1, iterations=0, starts=0)  # executes what it starts from
    policy, state = PlannerPolicy(LEVERAGE, still, **SMALL), states(3, 5)
    assert np.array_equal(policy.act(state), np.zeros((3, 1)))
    market = policy.market
    plan = random_plan(policy, 3)
    following, _ = market.transition(state, None, market.draw_shocks(np.random.default_rng(0), 3))
    policy._last = policy._last._replace(actions=plan)
    np.testing.assert_allclose(policy.act(following), plan[:, 1], rtol=1e-6)
    np.testing.assert_allclose(policy._last.actions[:, -1], plan[:, -1], rtol=1e-6)  # the last month held

    fresh = states(3, seed=50)
    policy.act(state)
    policy._last = policy._last._replace(actions=plan)
    mixed = following.with_rows(torch.tensor([1]), fresh.select([1]))
    found = policy.act(mixed)
    assert np.array_equal(found[1], np.zeros(1))  # a new episode forgets
    np.testing.assert_allclose(found[[0, 2]], plan[[0, 2], 1], rtol=1e-6)

    policy.act(state)
    policy._last = policy._last._replace(actions=plan)
    others = states(3, 6, seed=80)
    assert np.array_equal(policy.act(others), np.zeros((3, 1)))  # as old, but other markets
    assert np.array_equal(policy.act(following.select([0, 1])), np.zeros((2, 1)))  # another number of markets
    assert policy.act(states(5)).shape == (5, 1)


def test_a_ruined_fund_earns_nothing_more() -> None:
    """Its rewards after the ruin are a newcomer's, and the plan does not count them."""
    policy = PlannerPolicy(LEVERAGE, PlanningSettings(horizon=4, samples=4, smoothing=0.0), **SMALL)
    state = states(12, 3)
    poor = torch.full_like(state.unit_value, 0.0500001)
    state = dataclasses.replace(state, unit_value=poor)
    plan = torch.ones(12, 3, 1, dtype=torch.float64)
    futures = policy.imagine(state)
    found = policy.expected_return(state, futures, plan)
    action = policy.action_map.to_market(plan[:, :1], state.prices)
    _, outcome = policy.market.transition(state, action, futures.first)
    ruined = outcome.ruined[:, 0]
    assert 0 < int(ruined.sum()) < 12
    torch.testing.assert_close(found[ruined], torch.log(0.05 / poor[ruined, 0]), rtol=0.0, atol=1e-15)
    assert bool((found[~ruined] != outcome.reward[~ruined, 0]).all())


def test_planners_are_policies() -> None:
    policy: Planner = MyopicPolicy(LEVERAGE, dataclasses.replace(QUICK, horizon=2), **SMALL)
    result = evaluate(policy, LEVERAGE, episodes=3, batch=2, env_kwargs={**SMALL, "max_episode_steps": 4})
    assert result.returns.shape == (3,)
    assert np.isfinite(result.returns).all()
    assert make_markets(LEVERAGE, 1, **SMALL).config.smoothing == 0.0  # the markets themselves stay exact


def test_planning_pays() -> None:
    """On a few markets even a hasty search beats expecting no return."""
    arguments = {**SMALL, "max_episode_steps": 12}
    policy = MyopicPolicy(BELIEFS, PlanningSettings(horizon=2, samples=4, iterations=2, starts=4), **arguments)
    found = evaluate(policy, BELIEFS, episodes=24, env_kwargs=arguments).returns
    middle = evaluate(lambda seen: np.zeros((len(seen), 2)), BELIEFS, episodes=24, env_kwargs=arguments).returns
    assert (found - middle).mean() > 0.05


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"horizon": 1}, "`horizon` must be an integer >= 2, got 1"),
        ({"samples": 0}, "`samples` must be an integer >= 1, got 0"),
        ({"iterations": 2.5}, "`iterations` must be an integer >= 0, got 2.5"),
        ({"starts": True}, "`starts` must be an integer >= 0, got True"),
        ({"learning_rate": -0.1}, r"`learning_rate` must lie in \[0, 2\], got -0.1"),
        ({"smoothing": "little"}, r"`smoothing` must lie in \[0, 1\], got 'little'"),
        ({"smoothing": float("nan")}, r"`smoothing` must lie in \[0, 1\], got nan"),
        ({"discount": None}, r"`discount` must lie in \[0, 1\], got None"),
    ],
)
def test_bad_settings(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PlanningSettings(**settings)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="`horizon` must be 2 for the myopic policy, got 3"):
        MyopicPolicy(LEVERAGE, QUICK)
    with pytest.raises(ValueError, match='`reward` must be "log_unit_value"'):
        PlannerPolicy(LEVERAGE, reward="differential_sharpe")
    with pytest.raises(ValueError, match="`n_learners` must be 1 for a planner, got 2"):
        PlannerPolicy(LEVERAGE, n_learners=2)
    policy = PlannerPolicy(LEVERAGE, QUICK, **SMALL)
    with pytest.raises(ValueError, match="`state` must be a MarketState, got None"):
        policy.act(None)
    with pytest.raises(ValueError, match=r"`state` must be of \(investors, assets\) = \(8, 2\), got \(20, 3\)"):
        policy.act(states(2, n_assets=3, n_investors=20))
    state = states(2)
    with pytest.raises(ValueError, match=r"`plan` must have shape \(2, 2, 1\), got \(2, 1, 1\)"):
        policy.expected_return(state, policy.imagine(state), torch.zeros(2, 1, 1, dtype=torch.float64))
