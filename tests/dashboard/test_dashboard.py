"""The page without a browser: its controls make the calls they say, what comes is shown, be it an error."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import hmgym
from benchmarks.served import PATIENCE, running
from hmgym.agents.report import record_episode
from hmgym.agents.training import TrainingPlan, train
from hmgym.dashboard.system import Choice, Number, Shown, Slider, System
from hmgym.dashboard.systems import SYSTEMS, episode
from hmgym.investors import PopulationConfig
from hmgym.simulation import simulate as run_market

pytest.importorskip("panel", reason="Panel is not installed")
pytest.importorskip("matplotlib")

from hmgym.dashboard.page import Dashboard, SystemTab, summary_table, widget

TEN = {
    "months", "n_assets", "n_retail", "n_active", "n_passive", "active_fee", "passive_fee", "information_cost",
    "risk_free", "rationality",
}  # fmt: skip


def shown_html(tab: SystemTab) -> str:
    return "\n".join(str(pane.object) for pane in tab.output.objects)


def toy(run: Any) -> System:
    slider = Slider(name="rate", label="Rate", low=0.0, high=0.1, step=0.0005, value=0.02, unit="%")
    return System(name="toy", title="Toy", about="A toy.", controls=(slider,), run=run)


def drawn(values: Mapping[str, Any]) -> Shown:
    from matplotlib.figure import Figure

    return Shown(figure=Figure(figsize=(1.0, 1.0)), summary={"rate & more": values["rate"]}, call="toy(<rate>)")


def test_records_are_checked() -> None:
    good: dict[str, Any] = {"name": "x", "label": "X", "low": 0.0, "high": 1.0, "step": 0.1, "value": 0.5}
    for wrong, said in (
        ({"high": 0.0}, "`high` of x must be > low = 0.0, got 0.0"),
        ({"step": 0.0}, r"`step` of x must lie in \(0, high - low\], got 0.0"),
        ({"step": 2.0}, "`step` of x must lie in"),
        ({"value": 1.5}, r"`value` of x must lie in \[0.0, 1.0\], got 1.5"),
        ({"unit": "km"}, '`unit` of x must be "" or "%", got \'km\''),
    ):
        with pytest.raises(ValueError, match=said):
            Slider(**good | wrong)
    with pytest.raises(ValueError, match="`value` of x must be >= low = 0, got -1"):
        Number(name="x", label="X", low=0, value=-1)
    with pytest.raises(ValueError, match=r"`value` of x must be one of \['a'\], got 'b'"):
        Choice(name="x", label="X", options=("a",), value="b")
    with pytest.raises(ValueError, match=r"`controls` of s must have names of their own, got \['x', 'x'\]"):
        System(name="s", title="S", about="", controls=(Slider(**good), Slider(**good)), run=drawn)


@pytest.mark.parametrize(
    ("step", "unit", "expected"),
    [(1, "", "0"), (0.5, "", "0.0"), (0.0025, "", "0.0000"), (0.05, "%", "0%"), (0.001, "%", "0.0%"),
     (0.0005, "%", "0.00%"), (0.0025, "%", "0.00%")],
)  # fmt: skip
def test_a_slider_shows_as_many_digits_as_its_step_has(step: float, unit: str, expected: str) -> None:
    whole = isinstance(step, int)
    slider = Slider(
        name="x", label="X", low=0 if whole else 0.0, high=3 if whole else 3.0, step=step, value=1 if whole else 1.0,
        unit=unit,
    )  # fmt: skip
    assert slider.format == expected
    assert slider.whole is whole
    assert widget(slider).format == expected


def test_widgets_hold_the_values_of_their_controls() -> None:
    for make in SYSTEMS.values():
        system = make(Path("nowhere"))
        tab = SystemTab(system)
        assert tab.values() == system.values()
        for control in system.controls:
            value = tab.values()[control.name]
            assert type(value) is type(control.value)
    stops = Choice(name="beta", label="β", options=(0.5, 1.0, 20.0), value=1.0)
    slider = widget(stops)
    slider.value = 20.0
    assert list(slider.options) == ["0.5", "1", "20"]


def test_the_fund_market_is_called_with_its_ten_sliders(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, dict[str, Any]]] = []

    def simulate(scenario: str, **values: Any) -> Any:
        calls.append((scenario, values))
        return run_market(months=2)

    monkeypatch.setattr("hmgym.simulation.simulate", simulate)
    tab = SystemTab(SYSTEMS["funds"](Path("runs")))
    sliders = {control.name for control in tab.system.controls if isinstance(control, Slider) or _stops(control)}
    assert sliders == TEN
    defaults = tab.values()
    changed = {"n_assets": 3, "active_fee": 0.02, "rationality": 5.0, "price_mechanism": "impact", "seed": 7}
    for name, value in changed.items():
        tab.widgets[name].value = value
    asyncio.run(tab.run())
    assert calls == [("active-passive", {**defaults, **changed})]
    assert set(defaults) == TEN | {"price_mechanism", "seed"}


def _stops(control: Any) -> bool:
    return isinstance(control, Choice) and control.numeric


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("funds", {"months": 12, "n_assets": 2, "n_retail": 10, "n_active": 1, "n_passive": 1}),
     ("crowd", {"months": 12, "n_assets": 2, "n_investors": 6, "trend_followers": 0.2})],
)  # fmt: skip
def test_a_run_shows_picture_summary_and_the_call_that_gives_the_same(name: str, sizes: dict[str, Any]) -> None:
    tab = SystemTab(SYSTEMS[name](Path("runs")))
    for control, value in sizes.items():
        tab.widgets[control].value = value
    asyncio.run(tab.run())
    picture, table, call = (str(pane.object) for pane in tab.output.objects)
    assert picture.startswith('<img src="data:image/png;base64,iVBOR')
    assert tab.button.label == "Run"
    assert not tab.button.disabled
    shown = tab.system.run(tab.values())
    again = eval(shown.call, {"hmgym": hmgym})
    assert again.summary() == shown.summary
    assert table == summary_table(shown.summary)
    assert shown.call.replace("'", "&#x27;") in call
    if name == "crowd":
        assert again.config.population == PopulationConfig(fundamentalists=0.5, trend_followers=0.2)
    assert all(getattr(again.config, key) == value for key, value in sizes.items() if hasattr(again.config, key))


def test_text_is_shown_as_it_is() -> None:
    tab = SystemTab(toy(drawn))
    asyncio.run(tab.run())
    html = shown_html(tab)
    assert "<th>rate &amp; more</th><td>0.02</td>" in html
    assert "<code>toy(&lt;rate&gt;)</code>" in html
    assert "<td>−0.0012</td>" in summary_table({"x": -0.0012})


def test_errors_are_shown_and_the_page_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    problems: list[Exception | None] = [ValueError("`rate` must be < <0>"), KeyError("lost"), None]

    def run(values: Mapping[str, Any]) -> Shown:
        problem = problems.pop(0)
        if problem is not None:
            raise problem
        return drawn(values)

    tab = SystemTab(toy(run))
    with caplog.at_level(logging.ERROR):
        asyncio.run(tab.run())
        assert '<div role="alert">`rate` must be &lt; &lt;0&gt;</div>' in shown_html(tab)
        assert not caplog.records
        asyncio.run(tab.run())
    assert "KeyError: &#x27;lost&#x27;" in shown_html(tab)
    assert caplog.records[0].exc_info is not None
    asyncio.run(tab.run())
    assert "alert" not in shown_html(tab)
    assert "<img" in shown_html(tab)


def test_refusals_of_a_market_are_shown() -> None:
    tab = SystemTab(SYSTEMS["crowd"](Path("runs")))
    tab.widgets["fundamentalists"].value = 0.9
    asyncio.run(tab.run())
    assert "`fundamentalists` + `trend_followers` must be &lt;= 1, got 0.9 + 0.35" in shown_html(tab)
    funds = SystemTab(SYSTEMS["funds"](Path("runs")))
    funds.widgets["n_active"].value = funds.widgets["n_passive"].value = 0
    asyncio.run(funds.run())
    assert "`n_active` must be" in shown_html(funds)


def test_a_second_click_while_it_runs_does_nothing() -> None:
    begun, go_on, calls = threading.Event(), threading.Event(), []

    def run(values: Mapping[str, Any]) -> Shown:
        calls.append(values)
        begun.set()
        assert go_on.wait(60.0)
        return drawn(values)

    tab = SystemTab(toy(run))

    async def click_twice() -> None:
        first = asyncio.create_task(tab.run())
        await asyncio.to_thread(begun.wait, 60.0)
        assert tab.button.disabled
        assert tab.button.loading
        assert tab.button.label == "Running …"
        await tab.run()
        go_on.set()
        await first

    asyncio.run(click_twice())
    assert calls == [{"rate": 0.02}]
    assert not tab.button.disabled


def test_a_trained_learner_is_shown_on_held_out_months(tmp_path: Path) -> None:
    sizes = {"n_assets": 2, "n_investors": 6, "max_episode_steps": 5}
    result = train(
        TrainingPlan(
            algo="apg", env_id="hmgym/Beliefs-v0", timesteps=64, num_envs=2, curve_episodes=0, env_kwargs=sizes,
            out=tmp_path / "some-run",
        )
    )  # fmt: skip
    tab = SystemTab(SYSTEMS["learner"](tmp_path))
    assert tab.values() == {"folder": "some-run", "seed": 1_000_000}
    tab.widgets["seed"].value = 3
    asyncio.run(tab.run())
    shown = episode(tmp_path / "some-run", 3)
    assert summary_table(shown.summary) in shown_html(tab)
    expected = record_episode(
        result.policy, "hmgym/Beliefs-v0", seed=3, env_kwargs={**sizes, "history": "held-out"}
    ).unit_value[-1]
    assert shown.summary["apg: at the end, 1 at reset"] == pytest.approx(expected, abs=1e-12)
    assert shown.summary["no leverage: months"] == 5.0
    nothing = SystemTab(SYSTEMS["learner"](tmp_path / "none"))
    asyncio.run(nothing.run())
    assert f"`runs` must be a folder of training runs, got {tmp_path / 'none'}" in shown_html(nothing)


def test_a_further_system_is_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SYSTEMS, "toy", lambda runs: dataclasses.replace(toy(drawn), about=str(runs)))
    page = Dashboard(runs="somewhere", systems=["toy", "crowd"])
    assert list(page.tabs) == ["toy", "crowd"]
    assert page.tabs["toy"].system.about == "somewhere"
    asyncio.run(page.tabs["toy"].run())
    assert "0.02" in shown_html(page.tabs["toy"])
    with pytest.raises(ValueError, match=r"`systems` must be some of \['funds', 'crowd', 'learner', 'toy'\], got"):
        Dashboard(systems=["toys"])


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM")
@pytest.mark.timeout(1200)
def test_the_server_ends_when_told_to_though_nobody_reads_its_output(tmp_path: Path) -> None:
    command = ["-m", "hmgym.cli", "dashboard", "--port", "0", "--runs", str(tmp_path)]
    with running(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[1]
        process.stdout.close()
        with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=PATIENCE) == 0
