"""The fund market from outside: `hmgym.simulate`, the command line, environments, and what is refused."""

from __future__ import annotations

import warnings

import gymnasium as gym
import numpy as np
import pytest

import hmgym
from hmgym.commands import simulate as command
from hmgym.market.funds import FundsConfig

SMALL = {"n_assets": 5, "n_retail": 12, "n_active": 4, "n_passive": 3}


@pytest.mark.parametrize("mechanism", ["clearing", "impact"])
def test_simulate(mechanism):
    result = hmgym.simulate(
        "active-passive", months=24, seed=3, markets=2, price_mechanism=mechanism, n_momentum=1, **SMALL
    )
    assert result.prices.shape == (25, 2, 5)
    assert result.units.shape == (25, 2, 12, 7)
    assert result.styles == ("value", "growth", "blend", "esg", "momentum", "index", "index")
    assert result.conservation <= 1e-9
    issued = result.units.sum(2)
    np.testing.assert_allclose(result.fund_values, issued * result.unit_values, rtol=1e-10)
    np.testing.assert_allclose(result.fund_returns, result.unit_values[1:] / result.unit_values[:-1] - 1.0)
    np.testing.assert_allclose(result.fund_flows, issued[1:] / issued[:-1] - 1.0, atol=1e-14)
    held = (result.active_ownership + result.passive_ownership)[0]
    np.testing.assert_allclose(held, 0.5)
    frame = result.to_frame()
    assert len(frame) == 50
    assert {"active_flow", "passive_return", "factor_value", "cash_vendor"} <= set(frame.columns)
    summary = result.summary()
    assert summary["months"] == 24.0
    assert all(np.isfinite(value) for value in summary.values())
    assert result.performance()["index"].funds == 2
    again = hmgym.simulate("active-passive", months=24, seed=4, price_mechanism=mechanism, n_momentum=1, **SMALL)
    np.testing.assert_allclose(again.prices[:, 0], result.prices[:, 1], rtol=1e-9)


def test_the_parameters_of_the_sliders():
    result = hmgym.simulate(
        "active-passive", months=3, n_assets=6, n_retail=10, n_active=2, n_passive=1, active_fee=0.02,
        passive_fee=0.0, information_cost=0.001, risk_free=0.03, rationality=2.0,
    )  # fmt: skip
    assert result.config.interest_rate == pytest.approx(0.0025)
    assert result.config.n_investors == 13
    free = hmgym.simulate("active-passive", months=3, active_fee=0.0, passive_fee=0.0, information_cost=0.0, **SMALL)
    assert (free.accounts["companies"] == 0.0).all()
    assert (free.accounts["vendor"] == 0.0).all()


def test_more_assets_than_are_packaged():
    config = FundsConfig(n_assets=45)
    history = config.selected_history
    assert len(set(history.assets)) == 45
    returns, packaged = history.log_returns, FundsConfig().selected_history.log_returns
    np.testing.assert_allclose(np.sort(returns.std(0)[:20]), np.sort(packaged.std(0)))
    copies = returns[:, 20:40].std(0) / returns[:, :20].std(0)
    assert abs(copies - 1.0).max() < 0.15
    correlation = np.corrcoef(returns.T)
    assert abs(correlation[:20, 20:40].mean() - (correlation[:20, :20].sum() - 20.0) / 380.0) < 0.05


def test_signals_explain_what_they_should():
    result = hmgym.simulate("active-passive", months=60, markets=40, signals_r2=0.2, n_assets=4, n_retail=5)
    assert result.signal_r2 == pytest.approx(0.2, abs=0.03)


def test_plot():
    pytest.importorskip("matplotlib")
    figure = hmgym.simulate("active-passive", months=6, **SMALL).plot()
    assert len(figure.axes) == 8
    with pytest.raises(ValueError, match="`market` must be one of 1 markets, got 1"):
        hmgym.simulate("active-passive", months=2, **SMALL).plot(1)


def test_command_line(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    arguments = ["active-passive", "--months", "6", "--seed", "2", "--out", str(tmp_path / "run")]
    assert command.main([*arguments, "--parameters", "n_assets=5", "n_retail=12"]) == 0
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"series.csv", "summary.txt", "panels.png"}
    assert "fund flow a month" in capsys.readouterr().out


@pytest.mark.parametrize("env_id", ["hmgym/Leverage-v0", "hmgym/Beliefs-v0"])
def test_a_learner_in_an_environment(env_id):
    env = gym.make(env_id, scenario="active-passive", n_assets=3)
    assert env.unwrapped.config.n_active == 10
    observation, _ = env.reset(seed=1)
    total = 0.0
    for _ in range(6):
        observation, reward, terminated, _, info = env.step(env.action_space.sample())
        total += reward
        assert env.observation_space.contains(observation)
        if terminated:
            break
    assert total == pytest.approx(np.log(info["unit_value"]))
    with pytest.raises(ValueError, match="`n_investors` must be None in this scenario, where it follows as 116"):
        gym.make(env_id, scenario="active-passive", n_investors=30)
    with pytest.raises(ValueError, match="`scenario` must be that of `config`, \"active-passive\", got 'crowd'"):
        gym.make(env_id, scenario="crowd", config=FundsConfig())


def test_several_learners_get_new_funds():
    config = FundsConfig(n_learners=2, ruin_fraction=0.95, **SMALL)
    env = gym.make_vec("hmgym/Leverage-v0", num_envs=8, vectorization_mode="vector_entry_point", config=config)
    env.reset(seed=0)
    ended = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(40):
            _, _, terminated, _, _ = env.step(np.ones(env.action_space.shape, np.float32))
            ended += int(terminated.sum())
    assert ended > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"active_fee": -0.01}, r"`active_fee` must be in \[0, 0.5\], got -0.01"),
        ({"information_cost": -1.0}, r"`information_cost` must be in"),
        ({"rationality": 0.0}, r"`rationality` must be in \(0, inf\), got 0.0"),
        ({"n_momentum": 6}, "`n_momentum` must be <= n_passive = 5, got 6"),
        ({"n_active": 0, "n_passive": 0, "n_learners": 0}, "`n_active` must be >= 1"),
        ({"active_share": 0.6}, "`active_share` must be <= fund_share = 0.5, got 0.6"),
        ({"active_share": 0.5}, "`active_share` must be < fund_share"),
        ({"active_share": 0.0}, "`active_share` must be > 0 just where"),
        ({"styles": ("value", "momentum")}, "`styles` must be a tuple of some of"),
        ({"esg_exclusions": 20}, "`esg_exclusions` must be < n_assets = 20, got 20"),
        ({"retail_pull": (0.3, 0.1)}, r"`retail_pull` must be a pair \(low, high\)"),
        ({"fund_share": 1.0}, r"`fund_share` must be in \(0, 1\)"),
        ({"cohorts": ("x",)}, r"`cohorts` must be \(\)"),
        ({"issuance_rate": 1.0}, "`issuance_rate` must be 0"),
        ({"n_retail": 1}, "`n_retail` must be an integer >= 2, got 1"),
        ({"impact_memory_months": 0.5}, "`impact_memory_months` must be in"),
    ],
)
def test_bad_input(settings, message):
    with pytest.raises(ValueError, match=message):
        FundsConfig(**settings)
