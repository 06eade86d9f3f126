"""The exact law against published figures, all paths of small cases, differences and what must be conserved."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from hmgym.market_making import InventoryHJB, exact_law
from tests.market_making.problems import AS

DT = 0.005
MOVED = dataclasses.replace(
    AS, drift=1.5, impact=0.2, running_penalty=0.3, terminal_penalty=0.1, arrival_rate=3.0, horizon=1.0
)


def inventory_strategy() -> tuple[np.ndarray, np.ndarray]:
    quotes = dataclasses.replace(AS, max_inventory=60).avellaneda_stoikov(DT * np.arange(200))
    return quotes.bid, quotes.ask


def symmetric_strategy() -> tuple[np.ndarray, np.ndarray]:
    """The mean spread of the other over the horizon, about mid."""
    depth = np.full((200, 201), AS.half_spread + 0.25 * AS.risk_aversion * AS.volatility**2 * AS.horizon)
    return depth, depth


def small(steps: int = 3, largest: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.uniform(-0.1, 0.9, (steps, 2 * largest + 1)), rng.uniform(-0.1, 0.9, (steps, 2 * largest + 1))


def paths(model: InventoryHJB, bid: np.ndarray, ask: np.ndarray, dt: float, start: int):
    """All paths of fills: probability, gains at fills and by drift, Σ q² and the last inventory. By definition."""
    largest = bid.shape[1] // 2

    def chance(depth: float) -> float:
        return 0.0 if math.isnan(depth) else min(1.0, model.arrival_rate * dt * math.exp(-model.depth_decay * depth))

    for fills in itertools.product(itertools.product((0, 1), repeat=2), repeat=len(bid)):
        weight, cash, mid, squares, q = 1.0, 0.0, 0.0, 0.0, start
        for step, (bought, sold) in enumerate(fills):
            depths = bid[step, q + largest], ask[step, q + largest]
            chances = [chance(depth) for depth in depths]
            chances[0] *= q < largest
            chances[1] *= q > -largest
            weight *= math.prod(c if filled else 1.0 - c for c, filled in zip(chances, (bought, sold), strict=True))
            if weight == 0.0:
                break
            if bought:
                cash -= mid - depths[0]
            if sold:
                cash += mid + depths[1]
            q += bought - sold
            squares += q**2
            mid += model.drift * dt + model.impact * (sold - bought)
        if weight > 0.0:
            yield weight, cash + q * mid, squares, q


@pytest.mark.parametrize(
    ("strategy", "figures"),
    [
        (inventory_strategy, ("1.4918", "64.893", "6.543", "2.927")),
        (symmetric_strategy, ("1.4908", "68.228", "13.457", "8.402")),
    ],
)
def test_the_table_of_avellaneda_and_stoikov(strategy, figures) -> None:
    law = exact_law(AS, *strategy(), dt=DT)
    found = f"{law.mean_spread:.4f}", f"{law.mean:.3f}", f"{law.std:.3f}", f"{law.std_inventory:.3f}"
    assert found == figures


@pytest.mark.parametrize("start", [-2, -1, 0, 1])
def test_all_paths_of_a_small_case(start: int) -> None:
    model, dt = MOVED, 0.4
    bid, ask = small()
    bid[1, 3] = ask[2, 2] = np.nan
    law = exact_law(model, bid, ask, dt=dt, initial_inventory=start)
    weight, profit, squares, q = map(np.array, zip(*paths(model, bid, ask, dt, start), strict=True))
    spread = model.volatility * np.sqrt(dt * squares)
    assert weight.sum() == pytest.approx(1.0, abs=1e-14)
    assert law.mean == pytest.approx(weight @ profit, abs=1e-13)
    assert law.std**2 == pytest.approx(weight @ ((profit - weight @ profit) ** 2 + spread**2), abs=1e-12)
    assert law.mean_inventory == pytest.approx(weight @ q, abs=1e-13)
    penalty = model.running_penalty * dt * squares + model.terminal_penalty * q**2
    assert law.expected_reward == pytest.approx(weight @ (profit - penalty), abs=1e-12)
    for gamma in (0.1, 2.0, -0.7):
        moment = weight @ np.exp(-gamma * profit + 0.5 * (gamma * spread) ** 2)
        assert law.certainty_equivalent(gamma) == pytest.approx(-math.log(moment) / gamma, abs=1e-12)
    assert law.certainty_equivalent(0.0) == law.mean
    assert law.certainty_equivalent(60.0) < law.certainty_equivalent(0.1)

    smooth = spread > 0.0

    def cumulative(x: float) -> float:
        below = norm.cdf((x - profit[smooth]) / spread[smooth])
        return float(weight[smooth] @ below + weight[~smooth] @ (profit[~smooth] <= x))

    grid = np.linspace(-6.0, 6.0, 41)
    np.testing.assert_allclose(law.cumulative(grid), [cumulative(x) for x in grid], atol=1e-11)
    for level in (0.95, 0.8):
        quantile = brentq(lambda x, tail=1.0 - level: cumulative(x) - tail, -50.0, 50.0, xtol=1e-13)
        assert law.value_at_risk(level) == pytest.approx(-quantile, abs=1e-9)
        z = (quantile - profit[smooth]) / spread[smooth]
        below = weight[smooth] @ (spread[smooth] * (z * norm.cdf(z) + norm.pdf(z)))
        below += weight[~smooth] @ np.maximum(quantile - profit[~smooth], 0.0)
        expected = below / (1.0 - level) - quantile
        assert law.conditional_value_at_risk(level) == pytest.approx(expected, abs=1e-9)


def test_a_quantile_may_be_an_atom() -> None:
    """Mostly nothing happens, so profit is mostly 0."""
    bid, ask = small()
    law = exact_law(dataclasses.replace(AS, arrival_rate=0.1), bid, ask, dt=0.1)
    assert law.cumulative(-1e-9) < 0.95 < law.cumulative(0.0)
    assert law.value_at_risk(0.5) == pytest.approx(0.0, abs=1e-12)


def test_a_sure_profit() -> None:
    bid = ask = np.full((4, 3), 0.3)
    model = dataclasses.replace(AS, arrival_rate=1e9)
    law = exact_law(model, bid, ask, dt=1.0)
    assert law.mean == pytest.approx(4 * 0.6)
    assert law.std == pytest.approx(0.0, abs=1e-9)
    assert law.value_at_risk() == law.conditional_value_at_risk() == pytest.approx(-2.4)


@pytest.mark.parametrize("model", [dataclasses.replace(AS, arrival_rate=10.0), MOVED], ids=["plain", "moved"])
def test_the_gradient_of_the_expected_reward(model: InventoryHJB) -> None:
    dt, step = 0.05, 1e-5
    bid, ask = small(steps=6, seed=3)
    bid[2, 1] = np.nan
    bid[0, 2] = -3.0  # filled for sure
    found = exact_law(model, bid, ask, dt=dt, initial_inventory=0).reward_gradient()
    for side, gradient in enumerate(found):
        for place in np.ndindex(bid.shape):
            ends = []
            for sign in (1.0, -1.0):
                tables = [bid.copy(), ask.copy()]
                tables[side][place] += sign * step
                ends.append(exact_law(model, *tables, dt=dt, initial_inventory=0).expected_reward)
            assert gradient[place] == pytest.approx((ends[0] - ends[1]) / (2.0 * step), abs=1e-6)
    assert found[0][2, 1] == found[0][0, -1] == found[1][0, 0] == 0.0
    assert found[0][0, 2] == pytest.approx(1.0)


def test_what_is_conserved() -> None:
    bid, ask = inventory_strategy()
    for start in (0, 7):
        law = exact_law(AS, bid, ask, dt=DT, initial_inventory=start)
        np.testing.assert_allclose(law.probability.sum(1), 1.0, rtol=1e-13)
        fills = [
            np.minimum(1.0, AS.arrival_rate * DT * np.exp(-AS.depth_decay * depth)) * law.probability[:-1]
            for depth in (bid, ask)
        ]
        fills[0][:, -1] = fills[1][:, 0] = 0.0
        bought, sold = (float(side.sum()) for side in fills)
        assert law.mean_inventory == pytest.approx(start + bought - sold, abs=1e-11)
        assert law.mean_trades == pytest.approx(bought + sold, rel=1e-13)
        # Mid is a martingale: profit is what is earned at fills.
        assert law.mean == pytest.approx(float((fills[0] * bid + fills[1] * ask).sum()), rel=1e-13)
        assert law.expected_reward == pytest.approx(law.mean, rel=1e-13)


def test_more_inventories_than_needed_change_nothing() -> None:
    bid, ask = inventory_strategy()
    whole, part = (exact_law(AS, bid[:, cut], ask[:, cut], dt=DT) for cut in (slice(None), slice(20, -20)))
    assert part.mean == pytest.approx(whole.mean, abs=1e-9)
    assert part.value_at_risk() == pytest.approx(whole.value_at_risk(), abs=1e-7)


def test_the_best_quotes_are_the_best_in_law() -> None:
    """In steps too, but for what a step costs: nudges of all quotes, and the other strategies, make it no better."""
    times = DT * np.arange(200)
    quotes = AS.solve(times)
    best = exact_law(AS, quotes.bid, quotes.ask, dt=DT).certainty_equivalent(AS.risk_aversion)
    for bid, ask in (inventory_strategy(), symmetric_strategy()):
        assert exact_law(AS, bid, ask, dt=DT).certainty_equivalent(AS.risk_aversion) < best
    for nudge in (-0.1, 0.1):
        nudged = exact_law(AS, quotes.bid + nudge, quotes.ask + nudge, dt=DT)
        assert nudged.certainty_equivalent(AS.risk_aversion) < best


def test_the_chain_tends_to_the_model() -> None:
    """Its certainty equivalent comes as near the value as steps are short: in proportion to their length."""
    for model in (AS, dataclasses.replace(AS, drift=1.0, impact=0.05)):
        model = dataclasses.replace(model, max_inventory=8, arrival_rate=20.0)
        errors = []
        for steps in (200, 400):
            quotes = model.solve(np.arange(steps) / steps)
            law = exact_law(model, quotes.bid, quotes.ask, dt=1.0 / steps, initial_inventory=1)
            errors.append(law.certainty_equivalent(model.risk_aversion) - quotes.value[0, 9])
        assert abs(errors[0]) < 0.1
        assert errors[0] / errors[1] == pytest.approx(2.0, abs=0.15)


def test_bad_input_is_named() -> None:
    bid, ask = small()
    for table in (bid[0], bid[:, :4], bid[:0], "deep", bid[:, :1]):
        with pytest.raises(ValueError, match=r"`bid` must have shape \(steps, 2Q\+1\)"):
            exact_law(AS, table, ask, dt=DT)
    with pytest.raises(ValueError, match="`ask` must have the shape of `bid`"):
        exact_law(AS, bid, ask[:2], dt=DT)
    with pytest.raises(ValueError, match="`bid` must be finite"):
        exact_law(AS, np.full((2, 3), np.inf), np.zeros((2, 3)), dt=DT)
    for dt in (0.0, -1.0, math.nan, "day", None):
        with pytest.raises(ValueError, match="`dt` must be"):
            exact_law(AS, bid, ask, dt=dt)
    for start in (3, -3, 0.5, math.nan, None):
        with pytest.raises(ValueError, match="`initial_inventory` must be"):
            exact_law(AS, bid, ask, dt=DT, initial_inventory=start)
    with pytest.raises(ValueError, match="`model` must be an InventoryHJB"):
        exact_law(None, bid, ask, dt=DT)
    law = exact_law(AS, bid, ask, dt=DT)
    for level in (0.0, 1.0, math.nan, "high"):
        with pytest.raises(ValueError, match="`level` must be"):
            law.value_at_risk(level)
        with pytest.raises(ValueError, match="`level` must be"):
            law.conditional_value_at_risk(level)
    with pytest.raises(ValueError, match="`risk_aversion` must be"):
        law.certainty_equivalent(math.nan)
    with pytest.raises(ValueError, match="`volatility` must be > 0"):
        exact_law(dataclasses.replace(AS, volatility=0.0), bid, ask, dt=DT).value_at_risk()
