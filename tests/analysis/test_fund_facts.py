"""What is measured of a fund market, on arrays whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from hmgym.analysis.fund_facts import (
    MEASURES,
    Arm,
    Interval,
    draw_fact,
    flow_slope,
    format_fact,
    fund_measures,
    persistence,
)

MONTHS, MARKETS, FUNDS, ASSETS = 60, 2, 5, 4


def made_up(rng: np.random.Generator) -> dict[str, object]:
    """Funds of beta .9, loading .3 on the first factor, alpha .1 % a month after fees."""
    index = rng.normal(0.005, 0.04, (MONTHS, MARKETS))
    factors = rng.normal(0.002, 0.02, (MONTHS, MARKETS, 2))
    returns = 0.002 + 0.9 * (index - 0.002) + 0.3 * factors[..., 0] + 0.001
    return {
        "fund_returns": np.repeat(returns[..., None], FUNDS, -1),
        "flows": rng.choice([-0.02, 0.02], (MONTHS, MARKETS, FUNDS)),
        "index_returns": index,
        "factors": factors,
        "interest": 0.002,
        "log_returns": rng.normal(0.0, 0.05, (MONTHS, MARKETS, ASSETS)),
        "mispricing": 0.1 + np.tile([-0.05, 0.05], (MONTHS + 1, MARKETS, ASSETS // 2)),
    }


def test_measures_of_known_funds() -> None:
    given = made_up(np.random.default_rng(0))
    found = fund_measures(**given)  # type: ignore[arg-type]
    assert set(found) == set(MEASURES)
    np.testing.assert_allclose(found["factor_alpha"], 1.2, rtol=1e-10)  # .1 % a month
    index, factors = np.asarray(given["index_returns"]), np.asarray(given["factors"])
    for market in range(MARKETS):
        excess = np.asarray(given["fund_returns"])[:, market, 0] - 0.002
        constant = np.polyfit(index[:, market] - 0.002, excess, 1)[1]
        assert found["index_alpha"][market] == pytest.approx(1200.0 * constant, rel=1e-10)
    ahead = 0.001 + 0.9 * (index - 0.002) + 0.3 * factors[..., 0] + 0.002 - index
    np.testing.assert_allclose(found["over_index"], 1200.0 * ahead.mean(0), rtol=1e-10)
    np.testing.assert_allclose(found["mispricing"], np.sqrt((0.05**2 + 0.15**2) / 2.0), rtol=1e-12)
    np.testing.assert_allclose(found["relative_mispricing"], 0.05, rtol=1e-12)
    np.testing.assert_allclose(found["flows"], 2.0, rtol=1e-12)
    deviation = np.asarray(given["log_returns"]).std(0, ddof=1).mean(-1)
    np.testing.assert_allclose(found["volatility"], 100.0 * np.sqrt(12.0) * deviation, rtol=1e-12)
    assert np.isnan(found["flow_slope"]).all()  # funds that are all alike have no performance to follow


def test_flows_that_follow_the_past() -> None:
    """Flows of .3 % for each per cent of the last three months, whatever comes to all funds alike."""
    rng = np.random.default_rng(1)
    performance = rng.normal(0.0, 0.01, (MONTHS, MARKETS, FUNDS))
    flows = np.zeros_like(performance)
    for month in range(3, MONTHS):
        flows[month] = 0.3 * performance[month - 3 : month].sum(0)
    flows += rng.normal(0.0, 1.0, (MONTHS, MARKETS, 1))
    np.testing.assert_allclose(flow_slope(flows, performance, 3), 0.3, rtol=1e-10)


def test_persistence_of_luck_and_of_skill() -> None:
    rng, funds = np.random.default_rng(2), 2000
    luck = rng.normal(0.0, 0.01, (120, MARKETS, funds))
    assert (np.abs(persistence(luck)) < 5.0 / np.sqrt(8 * funds)).all()  # nine windows that do not overlap
    skill = 0.01 * rng.standard_normal((1, MARKETS, funds)) / np.sqrt(12.0)
    np.testing.assert_allclose(persistence(np.broadcast_to(skill, luck.shape)), 1.0, rtol=1e-10)
    # Skill that is half the variance of a year's performance persists by half.
    np.testing.assert_allclose(persistence(luck + skill), 0.5, atol=0.03)


def test_short_runs_are_refused() -> None:
    given = {name: np.asarray(x)[:24] if np.ndim(x) else x for name, x in made_up(np.random.default_rng(0)).items()}
    with pytest.raises(ValueError, match=r"`months` must be .* 25"):
        fund_measures(**given)  # type: ignore[arg-type]


def _arms() -> list[Arm]:
    def intervals(mean: float) -> dict[str, Interval]:
        return dict.fromkeys(MEASURES, Interval(mean=mean, low=mean - 0.5, high=mean + 0.5))

    return [
        Arm(value=0.0, measures=intervals(2.0), differences=intervals(1.0)),
        Arm(value=0.1, measures=intervals(1.0), differences={}),
    ]


def test_the_table() -> None:
    head, rule, other, default = format_fact("gain", ["flows"], _arms()).splitlines()
    assert head == "| gain | size of fund flows, % a month |"
    assert rule == "| --- | --- |"
    assert other == "| 0 | 2 (+1: +0.5 to +1.5) |"
    assert default == "| 0.1, default | 1 |"
    assert Interval(mean=1.0, low=0.5, high=1.5).excludes_zero
    assert not Interval(mean=1.0, low=-0.5, high=2.5).excludes_zero


@pytest.mark.parametrize("logarithmic", [True, False])
def test_the_picture(logarithmic: bool) -> None:
    pytest.importorskip("matplotlib")
    arms = {"clearing": _arms(), "impact": _arms()}
    figure = draw_fact("gain", ["flows", "persistence"], arms, logarithmic=logarithmic)
    assert len(figure.axes) == 2
