"""The layout of figures, and that of an episode."""

from __future__ import annotations

import builtins
import re
from typing import Any

import numpy as np
import pytest

from hmgym.analysis import figures
from hmgym.analysis.figures import layout, log_scale, median_band, new_figure, plain

pytest.importorskip("matplotlib")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (1.0, "1"), (500.0, "500"), (4096.0, "4096"), (20_000.0, "20k"), (3e6, "3M"), (2e9, "2e9"),
        (0.05, "0.05"), (0.001, "0.001"), (1e-4, "1e-4"), (1e-10, "1e-10"), (-0.5, "-0.5"),
    ],
)  # fmt: skip
def test_numbers_of_axes_are_plain(value: float, text: str) -> None:
    assert plain(value) == text


def labels(axis: Any) -> list[str]:
    axis.figure.draw_without_rendering()
    return [text.get_text() for text in [*axis.get_ticklabels(), *axis.get_ticklabels(minor=True)] if text.get_text()]


@pytest.mark.parametrize("values", [(80.0, 600.0), (1e-11, 1e-4), (10.0, 2e6), (4.0, 9.0)])
def test_logarithmic_axes_have_no_powers(values: tuple[float, float]) -> None:
    figure = new_figure(2.0)
    axes = figure.subplots()
    log_scale(axes, "y")
    axes.plot(values)
    found = labels(axes.yaxis)
    assert len(found) >= 2
    assert not any("$" in text for text in found)


def test_given_ticks_are_the_only_ones() -> None:
    figure = new_figure(2.0)
    axes = figure.subplots()
    log_scale(axes, "x", [1, 2, 32])
    axes.plot([1.0, 32.0], [0.0, 1.0])
    assert labels(axes.xaxis) == ["1", "2", "32"]


def test_a_band_reaches_from_the_lowest_to_the_highest_curve() -> None:
    axes = new_figure(2.0).subplots()
    xs = [[0.0, 1.0, 10.0], [1.0, 10.0, 100.0], [1.0, 10.0, 20.0]]
    ys = [[9.0, 0.0, 1.0], [1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    median_band(axes, xs, ys, colour="#000000", label="agent", points=3)
    (line,), (band,) = axes.lines, axes.collections
    assert line.get_label() == "agent"
    np.testing.assert_allclose(line.get_xdata(), [1.0, 10**0.5, 10.0])  # where all three curves are
    np.testing.assert_allclose(line.get_ydata(), [1.0, 1.5, 2.0])
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (0.0, 5.0)


def test_the_layout_ends_where_it_ends() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    with layout():
        assert not matplotlib.rcParams["axes.spines.top"]
    assert dict(matplotlib.rcParams) == before


def test_colours_are_hexadecimal() -> None:
    colours = [figures.INK, figures.MUTED, figures.GRID, figures.PAPER, figures.LEARNER, figures.LEARNERS_END]
    for colour in [*colours, figures.CROWD, *figures.ASSETS, *figures.SERIES]:
        assert re.fullmatch("#[0-9a-f]{6}", colour)
    assert len(set(figures.SERIES)) == len(figures.SERIES)


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **kwargs: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"hmgym\[train\]"):
        new_figure(2.0)
