"""G-learning: an investor who trades as well as it can without straying far from habit.

x are positions and u trades, fractions of today's wealth; a period later positions are x' = (1 + r) ∘ (x + u), with r
of mean r̄ and covariance Σ. A period gives the reward

    R(x, u) = μ'(x + u) − λ (x + u)'Σ(x + u) − u'Ωu.

Habit is the prior policy π₀ = N(ū + v̄x, Σₚ). Of all policies the investor takes the one with most reward less the
information in it, relative entropy to the prior over β, the inverse temperature. With G the value of a trade and F that
of a position, both quadratic,

    G(x, u) = R(x, u) + γ E F'(x') = x'Q_xx x + u'Q_ux x + u'Q_uu u + Q_x'x + Q_u'u + Q_0
    F(x) = β⁻¹ ln ∫ π₀(u|x) exp(βG(x, u)) du = x'F_xx x + F_x'x + F_0,      π = π₀ exp(β(G − F)),

and F' = 0 after the last period. With K = A F'_xx A + Σ ∘ F'_xx and A = diag(1 + r̄),

    Q_uu = −λΣ − Ω + γK    Q_ux = −2λΣ + 2γK    Q_xx = −λΣ + γK    Q_x = Q_u = μ + γA F'_x    Q_0 = γF'_0.

The integral is taken about the prior's mean a = ū + v̄x, at which G has the slope d = Q_u + Q_ux x + 2Q_uu a:

    S = (Σₚ⁻¹/β − 2Q_uu)⁻¹      π = N(a + Sd, S/β)      F(x) = G(x, a) + ½ d'Sd − ½β⁻¹ ln |I − 2βΣₚQ_uu|.

This is the usual recursion (Σ̃ = S/β) in a form in which nothing cancels as β → 0, where the policy becomes the prior,
but for the logarithm, which no policy depends on; and which holds at β = ∞ too, where the target is Markowitz's
portfolio under quadratic costs.

Source: Halperin and Feldshteyn (2018), Market self-learning of signals, impact and optimal trading, arXiv 1805.06126;
Dixon and Halperin (2020), G-learner and GIRL, arXiv 2002.10990.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hmgym.arrays import Array, as_floats, namespace, to_numpy
from hmgym.checks import integer

_SINGULAR = 3e-8  # of the Cholesky factor's diagonal: rounding lets singular matrices pass


@dataclass(frozen=True, kw_only=True, eq=False)
class GProblem:
    """What G-learning investors face: n positions, any leading dimensions, which broadcast.

    Numpy arrays or tensors, all of the kind of `covariance`; plain numbers do too.

    Attributes:
        expected_returns: (..., n) μ, expected excess return a period; or a tuple of them, one a period, first first.
        covariance: (..., n, n) Σ of a period's returns, symmetric positive semidefinite.
        risk_aversion: (...) λ >= 0.
        prior_covariance: (..., n, n) Σₚ of trades, symmetric positive definite.
        inverse_temperature: (...) β > 0 in units of one over reward; may be infinite.
        trading_cost: (..., n, n) Ω, symmetric positive semidefinite; or (n,) its diagonal; or one number, of all alike.
        prior_mean: (..., n) ū; None is zero.
        prior_gain: (..., n, n) v̄; None is zero.
        discount: (...) γ of a period.
        growth: (..., n) 1 + r̄, what a period makes of a position on average; None is one.

    Raises:
        ValueError: a shape or a value is none of these.
    """

    expected_returns: Array | tuple[Array, ...]
    covariance: Array
    risk_aversion: Array
    prior_covariance: Array
    inverse_temperature: Array
    trading_cost: Array = 0.0
    prior_mean: Array | None = None
    prior_gain: Array | None = None
    discount: Array = 1.0
    growth: Array | None = None

    def __post_init__(self) -> None:
        like = as_floats("covariance", self.covariance)
        n = like.shape[-1] if like.ndim else 0
        if like.ndim < 2 or like.shape[-2] != n or n == 0:
            raise ValueError(f"`covariance` must have shape (..., n, n), got {tuple(like.shape)}")
        xp, identity = namespace(like), namespace(like).identity_like(like)

        def read(name: str, value: Array, tail: tuple[int, ...]) -> Array:
            array = as_floats(name, value, like)
            if tuple(array.shape[array.ndim - len(tail) :]) != tail or array.ndim < len(tail):
                shape = ", ".join(["...", *map(str, tail)])
                raise ValueError(f"`{name}` must have shape ({shape}), got {tuple(array.shape)}")
            return array

        means = self.expected_returns
        fields: dict[str, Array] = {"covariance": like}
        if isinstance(means, tuple):
            fields["expected_returns"] = tuple(read("expected_returns", mean, (n,)) for mean in means)
        else:
            fields["expected_returns"] = read("expected_returns", means, (n,))
        for name in ("risk_aversion", "inverse_temperature", "discount"):
            fields[name] = read(name, getattr(self, name), ())
            value = to_numpy(fields[name])
            least = ">" if name == "inverse_temperature" else ">="
            if not (value > 0.0 if least == ">" else value >= 0.0).all():
                raise ValueError(f"`{name}` must be {least} 0, got {value.min():.6g}")
        fields["prior_covariance"] = read("prior_covariance", self.prior_covariance, (n, n))
        cost = as_floats("trading_cost", self.trading_cost, like)
        if cost.ndim < 2:
            fields["trading_cost"] = read("trading_cost", cost, (n,) if cost.ndim else ()) * identity
        else:
            fields["trading_cost"] = read("trading_cost", cost, (n, n))
        zeros = xp.zeros_like(identity[0])
        given = {name: getattr(self, name) for name in ("prior_mean", "growth", "prior_gain")}
        fields["prior_mean"] = zeros if given["prior_mean"] is None else read("prior_mean", given["prior_mean"], (n,))
        fields["growth"] = zeros + 1.0 if given["growth"] is None else read("growth", given["growth"], (n,))
        gain = given["prior_gain"]
        fields["prior_gain"] = None if gain is None else read("prior_gain", gain, (n, n))
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def mean_of(self, period: int) -> Array:
        """μ (..., n) of a period."""
        means = self.expected_returns
        return means[period] if isinstance(means, tuple) else means


@dataclass(frozen=True, kw_only=True, eq=False)
class ActionValue:
    """G(x, u) = x'Q_xx x + u'Q_ux x + u'Q_uu u + Q_x'x + Q_u'u + Q_0."""

    xx: Array  # (..., n, n)
    ux: Array  # (..., n, n)
    uu: Array  # (..., n, n) negative semidefinite
    x: Array  # (..., n)
    u: Array  # (..., n)
    constant: Array  # (...)

    def __call__(self, x: Array, u: Array) -> Array:
        """Of trades u (..., n) from positions x (..., n)."""
        dot = namespace(x).dot
        quadratic = x * dot(self.xx, x) + u * (dot(self.ux, x) + dot(self.uu, u))
        return (quadratic + self.x * x + self.u * u).sum(-1) + self.constant


@dataclass(frozen=True, kw_only=True, eq=False)
class PositionValue:
    """F(x) = x'F_xx x + F_x'x + F_0.

    F_0 alone loses digits as β → 0, about 1e-16 n/β of them.
    """

    xx: Array  # (..., n, n) negative semidefinite
    x: Array  # (..., n)
    constant: Array  # (...)

    def __call__(self, x: Array) -> Array:
        """Of positions x (..., n)."""
        return (x * (namespace(x).dot(self.xx, x) + self.x)).sum(-1) + self.constant


@dataclass(frozen=True, kw_only=True, eq=False)
class GPolicy:
    """The policy of the first period: u is normal with mean a + Sd = offset + gain x and covariance S/β.

    What is not asked for is not computed, and what is, once: for a trade one linear system is solved.
    """

    prior_mean: Array  # (..., n) ū
    prior_gain: Array | None  # (..., n, n) v̄, None is zero
    prior_precision: Array  # (..., n, n) Σₚ⁻¹/β
    temperature: Array  # (...) 1/β
    inverse_temperature: Array  # (...) β
    action_value: ActionValue  # G of the first trade

    def mean(self, x: Array) -> Array:
        """Expected trades (..., n) from positions x (..., n)."""
        habit = self.habit(x)
        return habit + self._solve(self._slope(x, habit))

    def sample(self, x: Array, normals: Array) -> Array:
        """Trades (..., n) from positions x (..., n) and independent standard normals (..., n)."""
        habit = self.habit(x)
        return habit + self._solve(self._slope(x, habit) + self.push(normals))

    def habit(self, x: Array) -> Array:
        """a (..., n), what the prior expects of trades from positions x (..., n)."""
        gain = self.prior_gain
        return self.prior_mean if gain is None else self.prior_mean + namespace(x).dot(gain, x)

    def push(self, normals: Array) -> Array:
        """What a draw adds to the slope of G (..., n): S⁻¹ times what it adds to the trade."""
        xp = namespace(normals)
        pushed: Array = xp.sqrt(self.temperature)[..., None] * xp.dot(self.root, normals)
        return pushed

    @cached_property
    def precision(self) -> Array:
        """S⁻¹ (..., n, n) = Σₚ⁻¹/β − 2Q_uu, symmetric positive definite."""
        curvature = self.action_value.uu
        return self.prior_precision - (curvature + _transposed(curvature))

    @cached_property
    def root(self) -> Array:
        """C (..., n, n), lower triangular, C C' = S⁻¹.

        Raises:
            ValueError: S⁻¹ is not positive definite.
        """
        requirement = (
            "`trading_cost` must leave no direction without risk and cost where `inverse_temperature` is infinite, and "
            "neither it nor `covariance` may have negative eigenvalues"
        )
        root = _root(self.precision, requirement)
        diagonal = to_numpy(_diagonal(root))
        if (diagonal.min(-1) < _SINGULAR * diagonal.max(-1)).any():
            raise ValueError(f"{requirement}: the matrix to be inverted is singular")
        return root

    @cached_property
    def response(self) -> Array:
        """S (..., n, n)."""
        return _transposed(self._half) @ self._half

    @property
    def covariance(self) -> Array:
        """Of trades, Σ̃ (..., n, n)."""
        covariance: Array = self.temperature[..., None, None] * self.response
        return covariance

    @property
    def offset(self) -> Array:
        """(..., n) mean trades from no positions."""
        offset: Array = self.prior_mean + namespace(self.root).dot(self.response, self._slope_at_zero)
        return offset

    @property
    def gain(self) -> Array:
        """(..., n, n) what mean trades change with positions."""
        gain = self.response @ self._tilt
        return gain if self.prior_gain is None else self.prior_gain + gain

    @cached_property
    def value(self) -> PositionValue:
        """F, of positions before the first trade."""
        xp, action, ubar, vbar = namespace(self.root), self.action_value, self.prior_mean, self.prior_gain
        step, turn = xp.dot(self._half, self._slope_at_zero), self._half @ self._tilt
        pushed = xp.dot(action.uu, ubar)
        xx, linear = action.xx, action.x + xp.dot(_transposed(action.ux), ubar)  # of G at habit
        if vbar is not None:
            crossed = _transposed(vbar) @ (action.ux + action.uu @ vbar)
            xx = xx + 0.5 * (crossed + _transposed(crossed))
            linear = linear + xp.dot(_transposed(vbar), action.u + 2.0 * pushed)
        constant = action.constant + (ubar * (action.u + pushed)).sum(-1)
        return PositionValue(
            xx=xx + 0.5 * (_transposed(turn) @ turn),
            x=linear + xp.dot(_transposed(turn), step),
            constant=constant + 0.5 * (step * step).sum(-1) - 0.5 * self._information,
        )

    def _slope(self, x: Array, habit: Array) -> Array:
        """d (..., n)."""
        dot, action = namespace(x).dot, self.action_value
        slope: Array = action.u + dot(action.ux, x) + 2.0 * dot(action.uu, habit)
        return slope

    @property
    def _slope_at_zero(self) -> Array:
        action = self.action_value
        slope: Array = action.u + 2.0 * namespace(action.uu).dot(action.uu, self.prior_mean)
        return slope

    @property
    def _tilt(self) -> Array:
        """What d changes with x (..., n, n)."""
        action = self.action_value
        return action.ux if self.prior_gain is None else action.ux + 2.0 * (action.uu @ self.prior_gain)

    def _solve(self, slope: Array) -> Array:
        """S times a slope (..., n); where several slopes share a matrix, it is inverted once."""
        xp, root = namespace(slope), self.root  # which checks the matrix
        if tuple(root.shape[:-1]) != tuple(slope.shape):
            return xp.dot(self.response, slope)
        return xp.solve(self.precision, slope[..., None])[..., 0]

    @cached_property
    def _half(self) -> Array:
        """C⁻¹ (..., n, n), S = C⁻¹' C⁻¹."""
        half: Array = namespace(self.root).inverse(self.root)
        return half

    @property
    def _information(self) -> Array:
        """β⁻¹ ln |β S⁻¹Σₚ|; 0 at β = ∞."""
        xp, temperature = namespace(self.root), self.temperature
        finite = temperature > 0.0
        beta = xp.where(finite, self.inverse_temperature, xp.ones_like(temperature))
        whole = xp.where(finite[..., None, None], self.prior_precision, xp.identity_like(self.root))
        prior = _diagonal(_root(whole * beta[..., None, None], "`prior_covariance` must be positive definite"))
        information: Array = temperature * xp.log(beta[..., None] * (_diagonal(self.root) / prior) ** 2).sum(-1)
        return information


def g_recursion(problem: GProblem, periods: int = 1) -> GPolicy:
    """The policy of the first of some periods, and its values, by the recursion at the head of this module.

    Where investors share all but expected returns and positions, let the other fields be without their dimension, or of
    size 1 in it: matrices are then factored once.

    Args:
        problem: what the investors face.
        periods: >= 1, to the horizon.

    Raises:
        ValueError: `periods` is no such number or not that of the expected returns; or no policy is best, which takes
            an infinite β and a direction without risk and without cost.
    """
    periods = integer("periods", periods, 1)
    means = problem.expected_returns
    if isinstance(means, tuple) and len(means) != periods:
        raise ValueError(f"`expected_returns` must be one array or a tuple of periods = {periods}, got {len(means)}")
    xp, prior, beta = namespace(problem.covariance), problem.prior_covariance, problem.inverse_temperature
    _root(prior, "`prior_covariance` must be positive definite")
    temperature = 1.0 / beta
    precision = temperature[..., None, None] * _symmetric(xp.inverse(prior))
    risk = problem.risk_aversion[..., None, None] * problem.covariance

    def policy(period: int, value: PositionValue | None) -> GPolicy:
        return GPolicy(
            prior_mean=problem.prior_mean,
            prior_gain=problem.prior_gain,
            prior_precision=precision,
            temperature=temperature,
            inverse_temperature=beta,
            action_value=_action_value(problem, risk, problem.mean_of(period), value),
        )

    found = policy(periods - 1, None)
    for period in reversed(range(periods - 1)):
        found = policy(period, found.value)
    _ = found.root  # raises where no policy is best
    return found


def as_demand(problem: GProblem, policy: GPolicy, x: Array, normals: Array | None = None) -> tuple[Array, Array]:
    """The policy as an investor of the clearing, who maximises r'w − w'Gw.

    With r = μ + shift, where μ is the first period's expected excess return at whatever price clears, it holds
    w = x + u, with u the policy's mean at that μ, or its draw. Expectations of later periods stay what they are.

    Args:
        problem: what the investors face; its first μ plays no part.
        policy: of `g_recursion`.
        x: (..., n) positions before the trade, fractions of wealth.
        normals: (..., n) of a draw; None is the mean.

    Returns:
        risk G = ½S⁻¹ (..., n, n) and shift (..., n), to be added to expected log prices less interest.
    """
    dot, action = namespace(x).dot, policy.action_value
    shift = action.u - problem.mean_of(0) + dot(action.ux + policy.precision, x)
    shift = shift + dot(policy.prior_precision, policy.habit(x))
    if normals is not None:
        shift = shift + policy.push(normals)
    return 0.5 * policy.precision, shift


def given_funds(risk: Array, shift: Array, funds: Array) -> tuple[Array, Array]:
    """The demand for the first N positions where that for the last M, funds, is settled already.

    Weights are then fractions of what is not in the funds, W_d = W (1 − Σf): max r'w − (W_d/W) w'G_aa w − 2 w'G_af f.

    Args:
        risk: (..., N+M, N+M) G of `as_demand`.
        shift: (..., N+M) likewise.
        funds: (..., M) f, positions in funds after the trade, fractions of wealth; they sum to less than 1.

    Returns:
        risk (..., N, N) and shift (..., N) of an investor whose wealth is W_d.
    """
    xp, n = namespace(risk), risk.shape[-1] - funds.shape[-1]
    direct = 1.0 - funds.sum(-1)
    return direct[..., None, None] * risk[..., :n, :n], shift[..., :n] - 2.0 * xp.dot(risk[..., :n, n:], funds)


def look_through(portfolios: Array) -> Array:
    """C = [I; X] (..., N+M, N): what assets and funds hold, from the portfolios X (..., M, N) of the funds.

    Covariance and expected returns of assets and funds are CΣC' and Cμ, the latter before fees.
    """
    xp = namespace(portfolios)
    identity = xp.broadcast_to(xp.identity_like(portfolios), (*portfolios.shape[:-2], *[portfolios.shape[-1]] * 2))
    loadings: Array = xp.concatenate([identity, portfolios], -2)
    return loadings


def _action_value(problem: GProblem, risk: Array, mean: Array, value: PositionValue | None) -> ActionValue:
    """G of a period, from F of the next, None after the last."""
    discount: Array = problem.discount
    growth: Array = problem.growth
    if value is None:
        none = 0.0 * discount
        return ActionValue(xx=-risk, ux=-2.0 * risk, uu=-risk - problem.trading_cost, x=mean, u=mean, constant=none)
    expected = value.xx * (growth[..., :, None] * growth[..., None, :] + problem.covariance)
    kept = discount[..., None, None] * expected - risk
    linear = mean + discount[..., None] * growth * value.x
    return ActionValue(
        xx=kept, ux=2.0 * kept, uu=kept - problem.trading_cost, x=linear, u=linear, constant=discount * value.constant
    )


def _root(matrix: Array, requirement: str) -> Array:
    """The Cholesky factor, or a ValueError that says what was required."""
    try:
        return namespace(matrix).cholesky(matrix)
    except (np.linalg.LinAlgError, RuntimeError) as error:
        raise ValueError(f"{requirement}: {error}") from error


def _diagonal(matrix: Array) -> Array:
    diagonal: Array = namespace(matrix).stack([matrix[..., i, i] for i in range(matrix.shape[-1])], -1)
    return diagonal


def _symmetric(matrix: Array) -> Array:
    symmetric: Array = 0.5 * (matrix + _transposed(matrix))
    return symmetric


def _transposed(matrix: Array) -> Array:
    transposed: Array = matrix.swapaxes(-1, -2)
    return transposed
