"""Signals have the law of the correlated Ornstein–Uhlenbeck process, whatever the step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import linalg

from hmgym.investors.signals import SIGNALS, SPEEDS, VOLATILITIES, OrnsteinUhlenbeck, default_signals


def correlated(dt: float = 1.0 / 12.0) -> OrnsteinUhlenbeck:
    size, rng = len(SIGNALS), np.random.default_rng(0)
    root = rng.normal(size=(size, size))
    covariance = root @ root.T + np.eye(size)
    scale = np.sqrt(np.diag(covariance))
    return OrnsteinUhlenbeck(
        rng.normal(size=size), np.array(SPEEDS), np.array(VOLATILITIES), covariance / np.outer(scale, scale), dt
    )


def van_loan(process: OrnsteinUhlenbeck) -> tuple[np.ndarray, np.ndarray]:
    """Transition matrix and covariance of a step from one matrix exponential (Van Loan, 1978)."""
    size = len(process.speed)
    drift, diffusion = -np.diag(process.speed), process.correlation * np.outer(process.volatility, process.volatility)
    block = np.block([[-drift, diffusion], [np.zeros((size, size)), drift.T]]) * process.dt
    found = linalg.expm(block)
    transition = found[size:, size:].T
    return transition, transition @ found[:size, size:]


@pytest.mark.parametrize("dt", [1.0 / 252.0, 1.0 / 12.0, 1.0])
def test_a_step_has_the_exact_law(dt: float) -> None:
    process = correlated(dt)
    transition, covariance = van_loan(process)
    decay, factor = process.transition
    np.testing.assert_allclose(np.diag(decay), transition, rtol=0.0, atol=1e-13)
    np.testing.assert_allclose(factor @ factor.T, covariance, rtol=1e-10)
    assert not np.triu(factor, 1).any()


def test_the_stationary_law_solves_lyapunov_and_stays() -> None:
    process = correlated()
    diffusion = process.correlation * np.outer(process.volatility, process.volatility)
    wanted = linalg.solve_continuous_lyapunov(-np.diag(process.speed), -diffusion)
    stationary = process.stationary @ process.stationary.T
    np.testing.assert_allclose(stationary, wanted, rtol=1e-12)
    decay, factor = process.transition
    after = decay[:, None] * stationary * decay + factor @ factor.T
    np.testing.assert_allclose(after, stationary, rtol=1e-12)


def test_twelve_steps_of_a_month_are_one_of_a_year() -> None:
    month, year = correlated(1.0 / 12.0), correlated(1.0)
    decay, factor = month.transition
    covariance = np.zeros((5, 5))
    for _ in range(12):
        covariance = decay[:, None] * covariance * decay + factor @ factor.T
    np.testing.assert_allclose(decay**12, year.transition.decay, rtol=1e-12)
    np.testing.assert_allclose(covariance, year.transition.factor @ year.transition.factor.T, rtol=1e-12)


def test_correlating_one_dimensional_steps_is_wrong() -> None:
    """The error that the exact factor avoids: 3 % where φ is 12 and 1."""
    process = OrnsteinUhlenbeck([0.0, 0.0], [12.0, 1.0], [0.2, 0.05], [[1.0, 0.5], [0.5, 1.0]])
    factor = process.transition.factor
    covariance = factor @ factor.T
    naive = 0.5 * np.sqrt(covariance[0, 0] * covariance[1, 1])
    assert naive / covariance[0, 1] - 1.0 == pytest.approx(0.033, abs=5e-4)


def test_a_step_is_affine_in_state_and_normals() -> None:
    process, rng = correlated(), np.random.default_rng(1)
    z, normals = rng.normal(size=(3, 4, 5)), rng.normal(size=(3, 4, 5))
    decay, factor = process.transition
    after = process.step(z, normals)
    for row in np.ndindex(3, 4):
        expected = process.mean + decay * (z[row] - process.mean) + factor @ normals[row]
        np.testing.assert_allclose(after[row], expected, rtol=1e-13)
    np.testing.assert_allclose(process.first(normals)[1, 2], process.mean + process.stationary @ normals[1, 2])


def test_a_long_run_has_the_stationary_moments() -> None:
    process, rng = correlated(), np.random.default_rng(2)
    z = process.first(rng.standard_normal((100_000, 5)))
    for _ in range(3):
        z = process.step(z, rng.standard_normal(z.shape))
    wanted = process.stationary @ process.stationary.T
    scale = np.sqrt(np.outer(np.diag(wanted), np.diag(wanted)))
    assert np.abs((np.cov(z, rowvar=False) - wanted) / scale).max() < 0.015
    assert np.abs((z.mean(0) - process.mean) / np.sqrt(np.diag(wanted))).max() < 0.015


def test_tensors_and_leading_dimensions() -> None:
    process, rng = correlated(), np.random.default_rng(3)
    fields = (process.mean, process.speed, process.volatility, process.correlation)
    tensors = OrnsteinUhlenbeck(*(torch.from_numpy(field) for field in fields), process.dt)
    z, normals = rng.normal(size=(2, 7, 5)), rng.normal(size=(2, 7, 5))
    found = tensors.step(torch.from_numpy(z), torch.from_numpy(normals))
    np.testing.assert_allclose(found.numpy(), process.step(z, normals), rtol=1e-13)
    each = OrnsteinUhlenbeck(process.mean, process.speed, rng.uniform(0.05, 0.15, (7, 5)), process.correlation)
    one = OrnsteinUhlenbeck(process.mean, process.speed, each.volatility[4], process.correlation)
    np.testing.assert_allclose(each.step(z, normals)[:, 4], one.step(z[:, 4], normals[:, 4]), rtol=1e-13)


def test_gradients() -> None:
    rng = np.random.default_rng(4)
    process = correlated()
    z, normals = torch.from_numpy(rng.normal(size=(3, 5))), torch.from_numpy(rng.normal(size=(3, 5)))

    def step(speed: torch.Tensor, volatility: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        mean = torch.from_numpy(process.mean)
        return OrnsteinUhlenbeck(mean, speed, volatility, torch.from_numpy(process.correlation)).step(z, normals)

    inputs = [torch.from_numpy(x.copy()).requires_grad_() for x in (process.speed, process.volatility, z.numpy())]
    assert torch.autograd.gradcheck(step, inputs)


def test_the_default_is_independent() -> None:
    factor = default_signals().transition.factor
    np.testing.assert_array_equal(factor, np.diag(np.diag(factor)))
    np.testing.assert_allclose(
        np.diag(default_signals().stationary), np.array(VOLATILITIES) / np.sqrt(2 * np.array(SPEEDS))
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"speed": [1.0, -1.0]}, "`speed` must be finite and > 0"),
        ({"volatility": [1.0]}, "`volatility` must have shape"),
        ({"volatility": [0.0, 1.0]}, "`volatility` must be finite and > 0"),
        ({"correlation": [[1.0, 1.0], [1.0, 1.0]]}, "`correlation` must be symmetric positive definite"),
        ({"correlation": [[1.0, 0.2], [0.3, 1.0]]}, "`correlation` must be symmetric"),
        ({"correlation": np.eye(3)}, "`correlation` must have shape"),
        ({"dt": 0.0}, "`dt` must be a number > 0"),
        ({"mean": "up"}, "`mean` must be an array of real numbers"),
    ],
)
def test_bad_input(change: dict, message: str) -> None:
    good = {"mean": [0.0, 0.0], "speed": [1.0, 2.0], "volatility": [0.1, 0.2], "correlation": np.eye(2)}
    with pytest.raises(ValueError, match=message):
        OrnsteinUhlenbeck(**(good | change))
