"""Factor returns, betas and correlations against closed forms and independent libraries."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hmgym.analysis import factors


def sample(periods: int = 40, assets: int = 6, count: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns (T, 2, N) that depend on correlated factors (T, 2, K)."""
    rng = np.random.default_rng(seed)
    f = rng.normal(0.01, 0.03, (periods, 2, count)) @ rng.normal(size=(count, count))
    return 0.003 + f @ rng.normal(size=(count, assets)) + rng.normal(0.0, 0.02, (periods, 2, assets)), f


def test_a_factor_is_top_less_bottom() -> None:
    returns = np.arange(20.0)[None] ** 2
    signals = np.stack([np.arange(20.0), -np.arange(20.0)], -1)[None]
    np.testing.assert_allclose(
        factors.factor_returns(returns, signals), [[(18**2 + 19**2) / 2 - 0.5, -(18**2 + 19**2) / 2 + 0.5]]
    )


@pytest.mark.parametrize(
    ("assets", "share", "count"), [(2, 0.1, 1), (3, 0.5, 1), (5, 0.1, 1), (9, 0.3, 3), (50, 0.1, 5)]
)
def test_any_number_of_assets_has_factors(assets: int, share: float, count: int) -> None:
    rng = np.random.default_rng(1)
    returns, signals = rng.normal(size=(4, 2, assets)), rng.normal(size=(4, 2, assets, 3))
    found = factors.factor_returns(returns, signals, share=share)
    for t, e, k in np.ndindex(4, 2, 3):
        order = np.argsort(signals[t, e, :, k])
        high, low = returns[t, e, order[-count:]], returns[t, e, order[:count]]
        assert found[t, e, k] == pytest.approx(high.mean() - low.mean())


def test_returns_that_are_the_signal_earn_its_spread() -> None:
    """Returns of this row answer to signals of this row: nothing is a period apart."""
    signals = np.random.default_rng(2).normal(size=(30, 10, 1))
    found = factors.factor_returns(signals[..., 0], signals)
    np.testing.assert_allclose(found, signals.max(1) - signals.min(1))


def test_regression_is_least_squares_with_a_constant() -> None:
    returns, f = sample()
    found = factors.factor_regression(returns, f)
    for e in range(2):
        design = np.column_stack([np.ones(40), f[:, e]])
        for n in range(6):
            best, (left,), *_ = np.linalg.lstsq(design, returns[:, e, n])
            variance = left / (40 - 4)
            errors = np.sqrt(variance * np.diag(np.linalg.inv(design.T @ design)))
            assert found.alpha[e, n] == pytest.approx(best[0], rel=1e-10)
            np.testing.assert_allclose(found.beta[e, n], best[1:], rtol=1e-10)
            assert found.residual_variance[e, n] == pytest.approx(variance, rel=1e-10)
            np.testing.assert_allclose([found.alpha_error[e, n], *found.beta_error[e, n]], errors, rtol=1e-10)
            whole = returns[:, e, n].var() * 40
            assert found.r_squared[e, n] == pytest.approx(1.0 - left / whole, rel=1e-10)


def test_exact_dependence_is_found() -> None:
    _, f = sample()
    beta = np.array([[0.5, -1.0, 2.0], [0.0, 1.0, 0.0]])
    found = factors.factor_regression(0.01 + f @ beta.T, f)
    np.testing.assert_allclose(found.alpha, 0.01, rtol=1e-10)
    np.testing.assert_allclose(found.beta, np.broadcast_to(beta, (2, 2, 3)), atol=1e-12)
    np.testing.assert_allclose(found.r_squared, 1.0)


def test_statsmodels_agrees() -> None:
    api = pytest.importorskip("statsmodels.api")
    rolling = pytest.importorskip("statsmodels.regression.rolling")
    returns, f = sample()
    found, betas = factors.factor_regression(returns, f), factors.rolling_betas(returns, f, 12)
    for e, n in ((0, 1), (1, 5)):
        design = api.add_constant(f[:, e])
        fit = api.OLS(returns[:, e, n], design).fit()
        np.testing.assert_allclose([found.alpha[e, n], *found.beta[e, n]], fit.params, rtol=1e-10)
        np.testing.assert_allclose([found.alpha_error[e, n], *found.beta_error[e, n]], fit.bse, rtol=1e-10)
        assert found.r_squared[e, n] == pytest.approx(fit.rsquared, rel=1e-10)
        moving = rolling.RollingOLS(returns[:, e, n], design, window=12).fit().params
        np.testing.assert_allclose(betas[:, e, n], np.asarray(moving)[11:, 1:], rtol=1e-8)


def test_rolling_betas_are_those_of_each_window() -> None:
    returns, f = sample()
    both = factors.rolling_betas(returns, f, 12)
    assert both.shape == (29, 2, 6, 3)
    for row in (0, 13, 28):
        window = slice(row, row + 12)
        np.testing.assert_allclose(both[row], factors.factor_regression(returns[window], f[window]).beta, rtol=1e-10)


def test_betas_one_by_one_are_covariance_over_variance() -> None:
    returns, f = sample()
    found = factors.rolling_betas(returns, f, 12, multivariate=False)
    for n, k in ((0, 0), (3, 2)):
        y, x = pd.Series(returns[:, 1, n]), pd.Series(f[:, 1, k])
        wanted = y.rolling(12).cov(x) / x.rolling(12).var()
        np.testing.assert_allclose(found[:, 1, n, k], wanted[11:], rtol=1e-9)
    alone = factors.rolling_betas(f, f, 12, multivariate=False)
    np.testing.assert_allclose(np.diagonal(alone, axis1=-2, axis2=-1), 1.0)  # the same degrees of freedom in both


def test_one_factor_has_one_beta() -> None:
    returns, f = sample(count=1)
    one, all_at_once = (factors.rolling_betas(returns, f, 12, multivariate=m) for m in (False, True))
    np.testing.assert_allclose(one, all_at_once, rtol=1e-10)


def test_collinear_factors_have_no_betas() -> None:
    returns, f = sample()
    f[:20, 0, 2] = f[:20, 0, 0] - 2.0 * f[:20, 0, 1]
    f[:, 1, 1] = 0.01
    betas = factors.rolling_betas(returns, f, 12)
    assert np.isnan(betas[:9, 0]).all()
    assert np.isfinite(betas[9:, 0]).all()
    assert np.isnan(betas[:, 1]).all()
    found = factors.factor_regression(returns, f)
    assert np.isfinite(found.alpha[0]).all()
    assert np.isnan(found.alpha[1]).all()
    assert np.isnan(found.r_squared[1]).all()
    alone = factors.rolling_betas(returns, f, 12, multivariate=False)
    assert np.isnan(alone[:, 1, :, 1]).all()
    assert np.isfinite(alone[:, 1, :, [0, 2]]).all()
    assert np.isnan(factors.factor_correlations(f)[1, 1]).all()


def test_correlations_are_numpys() -> None:
    _, f = sample()
    found = factors.factor_correlations(f)
    for e in range(2):
        np.testing.assert_allclose(found[e], np.corrcoef(f[:, e], rowvar=False), rtol=1e-12)


def test_reclassification_counts_changes() -> None:
    classes = np.array([[0, 1, -1, 0], [0, 1, 1, 0], [1, -1, 1, 1]])
    np.testing.assert_allclose(factors.reclassification_rate(classes), [0.25, 0.75])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r, f: factors.factor_returns(r, f), "`signals` must have shape"),
        (lambda r, f: factors.factor_returns(r[..., :1], r[..., :1, None]), "at least 2 assets"),
        (lambda r, f: factors.factor_returns(r, r[..., None], share=0.6), "`share` must be a number in"),
        (lambda r, f: factors.factor_regression(r[1:], f), "`factors` must have shape"),
        (lambda r, f: factors.factor_regression(r[:4], f[:4]), r"at least K \+ 2 = 5 periods, got 4"),
        (lambda r, f: factors.rolling_betas(r, f, 4), "`window` must be an integer >= 5, got 4"),
        (lambda r, f: factors.rolling_betas(r, f, 41), "`window` must be at most the number of periods, 40"),
        (lambda r, f: factors.factor_correlations(f[:1]), "at least 2 periods"),
        (lambda r, f: factors.reclassification_rate(np.zeros(3)), "`classes` must have shape"),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(*sample())
