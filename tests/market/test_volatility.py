"""The volatility model: its fit against an optimiser and another library, its recursion, its first states."""

from __future__ import annotations

import numpy as np
import pytest

from hmgym.market import MarketConfig
from hmgym.market import volatility as v

SPANS = ["training", "held-out", "all"]


def errors_of(span: str, n_assets: int = 5) -> np.ndarray:
    returns = MarketConfig(history=span, n_assets=n_assets).selected_history.log_returns
    return returns - returns.mean(0)


@pytest.mark.parametrize("span", SPANS)
def test_fit_is_as_good_as_an_optimiser_s(span):
    optimize = pytest.importorskip("scipy.optimize")
    errors = errors_of(span)
    alpha, beta = v.fit(errors)
    assert (alpha >= 0.0).all()
    assert (beta >= 0.0).all()
    assert (alpha + beta <= v.LARGEST_PERSISTENCE + 1e-12).all()
    own = v.negative_likelihood(errors, alpha, beta)
    for asset in range(errors.shape[1]):
        one = errors[:, asset : asset + 1]

        def loss(point, one=one):
            if point.min() < 0.0 or point.sum() > v.LARGEST_PERSISTENCE:
                return np.inf
            return float(v.negative_likelihood(one, point[:1], point[1:])[0])

        starts = ([0.1, 0.8], [0.05, 0.5], [0.02, 0.95], [0.3, 0.05])
        best = min(optimize.minimize(loss, start, method="Nelder-Mead").fun for start in starts)
        assert own[asset] <= best + 1e-3


def test_fit_agrees_with_arch():
    """It fits the variance as well; where the two agree on that, they agree on α and β."""
    arch = pytest.importorskip("arch")
    errors = errors_of("all", 3)
    alpha, beta = v.fit(errors)
    for asset in (0, 1):  # the third has a unit root there
        found = arch.arch_model(100.0 * errors[:, asset], mean="Zero", rescale=False).fit(disp="off").params
        assert alpha[asset] == pytest.approx(found["alpha[1]"], abs=0.015)
        assert beta[asset] == pytest.approx(found["beta[1]"], abs=0.03)


def test_fit_finds_the_parameters_that_made_a_history():
    rng, alpha, beta = np.random.default_rng(0), np.array([0.1, 0.2]), np.array([0.85, 0.6])
    months, h, errors = 20_000, np.full(2, 0.01), []
    for z in rng.normal(size=(months, 2)):
        errors.append(np.sqrt(h) * z)
        h = (1.0 - alpha - beta) * 0.01 + alpha * errors[-1] ** 2 + beta * h
    found = v.fit(np.array(errors))
    np.testing.assert_allclose(found[0], alpha, atol=0.02)
    np.testing.assert_allclose(found[1], beta, atol=0.04)


def test_an_asset_is_fitted_alike_whatever_stands_beside_it():
    errors = errors_of("training", 3)
    together, alone = v.fit(errors), v.fit(errors[:, 1:2])
    np.testing.assert_allclose([x[1] for x in together], [x[0] for x in alone], atol=1e-12)


def test_the_parameters_of_the_packaged_spans():
    for span, alpha, beta in (
        ("training", [0.116, 0.201, 0.016], [0.840, 0.739, 0.969]),
        ("held-out", [0.085, 0.278, 0.094], [0.697, 0.000, 0.885]),
        ("all", [0.109, 0.186, 0.054], [0.850, 0.727, 0.928]),
    ):
        model = MarketConfig(history=span).volatility
        np.testing.assert_allclose(model.alpha, alpha, atol=2e-3)
        np.testing.assert_allclose(model.beta, beta, atol=2e-3)


@pytest.mark.parametrize("span", SPANS)
def test_residuals(span):
    """They are what is left of the history, standardised, and cluster less than it does."""
    model, errors = MarketConfig(history=span).volatility, errors_of(span, 3)
    np.testing.assert_allclose(model.residuals.mean(0), 0.0, atol=1e-14)
    np.testing.assert_allclose(model.residuals.std(0), 1.0, rtol=1e-14)
    left = errors / np.sqrt(v.filtered(errors, model.alpha, model.beta))
    np.testing.assert_allclose(model.residuals, (left - left.mean(0)) / left.std(0), rtol=1e-12)

    def clustering(x):
        size = np.abs(x) - np.abs(x).mean(0)
        return (size[1:] * size[:-1]).sum(0).mean() / (size**2).sum(0).mean()

    assert clustering(model.residuals) < clustering(errors)


def test_the_first_variances_average_to_the_history_s():
    model = MarketConfig().volatility
    np.testing.assert_allclose(model.first.mean(0), model.variance, rtol=0.08)
    assert (model.first <= model.cap).all()
    assert (model.first >= model.omega / (1.0 - model.beta) * (1.0 - 1e-9)).all()


def test_a_short_history_has_constant_volatility():
    returns = MarketConfig().selected_history.log_returns
    short, long = v.garch(returns[: v.LEAST_MONTHS - 1]), v.garch(returns[: v.LEAST_MONTHS])
    assert not short.alpha.any()
    assert long.alpha.any()
    np.testing.assert_array_equal(short.first, short.variance[None])
    np.testing.assert_allclose(short.variance, returns[: v.LEAST_MONTHS - 1].var(0, ddof=1))


def test_it_is_fitted_once():
    returns = MarketConfig().selected_history.log_returns
    assert v.garch(returns) is v.garch(returns.copy())
