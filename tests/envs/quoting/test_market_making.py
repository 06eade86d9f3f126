"""Market making in its simulated market: books, fills, rewards, and its law beside `exact_law`."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from hmgym.agents import baselines_of, evaluate
from hmgym.agents.quoting import (
    AvellanedaStoikov,
    ConstantSpread,
    InventoryAware,
    SymmetricSpread,
    TableStrategy,
    law_of,
)
from hmgym.envs import make_markets
from hmgym.envs.differentiable import DifferentiableQuoting
from hmgym.envs.quoting import MarketMakingEnv, QuotingState
from hmgym.envs.quoting.model import depth_box
from hmgym.market_making import QuotingConfig, exact_law

ID = "hmgym/MarketMaking-v0"
SMALL = QuotingConfig(
    max_inventory=3, steps=12, horizon=0.06, running_penalty=2.0, terminal_penalty=0.3, impact=0.05, drift=4.0
)


def played(env: Any, steps: int, seed: int = 0) -> list[tuple[Any, ...]]:
    """What some random steps of a vector environment return, infos last."""
    env.action_space.seed(seed)
    return [env.step(env.action_space.sample()) for _ in range(steps)]


@pytest.mark.parametrize("config", [QuotingConfig(), SMALL])
def test_cash_inventory_and_profit_are_conserved_at_every_step(config: QuotingConfig) -> None:
    env = gym.make_vec(ID, 64, config=config, reward="pnl", autoreset_mode="Disabled")
    _, before = env.reset(seed=1)
    assert not before["profit"].any()
    total = np.zeros(64)
    for _, reward, *_, after in played(env, config.steps):
        bought, sold = after["bought"].astype(float), after["sold"].astype(float)
        np.testing.assert_array_equal(after["inventory"], before["inventory"] + bought - sold)
        paid = np.where(bought > 0.0, after["bid"], 0.0) - np.where(sold > 0.0, after["ask"], 0.0)
        np.testing.assert_allclose(after["cash"], before["cash"] - paid, atol=1e-12)
        np.testing.assert_allclose(after["profit"], after["cash"] + after["inventory"] * after["mid"], atol=1e-12)
        np.testing.assert_allclose(reward, after["profit"] - before["profit"], atol=1e-10)
        assert (np.abs(after["inventory"]) <= config.max_inventory).all()
        total += reward
        before = after
    np.testing.assert_allclose(total, before["profit"], atol=1e-9)


def test_the_default_reward_takes_both_penalties_off_the_profit() -> None:
    plain = gym.make_vec(ID, 32, config=SMALL, reward="pnl", autoreset_mode="Disabled")
    penalised = gym.make_vec(ID, 32, config=SMALL, autoreset_mode="Disabled")
    plain.reset(seed=3), penalised.reset(seed=3)
    pairs = zip(played(plain, SMALL.steps), played(penalised, SMALL.steps), strict=True)
    for step, (without, with_penalty) in enumerate(pairs):
        square = without[4]["inventory"] ** 2
        penalty = SMALL.running_penalty * SMALL.dt * square
        if step == SMALL.steps - 1:
            penalty = penalty + SMALL.terminal_penalty * square
            assert with_penalty[2].all()
        np.testing.assert_allclose(with_penalty[1], without[1] - penalty, atol=1e-12)


def test_the_sharpe_reward_is_the_derivative_of_a_moving_sharpe_ratio() -> None:
    plain = gym.make_vec(ID, 8, reward="pnl", autoreset_mode="Disabled")
    env: Any = gym.make_vec(ID, 8, reward="sharpe", autoreset_mode="Disabled")
    plain.reset(seed=3), env.reset(seed=3)
    moments = env._batch.reward._sharpe
    for (_, profit, *_), *_ in zip(played(plain, 5), range(5), strict=True):
        first, second = moments.first.copy(), moments.second.copy()

        def ratio(rate: float, first: Any = first, second: Any = second, profit: Any = profit) -> Any:
            mean = first + rate * (profit - first)
            return mean / np.sqrt(second + rate * (profit**2 - second) - mean**2)

        reward = moments(profit)
        np.testing.assert_allclose(reward, (ratio(1e-6) - ratio(-1e-6)) / 2e-6, rtol=1e-5)


def test_fills_have_the_probability_of_their_depth() -> None:
    config = QuotingConfig(max_inventory=10**6)
    env = make_markets(ID, 20_000, config=config, autoreset_mode="Disabled")
    env.reset(seed=5)
    box = depth_box(config)
    for bid, ask in ((0.3, 1.1), (-0.5, 2.0)):
        action = np.tile(box.from_depths([bid], [ask]), (20_000, 1))
        infos = env.step(action)[4]
        for name, depth in (("bought", bid), ("sold", ask)):
            chance = min(1.0, config.arrival_rate * config.dt * math.exp(-config.depth_decay * depth))
            found = infos[name].mean()
            assert abs(found - chance) <= 4.0 * math.sqrt(chance * (1.0 - chance) / 20_000)
        np.testing.assert_allclose(infos["bid"] + bid, infos["ask"] - ask, atol=1e-9)


def test_nothing_is_traded_beyond_the_limits() -> None:
    config = QuotingConfig(max_inventory=1)
    env = make_markets(ID, 256, config=config, autoreset_mode="Disabled")
    env.reset(seed=0)
    before, seen = np.zeros(256), set()
    for _ in range(40):
        infos = env.step(np.full((256, 2), -1.0))[4]  # filled for certain, where it may be
        assert not infos["bought"][before == 1].any()
        assert not infos["sold"][before == -1].any()
        before = infos["inventory"]
        seen |= set(before.tolist())
    assert seen == {0}  # both sides at once, always
    lone = np.tile([-1.0, 1.0], (256, 1))
    for _ in range(3):
        infos = env.step(lone)[4]
    assert (infos["inventory"] >= 0).all()
    assert (infos["inventory"] == 1).sum() > 200


def test_rewards_agree_with_the_exact_law_of_every_baseline() -> None:
    config = QuotingConfig()
    for name, baseline in baselines_of(ID).items():
        if name == "random":
            continue
        law = law_of(baseline.policy, config)
        run = evaluate(baseline.policy, ID, episodes=4096).returns
        assert abs(run.mean() - law.expected_reward) <= 4.0 * run.std() / 64.0, name


def test_the_best_policy_is_not_beaten() -> None:
    """By any other baseline, in law; it is the best but for the length of the steps."""
    config = QuotingConfig()
    found = {
        name: law_of(baseline.policy, config).expected_reward
        for name, baseline in baselines_of(ID).items()
        if name != "random"
    }  # fmt: skip
    solution = config.problem().solve(config.dt * np.arange(config.steps))
    best = exact_law(config.problem(), solution.bid, solution.ask, dt=config.dt).expected_reward
    assert max(found, key=lambda name: found[name]) == "hjb"
    assert found["hjb"] == pytest.approx(best, rel=1e-6)
    assert found["inventory_aware"] > found["avellaneda_stoikov"] > found["constant"]


def test_the_law_of_rows_is_the_exact_law() -> None:
    for config, reward in ((SMALL, "inventory_penalty"), (SMALL, "pnl"), (QuotingConfig(steps=20), "pnl")):
        markets = DifferentiableQuoting(config, reward)
        random = torch.Generator().manual_seed(1)
        shape = (config.steps, markets.num_markets, 2)
        actions = (torch.rand(shape, generator=random, dtype=torch.float64) - 0.5).requires_grad_()
        total = torch.zeros((), dtype=torch.float64)
        for step in range(config.steps):
            period = markets.step(actions[step][:, None])
            total = total + period.reward.mean()
            assert bool(period.ended.all()) == (step == config.steps - 1)
        depths = markets.action_map.to_depths(actions.detach().numpy())
        law = exact_law(config.problem(reward), depths[..., 0], depths[..., 1], dt=config.dt)
        assert float(total.detach()) == pytest.approx(law.expected_reward, rel=1e-12)
        np.testing.assert_allclose(markets.probability.detach().numpy(), law.probability[-1], atol=1e-14)
        (gradient,) = torch.autograd.grad(total, actions)
        by_bid, by_ask = law.reward_gradient()
        expected = np.stack([by_bid, by_ask], -1) * markets.action_map.reach
        np.testing.assert_allclose(gradient.numpy(), expected, atol=1e-12)
        with pytest.raises(ValueError, match="must be begun anew"):
            markets.step(actions[0][:, None])
        markets.restart()
        assert float(markets.probability[config.max_inventory]) == 1.0


def test_the_law_goes_on_where_it_was_stored() -> None:
    one, other = DifferentiableQuoting(SMALL), DifferentiableQuoting(SMALL)
    action = torch.full((one.num_markets, 1, 2), 0.2, dtype=torch.float64)
    one.step(action)
    other.load_state_dict(one.state_dict())
    torch.testing.assert_close(one.step(action).reward, other.step(action).reward, rtol=0.0, atol=0.0)
    with pytest.raises(ValueError, match="`stored` must be of 61 inventories, got 7"):
        DifferentiableQuoting().load_state_dict(one.state_dict())
    with pytest.raises(ValueError, match="`action` must lie in"):
        one.step(action * 6.0)
    with pytest.raises(ValueError, match="`action` must have shape"):
        one.step(action[0])
    with pytest.raises(ValueError, match='`reward` must be "inventory_penalty" or "pnl"'):
        DifferentiableQuoting(SMALL, "sharpe")


def test_strategies_quote_what_their_formulas_say() -> None:
    config = QuotingConfig()
    averse, box = config.problem("utility"), depth_box(config)
    state = QuotingState(
        step=np.array([0, 100, 199]), time=np.array([0.0, 0.5, 0.995]), inventory=np.array([2, -3, 0]),
        cash=np.zeros(3), mid=np.full(3, 100.0), depths=box,
    )  # fmt: skip
    rows = averse.avellaneda_stoikov(state.time)
    columns = state.inventory + config.max_inventory
    pick = np.arange(3), columns
    bid, ask = AvellanedaStoikov(averse).depths(state)
    np.testing.assert_allclose((bid, ask), (rows.bid[pick], rows.ask[pick]), rtol=1e-12)
    middle = 0.5 * (bid + ask)
    np.testing.assert_allclose(SymmetricSpread(averse).depths(state), (middle, middle), rtol=1e-12)
    np.testing.assert_allclose(ConstantSpread(0.4).depths(state), np.full((2, 3), 0.4))
    np.testing.assert_allclose(InventoryAware(0.4, 0.1).depths(state)[0], [0.6, 0.1, 0.4], rtol=1e-12)
    solution = averse.solve(np.array([0.5, 0.0]))
    bid, ask = TableStrategy(solution).depths(state)
    np.testing.assert_array_equal(bid, [solution.bid[1, 32], solution.bid[0, 27], solution.bid[0, 30]])
    np.testing.assert_array_equal(ask, [solution.ask[1, 32], solution.ask[0, 27], solution.ask[0, 30]])
    np.testing.assert_array_equal(box.from_depths([np.nan, 9.0], [-9.0, 1.0 / 1.5]), [[1.0, -1.0], [1.0, 0.0]])
    assert box.describe([0.0, 0.5]) == "bid 0.667, ask 1.33 from mid"


def test_the_episode_ends_by_itself_and_its_picture_tells_it() -> None:
    env = gym.make(ID, config=SMALL, render_mode="rgb_array")
    observation, info = env.reset(seed=0)
    np.testing.assert_array_equal(observation, [0.0, 1.0])
    assert np.isnan(info["bid"])
    for step in range(SMALL.steps):
        observation, _, terminated, truncated, info = env.step(np.array([-1.0, 1.0], np.float32))
        assert (terminated, truncated) == (step == SMALL.steps - 1, False)
    assert observation[1] == 0.0
    frame: Any = env.render()
    assert frame.shape == (640, 960, 3)
    assert (frame[:, -20:] == 255).all()  # also where lines have gaps, they end inside the panel
    series = env.unwrapped.episode()  # type: ignore[attr-defined]
    assert len(series) == SMALL.steps + 1
    assert series.inventory[-1] == series.bought.sum() - series.sold.sum() == info["inventory"]
    assert np.isnan(series.bid[np.r_[1.0, series.inventory[:-1]] >= 3.0][1:]).all()
    assert [panel.title.split()[0] for panel in series.panels()] == ["Mid,", "Inventory", "Profit"]
    assert series.profit[-1] == info["profit"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reward": "profit"}, "`reward` must be one of"),
        ({"config": 3.0}, "`config` must be a QuotingConfig, a mapping or None, got float"),
        ({"config": {"volatilty": 1.0}}, r"`config` must be some of .*, got \['volatilty'\]"),
        ({"config": {"volatility": -1.0}}, "`volatility` must be >= 0"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MarketMakingEnv(**arguments)
    with pytest.raises(ValueError, match=message):
        make_markets(ID, 2, **arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "`steps` must be an integer >= 1, got 0"),
        ({"volatility": -1.0}, "`volatility` must be >= 0"),
        ({"arrival_rate": math.nan}, "`arrival_rate` must be a finite number"),
        ({"initial_mid": 0.0}, "`initial_mid` must be a number > 0"),
        ({"risk_aversion": -0.1}, "`risk_aversion` must be >= 0"),
        ({"running_penalty": -0.1}, "`running_penalty` must be >= 0"),
        ({"max_inventory": 1.5}, "`max_inventory` must be an integer >= 1"),
    ],
)
def test_bad_markets_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QuotingConfig(**change)
    with pytest.raises(ValueError, match=message):
        QuotingConfig().replace(**change)
