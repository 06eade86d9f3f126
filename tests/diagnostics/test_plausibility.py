"""The economy looks like one: stylised facts over seeds, and the report that shows them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hmgym.analysis import plausibility
from hmgym.analysis import stylised_facts as facts
from hmgym.diagnostics.plausibility import main, simulate
from hmgym.market import MarketConfig


@pytest.fixture(scope="module")
def simulation():
    return simulate(MarketConfig(), seeds=range(24), months=240, burn_in=36)


def test_every_target_is_met(simulation):
    rows = plausibility.table(simulation)
    missed = [row for row in rows if row.met is False]
    assert not missed, plausibility.format_table(missed)
    assert simulation.not_cleared == 0
    assert simulation.conservation < 1e-9
    assert simulation.residual < 1e-9


def test_value_always_pulls(simulation):
    """No market loses sight of value for good."""
    assert np.abs(simulation.mispricing).max() < 1.5


def test_the_learner_stays_a_minority(simulation):
    assert np.median(simulation.learner_share) < 0.3


def test_the_picture(simulation, tmp_path):
    pytest.importorskip("matplotlib")
    plausibility.plot(simulation, tmp_path / "plausibility.png")
    assert (tmp_path / "plausibility.png").stat().st_size > 10_000


def test_the_command_writes_its_table(tmp_path, capsys):
    status = main(["--seeds", "4", "--months", "60", "--burn-in", "6", "--out", str(tmp_path / "t.json")])
    assert status in (0, 1)
    assert "annual volatility" in capsys.readouterr().out
    report = json.loads((tmp_path / "t.json").read_text())
    assert report["seeds"] == 4
    assert {row["name"] for row in report["facts"]} >= {
        "annual volatility",
        "turnover a month",
    }


def test_facts_of_known_series():
    rng = np.random.default_rng(0)
    normal = rng.normal(0.0, 0.05, (3, 200_000))
    np.testing.assert_allclose(facts.annual_volatility(normal), 0.05 * np.sqrt(12.0), rtol=0.01)
    np.testing.assert_allclose(facts.excess_kurtosis(normal), 0.0, atol=0.05)
    np.testing.assert_allclose(facts.skewness(normal), 0.0, atol=0.03)
    np.testing.assert_allclose(facts.autocorrelation(normal), 0.0, atol=0.01)
    laplace = rng.laplace(size=200_000)
    assert facts.excess_kurtosis(laplace) == pytest.approx(3.0, abs=0.2)
    smooth = np.zeros(100_000)
    for i in range(1, smooth.size):
        smooth[i] = 0.5 * smooth[i - 1] + normal[0, i]
    assert facts.autocorrelation(smooth) == pytest.approx(0.5, abs=0.01)
    assert facts.autocorrelation(smooth, 2) == pytest.approx(0.25, abs=0.01)
    assert facts.absolute_autocorrelation([1.0, -1.0, 3.0, -3.0, 1.0, 1.0, 3.0, 3.0]) == pytest.approx(0.125)
    with pytest.raises(ValueError, match="at least 3 periods"):
        facts.autocorrelation([1.0, 2.0])
