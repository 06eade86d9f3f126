"""The page: one object that Panel serves and that a notebook shows."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import html
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

try:
    import panel as pn
except ImportError as error:
    raise ImportError('the dashboard needs Panel: pip install "hmgym[dashboard]"') from error

from hmgym.analysis.figures import picture
from hmgym.dashboard.system import Control, Number, Slider, System
from hmgym.dashboard.systems import SYSTEMS

_ONE_AT_A_TIME = threading.Lock()  # drawing sets matplotlib's settings, which all threads share
_SIDE = 310  # pixels: width of the controls
_WIDEST = 1200  # pixels: as wide as the picture is
_TABLE = """
table { border-collapse: collapse; font-size: 13px; }
th { text-align: left; font-weight: normal; padding: 2px 24px 2px 0; }
td { text-align: right; font-variant-numeric: tabular-nums; padding: 2px 0; }
tr + tr { border-top: 1px solid #e2e5eb; }
"""
_ERROR = """
[role="alert"] { border-left: 4px solid #c83e32; background: #fbeeec; padding: 8px 12px; white-space: pre-wrap; }
"""


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What a run of a system came to: a PNG picture, figures by name, the call, seconds from call to picture."""

    png: bytes
    summary: Mapping[str, float | str]
    call: str
    seconds: float


def perform(system: System, values: Mapping[str, Any]) -> Ran:
    """Run a system and draw it; another thread's run is waited for."""
    with _ONE_AT_A_TIME:
        begin = time.perf_counter()
        shown = system.run(values)
        png = picture(shown.figure)
        return Ran(png=png, summary=shown.summary, call=shown.call, seconds=time.perf_counter() - begin)


def summary_table(summary: Mapping[str, float | str]) -> str:
    """Names and figures as an HTML table; numbers have six digits."""
    rows = (
        (name, value if isinstance(value, str) else format(value, ".6g").replace("-", "−"))
        for name, value in summary.items()
    )
    cells = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>" for name, text in rows)
    return f"<table>{cells}</table>"


def widget(control: Control) -> Any:
    """The widget of a control."""
    shared = {"label": control.label, "value": control.value, "sizing_mode": "stretch_width"}
    if isinstance(control, Slider):
        kind = pn.widgets.IntSlider if control.whole else pn.widgets.FloatSlider
        ends = {"start": control.low, "end": control.high, "step": control.step}
        return kind(**shared, **ends, format=control.format)
    if isinstance(control, Number):
        return pn.widgets.IntInput(**shared, start=control.low)
    if control.numeric:
        return pn.widgets.DiscreteSlider(**shared, options={f"{option:g}": option for option in control.options})
    return pn.widgets.Select(**shared, options=list(control.options))


class SystemTab:
    """One system of the page: controls and a button on the left, what the last run showed on the right."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.widgets = {control.name: widget(control) for control in system.controls}
        self.button = pn.widgets.Button(label="Run", color="primary", sizing_mode="stretch_width")
        self.button.on_click(self._clicked)
        # Panes are put in anew, not changed: in a notebook, a pane that changes asks another host for its style sheets.
        self.output = pn.Column(sizing_mode="stretch_width", min_height=500)
        about = pn.pane.HTML(f"<p>{html.escape(system.about)}</p>", sizing_mode="stretch_width")
        self.view = pn.Row(
            pn.Column(about, *self.widgets.values(), self.button, width=_SIDE),
            self.output,
            sizing_mode="stretch_width",
        )

    def values(self) -> dict[str, Any]:
        """Where the controls stand, by name."""
        return {name: one.value for name, one in self.widgets.items()}

    async def run(self) -> None:
        """Run with the values of the controls and show what comes, be it an error; does nothing while it runs."""
        if self.button.disabled:
            return
        self.button.param.update(disabled=True, label="Running …", loading=True)
        try:
            ran = await asyncio.to_thread(perform, self.system, self.values())
        except (ValueError, ImportError) as error:  # refusals, which say what is wrong
            self.output.objects = [error_pane(str(error))]
        except Exception as error:
            logging.getLogger(__name__).exception("a run of %s failed", self.system.name)
            self.output.objects = [error_pane(f"{type(error).__name__}: {error}")]
        else:
            self.output.objects = panes(self.system, ran)
        finally:
            self.button.param.update(disabled=False, label="Run", loading=False)

    async def _clicked(self, _: Any) -> None:
        await self.run()


def panes(system: System, ran: Ran) -> list[Any]:
    """Picture, table, and a line with the seconds and the call."""
    source = f"data:image/png;base64,{base64.b64encode(ran.png).decode()}"
    alternative = html.escape(f"Panels of the last run: {system.title}")
    parts = (
        f'<img src="{source}" alt="{alternative}" style="width: 100%; max-width: {_WIDEST}px">',
        summary_table(ran.summary),
        f"{ran.seconds:.2f} s: <code>{html.escape(ran.call)}</code>",
    )
    return [pn.pane.HTML(part, sizing_mode="stretch_width", stylesheets=[_TABLE]) for part in parts]


def error_pane(message: str) -> Any:
    """What a run raised."""
    alert = f'<div role="alert">{html.escape(message)}</div>'
    return pn.pane.HTML(alert, sizing_mode="stretch_width", stylesheets=[_ERROR])


class Dashboard(pn.viewable.Viewer):
    """All systems, a tab each. A notebook shows it where it is the last line of a cell.

    Args:
        runs: folder of training runs, whose newest checkpoints may be chosen.
        systems: names in `SYSTEMS`; None takes all.

    Raises:
        ValueError: a name is unknown.
    """

    def __init__(self, *, runs: str | Path = "runs", systems: Sequence[str] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        names = list(SYSTEMS) if systems is None else list(systems)
        if unknown := sorted(set(names) - set(SYSTEMS)):
            raise ValueError(f"`systems` must be some of {list(SYSTEMS)}, got {unknown}")
        pn.extension(inline=True)  # a notebook gets the scripts from here, not from another host
        self.tabs = {name: SystemTab(SYSTEMS[name](Path(runs))) for name in names}
        self.view = pn.Tabs(*((tab.system.title, tab.view) for tab in self.tabs.values()), sizing_mode="stretch_width")

    def __panel__(self) -> Any:
        return self.view


def serve(runs: Path, *, port: int, show: bool, ready: Callable[[str], None]) -> None:
    """Serve the page to this machine until interrupted or told to end (SIGTERM); every visitor has an own one.

    Bokeh's `run_until_shutdown` prints a line before it stops, and goes on serving where nobody reads what it prints.

    Args:
        runs: as of `Dashboard`.
        port: 0 takes a free one.
        show: open it in the browser.
        ready: told the address once it answers.
    """
    from hmgym.simulation import simulate

    picture(
        simulate("active-passive", months=1).plot()
    )  # so that the first visitor need not wait for imports and kernels

    def page() -> Dashboard:
        return Dashboard(runs=runs)

    server = pn.serve(page, title="hmgym", address="127.0.0.1", port=port, show=False, start=False, verbose=False)
    server.start()
    if sys.platform != "win32":
        server.io_loop.asyncio_loop.add_signal_handler(signal.SIGTERM, server.io_loop.stop)
    ready(f"http://localhost:{server.port}")
    if show:
        server.show("/")
    with contextlib.suppress(KeyboardInterrupt):
        server.io_loop.start()
    server.stop()
