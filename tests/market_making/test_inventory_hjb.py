"""Exact solutions against published figures, each other, an eigenvector in many digits and the equation itself."""

from __future__ import annotations

import dataclasses
import math
import pickle

import mpmath
import numpy as np
import pytest

from hmgym.market_making import InventoryHJB
from tests.market_making.problems import AS, GLFT, PROBLEMS

every_problem = pytest.mark.parametrize("model", PROBLEMS.values(), ids=list(PROBLEMS))


def difference(one, other) -> float:
    """Largest in a depth; NaN in both is none, in one is infinite."""
    pairs = ((one.bid, other.bid), (one.ask, other.ask))
    return max(
        float(np.where(np.isnan(a) & np.isnan(b), 0.0, np.where(np.isnan(a - b), np.inf, np.abs(a - b))).max())
        for a, b in pairs
    )


def test_figure_1_of_gueant_lehalle_and_fernandez_tapia() -> None:
    start = GLFT.solve([0.0])
    assert f"{start.bid[0, 30]:.8f}" == f"{start.ask[0, 30]:.8f}" == "3.31304541"
    assert f"{start.bid[0, 35]:.8f}" == "3.65347944"
    assert f"{start.ask[0, 35]:.8f}" == "2.97252177"
    assert f"{GLFT.closed_form().bid[30]:.7f}" == "3.3129152"


def test_avellaneda_and_stoikov_at_the_start() -> None:
    start = AS.solve([0.0])
    assert f"{start.value[0, 30]:.8f}" == "64.13348915"
    assert f"{start.bid[0, 30]:.7f}" == "0.6716276"


@every_problem
@pytest.mark.parametrize("method", ["finite_difference", "howard"])
def test_methods_agree(model: InventoryHJB, method: str) -> None:
    exact, found = model.solve(), model.solve(method=method)
    at_start = [dataclasses.replace(one, bid=one.bid[:1], ask=one.ask[:1]) for one in (exact, found)]
    assert difference(*at_start) < 1e-6
    assert difference(exact, found) < 1e-4
    assert np.abs(exact.value - found.value)[0].max() < 1e-6
    assert np.abs(exact.value - found.value).max() < 1e-4


@pytest.mark.parametrize(("method", "order", "steps"), [("finite_difference", 5, 10), ("howard", 3, 80)])
def test_steps_have_their_order(method: str, order: int, steps: int) -> None:
    model = dataclasses.replace(AS, drift=1.0, impact=0.1, max_inventory=5)
    exact = model.solve([0.0])
    errors = [difference(model.solve([0.0], method=method, steps=many), exact) for many in (steps, 2 * steps)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.7)


@every_problem
def test_the_exponential_in_many_digits(model: InventoryHJB) -> None:
    model = dataclasses.replace(model, max_inventory=min(model.max_inventory, 4), horizon=min(model.horizon, 5.0))
    with mpmath.workdps(60):
        k, impact, n = mpmath.mpf(model.depth_decay), mpmath.mpf(model.impact), 2 * model.max_inventory + 1
        half = mpmath.mpf(model.half_spread)
        matrix = many_digits(model)
        q = [mpmath.mpf(int(i)) for i in model.inventory]
        end = mpmath.matrix([mpmath.exp(-k * (model.terminal_penalty + impact / 2) * i**2) for i in q])
        v = mpmath.expm(-matrix * model.horizon, method="taylor") * end
        bid = [half + impact / 2 + mpmath.log(v[i] / v[i + 1]) / k for i in range(n - 1)]
        value = [mpmath.log(v[i]) / k + impact * q[i] ** 2 / 2 for i in range(n)]
    start = model.solve([0.0])
    np.testing.assert_allclose(start.bid[0, :-1], np.array(bid, dtype=float), rtol=0.0, atol=1e-12)
    np.testing.assert_allclose(start.value[0], np.array(value, dtype=float), rtol=1e-13, atol=1e-11)


def many_digits(model: InventoryHJB) -> mpmath.matrix:
    """M, from the formulas."""
    n, k = 2 * model.max_inventory + 1, mpmath.mpf(model.depth_decay)
    gamma, sigma = mpmath.mpf(model.risk_aversion), mpmath.mpf(model.volatility)
    eta = mpmath.mpf(model.arrival_rate) * mpmath.exp(-k * model.impact / 2)
    eta *= (1 + gamma / k) ** (-(1 + k / gamma)) if gamma else mpmath.exp(-1)
    alpha = k * (gamma * sigma**2 / 2 + model.running_penalty)
    matrix = mpmath.zeros(n)
    for i, q in enumerate(model.inventory.tolist()):
        matrix[i, i] = alpha * q**2 - k * model.drift * q
        for j in (i - 1, i + 1):
            if 0 <= j < n:
                matrix[i, j] = -eta
    return matrix


@every_problem
def test_the_horizon_without_end_in_many_digits(model: InventoryHJB) -> None:
    stationary = model.stationary()
    with mpmath.workdps(80):
        matrix, k = many_digits(model), mpmath.mpf(model.depth_decay)
        n, eta = matrix.rows, -matrix[0, 1]
        # λ by bisection on the sign of all pivots, then the vector by its ratios.
        low, high = min(matrix[i, i] for i in range(n)) - 2 * eta, min(matrix[i, i] for i in range(n))

        def ratios(smallest: mpmath.mpf) -> list[mpmath.mpf]:
            found = [(matrix[0, 0] - smallest) / eta]
            while found[-1] > 0 and len(found) < n:
                found.append((matrix[len(found), len(found)] - smallest) / eta - 1 / found[-1])
            return found

        while high - low > mpmath.mpf(10) ** -70 * (1 + abs(low)):
            middle = (low + high) / 2
            found = ratios(middle)
            low, high = (middle, high) if len(found) == n and found[-1] > 0 else (low, middle)
        # Up from −Q to the largest element, down from Q to it, as neither grows errors there.
        up, gap = ratios(low), []
        down = [(matrix[n - 1, n - 1] - low) / eta]
        while len(down) < n - 1:
            i = n - 1 - len(down)
            down.append((matrix[i, i] - low) / eta - 1 / down[-1])
        down.reverse()
        for i in range(n - 1):
            gap.append(-mpmath.log(up[i]) / k if up[i] > 1 else mpmath.log(down[i]) / k)
        middle = mpmath.mpf(model.half_spread) + mpmath.mpf(model.impact) / 2
        bid = np.array([middle + one for one in gap], dtype=float)
        ask = np.array([middle - one for one in gap], dtype=float)
        rate = float(-low / k)
    np.testing.assert_allclose(stationary.bid[:-1], bid, rtol=0.0, atol=1e-10)
    np.testing.assert_allclose(stationary.ask[1:], ask, rtol=0.0, atol=1e-10)
    assert stationary.value_rate == pytest.approx(rate, rel=1e-12)


@every_problem
def test_a_long_horizon_is_one_without_end(model: InventoryHJB) -> None:
    long = dataclasses.replace(model, horizon=200.0 * model.horizon)
    begin = long.solve([0.0])
    start = dataclasses.replace(begin, bid=begin.bid[0], ask=begin.ask[0])
    assert difference(start, model.stationary()) < 1e-10
    later = long.solve([0.0, 1.0])
    assert later.value[0] - later.value[1] == pytest.approx(later.value_rate, abs=1e-6)
    assert later.value_rate == model.stationary().value_rate


def test_a_flat_problem_without_end_is_a_cosine() -> None:
    model = PROBLEMS["flat"]
    v = np.cos(np.pi * model.inventory / (2.0 * (model.max_inventory + 1)))
    gap = np.log(v[:-1] / v[1:]) / model.depth_decay
    np.testing.assert_allclose(model.stationary().bid[:-1], model.half_spread + gap, atol=1e-12)
    rate = 2.0 * model.coupling * math.cos(math.pi / (2.0 * (model.max_inventory + 1))) / model.depth_decay
    assert model.stationary().value_rate == pytest.approx(rate, rel=1e-13)


def test_the_closed_form_is_near_where_limits_are_far() -> None:
    for model in (GLFT, dataclasses.replace(GLFT, drift=0.0005, impact=0.05)):
        closed, stationary = model.closed_form(), model.stationary()
        middle = slice(25, 36)
        np.testing.assert_allclose(closed.bid[middle], stationary.bid[middle], atol=2e-3)
        np.testing.assert_allclose(closed.ask[middle], stationary.ask[middle], atol=2e-3)
        assert closed.value_rate == pytest.approx(stationary.value_rate, rel=1e-4)


def test_the_closed_form_with_drift_and_impact() -> None:
    plain, moved = GLFT, dataclasses.replace(GLFT, drift=0.001, impact=0.2)
    gamma, k, sigma = plain.risk_aversion, plain.depth_decay, plain.volatility
    power = (1.0 + gamma / k) ** (1.0 + k / gamma)
    rho = math.sqrt(sigma**2 * gamma / (2.0 * k * plain.arrival_rate) * power)
    c = math.log1p(gamma / k) / gamma
    q = plain.inventory
    np.testing.assert_allclose(plain.closed_form().bid[:-1], (c + 0.5 * (2 * q + 1) * rho)[:-1], atol=1e-12)
    np.testing.assert_allclose(plain.closed_form().ask[1:], (c - 0.5 * (2 * q - 1) * rho)[1:], atol=1e-12)
    rho *= math.exp(k * moved.impact / 4.0)
    shift = -moved.drift * rho / (gamma * sigma**2)
    bid = c + 0.5 * moved.impact + 0.5 * (2 * q + 1) * rho + shift
    ask = c + 0.5 * moved.impact - 0.5 * (2 * q - 1) * rho - shift
    np.testing.assert_allclose(moved.closed_form().bid[:-1], bid[:-1], atol=1e-12)
    np.testing.assert_allclose(moved.closed_form().ask[1:], ask[1:], atol=1e-12)


def test_avellaneda_and_stoikov_quotes() -> None:
    quotes = AS.avellaneda_stoikov([0.0, 0.25, 1.0])
    assert quotes.bid.shape == quotes.ask.shape == (3, 61)
    left = np.array([1.0, 0.75, 0.0])[:, None]
    np.testing.assert_allclose(quotes.bid + quotes.ask, np.broadcast_to(2 * AS.half_spread + 0.4 * left, (3, 61)))
    np.testing.assert_allclose(quotes.bid - quotes.ask, 2.0 * 0.4 * left * AS.inventory, atol=1e-12)


def test_the_value_solves_the_equation() -> None:
    """θ_t + μq − ½γσ²q² + best of both sides = 0, with the rewards that the quotes returned make."""
    model, h, t = PROBLEMS["as-both"], 1e-5, 0.4
    before, now, after = (model.solve([at]) for at in (t - h, t, t + h))
    q, value, gamma = model.inventory, now.value[0], model.risk_aversion
    slope = (after.value[0] - before.value[0]) / (2.0 * h)
    right = model.drift * q - 0.5 * gamma * model.volatility**2 * q**2

    def side(depth: np.ndarray, gain: np.ndarray) -> np.ndarray:
        fills = model.arrival_rate * np.exp(-model.depth_decay * depth)
        return fills * -np.expm1(-gamma * (depth + gain)) / gamma

    bought = np.diff(value) - model.impact * (q[:-1] + 1)
    sold = -np.diff(value) + model.impact * (q[1:] - 1)
    for nudge in (0.0, -0.02, 0.02):
        total = slope + right
        total[:-1] += side(now.bid[0, :-1] + nudge, bought)
        total[1:] += side(now.ask[0, 1:] + nudge, sold)
        assert np.abs(total).max() < 1e-4 if nudge == 0.0 else total.max() < -1e-3


@every_problem
def test_the_shape_of_a_solution(model: InventoryHJB) -> None:
    times = np.array([0.3, 1.0, 0.0]) * model.horizon
    solution = model.solve(times)
    np.testing.assert_array_equal(solution.times, times)
    for depth, none in ((solution.bid, -1), (solution.ask, 0)):
        assert depth.shape == solution.value.shape == (3, 2 * model.max_inventory + 1)
        assert np.isnan(depth[:, none]).all()
        assert np.isfinite(np.delete(depth, none, 1)).all()
    np.testing.assert_allclose(solution.value[1], -model.terminal_penalty * model.inventory**2, atol=1e-12)
    for column in (solution.value, solution.bid[:, :-1]):
        np.testing.assert_allclose(column[2], column_of(model, column, model.solve([0.0])), rtol=1e-11, atol=1e-11)
    if model.drift == 0.0:
        np.testing.assert_allclose(solution.bid, solution.ask[:, ::-1], atol=1e-10)
        np.testing.assert_allclose(solution.value, solution.value[:, ::-1], atol=1e-10)
    default = model.solve()
    assert default.times.shape == (201,)
    assert (default.times[0], default.times[-1]) == (0.0, model.horizon)


def column_of(model: InventoryHJB, like: np.ndarray, start) -> np.ndarray:
    return start.value[0] if like.shape[1] == 2 * model.max_inventory + 1 else start.bid[0, :-1]


def test_risk_neutrality_is_the_limit_of_small_risk_aversion() -> None:
    neutral = dataclasses.replace(AS, risk_aversion=0.0, running_penalty=0.2, terminal_penalty=0.1, impact=0.05)
    for method in ("exponential", "finite_difference", "howard"):
        near = dataclasses.replace(neutral, risk_aversion=1e-9).solve([0.0], method=method)
        assert difference(near, neutral.solve([0.0], method=method)) < 1e-6


def test_values_beyond_what_a_float_holds() -> None:
    model = dataclasses.replace(AS, risk_aversion=0.0, depth_decay=100.0, terminal_penalty=1.0, horizon=0.1)
    solution = model.solve([0.0, 0.05, 0.0999999, 0.1])
    assert np.isfinite(solution.value).all()
    assert (np.diff(solution.value, axis=0)[:, [0, -1]] < 0.0).all()
    np.testing.assert_allclose(solution.bid, solution.ask[:, ::-1], atol=1e-10)


def test_a_model_is_frozen_and_pickles() -> None:
    assert pickle.loads(pickle.dumps(AS)) == AS
    assert hash(AS) == hash(dataclasses.replace(AS))
    with pytest.raises(dataclasses.FrozenInstanceError):
        AS.horizon = 2.0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, -1.0) for name in ("volatility", "arrival_rate", "depth_decay", "horizon", "risk_aversion", "impact")),
        *((name, 0.0) for name in ("arrival_rate", "depth_decay", "horizon", "max_inventory")),
        *((name, -0.1) for name in ("running_penalty", "terminal_penalty", "max_inventory")),
        *((name, math.nan) for name in ("volatility", "drift", "impact", "max_inventory", "terminal_penalty")),
        ("drift", math.inf),
        ("drift", "up"),
        ("volatility", None),
        ("max_inventory", 2.5),
        ("max_inventory", True),
    ],
)
def test_a_bad_parameter_is_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        dataclasses.replace(AS, **{name: value})


def test_bad_arguments_are_named() -> None:
    for times in ([-0.1], [1.1], [math.nan], [], 0.5, [[0.0]], "now", None):
        with pytest.raises(ValueError, match="`times` must be"):
            AS.avellaneda_stoikov(times) if times is None else AS.solve(times)
    with pytest.raises(ValueError, match="`method` must be one of exponential, finite_difference, howard, got 'euler'"):
        AS.solve(method="euler")
    for steps in (0, -1, 1.5, None):
        with pytest.raises(ValueError, match="`steps` must be"):
            AS.solve(method="howard", steps=steps)
    with pytest.raises(ValueError, match="`curvature` must be > 0"):
        PROBLEMS["flat"].closed_form()
    steep = dataclasses.replace(AS, depth_decay=100.0, terminal_penalty=1.0)
    with pytest.raises(ValueError, match="`steps` must be more"):
        steep.solve(method="finite_difference", steps=10)
