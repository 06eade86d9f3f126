"""Training, trying, and statistics of value."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from hmgym.pools import (
    OBJECTIVES,
    PoolConfig,
    PoolParameters,
    PowerChannelPool,
    performance,
    train_pool,
    tune_pool,
)
from tests.pools.markets import check_gradient

DAILY = PoolConfig(row_minutes=1440, maximum_change=0.05 / 1440)
QUICK: dict[str, Any] = {"window_days": 60, "windows": 4, "validation_share": 0.3, "seed": 3}


def trending(rows: int, seed: int = 0) -> torch.Tensor:
    """Prices whose returns go on: past trends tell about later ones."""
    random = np.random.default_rng(seed)
    drift = np.zeros((rows, 3))
    for t in range(1, rows):
        drift[t] = 0.95 * drift[t - 1] + 0.002 * random.standard_normal(3)
    returns = drift - drift.mean(1, keepdims=True) + 0.002 * random.standard_normal((rows, 3))
    return torch.from_numpy(np.exp(returns.cumsum(0)))


def start() -> PoolParameters:
    return PoolParameters.initial(3, DAILY, memory=20.0, k_per_day=0.5, pre_scaling=5.0)


def test_training_climbs_and_reports_what_it_found() -> None:
    prices = trending(600)
    told: list[tuple[int, int]] = []
    training = train_pool(start(), prices, DAILY, sets=3, epochs=12, **QUICK, progress=lambda *done: told.append(done))
    assert training.validated.shape == (13, 3)
    assert training.trained.shape == (12, 3)
    assert told == [(epoch, 12) for epoch in range(1, 13)]
    assert training.objective == float(training.validated.max()) > float(training.validated[0].max())
    assert training.validated[training.best_epoch, training.best_set] == training.objective
    pool = PowerChannelPool(DAILY)
    # What it says of the validation part is what the pool does there.
    run = pool.simulate(training.parameters, prices, start=420 * 1440)
    found = performance(run, row_minutes=1440).daily_log_sharpe
    assert float(found) == pytest.approx(training.objective, rel=1e-12)
    # A window as long as the training part is the same in every epoch, so every step should climb.
    whole = train_pool(start(), prices, DAILY, epochs=6, **{**QUICK, "window_days": 420, "windows": 1})
    assert bool((whole.trained[:, 0].diff() > 0.0).all())
    again = train_pool(start(), prices, DAILY, sets=3, epochs=12, **QUICK)
    assert torch.equal(again.validated, training.validated)
    own = train_pool(training.sets, prices, DAILY, epochs=1, **QUICK)
    assert torch.equal(own.validated[0], training.validated.max(0).values)


def test_training_sees_nothing_of_validation_and_stops() -> None:
    prices = trending(400, seed=1)
    other = prices.clone()
    other[281:] = other[280]
    one, two = (train_pool(start(), each, DAILY, epochs=3, **QUICK) for each in (prices, other))
    assert torch.equal(one.trained, two.trained)
    assert not torch.equal(one.validated, two.validated)
    flat = train_pool(start(), torch.ones(400, 3), DAILY, epochs=50, patience=4, **QUICK)
    assert len(flat.trained) == 4
    assert flat.best_epoch == 0
    assert all(torch.isfinite(each).all() for each in flat.sets.to_dict().values())
    none = train_pool(start(), prices, DAILY, epochs=0, **QUICK)
    assert none.trained.shape == (0, 1)
    assert torch.equal(none.parameters.sp_k, start().sp_k)


def test_exponents_do_not_get_lost_below_the_kink() -> None:
    training = train_pool(start(), trending(300, seed=2), DAILY, sets=2, epochs=5, learning_rate=0.5, **QUICK)
    assert float(training.sets.sp_exponents.min()) >= 0.0


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_every_objective_has_a_gradient(objective: str) -> None:
    random = torch.Generator().manual_seed(1)
    value = (0.01 * torch.randn(40, dtype=torch.float64, generator=random)).cumsum(0).exp()
    hold = (0.01 * torch.randn(40, dtype=torch.float64, generator=random)).cumsum(0).exp()
    check_gradient(lambda v: OBJECTIVES[objective](performance(v, hold=hold, row_minutes=1440)), value)
    if objective != "return_over_hold":
        still = torch.full((40,), 2.0, dtype=torch.float64, requires_grad=True)
        OBJECTIVES[objective](performance(still, row_minutes=1440)).backward()  # type: ignore[no-untyped-call]
        assert still.grad is not None
        assert torch.isfinite(still.grad).all()


def test_statistics_by_hand() -> None:
    value = torch.tensor([100.0, 120.0, 90.0, 130.0, 65.0, 140.0])
    found = performance(value, hold=torch.tensor([50.0] * 5 + [100.0]), row_minutes=1440, days_per_year=252.0)
    # The largest loss is from 130 to 65, not from the last high 140 nor to the lowest value before a high.
    assert float(found.maximum_drawdown) == pytest.approx(0.5)
    assert float(found.total_return) == pytest.approx(0.4)
    assert float(found.return_over_hold) == pytest.approx(0.7 - 1.0)
    returns = np.diff(np.log(value.numpy()))
    assert float(found.daily_log_sharpe) == pytest.approx(returns.mean() / returns.std(ddof=1) * math.sqrt(252.0))
    assert float(found.annual_log_return) == pytest.approx(returns.mean() * 252.0)
    assert float(found.annual_volatility) == pytest.approx(returns.std(ddof=1) * math.sqrt(252.0))
    # By minutes: daily returns, but losses within a day count.
    minutes = torch.ones(4 * 1440)
    minutes[2000] = 0.4
    found = performance(minutes)
    assert float(found.maximum_drawdown) == pytest.approx(0.6)
    assert math.isnan(float(found.daily_log_sharpe))
    assert math.isnan(float(found.return_over_hold))
    batch = performance(torch.stack([value, value.flip(0)]), row_minutes=1440)
    assert batch.maximum_drawdown.tolist() == pytest.approx([0.5, 1.0 - 65.0 / 140.0])


def test_trying() -> None:
    pytest.importorskip("optuna")
    prices, told = trending(500, seed=4), []
    found = tune_pool(
        start(), prices, DAILY, trials=6, finalists=2, **QUICK, progress=lambda done, _: told.append(done)
    )
    assert told == [1, 2, 3, 4, 5, 6]
    assert len(found.study.trials) == 6
    assert found.trained >= sorted(trial.value for trial in found.study.trials)[-2]
    run = PowerChannelPool(DAILY).simulate(found.parameters, prices, start=350 * 1440)
    assert float(performance(run, row_minutes=1440).daily_log_sharpe) == pytest.approx(found.objective, rel=1e-12)
    again = tune_pool(start(), prices, DAILY, trials=6, finalists=2, **QUICK)
    assert torch.equal(again.parameters.sp_k, found.parameters.sp_k)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"objective": "luck"}, "`objective` must be one of daily_log_sharpe, log_return, return_over_hold, drawdown"),
        ({"window_days": 300}, "`prices` must hold a window of 300 rows before the validation part, got 280"),
        ({"validation_share": 1.0}, r"`validation_share` must be in \(0, 1\), got 1.0"),
        ({"patience": 0}, "`patience` must be an integer >= 1, got 0"),
        ({"sets": 0}, "`sets` must be an integer >= 1 or None, got 0"),
        ({"learning_rate": 0.0}, "`learning_rate` must be a number > 0, got 0.0"),
    ],
)
def test_training_that_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        train_pool(start(), torch.ones(400, 3), DAILY, epochs=1, **{**QUICK, **wrong})
