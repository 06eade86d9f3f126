"""`optimize_portfolio` against independent solvers, its gradients, shapes and errors."""

from __future__ import annotations

import itertools
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch
from scipy.sparse import coo_array

from hmgym.clearing.portfolio import optimize_portfolio
from tests.clearing.price_problems import random_portfolio

SIGMA = np.array([[0.0737, 0.0354, 0.0183], [0.0354, 0.0572, 0.0242], [0.0183, 0.0242, 0.0153]])
EXPECTED = np.array([50.15707481, 49.95627699, 50.2048171])
EXAMPLE: dict[str, Any] = {
    "Sigma": SIGMA,
    "expected_returns": EXPECTED,
    "commission": 0.0,
    "holdings": np.zeros(3),
    "budget": 1019.2129,
    "short_leverage": 0.1363,
    "long_leverage": 0.6878,
    "prices": np.full(3, 50.0),
}


class InWeights:
    """A portfolio problem written in weights w = p h / W, as a reference that shares no code with the library."""

    def __init__(self, problem: dict[str, Any]) -> None:
        p, W = problem["prices"], problem["budget"]
        n = p.size
        self.scale = p / W
        self.r = problem["expected_returns"] / p - 1.0
        self.G = W * problem["Sigma"] / np.outer(p, p)
        self.cost = problem["commission"] / p
        self.cost_below = -self.cost if problem["commission_on"] == "trades" else np.zeros(n)
        self.before = problem["holdings"] * self.scale
        self.lower = -np.broadcast_to(problem["short_leverage"], n)
        self.upper = np.broadcast_to(problem["long_leverage"], n) + 0.0
        self.floor = 1.0 - np.max(problem["long_leverage"])
        self.ceiling = 1.0 + np.max(problem["short_leverage"])

    def cost_of(self, w: np.ndarray) -> float:
        move = w - self.before
        return float(np.where(move > 0.0, self.cost * move, self.cost_below * move).sum())

    def objective(self, w: np.ndarray) -> float:
        return float(self.r @ w - w @ self.G @ w - self.cost_of(w))

    def size(self, w: np.ndarray) -> float:
        """Sum of the objective's terms by absolute value: what its rounding is relative to."""
        return float(abs(self.r) @ abs(w) + abs(w) @ abs(self.G) @ abs(w) + abs(self.cost_of(w)))

    def infeasibility(self, w: np.ndarray) -> float:
        total = w.sum()
        return max((self.lower - w).max(), (w - self.upper).max(), total - self.ceiling, self.floor - total)

    def bound_on_gain(self, w: np.ndarray) -> float:
        """No feasible portfolio is better than w by more than this: the linearised objective's best gain, by greed."""
        marginal = self.r - 2.0 * self.G @ w
        stretches = []
        for i in range(w.size):
            kink = np.clip(self.before[i], self.lower[i], self.upper[i])
            stretches.append((marginal[i] - self.cost_below[i], kink - self.lower[i], i))
            stretches.append((marginal[i] - self.cost[i], self.upper[i] - kink, i))
        best = self.lower.copy()
        total = best.sum()
        for gain, length, i in sorted(stretches, key=lambda stretch: -stretch[0]):
            take = min(length, max((self.ceiling if gain > 0 else self.floor) - total, 0.0))
            best[i] += take
            total += take
        return float(marginal @ (best - w) - self.cost_of(best) + self.cost_of(w))

    def by_interior_point(self) -> float:
        """Objective found by a conic solver."""
        n = self.r.size
        values, vectors = np.linalg.eigh(self.G)
        root = (vectors * np.sqrt(np.maximum(values, 0.0))).T
        w = cp.Variable(n)
        move = w - self.before
        spent = cp.sum(cp.multiply(self.cost, cp.pos(move)))
        spent += cp.sum(cp.multiply(-self.cost_below, cp.neg(move)))
        limits = [w >= self.lower, w <= self.upper, cp.sum(w) <= self.ceiling, cp.sum(w) >= self.floor]
        task = cp.Problem(cp.Maximize(self.r @ w - cp.sum_squares(root @ w) - spent), limits)
        task.solve(solver=cp.CLARABEL, tol_gap_abs=1e-13, tol_gap_rel=1e-13, tol_feas=1e-13)
        return float(task.value)

    def by_enumeration(self) -> np.ndarray:
        """Weights: the best of all portfolios that are stationary on some set of limits (small n)."""
        n = self.r.size
        best, found = -np.inf, None
        sides = []
        for i in range(n):
            kinked = self.lower[i] < self.before[i] < self.upper[i]
            slopes = {self.cost[i] if self.before[i] < self.upper[i] else self.cost_below[i]}
            if kinked:
                slopes = {self.cost[i], self.cost_below[i]}
            ends = {self.lower[i], self.upper[i]} | ({self.before[i]} if kinked else set())
            sides.append([("free", s) for s in slopes] + [("fixed", e) for e in ends])
        for choice in itertools.product(*sides):
            free = [i for i in range(n) if choice[i][0] == "free"]
            w = np.array([0.0 if kind == "free" else x for kind, x in choice])
            for row in (None, self.floor, self.ceiling):
                m = len(free)
                if row is not None and m == 0:
                    continue
                A = np.zeros((m + (row is not None),) * 2)
                b = np.zeros(len(A))
                A[:m, :m] = 2.0 * self.G[np.ix_(free, free)]
                b[:m] = [self.r[i] - choice[i][1] - 2.0 * self.G[i] @ w for i in free]
                if row is not None:
                    A[m, :m] = A[:m, m] = 1.0
                    b[m] = row - w.sum()
                x = w.copy()
                if m:
                    x[free] = np.linalg.solve(A, b)[:m]
                if self.infeasibility(x) < 1e-10 and self.objective(x) > best:
                    best, found = self.objective(x), x
        assert found is not None
        return found


def solve(problem: dict[str, Any]) -> np.ndarray:
    arguments = {name: x for name, x in problem.items() if name != "condition"}
    return optimize_portfolio(**arguments).numpy()


def test_example_of_the_seed_library() -> None:
    h = optimize_portfolio(**EXAMPLE)
    np.testing.assert_allclose(h, [-0.50214695, -2.77837437, 11.68852934], atol=5e-9)
    assert float(h @ torch.as_tensor(SIGMA) @ h - torch.as_tensor(EXPECTED - 50.0) @ h) == pytest.approx(
        -1.5740, abs=5e-5
    )


def test_corner_where_a_limit_and_the_budget_coincide() -> None:
    h = optimize_portfolio(np.eye(2), [12.0, 8.0], 0.0, 0.0, 100.0, 0.0, 1.0, [10.0, 10.0])
    np.testing.assert_allclose(h, [1.0, 0.0], atol=1e-14)


def test_no_portfolio_is_better() -> None:
    """A certificate, not a comparison: concavity bounds what any other portfolio could gain."""
    for seed in range(600):
        problem = random_portfolio(1 + seed % 12, seed)
        reference = InWeights(problem)
        w = solve(problem) * reference.scale
        assert reference.infeasibility(w) < 1e-13
        assert reference.bound_on_gain(w) <= 1e-10 * reference.size(w) + 1e-14, seed


def test_no_portfolio_is_better_with_many_assets() -> None:
    for seed in range(30):
        problem = random_portfolio(30, 60_000 + seed)
        reference = InWeights(problem)
        w = solve(problem) * reference.scale
        assert reference.infeasibility(w) < 1e-13
        assert reference.bound_on_gain(w) <= 1e-10 * reference.size(w) + 1e-14, seed


def test_objective_equals_a_conic_solvers() -> None:
    for seed in range(300):
        problem = random_portfolio(1 + seed % 10, 10_000 + seed)
        reference = InWeights(problem)
        w = solve(problem) * reference.scale
        assert abs(reference.objective(w) - reference.by_interior_point()) <= 1e-9 * max(reference.size(w), 1e-3), seed


def test_weights_equal_those_of_enumeration() -> None:
    compared = 0
    for seed in range(120):
        problem = random_portfolio(1 + seed % 3, 20_000 + seed)
        if problem["condition"] > 1e4:
            continue
        reference = InWeights(problem)
        np.testing.assert_allclose(solve(problem) * reference.scale, reference.by_enumeration(), atol=1e-8)
        compared += 1
    assert compared >= 30


def test_singular_and_zero_covariance() -> None:
    """Without risk the best asset is bought to the limit; what the covariance cannot tell apart is a tie."""
    h = optimize_portfolio(np.zeros((2, 2)), [11.0, 12.0], 0.0, 0.0, 100.0, 0.0, 0.7, [10.0, 10.0])
    np.testing.assert_allclose(h, [3.0, 7.0], atol=1e-13)
    twins = optimize_portfolio(np.ones((2, 2)), [14.0, 14.0], 0.0, 0.0, 100.0, 0.0, 1.0, [10.0, 10.0])
    assert float(twins.sum()) == pytest.approx(2.0, abs=1e-12)


def test_commission_is_a_dead_zone() -> None:
    def held(expected: float, **kwargs: str) -> float:
        return float(optimize_portfolio([[1.0]], [expected], 0.5, [2.0], 1000.0, 1.0, 2.0, [10.0], **kwargs))

    assert held(14.2) == 2.0  # inside (M - p) / 2 - .25 < 2 < (M - p) / 2
    assert held(15.0) == pytest.approx(2.25, abs=1e-14)
    assert held(13.0) == pytest.approx(1.5, abs=1e-14)  # sales are free
    assert held(13.5, commission_on="trades") == 2.0
    assert held(13.0, commission_on="trades") == pytest.approx(1.75, abs=1e-14)


def test_batches_equal_single_portfolios() -> None:
    problems = [random_portfolio(4, 30_000 + seed) for seed in range(0, 24, 2)]
    names = ("Sigma", "expected_returns", "holdings", "budget")
    stacked = {name: np.stack([problem[name] for problem in problems]) for name in names}
    limits = {
        name: np.stack([np.broadcast_to(problem[name], 4) for problem in problems])
        for name in ("commission", "short_leverage", "long_leverage")
    }
    prices = problems[0]["prices"]
    batch = optimize_portfolio(**stacked, **limits, prices=prices)
    assert batch.shape == (12, 4)
    for k in range(12):
        one = {name: x[k] for name, x in (stacked | limits).items()}
        torch.testing.assert_close(batch[k], optimize_portfolio(**one, prices=prices), rtol=0.0, atol=0.0)
    grid = {name: x.reshape(3, 4, *x.shape[1:]) for name, x in (stacked | limits).items()}
    torch.testing.assert_close(optimize_portfolio(**grid, prices=prices).reshape(12, 4), batch, rtol=0.0, atol=0.0)
    each = np.stack([prices, 2.0 * prices, prices])
    markets = optimize_portfolio(**grid, prices=each)
    torch.testing.assert_close(markets[::2], batch.reshape(3, 4, 4)[::2], rtol=0.0, atol=0.0)


def test_shapes_of_limits_and_commissions() -> None:
    B = 3
    arguments = {**EXAMPLE, "Sigma": np.stack([SIGMA] * B), "budget": np.full(B, 1019.2129), "holdings": 0.0}
    plain = optimize_portfolio(**arguments)
    assert plain.shape == (B, 3)
    per_investor = optimize_portfolio(**{**arguments, "short_leverage": [0.1363] * B, "commission": torch.zeros(B)})
    per_asset = optimize_portfolio(**{**arguments, "long_leverage": np.full((1, 3), 0.6878)})
    full = {"commission": np.zeros((B, 3)), "short_leverage": np.full((B, 3), 0.1363)}
    both = optimize_portfolio(**{**arguments, **full})
    for other in (per_investor, per_asset, both):
        torch.testing.assert_close(other, plain, rtol=0.0, atol=1e-13)
    lists = {name: np.asarray(x).tolist() for name, x in EXAMPLE.items()}
    torch.testing.assert_close(optimize_portfolio(**lists), optimize_portfolio(**EXAMPLE), rtol=0.0, atol=0.0)
    single = optimize_portfolio(**{**EXAMPLE, "short_leverage": [0.0, 0.1, 0.2]})
    assert float(single[0]) >= 0.0


def test_limits_of_every_position() -> None:
    """N+1 limits, cash first: against a conic solver, and against the same limits said once."""
    rng = np.random.default_rng(3)
    for seed in range(100):
        problem = random_portfolio(1 + seed % 6, 50_000 + seed)
        n = problem["prices"].size
        short, long = rng.uniform(0.0, 0.5, n + 1), rng.uniform(0.0, 1.5, n + 1)
        long[0] = max(long[0], 1.0 - long[1:].sum())
        reference = InWeights(problem | {"short_leverage": short[1:], "long_leverage": long[1:]})
        reference.floor, reference.ceiling = 1.0 - long[0], 1.0 + short[0]
        w = solve(problem | {"short_leverage": short, "long_leverage": long}) * reference.scale
        assert reference.infeasibility(w) < 1e-13
        assert abs(reference.objective(w) - reference.by_interior_point()) <= 1e-9 * max(reference.size(w), 1e-3), seed
    once = optimize_portfolio(**EXAMPLE)
    every = {"short_leverage": np.full(4, 0.1363), "long_leverage": np.full(4, 0.6878)}
    torch.testing.assert_close(optimize_portfolio(**EXAMPLE | every), once, rtol=0.0, atol=1e-13)
    stacked = {name: np.stack([np.asarray(x)] * 2) for name, x in every.items()}
    batch = {**EXAMPLE, "Sigma": np.stack([SIGMA] * 2), "budget": np.full(2, 1019.2129), "holdings": 0.0}
    torch.testing.assert_close(optimize_portfolio(**batch | stacked), once.expand(2, 3), rtol=0.0, atol=1e-13)


def test_gradients_by_limits_of_every_position() -> None:
    short = torch.tensor([0.2, 0.05, 0.1, 0.1], dtype=torch.float64, requires_grad=True)
    long = torch.tensor([0.1, 0.3, 0.9, 0.9], dtype=torch.float64, requires_grad=True)

    def best(short: torch.Tensor, long: torch.Tensor) -> torch.Tensor:
        return optimize_portfolio(**EXAMPLE | {"short_leverage": short, "long_leverage": long})

    assert torch.autograd.gradcheck(best, (short, long), eps=1e-7, atol=1e-5, rtol=1e-5)
    slopes = torch.autograd.grad(best(short, long).square().sum(), (short, long))
    assert all(bool(slope.any()) for slope in slopes)


def test_gradcheck() -> None:
    for seed in (1, 2, 4, 8):
        problem = random_portfolio(3, 40_000 + seed)
        if problem["condition"] > 1e3:
            problem["Sigma"] = problem["Sigma"] + np.eye(3) * np.trace(problem["Sigma"]) / 30.0
        names = [name for name in problem if name not in ("condition", "commission_on")]
        inputs = [torch.tensor(np.asarray(problem[name]), dtype=torch.float64, requires_grad=True) for name in names]

        def best(Sigma: torch.Tensor, *others: torch.Tensor, names: Any = tuple(names)) -> torch.Tensor:
            return optimize_portfolio(0.5 * (Sigma + Sigma.mT), **dict(zip(names[1:], others, strict=True)))

        problem_inputs = [x for name, x in zip(names, inputs, strict=True) if name != "commission"]
        fixed = inputs[names.index("commission")].detach()

        def without_commission(Sigma: torch.Tensor, *others: torch.Tensor, fixed: Any = fixed) -> torch.Tensor:
            return best(Sigma, others[0], fixed, *others[1:])

        assert torch.autograd.gradcheck(without_commission, problem_inputs, eps=1e-7, atol=1e-5, rtol=1e-5)


def test_gradients_equal_central_differences() -> None:
    """Along random directions of all inputs at once; at a kink the one-sided differences disagree."""
    smooth = 0
    for seed in range(150):
        problem = random_portfolio(1 + seed % 6, 50_000 + seed)
        if problem["condition"] > 1e6:
            continue
        rng = np.random.default_rng(seed)
        side = problem.pop("commission_on")
        del problem["condition"]
        inputs = {n: torch.tensor(np.asarray(x), dtype=torch.float64, requires_grad=True) for n, x in problem.items()}
        h = optimize_portfolio(**inputs, commission_on=side)
        bar = torch.tensor(rng.standard_normal(h.shape)) * torch.as_tensor(problem["prices"] / problem["budget"])
        gradients = torch.autograd.grad((h * bar).sum(), list(inputs.values()), allow_unused=True)
        directions = {n: rng.standard_normal(np.shape(x)) * np.abs(x) for n, x in problem.items()}
        directions["Sigma"] = 0.5 * (directions["Sigma"] + directions["Sigma"].T) * 0.1
        slope = sum(
            float((g * torch.as_tensor(d)).sum())
            for g, d in zip(gradients, directions.values(), strict=True)
            if g is not None
        )

        def at(s: float, side: str = side, problem: Any = problem, d: Any = directions, bar: Any = bar) -> float:
            moved = {n: x + s * d[n] for n, x in problem.items()}
            return float((optimize_portfolio(**moved, commission_on=side) * bar).sum())

        try:
            left, right = ((at(0.0) - at(-1e-6)) / 1e-6, (at(1e-6) - at(0.0)) / 1e-6)
        except ValueError:
            continue  # the step leaves the admissible values, as where 1/(N+1) is the limit
        if abs(left - right) > 1e-4 * max(1.0, abs(left)):
            continue
        assert slope == pytest.approx(0.5 * (left + right), rel=1e-5, abs=1e-6), seed
        smooth += 1
    assert smooth >= 50


def test_values_do_not_depend_on_gradients_and_batches_sum_them() -> None:
    shared = torch.tensor(EXPECTED, requires_grad=True)
    arguments = {**EXAMPLE, "Sigma": np.stack([SIGMA, 2.0 * SIGMA]), "budget": np.array([1000.0, 500.0])}
    h = optimize_portfolio(**{**arguments, "expected_returns": shared, "holdings": 0.0})
    plain = optimize_portfolio(**{**arguments, "holdings": 0.0})
    torch.testing.assert_close(h.detach(), plain, rtol=0.0, atol=0.0)
    (total,) = torch.autograd.grad(h.sum(), shared)
    parts = []
    for k in range(2):
        alone = torch.tensor(EXPECTED, requires_grad=True)
        one = {**EXAMPLE, "Sigma": arguments["Sigma"][k], "budget": arguments["budget"][k], "expected_returns": alone}
        parts.append(torch.autograd.grad(optimize_portfolio(**one).sum(), alone)[0])
    torch.testing.assert_close(total, parts[0] + parts[1])


def test_covariances_symmetric_but_for_rounding_are_averaged() -> None:
    rounded = np.array(SIGMA, dtype=np.float64)
    rounded[0, 1] *= 1.0 + 1e-9
    given = rounded.copy()
    mean = optimize_portfolio(**{**EXAMPLE, "Sigma": 0.5 * (rounded + rounded.T)})
    plain = optimize_portfolio(**{**EXAMPLE, "Sigma": rounded})
    leaf = torch.tensor(rounded, requires_grad=True)
    graph = optimize_portfolio(**{**EXAMPLE, "Sigma": leaf})
    torch.testing.assert_close(plain, mean, rtol=0.0, atol=0.0)
    torch.testing.assert_close(graph.detach(), mean, rtol=0.0, atol=0.0)
    np.testing.assert_array_equal(rounded, given)  # the caller's array is left alone
    (gradient,) = torch.autograd.grad(graph.sum(), leaf)
    assert gradient.abs().max() > 0.0
    torch.testing.assert_close(gradient, gradient.mT)


def test_no_budget_holds_nothing() -> None:
    assert optimize_portfolio(**{**EXAMPLE, "budget": 0.0}).tolist() == [0.0, 0.0, 0.0]


def test_numbers_in_every_form() -> None:
    plain = optimize_portfolio(**EXAMPLE)
    frozen = SIGMA.copy()
    frozen.flags.writeable = False
    forms: dict[str, Any] = {
        "Sigma": frozen,
        "expected_returns": EXPECTED[::-1].copy()[::-1],
        "commission": np.int64(0),
        "holdings": [np.float32(0.0), np.int8(0), 0],
        "budget": np.float64(1019.2129),
        "short_leverage": np.array(0.1363),
        "long_leverage": torch.tensor(0.6878, dtype=torch.float64),
        "prices": [torch.tensor(50.0), 50, np.float16(50.0)],
    }
    for name, form in forms.items():
        torch.testing.assert_close(optimize_portfolio(**{**EXAMPLE, name: form}), plain, rtol=0.0, atol=0.0)


@pytest.mark.parametrize("name", list(EXAMPLE))
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x * (1 + 0j), "must hold real numbers, got dtype complex128"),
        (lambda x: torch.as_tensor(x) * 1j, "must hold real numbers, got dtype torch.complex128"),
        (lambda x: x > 0, "must hold real numbers, got dtype bool"),
        (lambda x: torch.as_tensor(x) > 0, "must hold real numbers, got dtype torch.bool"),
        (lambda x: x.astype(str), "must be an array of numbers, got ndarray of dtype <U"),
        (lambda x: x.astype("M8[s]"), "must be an array of numbers, got ndarray of dtype datetime64"),
        (lambda x: np.ma.masked_less(x, 0.0), "must be an array of numbers without a mask, got MaskedArray"),
        (lambda x: coo_array(np.atleast_2d(x)), "must be an array of numbers, got coo_array"),
        (lambda x: torch.as_tensor(x).to_sparse(), "must be a dense array of numbers, got layout torch.sparse_coo"),
        (lambda _: 10**400, "must be an array of numbers, got int: .*too large"),
        (lambda _: None, "must be an array of numbers, got NoneType"),
        (lambda _: [[1.0], [1.0, 2.0]], "must be an array of numbers, got list"),
        (lambda _: {"a": 1.0}, "must be an array of numbers, got dict"),
    ],
)
def test_what_is_no_array_of_numbers_is_named(name: str, spoil: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` {message}"):
        optimize_portfolio(**{**EXAMPLE, name: spoil(np.asarray(EXAMPLE[name], dtype=np.float64))})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Sigma": SIGMA[0]}, r"`Sigma` must have shape .*got \(3,\)"),
        ({"Sigma": SIGMA[:2]}, r"`Sigma` must have shape .*got \(2, 3\)"),
        ({"Sigma": "risk"}, "`Sigma` must be an array of numbers, got str"),
        ({"Sigma": SIGMA * np.nan}, "`Sigma` must be finite"),
        ({"Sigma": SIGMA + np.triu(SIGMA, 1)}, "`Sigma` must be symmetric to 1e-08"),
        ({"Sigma": SIGMA - np.eye(3)}, "`Sigma` must be positive semidefinite, its eigenvalues, got -0.9"),
        ({"expected_returns": [1.0, 2.0]}, r"`expected_returns` must have shape \(3,\), got \(2,\)"),
        ({"expected_returns": [1.0, 2.0, np.inf]}, r"`expected_returns` must be finite, got inf"),
        ({"commission": -0.1}, "`commission` must be finite and >= 0, got -0.1"),
        ({"holdings": np.zeros((2, 3))}, r"`holdings` must have shape"),
        ({"budget": -1.0}, "`budget` must be finite and >= 0, got -1"),
        ({"budget": [1.0, 2.0]}, "`budget` must have shape"),
        ({"short_leverage": -0.2}, "`short_leverage` must be finite and >= 0, got -0.2"),
        ({"long_leverage": 0.2}, r"`long_leverage` must be >= 1/\(N\+1\) = 0.25, got 0.2"),
        ({"short_leverage": [-0.2, 0.1, 0.1, 0.1]}, "`short_leverage` must be finite and >= 0, got -0.2 for cash"),
        ({"long_leverage": [np.nan, 0.5, 0.5, 0.5]}, "`long_leverage` must be finite and >= 0, got nan for cash"),
        ({"long_leverage": [0.1, 0.2, 0.3, 0.3]}, "`long_leverage` must be such that the limits, .* to >= 1, got 0.9"),
        ({"long_leverage": np.ones(5)}, r"`long_leverage` must have shape \(\) or \(3,\), or .* got \(5,\)"),
        ({"long_leverage": [0.1, 0.2, 0.3]}, "`long_leverage` must be such that the limits, .* sum to >= 1, got 0.9"),
        ({"prices": [50.0, 0.0, 50.0]}, "`prices` must be finite and > 0, got 0"),
        ({"prices": 50.0}, r"`prices` must have shape \(3,\), got \(\)"),
        ({"commission_on": "sells"}, '`commission_on` must be "buys" or "trades", got \'sells\''),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        optimize_portfolio(**{**EXAMPLE, **change})
