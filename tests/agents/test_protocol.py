"""The protocol: what is trained and chosen on one span of the history is reported on another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hmgym.agents import PROTOCOL, ConstantPolicy, Protocol, evaluate
from hmgym.agents.evaluation import on_span
from hmgym.agents.probes import no_information, with_economy, without_information
from hmgym.data import packaged_span
from hmgym.envs import make_markets
from hmgym.market import MarketConfig

ID = "hmgym/Beliefs-v0"
SMALL: dict[str, Any] = {"n_assets": 2, "n_investors": 8, "max_episode_steps": 6}


def test_reports_and_choices_have_spans_and_seeds_of_their_own() -> None:
    report, selection = PROTOCOL.report(ID, SMALL), PROTOCOL.selection(ID, SMALL)
    assert (report["env_kwargs"]["history"], selection["env_kwargs"]["history"]) == ("held-out", "training")
    assert report["first_seed"] != selection["first_seed"]
    assert PROTOCOL.described(ID, SMALL)["span"] == "held-out"
    default = make_markets(ID, 1, **SMALL).config
    assert make_markets(ID, 1, **selection["env_kwargs"]).config == default
    held = make_markets(ID, 1, **report["env_kwargs"]).config
    assert held.selected_history.dates[0] > default.selected_history.dates[-1]


@pytest.mark.parametrize(
    "own",
    [{"history": "all"}, {"config": MarketConfig(history="all")},
     {"config": MarketConfig(dates=("1995-01-01", "2005-12-31"))},
     {"config": MarketConfig(history=packaged_span("training"))}],
)  # fmt: skip
def test_a_history_of_the_users_own_stays(own: dict[str, Any]) -> None:
    assert on_span(ID, own, "held-out") == own
    assert PROTOCOL.described(ID, own)["span"] == "its own"


def test_another_parameter_is_no_history_of_ones_own() -> None:
    changed = with_economy(SMALL, interest_rate=0.003)
    assert on_span(ID, changed, "held-out") == {**changed, "history": "held-out"}
    assert (changed["config"].n_assets, changed["config"].interest_rate) == (2, 0.003)
    assert changed["max_episode_steps"] == 6


def test_protocol_refuses() -> None:
    with pytest.raises(ValueError, match="`episodes` must be an integer >= 1"):
        Protocol(episodes=0)


def test_without_information_the_signal_is_worth_nothing() -> None:
    policy = ConstantPolicy([0.1, 0.1])
    protocol = Protocol(episodes=4)
    run = without_information(policy, ID, SMALL, protocol=protocol)
    told = evaluate(policy, ID, **protocol.report(ID, with_economy(SMALL, signal_r2=0.0)))
    np.testing.assert_array_equal(run.returns, told.returns)


def test_no_information_in_a_market_of_funds() -> None:
    funds = {"scenario": "active-passive", "max_episode_steps": 3}
    assert no_information(funds) == {"signal_r2": 0.0, "signals_r2": 0.0}
    config = with_economy(funds, **no_information(funds))["config"]
    assert (config.signal_r2, config.signals_r2) == (0.0, 0.0)
